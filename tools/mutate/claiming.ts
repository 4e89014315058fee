import type { FileMutations } from "./mutation.ts";

const ACKNOWLEDGING = "test/claims/acknowledging.test.ts";
const DECIDE = "test/protocol/decide.test.ts";
const DECIDE_OPERATOR = "test/protocol/decide-operator.test.ts";
const JOURNAL = "test/protocol/journal.test.ts";
const LEASES = "test/sessions/loops/leases.test.ts";
const OFFERS = "test/sessions/loops/offers.test.ts";
const RUNTIME = "test/sessions/loops/runtime.test.ts";
const FAILING_STEPS = "test/sessions/loops/failing-steps.test.ts";
const HISTORIES = "test/sessions/loops/faults.properties.test.ts";

/** Steps 2 to 5 of the protocol: from the poll to the opening, including what an earlier process left behind. */
export const CLAIMING: readonly FileMutations[] = [
  {
    file: "src/claims/ack-window.ts",
    tests: [ACKNOWLEDGING],
    mutations: [
      {
        name: "sends acknowledgements that can land after the window",
        guard: "window",
        find: "return othersReclaimMs - requestBoundMs - marginMs;",
        replace: "return othersReclaimMs - marginMs;",
      },
      {
        name: "ignores the margin of the window",
        guard: "window",
        find: "return othersReclaimMs - requestBoundMs - marginMs;",
        replace: "return othersReclaimMs - requestBoundMs;",
      },
      {
        name: "doesn't shorten the window by the uncertainty of the server's clock",
        guard: "window",
        find: "return windowMs(timing) - Math.min(polledUntilMs - polledFromMs, MAX_UNKNOWN_MS);",
        replace: "return windowMs(timing);",
      },
      {
        name: "closes the window for a server that sends no Date",
        guard: "bound",
        find: "Math.min(polledUntilMs - polledFromMs, MAX_UNKNOWN_MS)",
        replace: "(polledUntilMs - polledFromMs)",
      },
      {
        name: "measures the window by the monotonic clock only",
        guard: "window",
        find: "Math.max(this.#clock.monotonic() - sentAtMs, this.#clock.now() - sentAtWallMs)",
        replace: "this.#clock.monotonic() - sentAtMs",
      },
      {
        name: "measures the window by the wall clock only",
        guard: "window",
        find: "Math.max(this.#clock.monotonic() - sentAtMs, this.#clock.now() - sentAtWallMs)",
        replace: "this.#clock.now() - sentAtWallMs",
      },
      {
        name: "never closes the window",
        guard: "window",
        find: "return this.#leftMs > 0;",
        replace: "return true;",
      },
      {
        name: "keeps waiting after the window",
        guard: "bound",
        find: "Math.min(ms, this.#leftMs)",
        replace: "ms",
      },
    ],
  },
  {
    file: "src/claims/acknowledging.ts",
    tests: [ACKNOWLEDGING],
    mutations: [
      {
        name: "accepts another Pod of the same name",
        guard: "readLive",
        find: "live.metadata.uid === podUid && ",
        replace: "",
      },
      {
        name: "accepts a Pod that is being deleted",
        guard: "readLive",
        find: " && !live.metadata.deletionTimestamp;",
        replace: ";",
      },
      {
        name: "accepts a Pod that isn't parked",
        guard: "readLive",
        find: 'return same && isTurn && readPodState(live).is === "parked";',
        replace: "return same && isTurn;",
      },
      {
        name: "treats an unreadable Pod as parked",
        guard: "error",
        find: "return { isParked: false, isRefused: true };",
        replace: "return { isParked: true, isRefused: false };",
      },
      {
        name: "keeps claiming while Pods can't be read",
        guard: "bound",
        find: 'if (isStepFailure(error)) holds.failed("read-pod", { error, name: claim.name });',
        replace: "",
      },
      {
        name: "sends acknowledgements without a pause while they fail",
        guard: "bound",
        find: "if (fromMs === null) return 0;",
        replace: "if (fromMs !== 0) return 0;",
        tests: [FAILING_STEPS],
      },
      {
        name: "doesn't read the Pod again before it repeats an acknowledgement",
        guard: "readLive",
        find: " && !(await this.readPod(claim)).isParked) break;",
        replace: " && false) break;",
      },
      {
        name: "doesn't check the window after it read the Pod again",
        guard: "window",
        find: "!this.#mayAck(window) || this.#pauseMs() > 0",
        replace: "this.#pauseMs() > 0",
      },
      {
        name: "doesn't check for a pause after it read the Pod again",
        guard: "bound",
        find: " || this.#pauseMs() > 0) continue;",
        replace: ") continue;",
      },
      {
        name: "pauses acknowledgements after a lost race for an item",
        guard: "bound",
        find: "if (!isLost && isStepFailure",
        replace: "if (isStepFailure",
      },
      {
        name: "acknowledges for an Environment that is closing",
        guard: "guard",
        find: "return window.isOpen && !this.#gate.isClosing;",
        replace: "return window.isOpen;",
      },
      {
        name: "acknowledges without checking that this process may act",
        guard: "guard",
        find: "this.#context.guard();",
        replace: "",
      },
      {
        name: "believes an acknowledgement that is older than its request",
        guard: "olderAck",
        find: 'if (isOthers(at)) return { is: "refused",',
        replace: 'if (false) return { is: "refused",',
      },
      {
        name: "refuses an acknowledgement with an uncertain timestamp",
        guard: "olderAck",
        find: "!isDoubted &&",
        replace: "",
        tests: ["test/sessions/loops/clocks.test.ts", "test/sessions/loops/kept-stamps.test.ts", ACKNOWLEDGING],
      },
      {
        name: "treats an answer without a time as an acknowledgement",
        guard: "error",
        find: 'if (at !== null) return { is: "acked" };',
        replace: 'return { is: "acked" };',
      },
      {
        name: "believes a refusal of a repeat",
        guard: "drop",
        find: 'return sentMs === null ? "refused" : this.#unanswered(claim);',
        replace: 'return "refused";',
      },
      {
        name: "treats an unanswered acknowledgement as not sent",
        guard: "unanswered",
        find: "error instanceof WorkApiError && !error.maybeApplied",
        replace: "error instanceof WorkApiError",
      },
      {
        name: "forgets, while stopping, that an acknowledgement may have taken effect",
        guard: "drop",
        find: "if (sentMs !== null) return this.#unanswered(claim);",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/ack-window.ts",
    tests: ["test/claims/ack-window.test.ts"],
    mutations: [
      {
        name: "refuses an acknowledgement that the server has kept since before the poll",
        guard: "olderAck",
        find: "instant.beforeMs > earliest.polledMs && ",
        replace: "",
      },
      {
        name: "refuses its own acknowledgement",
        guard: "olderAck",
        find: "instant.beforeMs <= earliest.sentMs",
        replace: "true",
      },
      {
        name: "refuses what the poll already showed",
        guard: "olderAck",
        find: "instant === null || isSameInstant(shown, before)",
        replace: "instant === null",
      },
    ],
  },
  {
    file: "src/protocol/opening.ts",
    tests: [DECIDE, DECIDE_OPERATOR],
    mutations: [
      {
        name: "judges an unanswered acknowledgement while it can still land",
        guard: "drop",
        find: 'if (nowMs < claim.lateAckUntilMs) return { do: "wait", untilMs: claim.lateAckUntilMs };',
        replace: "",
      },
      {
        name: "judges by a view from before the acknowledgement could last land",
        guard: "drop",
        find: "if (!item || item.askedMs < claim.lateAckUntilMs) return LOOK;",
        replace: "if (!item) return LOOK;",
      },
      {
        name: "treats an item that wasn't found as absent",
        guard: "error",
        find: 'if (item.state === "unknown") return lookAgain(facts);',
        replace: 'if (item.state === "unknown") return { do: "drop", because: "absent" };',
      },
      {
        name: "treats every unanswered acknowledgement as its own",
        guard: "unanswered",
        find: "if (!isOver(item) && acknowledgedByUs(claim, item, timing)) return",
        replace: "if (!isOver(item)) return",
      },
      {
        name: "treats every unanswered acknowledgement as another client's",
        guard: "unanswered",
        find: "if (!isOver(item) && acknowledgedByUs(claim, item, timing)) return",
        replace: "if (nowMs < 0) return",
      },
      {
        name: "drops a claim because of a list that may lag",
        guard: "drop",
        find: "if (!isFinal) return nowMs < shownMs ? waitUntil(shownMs) : LOOK;",
        replace: "",
      },
      {
        name: "drops a claim because of an offer while its acknowledgement can still land",
        guard: "drop",
        find: "claim.lateAckUntilMs + timing.lateAckMs + (item.isOffered ? 0 : timing.listLagMs)",
        replace: "item.isOffered ? 0 : claim.lateAckUntilMs + timing.lateAckMs + timing.listLagMs",
      },
      {
        name: "opens an item that was acknowledged after its window",
        guard: "unanswered",
        find: "!claim.record.lateAck &&\n",
        replace: "",
      },
      {
        name: "forgets an item that a late request may have acknowledged",
        guard: "doubted",
        find: 'if (mayBeOurs(claim, item, timing)) return { do: "own", acknowledgedAt, late: true };',
        replace: "",
      },
      {
        name: "adopts an acknowledgement from before its poll",
        guard: "unanswered",
        find: "at.beforeMs > polledFromMs - CLOCKS_APART_MS && ",
        replace: "",
      },
      {
        name: "adopts an acknowledgement from after its window",
        guard: "unanswered",
        find: " && at.beforeMs <= polledFromMs + timing.othersReclaimMs",
        replace: "",
      },
      {
        name: "adopts an item whose acknowledgement has no time",
        guard: "error",
        find: "if (!at) return false;",
        replace: "if (!at) return true;",
      },
      {
        name: "opens a claim whose Secret is gone",
        guard: "record",
        find: "!claim.record.gone &&\n    !claim.record.lateAck",
        replace: "!claim.record.lateAck",
      },
      {
        name: "opens a claim whose Pod is being deleted",
        guard: "guard",
        find: "podGoneByMs === null &&\n",
        replace: "",
      },
      {
        name: "opens a claim that it decided to end",
        guard: "guard",
        find: "!claim.record.ending &&\n",
        replace: "",
      },
      {
        name: "opens a claim while the Environment drains",
        guard: "guard",
        find: "return !limits.draining || (claim.record.openingSent && nowMs < limits.drainDeadlineMs);",
        replace: "return true;",
      },
      {
        name: "continues an opening after the drain's deadline",
        guard: "bound",
        find: "(claim.record.openingSent && nowMs < limits.drainDeadlineMs)",
        replace: "claim.record.openingSent",
      },
      {
        name: "waits forever for a Pod that is no longer parked",
        guard: "bound",
        find: 'pod.is === "preparing" && nowMs < patienceMs(claim)',
        replace: 'pod.is === "preparing"',
      },
      {
        name: "settles a claim whose container runs, without opening its Secret",
        guard: "record",
        find: 'if (ran && claim.record.journal.use === "session" && !claim.record.gone) {',
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/protocol/operator-lease.ts",
    tests: [DECIDE, DECIDE_OPERATOR],
    mutations: [
      {
        name: "adopts the lease of an item that was acknowledged again",
        guard: "stop",
        find: 'const unbeaten = claim.lease.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);',
        replace: 'const unbeaten = claim.lease.memory.is === "none" && item?.state === "starting";',
      },
      {
        name: "starts a container before the operator has its lease",
        guard: "inHand",
        find: 'item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "take", expected: NO_HEARTBEAT };',
        replace: 'item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "open", acknowledgedAt };',
      },
      {
        name: "starts a container on a lease that may have lapsed",
        guard: "inHand",
        find: "if (!maySendStop(lease, facts, timing)) return untilBeaten(facts, lease);",
        replace: "",
      },
    ],
  },
  {
    file: "src/protocol/worker-lease.ts",
    tests: [DECIDE, DECIDE_OPERATOR],
    mutations: [
      {
        name: "opens an item that was acknowledged again (lease: Worker)",
        guard: "stop",
        find: 'const untouched = claim.lease.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);',
        replace: 'const untouched = claim.lease.memory.is === "none" && item?.state === "starting";',
      },
      {
        name: "opens an item that is already active",
        guard: "guard",
        find: 'const untouched = claim.lease.memory.is === "none" && item?.state === "starting" &&',
        replace: 'const untouched = claim.lease.memory.is === "none" && item !== null &&',
      },
      {
        name: "opens by a view of the item that is too old",
        guard: "bound",
        find: 'item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "open", acknowledgedAt };',
        replace: '{ do: "open", acknowledgedAt };',
      },
    ],
  },
  {
    file: "src/protocol/claim.ts",
    tests: [DECIDE, DECIDE_OPERATOR],
    mutations: [
      {
        name: "never notices that an item was acknowledged again",
        guard: "stop",
        find: "return isLater(item.acknowledgedAt, claim.record.acknowledgedAt);",
        replace: "return false;",
      },
      {
        name: "compares the text of acknowledgement times",
        guard: "identity",
        find: "return isLater(item.acknowledgedAt, claim.record.acknowledgedAt);",
        replace: "return item.acknowledgedAt !== claim.record.acknowledgedAt;",
      },
    ],
  },
  {
    file: "src/core/text.ts",
    tests: [DECIDE, DECIDE_OPERATOR],
    mutations: [
      {
        name: "cuts a program's output at its end",
        guard: "bound",
        find: "said.slice(-MAX_LAST_LINES)",
        replace: "said.slice(0, MAX_LAST_LINES)",
        tests: ["test/pods/pod-state.test.ts"],
      },
      {
        name: "treats an earlier acknowledgement as another client's",
        guard: "identity",
        find: "return a && b ? a.fromMs >= b.beforeMs : one !== other;",
        replace: "return a && b ? a.fromMs >= b.beforeMs || b.fromMs >= a.beforeMs : one !== other;",
      },
      {
        name: "treats a truncated time as a different time",
        guard: "identity",
        find: "a.fromMs < b.beforeMs && b.fromMs < a.beforeMs",
        replace: "a.fromMs === b.fromMs",
        tests: ["test/claims/ack-window.test.ts", DECIDE, DECIDE_OPERATOR],
      },
    ],
  },
  {
    file: "src/claims/claim-journal.ts",
    tests: ["test/claims/claim-journal.test.ts"],
    mutations: [
      {
        name: "treats a Secret about another item as its own",
        guard: "identity",
        find: "journal?.workId === claim.record.journal.workId && journal.podUid === claim.record.journal.podUid",
        replace: "journal?.podUid === claim.record.journal.podUid",
      },
      {
        name: "treats a Secret about another Pod as its own",
        guard: "identity",
        find: "journal?.workId === claim.record.journal.workId && journal.podUid === claim.record.journal.podUid",
        replace: "journal?.workId === claim.record.journal.workId",
      },
      {
        name: "forgets a Secret that it could not read",
        guard: "error",
        find: "if (isNotFound(error)) return { takenBy: null };",
        replace: "return { takenBy: null };",
      },
      {
        name: "forgets a Secret whose creation was not answered",
        guard: "record",
        find: "if (mayRepeat && (await window.waits(backoff.next()))) continue;",
        replace:
          'if (mayRepeat && (await window.waits(backoff.next()))) continue;\n        if (maybe) return "failed";',
      },
      {
        name: "believes a refusal of a repeated creation",
        guard: "record",
        find: "maybe ||= isMaybeApplied(error);",
        replace: "maybe = isMaybeApplied(error);",
      },
      {
        name: "gives up the slot that its own first request reserved",
        guard: "record",
        find: "if (isAlreadyExists(error)) return this.#existingJournal(claim);",
        replace: 'if (isAlreadyExists(error)) return "taken";',
      },
      {
        name: "creates the Secret without the time limit of a protocol request",
        guard: "bound",
        find: "kube.create(SECRETS, secret, {}, { timeoutMs: timing.requestBoundMs })",
        replace: "kube.create(SECRETS, secret)",
      },
      {
        name: "keeps polling while the API server refuses Secrets",
        guard: "bound",
        find: 'if (!maybe) {\n          if (isStepFailure(error)) holds.failed("journal", { error, name: claim.name });',
        replace: "if (!maybe) {",
      },
    ],
  },
  {
    file: "src/protocol/claim-record.ts",
    tests: ["test/claims/claim-journal.test.ts"],
    mutations: [
      {
        name: "doesn't record the resourceVersion of its Secret",
        guard: "versions",
        find: 'noteVersion({ record }, metadata.resourceVersion ?? "");',
        replace: "",
      },
      {
        name: "doesn't record the uid of its Secret",
        guard: "precondition",
        find: 'record.secretUid = metadata.uid ?? "";',
        replace: "",
      },
      {
        name: "starts no time limit at an opening that another process made",
        guard: "bound",
        find: "record.openedMs ??= nowMs;",
        replace: "",
        tests: ["test/protocol/claim-table.test.ts"],
      },
    ],
  },
  {
    file: "src/protocol/journal.ts",
    tests: [JOURNAL],
    mutations: [
      {
        name: "opens any Secret with the right name",
        guard: "versions",
        find: "metadata: precondition,",
        replace: "metadata: {},",
      },
      {
        name: "opens a Secret that has changed since",
        guard: "versions",
        find: "metadata: precondition,",
        replace: "metadata: { uid: precondition.uid },",
      },
      {
        name: "opens another Secret of the same name",
        guard: "precondition",
        find: "metadata: precondition,",
        replace: "metadata: { resourceVersion: precondition.resourceVersion },",
      },
      {
        name: "writes the key that the container waits for into the journal",
        guard: "key",
        find: "{ [KEY_CREDENTIAL]: credential }",
        replace: "{ [KEY_WORK_SECRET]: credential }",
      },
      {
        name: "lets the Secret be deleted with its Pod",
        guard: "record",
        find: "labels: {\n        ...OWN_LABELS,",
        replace:
          'ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: where.name, uid: journal.podUid }],\n      labels: {\n        ...OWN_LABELS,',
      },
      {
        name: "reads any Secret as a claim",
        guard: "identity",
        find: "if (secret.type !== CLAIM_SECRET_TYPE) return null;",
        replace: "",
      },
      {
        name: "keeps a second copy of the credential in an opened Secret",
        guard: "guard",
        find: "[KEY_CREDENTIAL]: null,",
        replace: "",
      },
      {
        name: "keeps credentials of listed Secrets in memory",
        guard: "guard",
        find: "withoutCredential(secret).data ?? {}",
        replace: "secret.data ?? {}",
      },
      {
        name: "keeps values of any length from listed Secrets",
        guard: "bound",
        find: "value.length <= MAX_LISTED",
        replace: "true",
      },
    ],
  },
  {
    file: "src/claims/claim-loop.ts",
    tests: [OFFERS, RUNTIME],
    mutations: [
      {
        name: "polls without checking that a Pod is free",
        guard: "guard",
        find: "await this.#options.gate.mayClaim(signal);",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: [OFFERS, RUNTIME],
    mutations: [
      {
        name: "wakes sessions although starts fail",
        guard: "bound",
        find: "if (!this.#mayWake(pod, item.data.id)) return null;",
        replace: "",
        tests: ["test/sessions/loops/sleeping-starts-failing.test.ts"],
      },
      {
        name: "gives up a Pod before one of the new template waits",
        guard: "guard",
        find: 'if (waking === "moves" && (workspaceOf(pod) !== null || pool.hasClaimable)) {',
        replace: 'if (waking === "moves") {',
        tests: ["test/sessions/loops/sleeping-starts-failing.test.ts"],
      },
      {
        name: "forgets whose Secret holds a slot",
        guard: "record",
        find: "if (takenBy) this.#options.handOver.foreignSlot(takenBy);",
        replace: "",
        tests: ["test/sessions/loops/sleeping-faults.test.ts"],
      },
      {
        name: "journals an item that a Secret already names",
        guard: "journalOnce",
        find: 'if (!(await this.#isFree(item, answer))) return "duplicate";',
        replace: "",
        tests: [RUNTIME, LEASES, "test/sessions/loops/claim-priority.test.ts", HISTORIES],
      },
      {
        name: "claims an item while a Pod of its session runs",
        guard: "sessionTurn",
        find: "if (!(await this.#isSessionsTurn(item, answer))) {",
        replace: "if (false) {",
        tests: ["test/sessions/loops/one-pod-per-session.test.ts"],
      },
      {
        name: "claims any item type except health checks as a session",
        guard: "identity",
        find: "if (item.data.type !== DATA_TYPE_SESSION) {",
        replace: 'if (item.data.type === "healthcheck") {',
      },
      {
        name: "gives an item to a Pod that expects a credential that does not exist",
        guard: "guard",
        find: "return credential !== null && ",
        replace: "return credential === null || ",
      },
      {
        name: "claims for an Environment without its finalizer",
        guard: "guard",
        find: 'if (!(await this.#hold())) return "failed";',
        replace: "await this.#hold();",
      },
      {
        name: "journals an item after its window",
        guard: "window",
        find: 'if (!window.isOpen) return "late";',
        replace: "",
      },
      {
        name: "acknowledges without reading the Pod",
        guard: "readLive",
        find: "const read = pod ? await this.#acknowledging.readPod(claim) : null;",
        replace: 'const read = null as Awaited<ReturnType<Acknowledging["readPod"]>> | null;',
        tests: [RUNTIME, HISTORIES],
      },
      {
        name: "forgets an unanswered journal write",
        guard: "record",
        find: 'if (journaled === "unknown") {',
        replace: 'if (journaled === "unknown") return "failed";\n      if (false) {',
        tests: [OFFERS, RUNTIME, HISTORIES],
      },
      {
        name: "drops a claim with an unanswered acknowledgement",
        guard: "drop",
        find: 'keep = result !== "refused" && result !== "late" ? true :',
        replace: 'keep = result === "acked" ? true :',
        tests: [OFFERS, RUNTIME, HISTORIES],
      },
      {
        name: "treats an acknowledgement that can still land as one that can't",
        guard: "drop",
        find: "lateAckUntilMs: answer.sentAtMs + timing.othersReclaimMs,",
        replace: "lateAckUntilMs: answer.sentAtMs,",
        tests: [OFFERS, RUNTIME, HISTORIES],
      },
      {
        name: "journals the latest possible time of the poll as the earliest",
        guard: "unanswered",
        find: "polledFromMs: Math.floor(server.earliestMs),",
        replace: "polledFromMs: Math.floor(server.latestMs),",
        tests: [OFFERS],
      },
      {
        name: "hands a claim to the session loop while it is being claimed",
        guard: "guard",
        find: "claiming: true,",
        replace: "claiming: false,",
        tests: [RUNTIME, HISTORIES],
      },
      {
        name: "serves an item that arrived without its secret",
        guard: "guard",
        find: 'if (this.lacksSecret(item)) return settled(await this.#claimSlot(item, answer, "refusal"));',
        replace: "",
      },
      {
        name: "refuses an item after its window",
        guard: "window",
        find: 'if (!window.isOpen || this.#options.gate.isClosing) return "late";',
        replace: "",
        tests: [OFFERS, "test/sessions/loops/odd-items.test.ts"],
      },
      {
        name: "keeps the place of a claim that failed before its start",
        guard: "bound",
        find: "this.#context.holds.starts.released(claim.templateHash, claim.name);",
        replace: "",
        tests: ["test/sessions/loops/starts-failing.test.ts", RUNTIME],
      },
    ],
  },
  {
    file: "src/protocol/claim-table.ts",
    tests: ["test/protocol/claim-table.test.ts"],
    mutations: [
      {
        name: "doesn't detect that a claim runs the session",
        guard: "sessionTurn",
        find: 'journal.use === "session" && journal.sessionId === sessionId && endedMs === null,',
        replace: "false,",
      },
      {
        name: "treats a session as running until its record is deleted",
        guard: "guard",
        find: "journal.sessionId === sessionId && endedMs === null",
        replace: "journal.sessionId === sessionId",
      },
      {
        name: "forgets the slot of another claim of the same name",
        guard: "identity",
        find: "if (this.#byName.get(claim.name) === claim) this.#byName.delete(claim.name);",
        replace: "this.#byName.delete(claim.name);",
        tests: ["test/protocol/claim-table.test.ts"],
      },
    ],
  },
  {
    file: "src/sleep/session-pods.ts",
    tests: ["test/sleep/session-pods.test.ts"],
    mutations: [
      {
        name: "checks no claim for a running session",
        guard: "sessionTurn",
        find: "if (claims.runs(sessionId)) return true;",
        replace: "",
      },
      {
        name: "doesn't detect a session's Pod whose claim is deleted",
        guard: "sessionTurn",
        find: "return context.pods.ofSession(sessionId).some((pod) => !isAsleep(pod) && !isOverdue(pod, overMs) && isLive(pod));",
        replace: "return overMs < 0;",
      },
      {
        name: "waits forever for a Pod on a lost node",
        guard: "bound",
        find: "!isOverdue(pod, overMs) && ",
        replace: "",
      },
    ],
  },
  {
    file: "src/queue/precedence.ts",
    tests: ["test/queue/precedence.test.ts"],
    mutations: [
      {
        name: "serves several Environments of a queue",
        guard: "sessionTurn",
        find: "if (served.metadata.uid !== uid) {",
        replace: "if (served.metadata.uid === null) {",
      },
      {
        name: "serves the youngest Environment of a queue",
        guard: "identity",
        find: "return rankOf(a) < rankOf(b) ? -1 : 1;",
        replace: "return rankOf(a) < rankOf(b) ? 1 : -1;",
      },
      {
        name: "lets an Environment without a valid key have the queue",
        guard: "identity",
        find: "=== undefined && isAccepted(each))",
        replace: "=== undefined)",
      },
      {
        name: "gives the queue to another Environment while a key is checked again",
        guard: "identity",
        find: "NOT_REJECTED.has(key) && ",
        replace: 'key === "KeyAccepted" && ',
      },
      {
        name: "takes any answer for an accepted key",
        guard: "identity",
        find: " && wasAccepted(environment) && ",
        replace: " && ",
      },
      {
        name: "lets a key of another workspace block the queue",
        guard: "identity",
        find: 'if (key !== "KeyAccepted" && reasonOf("QueueReachable") === "EnvironmentNotFound") return false;',
        replace: "",
      },
      {
        name: "lets an invalid Environment block the queue",
        guard: "identity",
        find: ' && reasonOf("Ready") !== "InvalidSpec"',
        replace: "",
      },
      {
        name: "claims while another Environment of the queue has claims",
        guard: "sessionTurn",
        find: "if (!before) return ALONE;",
        replace: "if (before !== null) return ALONE;",
      },
      {
        name: "lets an Environment without a valid key block the queue with a finalizer",
        guard: "identity",
        find: "wasAccepted(each) && mayHaveSessions(each)",
        replace: "mayHaveSessions(each)",
      },
      {
        name: "forgets another Environment of the queue whose namespace can't be listed",
        guard: "sessionTurn",
        find: "if (unlisted.length > 0 && ",
        replace: "if (unlisted.length < 0 && ",
      },
    ],
  },
  {
    file: "src/reconcile/environment-reconciler.ts",
    tests: ["test/sessions/loops/shared-environment-id.test.ts"],
    mutations: [
      {
        name: "ignores the finalizers of other Environments of a queue",
        guard: "sessionTurn",
        find: "return (isMarked || known.finalizer.isHeld) && !known.runtime.isStranded;",
        replace: "return false;",
      },
      {
        name: "waits forever for claims of a rejected key",
        guard: "bound",
        find: " && !known.runtime.isStranded;",
        replace: ";",
      },
    ],
  },
  {
    file: "src/sessions/runtime.ts",
    tests: ["test/sessions/loops/shared-environment-id.test.ts"],
    mutations: [
      {
        name: "waits forever for claims without a key",
        guard: "bound",
        find: "this.#gate.mayAsk && this.#holds",
        replace: "this.#holds",
      },
      {
        name: "takes the queue from sessions that run, once their key is rejected",
        guard: "sessionTurn",
        find: " && [...this.#claims].every(hasEnded);",
        replace: ";",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: ["test/claims/claiming.test.ts"],
    mutations: [
      {
        name: "falls back to the environment key",
        guard: "guard",
        find: ": item.secret) || null;",
        replace: ": item.secret) || context.environmentKey() || null;",
      },
    ],
  },
  {
    file: "src/claims/claim-lists.ts",
    tests: ["test/claims/claim-lists.test.ts"],
    mutations: [
      {
        name: "deletes Secrets of any type",
        guard: "identity",
        find: "secret.type !== CLAIM_SECRET_TYPE || ",
        replace: "",
      },
      {
        name: "deletes claims of another Environment of the same name",
        guard: "identity",
        find: " || !which(readJournal(secret))",
        replace: "",
      },
      {
        name: "deletes any Secret with the right name",
        guard: "precondition",
        find: "uid === undefined ? {} : { uid }",
        replace: "{}",
      },
      {
        name: "treats a claim Secret that can't be deleted as deleted",
        guard: "error",
        find: "if (!isNotFound(error) && !isConflict(error)) throw error;",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/refused-items.ts",
    tests: ["test/claims/refused-items.test.ts"],
    mutations: [
      {
        name: "stops sessions that are left in the list",
        guard: "identity",
        find: " || item.data.type === DATA_TYPE_SESSION) continue;",
        replace: ") continue;",
      },
      {
        name: "stops items that were not acknowledged",
        guard: "identity",
        find: "!LEFTOVER_STATES.has(item.state) || ",
        replace: "",
      },
      {
        name: "acknowledges an item to refuse it although another process may act",
        guard: "guard",
        find: 'guard();\n      await points.run("refuse.ack"',
        replace: 'await points.run("refuse.ack"',
      },
      {
        name: "lists leftovers before an acknowledgement can last land",
        guard: "drop",
        find: "this.#searchFromMs = clock.monotonic() + timing.othersReclaimMs + timing.lateAckMs + timing.listLagMs;",
        replace: "this.#searchFromMs = clock.monotonic();",
      },
      {
        name: "lets one item that can't be stopped block the stops of others",
        guard: "guard",
        find: "if (!isRefusal(error)) throw error;",
        replace: "throw error;",
      },
      {
        name: "treats a failed list as one without items",
        guard: "error",
        find: "this.#mayHaveLeftovers = true;\n      const { clock, logger, random }",
        replace: "const { clock, logger, random }",
      },
    ],
  },
  {
    file: "src/claims/ack-window.ts",
    tests: ["test/sessions/recovery.test.ts"],
    mutations: [
      {
        name: "judges a found journal while its acknowledgement can still land",
        guard: "drop",
        find: "Math.min(wholeMs, leftMs);",
        replace: "0;",
      },
      {
        name: "judges a journal without a poll time at once",
        guard: "error",
        find: "Number.isNaN(leftMs) ? wholeMs :",
        replace: "Number.isNaN(leftMs) ? 0 :",
      },
      {
        name: "trusts its own clock before the Work API has reported its time",
        guard: "drop",
        find: "serverTime.at(clock.monotonic(), Number.POSITIVE_INFINITY)",
        replace: "serverTime.at(clock.monotonic())",
      },
    ],
  },
  {
    file: "src/sessions/recovery.ts",
    tests: ["test/sessions/recovery.test.ts"],
    mutations: [
      {
        name: "adopts a claim that it already holds",
        guard: "identity",
        find: ' || claims.has(podOfSlot(secret.metadata.name ?? "").pod)) return null;',
        replace: ") return null;",
      },
      {
        name: "adopts a removal as a claim",
        guard: "identity",
        find: 'if (journal.use === "removal") {',
        replace: "if (false) {",
      },
      {
        name: "doesn't record until when requests of an earlier process may land",
        guard: "adoptStill",
        find: "othersUntilMs: context.servingSinceMs,",
        replace: "",
      },
      {
        name: "reads the start of another Pod of the same name",
        guard: "identity",
        find: "known?.metadata.uid === journal.podUid && journal.opened",
        replace: "known !== undefined && journal.opened",
      },
      {
        name: "treats a failed list of Secrets as empty",
        guard: "error",
        find: "await sleep(clock, untilMs - clock.monotonic(), signal);",
        replace: "return true;",
      },
    ],
  },
  {
    file: "src/sessions/recovery.ts",
    tests: ["test/sessions/recovery.test.ts"],
    mutations: [
      {
        name: "adopts a claim that was settled while the list was read",
        guard: "identity",
        find: "!before.has(slot) && !now.has(slot)",
        replace: "!now.has(slot)",
      },
      {
        name: "adopts a claim that was begun while the list was read",
        guard: "identity",
        find: "!before.has(slot) && !now.has(slot)",
        replace: "!before.has(slot)",
      },
      {
        name: "lists while requests of an earlier process can still land",
        guard: "bound",
        find: "let waitMs = timing.lateRecordsMs;",
        replace: "let waitMs = 0;",
      },
      {
        name: "treats a failed list as final",
        guard: "error",
        find: "waitMs = backoff.next();",
        replace: "return;",
      },
    ],
  },
  {
    file: "src/claims/claim-lists.ts",
    tests: ["test/claims/claim-lists.test.ts"],
    mutations: [
      {
        name: "gives an Environment the claims of all others",
        guard: "identity",
        find: "resolve(byLabel.get(toLabelValue(environment)) ?? [])",
        replace: "resolve(items)",
      },
      {
        name: "treats a failed list as empty",
        guard: "error",
        find: "for (const { reject } of asked) reject(error);",
        replace: "for (const { resolve } of asked) resolve([]);",
      },
    ],
  },
];
