import type { FileMutations } from "./mutation.ts";

const CLIENT = "test/kube/client.test.ts";
const HOSTILE_ANSWERS = "test/kube/hostile-answers.test.ts";
const INFORMER = "test/watch/informer.test.ts";
const LEADER_ELECTION = "test/election/leader-election.test.ts";
const BUDGET = "test/work/budget.test.ts";
const WORK_CLIENT = "test/work/client.test.ts";
const CLIENT_ERRORS = "test/work/client-errors.test.ts";
const KEY_KEEPER = "test/reconcile/key-keeper.test.ts";
const FLEET = "test/workers/fleet.test.ts";
const FLEET_PROPERTIES = "test/workers/fleet.properties.test.ts";

/** The rooms around the sessions: clocks, both APIs, the reconciler, and always-on workers. */
export const ROOMS: readonly FileMutations[] = [
  {
    file: "src/core/server-time.ts",
    tests: ["test/core/server-time.test.ts"],
    mutations: [
      {
        name: "treats a Date header as exact",
        guard: "unanswered",
        find: "{ fromMs: dateMs, beforeMs: dateMs + DATE_GRAIN_MS }",
        replace: "{ fromMs: dateMs, beforeMs: dateMs }",
      },
      {
        name: "trusts a clock reading forever",
        guard: "bound",
        find: "const wornMs = Math.abs(ms - this.#asOfMs) * MAX_DRIFT;",
        replace: "const wornMs = 0;",
      },
      {
        name: "keeps a reading that a changed clock disproves",
        guard: "error",
        find: "!known || excludes",
        replace: "!known",
      },
      {
        name: "accepts an old timestamp at once",
        guard: "olderAck",
        find: "if (isOld && doubts && ",
        replace: "if (false && ",
      },
      {
        name: "never accepts an old timestamp",
        guard: "guard",
        find: "!(this.#doubted && distance(this.#doubted, seen) <= CLOCKS_APART_MS)",
        replace: "true",
      },
      {
        name: "treats timestamps of several machines as those of one",
        guard: "olderAck",
        find: " - STAMPS_APART_MS;",
        replace: ";",
      },
    ],
  },
  {
    file: "src/core/backoff.ts",
    tests: ["test/core/backoff.test.ts"],
    mutations: [
      {
        name: "sometimes backs off by nothing",
        guard: "bound",
        find: "(1 - spread + spread * random())",
        replace: "(spread * random())",
      },
      {
        name: "backs off without jitter",
        guard: "bound",
        find: "(1 - spread + spread * random())",
        replace: "(1 - spread + spread)",
      },
      {
        name: "backs off without a limit",
        guard: "bound",
        find: "return Math.min(maxMs, ",
        replace: "return Math.max(0, ",
      },
      {
        name: "backs off no longer after more failures",
        guard: "bound",
        find: "this.#failures += 1;",
        replace: "",
      },
      {
        name: "still backs off as long after a success",
        guard: "bound",
        find: "this.#failures = 0;\n    this.#untilMs = dueMs;",
        replace: "this.#untilMs = dueMs;",
      },
    ],
  },
  {
    file: "src/election/leader-election.ts",
    tests: [LEADER_ELECTION],
    mutations: [
      {
        name: "measures a term by the monotonic clock only",
        guard: "bound",
        find: "Math.max(clock.monotonic() - renewedAt.monotonic, clock.now() - renewedAt.wall)",
        replace: "clock.monotonic() - renewedAt.monotonic",
      },
      {
        name: "measures a term by the wall clock only",
        guard: "bound",
        find: "Math.max(clock.monotonic() - renewedAt.monotonic, clock.now() - renewedAt.wall)",
        replace: "clock.now() - renewedAt.wall",
      },
      {
        name: "permits writes after the renew deadline",
        guard: "bound",
        find: "if (sinceMs < this.#renewDeadlineMs) return;",
        replace: "return;",
      },
      {
        name: "counts a renewal from the time of its answer",
        guard: "bound",
        find: "this.#renewedAt = sent;",
        replace: "this.#renewedAt = { monotonic: clock.monotonic(), wall: clock.now() };",
      },
      {
        name: "permits writes of an earlier term",
        guard: "identity",
        find: "if (isOver) throw new LeadershipLostError(",
        replace: "if (false) throw new LeadershipLostError(",
      },
      {
        name: "renews after its deadline",
        guard: "bound",
        find: "if (leftMs <= 0) return true;",
        replace: "",
      },
      {
        name: "leads without being confirmed",
        guard: "guard",
        find: 'outcome !== "others" && (await this.#isConfirmed(signal))',
        replace: 'outcome !== "others"',
      },
      {
        name: "isn't confirmed after a late renewal",
        guard: "guard",
        find: 'if (outcome === "taken" || !this.isLeader) this.#unconfirmed = true;',
        replace: 'if (outcome === "taken") this.#unconfirmed = true;',
        tests: ["test/election/late-renewal.test.ts"],
      },
      {
        name: "isn't confirmed after it acquired the Lease",
        guard: "guard",
        find: 'if (outcome === "taken" || !this.isLeader) this.#unconfirmed = true;',
        replace: 'if (outcome !== "taken" && !this.isLeader) this.#unconfirmed = true;',
      },
      {
        name: "leads with a lease duration below its renew deadline",
        guard: "bound",
        find: "this.#leaseDurationMs <= this.#renewDeadlineMs || ",
        replace: "",
      },
      {
        name: "waits for a renewal for the whole term",
        guard: "bound",
        find: "Math.min(leftMs, this.#renewDeadlineMs / RENEWALS_PER_DEADLINE)",
        replace: "this.#leaseDurationMs * RENEWALS_PER_DEADLINE",
        tests: ["test/election/late-renewal.test.ts"],
      },
    ],
  },
  {
    file: "src/election/lease-record.ts",
    tests: [LEADER_ELECTION],
    mutations: [
      {
        name: "acquires a Lease that another process holds",
        guard: "guard",
        find: 'if (!ours && this.#ages.isHeld(current, this.#options.leaseDurationMs)) return "others";',
        replace: "",
      },
      {
        name: "writes a Lease that has changed since it was read",
        guard: "precondition",
        find: "...lease.metadata.labels, ...labels } } : lease.metadata;",
        replace:
          "...lease.metadata.labels, ...labels } } : { ...lease.metadata, resourceVersion: undefined as never };",
      },
      {
        name: "releases a Lease that another process holds by now",
        guard: "identity",
        find: "if (current && this.holder === this.#options.identity) await this.#giveUp(current, timeoutMs);",
        replace: "if (current) await this.#giveUp(current, timeoutMs);",
        tests: ["test/election/lease-record.test.ts"],
      },
      {
        name: "deletes another Lease of the same name",
        guard: "precondition",
        find: "await client.delete(LEASES, { namespace, name }, { uid }, { timeoutMs });",
        replace: "await client.delete(LEASES, { namespace, name }, {}, { timeoutMs });",
        tests: [
          "test/election/shard-leases.test.ts",
          "test/election/shard-ring.test.ts",
          "test/election/lease-record.test.ts",
        ],
      },
      {
        name: "treats a failed renewal as a lost Lease",
        guard: "error",
        find: "if (!isConflict(error) && !isNotFound(error)) throw error;",
        replace: "",
        tests: ["test/election/lease-record.test.ts"],
      },
      {
        name: "treats a Lease that can't be read as absent",
        guard: "error",
        find: "if (!isNotFound(error)) throw error;\n      this.#lease = undefined;",
        replace: "this.#lease = undefined;",
        tests: ["test/election/lease-record.test.ts"],
      },
    ],
  },
  {
    file: "src/election/lease-record.ts",
    tests: [LEADER_ELECTION],
    mutations: [
      {
        name: "treats a recreated Lease as old",
        guard: "identity",
        find: "const version = `",
        replace: "const version = name + `",
      },
      {
        name: "treats a Lease that was not seen before as old",
        guard: "error",
        find: "? this.#clock.monotonic() - seen.at : 0;",
        replace: "? this.#clock.monotonic() - seen.at : Infinity;",
        tests: ["test/election/lease-record.test.ts"],
      },
    ],
  },
  {
    file: "src/kube/client.ts",
    tests: [CLIENT, HOSTILE_ANSWERS],
    mutations: [
      {
        name: "sends writes without checking that this process may act",
        guard: "guard",
        find: 'signal: o.signal,\n      fence: method === "GET" ? undefined : this.#fence,\n    };',
        replace: "signal: o.signal,\n      fence: undefined,\n    };",
      },
      {
        name: "drops the outer fence of a client that is fenced twice",
        guard: "guard",
        find: "outer();\n          fence();",
        replace: "fence();",
      },
      {
        name: "deletes without the resourceVersion it was given",
        guard: "precondition",
        find: "undefined : { uid, resourceVersion };",
        replace: "undefined : { uid };",
      },
      {
        name: "deletes without the uid it was given",
        guard: "precondition",
        find: "undefined : { uid, resourceVersion };",
        replace: "undefined : { resourceVersion };",
      },
      {
        name: "accepts any answer as the requested object",
        guard: "identity",
        find: "if (object.metadata.name === ref.name && object.metadata.uid) return object;",
        replace: "if (object.metadata) return object;",
      },
      {
        name: "treats a failed page as the end of the list",
        guard: "error",
        find: "if (!isGone(error)) throw error;",
        replace: "if (!isGone(error)) break;",
      },
      {
        name: "treats a list without items as empty",
        guard: "error",
        find: 'if (!Array.isArray(items) && items !== null) return "it is not a list";',
        replace: "if (!Array.isArray(items)) return null;",
      },
      {
        name: "follows pages in a circle",
        guard: "bound",
        find: "if (tokens.has(token) || tokens.size >= MAX_PAGES) throw endless(resource);",
        replace: "if (tokens.size >= MAX_PAGES) throw endless(resource);",
      },
      {
        name: "treats a write with an unusable answer as refused",
        guard: "error",
        find: 'maybeApplied: call.method !== "GET",',
        replace: "maybeApplied: false,",
      },
    ],
  },
  {
    file: "src/kube/exchange.ts",
    tests: [CLIENT, HOSTILE_ANSWERS],
    mutations: [
      {
        name: "treats an unanswered write as not sent",
        guard: "error",
        find: "maybeApplied: sent && isWrite(call),",
        replace: "maybeApplied: false,",
      },
      {
        name: "repeats an unanswered write",
        guard: "guard",
        find: "delayMs = isWrite(call) || signal.aborted",
        replace: "delayMs = signal.aborted",
      },
      {
        name: "repeats any call that was refused temporarily",
        guard: "guard",
        find: "if (!call.repeatable || (failure.status",
        replace: "if ((failure.status",
      },
      {
        name: "doesn't check the fence again once a connection is available",
        guard: "guard",
        find: "beforeSend: call.fence,",
        replace: "",
      },
    ],
  },
  {
    file: "src/kube/attach.ts",
    tests: ["test/kube/attach.test.ts"],
    mutations: [
      {
        name: "writes a frame without checking that this process may act",
        guard: "leadership",
        find: "this.#call.fence?.();",
        replace: "",
      },
      {
        name: "writes into a closed stream",
        guard: "error",
        find: "if (!this.isOpen) throw",
        replace: "if (false) throw",
      },
      {
        name: "accepts a handshake with another key",
        guard: "identity",
        find: "if (socket && isAccepted && headers",
        replace: "if (socket && headers",
      },
      {
        name: "accepts another protocol",
        guard: "identity",
        find: 'isAccepted && headers["sec-websocket-protocol"] === PROTOCOL',
        replace: "isAccepted",
      },
      {
        name: "keeps all output of a container",
        guard: "bound",
        find: ".slice(0, MAX_OUTPUT)",
        replace: "",
      },
      {
        name: "keeps a stream whose peer is gone",
        guard: "bound",
        find: "else this.#end(`no answer",
        replace: "else void (`no answer",
      },
      {
        name: "treats the output of another channel as standard output",
        guard: "identity",
        find: "if (this.#channel === STDOUT && this",
        replace: "if (this",
      },
      {
        name: "waits for text on a closed stream",
        guard: "error",
        find: "isSo() || !this.isOpen",
        replace: "isSo()",
      },
    ],
  },
  {
    file: "src/core/web-socket.ts",
    tests: ["test/core/web-socket.test.ts"],
    mutations: [
      {
        name: "collects a frame of any length",
        guard: "bound",
        find: "if (length > MAX_FRAME_BYTES)",
        replace: "if (false)",
      },
      {
        name: "reads other bytes as a frame",
        guard: "error",
        find: "if ((first & RESERVED) !== 0 || (second & MASKED) !== 0)",
        replace: "if ((first & RESERVED) !== 0)",
      },
    ],
  },
  {
    file: "src/pods/frame.ts",
    tests: ["test/pods/frame.test.ts"],
    mutations: [
      {
        name: "starts with a frame that lost a part",
        guard: "identity",
        find: `'[ "\${#_b}" = "$_n" ] && break; done'`,
        replace: "'break; done'",
      },
      {
        name: "shows a repeated frame to a program that reads it itself",
        guard: "guard",
        find: '"exec <<END || exit 75"',
        replace: '"cat >/dev/null <<END || exit 75"',
      },
      {
        name: "shows a repeated frame to the program",
        guard: "guard",
        find: 'exec "$@" </dev/null`',
        replace: 'exec "$@"`',
      },
      {
        name: "prints credentials of a shell that traces its commands",
        guard: "guard",
        find: "{ set +xv; } 2>/dev/null; ",
        replace: "",
      },
      {
        name: "waits although the program is missing",
        guard: "guard",
        find: '[ -f "$1" ] && [ -x "$1" ] ;;',
        replace: "true ;;",
      },
      {
        name: "ignores the end of the Pod while it waits",
        guard: "bound",
        find: "trap 'exit 143' TERM",
        replace: "trap '' TERM",
      },
      {
        name: "writes a frame that is too long for one write to a pipe",
        guard: "bound",
        find: " && frame.length < MAX_FRAME_BYTES",
        replace: "",
      },
      {
        name: "sends characters whose length differs between shells",
        guard: "guard",
        find: "return PRINTABLE.test(body) && ",
        replace: "return ",
      },
    ],
  },
  {
    file: "src/kube/errors.ts",
    tests: [HOSTILE_ANSWERS, CLIENT],
    mutations: [
      {
        name: "treats any 404 as the absence of the object",
        guard: "error",
        find: 'hasReason(error, 404, "NotFound") &&',
        replace: "hasStatus(error, 404) &&",
      },
      {
        name: "treats a 404 of an unknown path as the absence of the object",
        guard: "error",
        find: "(error.details === undefined || error.details.name !== undefined)",
        replace: "error.status > 0",
      },
      {
        name: "treats an existing object as a conflict",
        guard: "error",
        find: 'hasReason(error, 409, "Conflict")',
        replace: "hasStatus(error, 409)",
        tests: ["test/kube/errors.test.ts"],
      },
    ],
  },
  {
    file: "src/watch/reflector.ts",
    tests: [INFORMER],
    mutations: [
      {
        name: "watches from a version that the server no longer has",
        guard: "error",
        find: "if (mustRelist(failure)) this.#mustList = true;",
        replace: "",
      },
      {
        name: "accepts a list without a version",
        guard: "error",
        find: "if (!version) throw new TypeError(",
        replace: "if (!version) new TypeError(",
        tests: ["test/watch/reflector.test.ts"],
      },
      {
        name: "contacts a failing server more often than it permits",
        guard: "bound",
        find: "Math.max(asked, (outage ? this.#outageBackoff : this.#refusalBackoff).next())",
        replace: "(outage ? this.#outageBackoff : this.#refusalBackoff).next()",
      },
      {
        name: "reconnects in a hot loop to a server that closes at once",
        guard: "bound",
        find: "return productive ? 0 : this.#outageBackoff.next();",
        replace: "return 0;",
      },
      {
        name: "accepts a list that was requested earlier",
        guard: "identity",
        find: "const answered = this.#relistWaiters.splice(0, asked);",
        replace: "const answered = this.#relistWaiters.splice(0, asked + 1_000);",
      },
      {
        name: "treats changes that the watch reported meanwhile as missed",
        guard: "error",
        find: "if (!this.#touched.has(key) && listed.get(key) !== version) missed.push(key);",
        replace: "if (listed.get(key) !== version) missed.push(key);",
      },
      {
        name: "never compares the watch with a list",
        guard: "guard",
        find: "const misses = comparison.misses(list.items, store.versions());",
        replace: "const misses: string[] = comparison.misses(list.items, store.versions()).slice(0, 0);",
      },
    ],
  },
  {
    file: "src/watch/informer.ts",
    tests: [INFORMER],
    mutations: [
      {
        name: "treats a recreated object as the same one",
        guard: "identity",
        find: "if (previous && previous.metadata.uid !== object.metadata.uid) {",
        replace: "if (false) {",
      },
      {
        name: "keeps objects that a list no longer shows",
        guard: "guard",
        find: "if (!seen.has(keyOf(object))) this.#delete(object);",
        replace: "",
      },
    ],
  },
  {
    file: "src/work/errors.ts",
    tests: [CLIENT_ERRORS],
    mutations: [
      {
        name: "treats a server failure as a refusal",
        guard: "unanswered",
        find: "return status >= 500 || status === REQUEST_TIMEOUT;",
        replace: "return status === REQUEST_TIMEOUT;",
      },
      {
        name: "treats a request that timed out at the server as refused",
        guard: "unanswered",
        find: "return status >= 500 || status === REQUEST_TIMEOUT;",
        replace: "return status >= 500;",
      },
    ],
  },
  {
    file: "src/work/replies.ts",
    tests: [CLIENT_ERRORS, "test/work/hostile-replies.test.ts"],
    mutations: [
      {
        name: "treats an unanswered request as not sent",
        guard: "unanswered",
        find: "maybeApplied: failure.sent,",
        replace: "maybeApplied: false,",
      },
      {
        name: "treats a success with an unusable answer as a refusal",
        guard: "unanswered",
        find: "status: reply.status,\n    maybeApplied: true,",
        replace: "status: reply.status,\n    maybeApplied: false,",
      },
      {
        name: "doesn't say which outcome a status leaves open",
        guard: "unanswered",
        find: "maybeApplied: statusMaybeApplied(status),",
        replace: "",
      },
    ],
  },
  {
    file: "src/work/errors.ts",
    tests: ["test/work/errors.test.ts"],
    mutations: [
      {
        name: "waits for as long as a header requests",
        guard: "bound",
        find: "Math.min(MAX_RETRY_AFTER_MS, Math.max(0, ms))",
        replace: "Math.max(0, ms)",
      },
      {
        name: "contacts a server sooner than it permits",
        guard: "bound",
        find: "Math.max(backoff.next(), askedPauseMs(error, random) ?? 0)",
        replace: "backoff.next()",
      },
      {
        name: "treats a meaningless header as no wait",
        guard: "error",
        find: "Number.isNaN(ms) ? undefined :",
        replace: "Number.isNaN(ms) ? 0 :",
      },
    ],
  },
  {
    file: "src/work/budget.ts",
    tests: [BUDGET],
    mutations: [
      {
        name: "keeps its rate after a 429",
        guard: "bound",
        find: "this.#setRate(Math.max(leastRate, this.#rate * HALF));",
        replace: "",
      },
      {
        name: "halves its rate for every request in flight",
        guard: "bound",
        find: "if (!refused || sentAtMs <= this.#halvedAt) return;",
        replace: "if (!refused) return;",
      },
      {
        name: "halves the rate of all tenants because of one",
        guard: "bound",
        find: "const isCommon = 2 * recent.length > peers.size;",
        replace: "const isCommon = recent.length >= 0;",
      },
      {
        name: "holds all members for one member's Retry-After",
        guard: "identity",
        find: "const holdMs = this.#holdMs(turn.member);",
        replace: "const holdMs = Math.max(...[...this.#members.keys()].map((name) => this.#holdMs(name)));",
      },
      {
        name: "raises its rate although it isn't used up",
        guard: "bound",
        find: "answer.status < 500 && answer.sentAtMs <= this.#usedUpAt + USED_UP_FOR_MS",
        replace: "answer.status < 500",
      },
      {
        name: "raises its rate for a failing server",
        guard: "error",
        find: "answer.status < 500 && answer.sentAtMs",
        replace: "answer.sentAtMs",
      },
      {
        name: "doesn't wait as long as a 429 requests",
        guard: "bound",
        find: "if (holdMs > 0) {",
        replace: "if (holdMs > Number.POSITIVE_INFINITY) {",
      },
      {
        name: "lets urgent calls starve the waiting ones",
        guard: "bound",
        find: "Math.max(0, Math.min(byTokens, byReserve))",
        replace: "Math.max(0, byTokens)",
      },
      {
        name: "lets urgent calls use up minutes of the rate in advance",
        guard: "bound",
        find: "Math.max(-Math.max(1, this.#rate * DEBT_SECONDS), this.#tokens - 1)",
        replace: "this.#tokens - 1",
      },
      {
        name: "waits forever for a turn",
        guard: "bound",
        find: "this.#limits.maxWaitMs,\n    );",
        replace: "1e12,\n    );",
      },
      {
        name: "lets a call overtake the waiting ones",
        guard: "guard",
        find: "} else if (this.#turns.isEmpty && this.#takeTurn()) {",
        replace: "} else if (this.#takeTurn()) {",
      },
    ],
  },
  {
    file: "src/work/caller.ts",
    tests: ["test/work/caller.test.ts", WORK_CLIENT, CLIENT_ERRORS],
    mutations: [
      {
        name: "sends mutating calls although another process may act",
        guard: "guard",
        find: "beforeSend: isRead(call) ? undefined : this.#options.guard,",
        replace: "",
      },
      {
        name: "treats a poll as a read",
        guard: "guard",
        find: 'return method === "GET" && call !== "poll";',
        replace: 'return method === "GET" || call === "poll";',
      },
      {
        name: "treats a redirect as a success",
        guard: "error",
        find: "reply.status < 200 || reply.status > 299",
        replace: "reply.status < 200 || reply.status > 399",
      },
      {
        name: "makes heartbeats wait for the budget",
        guard: "guard",
        find: "if (call.urgent) {",
        replace: "if (false) {",
        tests: [BUDGET, WORK_CLIENT, "test/work/client-errors.test.ts"],
      },
    ],
  },
  {
    file: "src/work/client.ts",
    tests: [WORK_CLIENT, "test/work/client-find.test.ts", CLIENT_ERRORS],
    mutations: [
      {
        name: "accepts an answer about another item",
        guard: "identity",
        find: 'if (isRecord(value) && value["id"] !== workId) throw',
        replace: "if (false) throw",
      },
      {
        name: "never requests a page that is too large with fewer items",
        guard: "bound",
        find: "if (limit <= LEAST_PAGE_LIMIT || !isTooLarge(error)) throw error;",
        replace: "throw error;",
      },
      {
        name: "treats a list that began in the middle as complete",
        guard: "error",
        find: "complete = next === null && from === undefined && nameless === null;",
        replace: "complete = next === null && nameless === null;",
      },
      {
        name: "treats a list with an item without an id as complete",
        guard: "error",
        find: "complete = next === null && from === undefined && nameless === null;",
        replace: "complete = next === null && from === undefined;",
      },
      {
        name: "treats a list that ran out of pages as complete",
        guard: "error",
        find: "complete = next === null && from === undefined && nameless === null;",
        replace: "complete = from === undefined && nameless === null;",
      },
      {
        name: "treats an empty answer to a poll as an empty queue",
        guard: "error",
        find: "reply.status === NO_CONTENT ? null",
        replace: "reply.body.length === 0 ? null",
      },
      {
        name: "accepts any page as the answer to a stop",
        guard: "error",
        find: "if (reply.body.length > 0) itemOf(reply, workId);",
        replace: "",
      },
      {
        name: "gives heartbeats the time limit of any request",
        guard: "bound",
        find: "urgent: true,\n      timeoutMs: this.#protocolTimeoutMs,",
        replace: "urgent: true,\n      timeoutMs: this.#requestTimeoutMs,",
      },
      {
        name: "makes heartbeats wait for their turn",
        guard: "bound",
        tests: ["test/work/caller.test.ts"],
        find: "urgent: true,\n      timeoutMs: this.#protocolTimeoutMs,",
        replace: "urgent: false,\n      timeoutMs: this.#protocolTimeoutMs,",
      },
    ],
  },
  {
    file: "src/work/wire.ts",
    tests: ["test/work/wire.test.ts"],
    mutations: [
      {
        name: "treats an empty heartbeat answer as an extended lease",
        guard: "error",
        find: 'if (typeof extended !== "boolean") throw',
        replace: "if (extended === 7) throw",
      },
      {
        name: "accepts a malformed count",
        guard: "error",
        find: 'typeof value !== "number" || !Number.isSafeInteger(value) || value < 0',
        replace: 'typeof value !== "number"',
      },
      {
        name: "accepts a lease of any length",
        guard: "bound",
        find: "return isTtl ? Math.min(value, MAX_TTL_SECONDS) : null;",
        replace: "return isTtl ? value : null;",
      },
      {
        name: "accepts an id of any length",
        guard: "bound",
        find: "value.length > MAX_ID || ",
        replace: "",
      },
      {
        name: "accepts an unknown state",
        guard: "error",
        find: "return stateOf(from) ?? missing(",
        replace: 'return stateOf(from) ?? "queued" ?? missing(',
      },
    ],
  },
  {
    file: "src/work/http.ts",
    tests: ["test/work/http.test.ts", "test/work/caller.test.ts"],
    mutations: [
      {
        name: "sends a request a second time",
        guard: "guard",
        find: "if (this.#settled || this.#started) {",
        replace: "if (this.#settled) {",
      },
      {
        name: "sends a request that was aborted",
        guard: "guard",
        find: "if (this.#settled || this.#started) {",
        replace: "if (this.#started) {",
      },
      {
        name: "reads an answer of any length",
        guard: "bound",
        find: 'if (this.#body.bytes > limit) this.#fail("too-large", undefined);',
        replace: "",
      },
    ],
  },
  {
    file: "src/queue/live-items.ts",
    tests: ["test/queue/live-items.test.ts"],
    mutations: [
      {
        name: "doesn't count an item whose state can't be read",
        guard: "error",
        find: "return state === null || LIVE.has(state);",
        replace: "return state !== null && LIVE.has(state);",
      },
      {
        name: "treats a list that ran out of pages as complete",
        guard: "error",
        find: "return { isComplete: false, pages };",
        replace: "return { isComplete: true, pages };",
      },
      {
        name: "treats a list with an item that can't be read as complete",
        guard: "error",
        find: "isComplete: isComplete && isReadable,",
        replace: "isComplete,",
      },
    ],
  },
  {
    file: "src/reconcile/key-keeper.ts",
    tests: [KEY_KEEPER],
    mutations: [
      {
        name: "reports a single failed read",
        guard: "error",
        find: "if (!reading.ok && !reading.lasting && this.#key?.ok && !this.#inDoubt) {",
        replace: "if (false) {",
      },
      {
        name: "never reports failed reads",
        guard: "error",
        find: "this.#key?.ok && !this.#inDoubt) {",
        replace: "this.#key?.ok) {",
      },
      {
        name: "drops the key when its Secret can't be read",
        guard: "error",
        find: 'return reading.lasting && !deleting ? "" : null;',
        replace: 'return "";',
      },
      {
        name: "drops the key of an Environment that is deleted with its Secret",
        guard: "guard",
        find: 'return reading.lasting && !deleting ? "" : null;',
        replace: 'return reading.lasting ? "" : null;',
      },
      {
        name: "reads the key more often than it should",
        guard: "bound",
        find: "if (nowMs < this.#readMs + this.#paceMs) return;",
        replace: "",
      },
    ],
  },
  {
    file: "src/reconcile/key-keeper.ts",
    tests: [KEY_KEEPER],
    mutations: [
      {
        name: "treats a Secret that can't be read as missing",
        guard: "error",
        find: "if (isNotFound(error)) {",
        replace: "if (error) {",
      },
      {
        name: "sends a key with a line break in it",
        guard: "guard",
        find: "if (!HEADER_VALUE.test(key)) {",
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/reconcile/status-writer.ts",
    tests: ["test/reconcile/status-writer.test.ts"],
    mutations: [
      {
        name: "writes the status again at once although the API server refused it",
        guard: "bound",
        find: "if (waitMs > 0 && (this.#failing !== null || !turned(status, this.#written))) return waitMs;",
        replace: "if (waitMs > 0 && !turned(status, this.#written)) return waitMs;",
      },
      {
        name: "reports nothing while the API server refuses the status",
        guard: "error",
        find: 'if (!this.#isFailureReported) announce("StatusOutdated", this.#failing.message);',
        replace: "",
      },
    ],
  },
  {
    file: "src/reconcile/drain.ts",
    tests: ["test/reconcile/environment-reconciler.test.ts", "test/reconcile/drain.test.ts"],
    mutations: [
      {
        name: "never gives up a drain",
        guard: "bound",
        find: "if (overMs + timing.drainBoundMs <= 0) return false;",
        replace: "",
      },
      {
        name: "gives up a drain before its limit",
        guard: "bound",
        find: "if (overMs + timing.drainBoundMs <= 0) return false;",
        replace: "if (overMs <= 0) return false;",
      },
    ],
  },
  {
    file: "src/reconcile/drain.ts",
    tests: ["test/reconcile/drain.test.ts"],
    mutations: [
      {
        name: "deletes claims of an Environment that can't be read",
        guard: "error",
        find: "return isNotFound(error) ? deleteClaimsOf(of, options) : false;",
        replace: "return deleteClaimsOf(of, options);",
      },
      {
        name: "deletes claims of another Environment of the same name",
        guard: "identity",
        find: "journal?.environmentUid === uid",
        replace: "journal !== undefined",
      },
    ],
  },
  {
    file: "src/autoscale/demand.ts",
    tests: ["test/autoscale/demand.test.ts"],
    mutations: [
      {
        name: "treats statistics that were never read as an empty queue",
        guard: "error",
        find: 'if (!queue) return unknown("DemandUnknown", "the operator has not read the queue\'s statistics yet");',
        replace: 'if (!queue) return { kind: "known", sessions: 0, running: 0, pending: 0 };',
      },
      {
        name: "treats uncounted sessions as none",
        guard: "error",
        find: "if (!running || (running === NONE_OF_OURS && !isIdle)) {",
        replace:
          'if (!running) return { kind: "known", sessions: 0, running: 0, pending: 0 };\n  if (running === NONE_OF_OURS && !isIdle) {',
      },
      {
        name: "scales by statistics of any age",
        guard: "error",
        find: "if (nowMs - queue.readMs > staleAfterMs) return",
        replace: "if (false) return",
      },
      {
        name: "scales by a count of any age",
        guard: "error",
        find: "if (nowMs - running.readMs > staleAfterMs)",
        replace: "if (false)",
      },
      {
        name: "scales by malformed counts",
        guard: "error",
        find: "return Number.isSafeInteger(value) && value >= 0;",
        replace: "return value !== undefined;",
      },
      {
        name: "doesn't count items on their way to a worker",
        guard: "guard",
        find: "sessions: running.running + queue.depth + queue.pending,",
        replace: "sessions: running.running + queue.depth,",
      },
    ],
  },
  {
    file: "src/autoscale/decide-scale.ts",
    tests: ["test/autoscale/decide-scale.test.ts", "test/autoscale/policies.properties.test.ts"],
    mutations: [
      {
        name: "scales while the demand is unknown",
        guard: "error",
        find: 'if (demand.kind === "unknown") {\n    const { reason, message } = demand;',
        replace: "if (false) {\n    const { reason, message } = demand;",
      },
      {
        name: "scales down busy workers",
        guard: "guard",
        find: "return floor && floor.replicas > outcome.replicas ? floor : outcome;",
        replace: "return outcome;",
      },
      {
        name: "scales beyond the maximum",
        guard: "bound",
        find: "if (agreed > Math.min(limit, most)) {",
        replace: "if (agreed > limit) {",
      },
      {
        name: "scales below the minimum",
        guard: "bound",
        find: "if (agreed < Math.max(limit, least)) {",
        replace: "if (agreed < limit) {",
      },
      {
        name: "doesn't count deleted workers that still run",
        guard: "bound",
        find: "const most = Math.max(0, spec.maxReplicas - ending);",
        replace: "const most = spec.maxReplicas;",
      },
    ],
  },
  {
    file: "src/autoscale/busy-guard.ts",
    tests: ["test/autoscale/busy-guard.test.ts", "test/autoscale/decide-scale.test.ts"],
    mutations: [
      {
        name: "treats workers that don't answer as idle",
        guard: "error",
        find: "const busy = view.busy + view.unknown;",
        replace: "const busy = view.busy;",
      },
      {
        name: "scales down while a busy worker isn't Ready",
        guard: "guard",
        find: "if (view.notReady > 0 && busy > 0) {",
        replace: "if (false) {",
      },
      {
        name: "scales down workers without a probe while sessions run",
        guard: "guard",
        find: "const held = work.running + work.pending;",
        replace: "const held = 0 * (work.running + work.pending);",
      },
      {
        name: "scales down workers without a probe while an item is on its way",
        guard: "guard",
        find: "const held = work.running + work.pending;",
        replace: "const held = work.running;",
      },
    ],
  },
  {
    file: "src/workers/decider.ts",
    tests: [FLEET, "test/workers/runtime.test.ts", FLEET_PROPERTIES],
    mutations: [
      {
        name: "keeps room for deleted workers of lost nodes",
        guard: "guard",
        find: 'pod.isReady || this.#busy.stateOf(pod) === "busy"',
        replace: "pod.isRunning",
        tests: ["test/workers/decider.test.ts"],
      },
      {
        name: "scales down without fresh readings",
        guard: "error",
        find: "if (!(await this.#demand.refreshAll(signal))) return heldAt(current, decision);",
        replace: "",
        tests: ["test/workers/fleet.test.ts", "test/workers/decider.test.ts"],
      },
      {
        name: "scales to zero while it isn't known whether sessions run",
        guard: "error",
        find: 'if (current > 0 && busy.kind === "unprobed" && demand.kind === "unknown") {',
        replace: "if (false) {",
        tests: ["test/workers/fleet.test.ts", "test/workers/decider.test.ts"],
      },
    ],
  },
  {
    file: "src/workers/runtime.ts",
    tests: ["test/workers/runtime.test.ts"],
    mutations: [
      {
        name: "adds workers while another Environment of the queue has sessions",
        guard: "sessionTurn",
        find: "this.#permissions.mayPrepare && mayClaim",
        replace: "this.#permissions.mayPrepare",
      },
      {
        name: "keeps idle workers although another Environment has the queue",
        guard: "sessionTurn",
        find: " || !this.#fleet.isAllowed || !isServed,",
        replace: " || !this.#fleet.isAllowed,",
      },
    ],
  },
  {
    file: "src/controller/controller.ts",
    tests: ["test/sessions/loops/shared-environment-id.test.ts"],
    mutations: [
      {
        name: "assigns shards by name, and so lets two replicas serve a queue",
        guard: "sessionTurn",
        find: "shardOf(queueOf(environment.spec) ?? keyOf(environment), this.#shards)",
        replace: "shardOf(keyOf(environment), this.#shards)",
        tests: ["test/controller/controller.test.ts"],
      },
      {
        name: "serves an Environment in the shard of its deleted namesake",
        guard: "identity",
        find: "found && this.#shardOf(found) === shard ? found : undefined",
        replace: "found",
      },
    ],
  },
  {
    file: "src/workers/scaler.ts",
    tests: ["test/workers/runtime.test.ts"],
    mutations: [
      {
        name: "deletes workers that their ReplicaSet would replace",
        guard: "guard",
        find: "if (pod.isEnding && (pod.graceSeconds ?? 0) > lastSeconds)",
        replace: "if (pod.graceSeconds !== lastSeconds)",
      },
    ],
  },
  {
    file: "src/workers/shrink.ts",
    tests: ["test/workers/shrink.test.ts"],
    mutations: [
      {
        name: "ends workers without probing them again",
        guard: "guard",
        find: 'pods.filter((pod) => busy.stateOf(pod) !== "busy"),',
        replace: "[],",
      },
      {
        name: "ends workers that may be busy",
        guard: "guard",
        find: '!busy.isProbed || busy.stateOf(pod) === "idle"',
        replace: '!busy.isProbed || busy.stateOf(pod) !== "busy"',
      },
      {
        name: "shrinks while a busy worker isn't Ready",
        guard: "guard",
        find: "if (unready && free.length > 0) {",
        replace: "if (false) {",
      },
      {
        name: "scales down although its marks are missing",
        guard: "error",
        find: "if ((await busy.mark(pod, cost)) !== cost) areThere = false;",
        replace: "await busy.mark(pod, cost);",
      },
      {
        name: "treats sessions that could not be counted as none",
        guard: "error",
        find: 'if (!(await demand.refreshAll(signal))) return "cannot read again whether sessions run";',
        replace: "await demand.refreshAll(signal);",
      },
      {
        name: "ends workers without a probe while an item waits",
        guard: "guard",
        find: "isLeaving ? 0 : (queue?.depth ?? 0)",
        replace: "0",
      },
      {
        name: "removes workers that are or may be busy",
        guard: "bound",
        find: "const least = Math.max(target, Math.min(replicas, kept.length));",
        replace: "const least = target;",
      },
      {
        name: "marks fewer victims than a ReplicaSet with surplus Pods ends",
        guard: "bound",
        find: "free.slice(0, Math.max(0, pods.length - least));",
        replace: "free.slice(0, Math.max(0, replicas - least));",
      },
    ],
  },
  {
    file: "src/workers/busy-watch.ts",
    tests: ["test/workers/busy-watch.test.ts"],
    mutations: [
      {
        name: "uses an old answer of a worker",
        guard: "error",
        find: 'return ageMs <= STALE_ROUNDS * this.#context.timing.busyProbeMs ? heard.answer : "unknown";',
        replace: 'return ageMs >= 0 ? heard.answer : "unknown";',
      },
      {
        name: "uses an answer from before the worker's restart",
        guard: "identity",
        find: "if (!heard || heard.restarts !== pod.restarts) return",
        replace: "if (!heard) return",
      },
      {
        name: "treats a worker that doesn't answer as idle",
        guard: "error",
        find: 'if (answer === "unknown" && heard.answer !== "idle") return;',
        replace: 'if (answer === "unknown") return;',
      },
      {
        name: "takes every exit without an error for a finished session",
        guard: "guard",
        find: "if (heard?.isFinishing && isEnding && exitCode === 0)",
        replace: "if (heard && isEnding && exitCode === 0)",
      },
      {
        name: "marks another worker of the same name",
        guard: "precondition",
        find: "const patch = { metadata: { uid: pod.uid, annotations } };",
        replace: "const patch = { metadata: { annotations } };",
        tests: ["test/workers/busy-watch.test.ts"],
      },
    ],
  },
  {
    file: "src/workers/demand-watch.ts",
    tests: ["test/workers/demand-watch.test.ts"],
    mutations: [
      {
        name: "treats a count that ran out of pages as complete",
        guard: "error",
        find: "if (result.isComplete) {",
        replace: "if (result.ok) {",
      },
      {
        name: "counts sessions before the statistics",
        guard: "guard",
        find: "this.#before = { running: this.#running, waiting: depth + pending };",
        replace: "",
      },
      {
        name: "treats statistics that could not be read as valid",
        guard: "error",
        find: "if (!this.#options.mayAsk() || !(await this.#options.queue.refresh(signal)) || signal.aborted) return false;",
        replace: "await this.#options.queue.refresh(signal);",
      },
      {
        name: "relies on a count that was requested too early",
        guard: "error",
        find: "if (this.#counting) await this.#counting;",
        replace: "if (this.#counting) { await this.#counting; return this.#running !== null; }",
      },
    ],
  },
  {
    file: "src/workers/fleet.ts",
    tests: [FLEET],
    mutations: [
      {
        name: "takes another client's change for its own when it scales",
        guard: "identity",
        find: "if (wasOwn && generationOf(scaled) <= generationOf(deployment) + 1) this.#own(scaled);",
        replace: "this.#own(scaled);",
      },
      {
        name: "scales a Deployment that has been scaled since",
        guard: "precondition",
        find: '{ op: "test", path: "/spec/replicas", value: before },',
        replace: "",
      },
      {
        name: "changes another Deployment of the same name",
        guard: "precondition",
        find: 'const patch = [{ op: "test", path: "/metadata/uid", value: uid }, ...operations];',
        replace: "const patch = [...operations];",
      },
      {
        name: "hurries another worker of the same name",
        guard: "precondition",
        find: "{ uid, gracePeriodSeconds }",
        replace: "{ gracePeriodSeconds }",
      },
      {
        name: "deletes another Deployment of the same name",
        guard: "precondition",
        find: "...(uid ? { uid } : {}), propagationPolicy",
        replace: "propagationPolicy",
      },
    ],
  },
  {
    file: "src/commands/uninstall.ts",
    tests: ["test/commands/uninstall.test.ts"],
    mutations: [
      {
        name: "treats a proxy's 404 as the absence of the CRD",
        guard: "error",
        find: "if (!hasStatus(error, HTTP_NOT_FOUND) || (await this.#isServed())) throw error;",
        replace: "if (!hasStatus(error, HTTP_NOT_FOUND)) throw error;",
      },
    ],
  },
];
