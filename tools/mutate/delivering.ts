import type { FileMutations } from "./mutation.ts";

const CLAIM_FACTS = "test/sessions/claim-facts.test.ts";
const DECIDE = "test/protocol/delivering.test.ts";
const DELIVERY_ACTS = "test/claims/delivery-acts.test.ts";
const LONG_ITEMS = "test/sessions/loops/long-items.test.ts";
const PARKING_CHECK = "test/reconcile/ability-check.test.ts";
const PERFORM = "test/claims/pod-acts.test.ts";
const POD_STATE = "test/pods/pod-state.test.ts";
const STREAMS = "test/attach/pod-streams.test.ts";
const WAITING_PODS = "test/sessions/loops/waiting-pods.test.ts";

/** Step 5 of the protocol for Pods that wait for a line, and the connections over which they get it. */
export const DELIVERING: readonly FileMutations[] = [
  {
    file: "src/protocol/delivering.ts",
    tests: [DECIDE],
    mutations: [
      {
        name: "sends a line to a Pod that is not assigned",
        guard: "line",
        find: "if (!isWoken && untilAssigned) return untilAssigned;",
        replace: "",
      },
      {
        name: "sends a line again without looking for the program's start",
        guard: "redelivery",
        find: 'if (record.delivery === "unknown") return isBeaten(facts) ? { do: "delivered", by: "item" } : { do: "read-log" };',
        replace: "",
      },
      {
        name: "sends a line again without reading the item",
        guard: "redelivery",
        find: "redeliver(facts, unstartedMs)",
        replace: '{ do: "deliver" }',
      },
      {
        name: "sends a line again by an outdated view of the item",
        guard: "redelivery",
        find: "if (!item || item.askedMs < unstartedMs) return LOOK;",
        replace: "if (!item) return LOOK;",
      },
      {
        name: "sends a line again for an item that was told to stop",
        guard: "redelivery",
        find: 'item.state === "stopped" || item.state === "stopping"',
        replace: 'item.state === "stopped"',
      },
      {
        name: "sends a line again for an item that is another client's",
        guard: "redelivery",
        find: 'return because === null ? { do: "deliver" }',
        replace: 'return because === because ? { do: "deliver" }',
      },
      {
        name: "settles the item while the container may still read its line",
        guard: "giveUp",
        find: "if (nowMs >= patience && !mayRun(facts, patience)) {",
        replace:
          'if (nowMs >= patience && !mayRun(facts, patience)) {\n    return { do: "settled", because: "stopped" };',
      },
      {
        name: "waits forever for a container that does not read its line",
        guard: "bound",
        find: "if (nowMs >= patience && !mayRun(facts, patience)) {",
        replace: "if (false) {",
      },
      {
        name: "gives up a program that an earlier process may have started",
        guard: "guard",
        find: "if (nowMs >= patience && !mayRun(facts, patience)) {",
        replace: "if (nowMs >= patience) {",
      },
      {
        name: "gives up a program that may have started when the log can't show it",
        guard: "guard",
        find: ' || (record.delivery === "unclear" && !isUnbeaten);',
        replace: ";",
      },
      {
        name: "waits forever for a worker that sends no heartbeat",
        guard: "bound",
        find: 'record.delivery === "unclear" && !isUnbeaten',
        replace: 'record.delivery === "unclear"',
      },
      {
        name: "sends a line again to a worker that sends heartbeats",
        guard: "redelivery",
        find: "if (because === null && isBeaten(facts)) ",
        replace: "if (false) ",
      },
      {
        name: "gives up a program by a view of the item from before its first heartbeat",
        guard: "guard",
        find: ' && item?.state === "starting" && item.askedMs >= patience;',
        replace: ' && item?.state === "starting";',
      },
      {
        name: "treats the operator's own heartbeats as the program's",
        guard: "identity",
        find: 'return record.journal.lease === "Worker" && observed.item?.state === "active";',
        replace: 'return observed.item?.state === "active";',
      },
    ],
  },
  {
    file: "src/protocol/operator-lease.ts",
    tests: [DECIDE],
    mutations: [
      {
        name: "sends a line while the lease may lapse",
        guard: "lineLease",
        find: 'if (step.do === "deliver" && !maySendStop(lease, facts, timing))',
        replace: "if (false)",
      },
    ],
  },
  {
    file: "src/claims/delivery-acts.ts",
    tests: [DELIVERY_ACTS],
    mutations: [
      {
        name: "treats an unanswered line as a start",
        guard: "start",
        find: 'if (delivery === "started") delivered(context, claim, "marker");',
        replace: 'delivered(context, claim, "marker");',
      },
      {
        name: "treats any output as a start",
        guard: "error",
        find: 'if (shown === "started") delivered(context, claim, "log");',
        replace: 'if (shown !== "waiting") delivered(context, claim, "log");',
      },
      {
        name: "treats a log that can't be read as one without a start",
        guard: "error",
        find: "if (!isForbidden(error)) throw error;",
        replace: "",
      },
      {
        name: "treats a log without a beginning as a start before it has sent a line",
        guard: "guard",
        find: " && openedAtMs === null && deliverySentMs !== null &&",
        replace: " && openedAtMs === null &&",
      },
      {
        name: "treats a log without a beginning as a start in its own claim",
        guard: "guard",
        find: " && openedAtMs === null && deliverySentMs !== null &&",
        replace: " && deliverySentMs !== null &&",
      },
      {
        name: "treats a log without a beginning as the start of a worker without heartbeats",
        guard: "guard",
        find: ' && journal.lease === "Operator";',
        replace: ";",
      },
    ],
  },
  {
    file: "src/claims/secret-acts.ts",
    tests: [DELIVERY_ACTS],
    mutations: [
      {
        name: "sends the credential of another Secret of the same name",
        guard: "identity",
        find: "if (secret.metadata.uid !== claim.record.secretUid) throw new StaleClaimError();",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/pod-acts.ts",
    tests: [PERFORM, WAITING_PODS],
    mutations: [
      {
        name: "keeps a Pod that never reads its line",
        guard: "bound",
        find: 'step.why === "StartFailed" && parkingOf(live) === "Key"',
        replace: 'step.why === "StartFailed"',
      },
      {
        name: "treats a Pod whose patch was refused as assigned",
        guard: "line",
        find: "noteAssigning(claim, assignedAtMs(pod) ?? context.kube.now());",
        replace: "noteAssigning(claim, assignedAtMs(pod) ?? context.kube.now());\n  noteAssigned(claim);",
      },
      {
        name: "counts a session from each touch",
        guard: "guard",
        find: "assignedAtMs(pod) ?? context.kube.now()",
        replace: "context.kube.now()",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: [WAITING_PODS],
    mutations: [
      {
        name: "acknowledges an item although the node of its Pod does not answer",
        guard: "guard",
        find: "if (!(await reached)) {",
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: [LONG_ITEMS],
    mutations: [
      {
        name: "claims an item that does not fit in a line",
        guard: "guard",
        find: "if (this.#isTooLong(item)) return this.#refuseTooLong(item, answer);",
        replace: "",
      },
      {
        name: "gives an item to a Pod whose line has no room for it",
        guard: "guard",
        find: " && hasRoom(free, item, credential)",
        replace: "",
      },
    ],
  },
  {
    file: "src/attach/pod-streams.ts",
    tests: [STREAMS],
    mutations: [
      {
        name: "counts a Pod without an attach as free",
        guard: "guard",
        find: 'return parkingOf(pod) === "Key" || this.#attached.has(uidOf(pod));',
        replace: "return true;",
      },
      {
        name: "takes an open connection for an answer",
        guard: "guard",
        find: "kept?.isOpen ? kept.answers(deadline.signal) :",
        replace: "kept?.isOpen ? Promise.resolve(true) :",
      },
      {
        name: "waits for an answer without a bound",
        guard: "bound",
        find: "Promise.race([answer, late.promise])",
        replace: "answer",
      },
      {
        name: "claims a Pod whose connection broke and can't be opened again",
        guard: "guard",
        find: "this.#attached.delete(uid);",
        replace: "",
      },
      {
        name: "takes the proof of another Pod of the same name",
        guard: "identity",
        find: 'return metadata.uid ?? "";',
        replace: 'return metadata.name ?? "";',
      },
      {
        name: "keeps the proof of a Pod that is no longer free",
        guard: "guard",
        find: "if (!uids.has(uid) && !this.#open.has(uid)) known.delete(uid);",
        replace: "if (false) known.delete(uid);",
      },
      {
        name: "keeps a connection to every free Pod",
        guard: "bound",
        find: "place < MOST_OPEN_OF_ENVIRONMENT && ",
        replace: "",
      },
      {
        name: "attaches again and again when no more connections may be kept",
        guard: "bound",
        find: " && !this.#context.streamBudgets.waiting.isFull;",
        replace: ";",
      },
      {
        name: "keeps more connections than a replica may",
        guard: "bound",
        find: "if (this.isFull) return false;",
        replace: "",
      },
      {
        name: "attaches to all Pods at once",
        guard: "bound",
        find: "else if (this.#trying.size < CONCURRENCY) void",
        replace: "else void",
      },
      {
        name: "repeats a failed attach without a pause",
        guard: "bound",
        find: "pause.dueMs = clock.monotonic() + pause.backoff.next();",
        replace: "pause.dueMs = clock.monotonic();",
      },
      {
        name: "reopens a connection that ended early at once",
        guard: "bound",
        find: "if (clock.monotonic() - openedMs < EARLY_END_MS) this.#pause(uid, null);",
        replace: "if (false) this.#pause(uid, null);",
      },
      {
        name: "keeps the share of a connection that ended",
        guard: "bound",
        find: "streamBudgets.waiting.give();",
        replace: "",
      },
      {
        name: "treats a failure on one node as a refusal by the cluster",
        guard: "error",
        find: "error instanceof KubeApiError && REFUSALS.has(error.status)",
        replace: "error instanceof KubeApiError",
      },
      {
        name: "treats a single refusal as the cluster's",
        guard: "bound",
        find: "if (this.#refusals < MOST_REFUSALS) return;",
        replace: "",
      },
      {
        name: "counts refusals from the first attempt",
        guard: "bound",
        find: "// Pods of a later attempt are counted again.\n    this.#refusals = 0;",
        replace: "",
      },
      {
        name: "keeps a connection that was made after the end",
        guard: "guard",
        find: "if (!this.#closed) return stream;",
        replace: "return stream;",
      },
      {
        name: "writes into a connection that has ended",
        guard: "error",
        find: "const found = kept?.isOpen ?",
        replace: "const found = kept ?",
      },
      {
        name: "waits forever for the marker",
        guard: "bound",
        find: "const deadline = deadlineSignal(clock, MARKER_MS);",
        replace: "const deadline = deadlineSignal(clock, 1e9);",
      },
      {
        name: "keeps a connection to a Pod that got its line while it was made",
        guard: "bound",
        find: "if (this.#given.has(uid) || this.#open",
        replace: "if (this.#open",
      },
      {
        name: "prefers Pods that can't be attached to",
        guard: "guard",
        find: ".toSorted((one, other) => Number(this.#fails(one)) - Number(this.#fails(other)));",
        replace: ";",
      },
      {
        name: "keeps the connection after a delivery",
        guard: "bound",
        find: "deadline.cancel();\n      stream.close();",
        replace: "deadline.cancel();",
      },
    ],
  },
  {
    file: "src/sessions/claim-facts.ts",
    tests: [CLAIM_FACTS],
    mutations: [
      {
        name: "treats a container that waits for its line as the session",
        guard: "guard",
        find: "if (waitsForLine) state = ",
        replace: "if (false) state = ",
      },
      {
        name: "reports a session without a sent line as started",
        guard: "guard",
        find: 'if (state.is !== "ended" || parkingOf(pod) === "Key" || !isUnsent) return state;',
        replace: "return state;",
      },
      {
        name: "counts a session from the operator's start",
        guard: "guard",
        find: 'if (!waitsForLine || claim.record.delivery === "unsent") noteWaiting',
        replace: "noteWaiting",
      },
    ],
  },
  {
    file: "src/pods/pod-state.ts",
    tests: [POD_STATE],
    mutations: [
      {
        name: "treats an assigned Pod that waits for its line as parked",
        guard: "reuse",
        find: ' !== "Key" && assignedAtMs(pod) === null;',
        replace: ' !== "Key";',
      },
      {
        name: "says that a session ran in a Pod that only waited",
        guard: "guard",
        find: "return waitsForLine(pod) ? null : (",
        replace: "return (",
      },
      {
        name: "treats a node's restart as a failed preparation",
        guard: "error",
        find: "if (terminated.reason === END_UNSEEN.reason && exitCode === END_UNSEEN.exitCode) {",
        replace: "if (!waitsForLine(pod) && terminated.reason === END_UNSEEN.reason) {",
      },
    ],
  },
  {
    file: "src/sessions/session-loop.ts",
    tests: [WAITING_PODS],
    mutations: [
      {
        name: "leaves an acknowledged session to the next process when it stops",
        guard: "guard",
        find: "acknowledgedAt !== null && !journal.opened,",
        replace: "false,",
      },
    ],
  },
  {
    file: "src/sessions/runtime.ts",
    tests: [WAITING_PODS],
    mutations: [
      {
        name: "closes its connections before the sessions that it acknowledged have started",
        guard: "guard",
        find: "    this.#stop.abort();\n    this.#idleRelease.end();",
        replace: "    this.#stop.abort();\n    this.#streams.close();\n    this.#idleRelease.end();",
      },
    ],
  },
  {
    file: "src/api/environment.ts",
    tests: ["test/api/environment.test.ts"],
    mutations: [
      {
        name: "abandons the sessions of an Environment whose parking mode is refused",
        guard: "guard",
        find: 'parking: "Key" };',
        replace: "};",
      },
    ],
  },
  {
    file: "src/pool/free-pods.ts",
    tests: ["test/pool/free-pods.test.ts"],
    mutations: [
      {
        name: "claims a Pod without a successful attach",
        guard: "guard",
        find: 'if (free?.state !== "warm" || streams.isReachable(pod)) return free;',
        replace: "return free;",
      },
      {
        name: "replaces a Pod that waited for long before the operator restarted",
        guard: "guard",
        find: "const scheduledAtMs = this.#context.kube.now() - streams.unreachableMs(pod);",
        replace: "const { scheduledAtMs } = free;",
      },
    ],
  },
  {
    file: "src/reconcile/ability-check.ts",
    tests: [PARKING_CHECK],
    mutations: [
      {
        name: "replaces Pods that wait for a key before the permission to attach is checked",
        guard: "guard",
        find: "this.#forbidden = failure === undefined ? was : null;",
        replace: "this.#forbidden = null;",
      },
      {
        name: "treats a failed check as a missing permission",
        guard: "error",
        find: "if (isForbidden(error) || isInvalid(error))",
        replace: "if (!isNotFound(error))",
      },
      {
        name: "treats a failed check as a granted permission",
        guard: "error",
        find: "else if (isNotFound(error)) this.#allow();",
        replace: "else this.#allow();",
      },
      {
        name: "believes one refusal of a permission that was there",
        guard: "bound",
        find: "if (this.#wasAllowed && nowMs - this.#doubtedMs < CONFIRM_MS) return;",
        replace: "",
      },
      {
        name: "checks the permission at each reconcile",
        guard: "bound",
        find: "if (this.#checkedMs !== null && this.nextLookMs(nowMs) > 0) return;",
        replace: "",
      },
      {
        name: "remembers a failure after the spec has changed",
        guard: "bound",
        find: "if (this.#failed && this.#failed.generation !== metadata.generation) this.#failed = null;",
        replace: "",
      },
    ],
  },
];
