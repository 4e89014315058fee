import type { FileMutations } from "./mutation.ts";

const ACKNOWLEDGING = "test/claims/acknowledging.test.ts";
const CLAIM_FACTS = "test/sessions/claim-facts.test.ts";
const DECIDE_DELIVERING = "test/protocol/delivering.test.ts";
const DECIDE = "test/protocol/decide.test.ts";
const CACHED_POD = "test/pods/cached-pod.test.ts";
const PARKING = "test/pods/parking.test.ts";
const PLAN = "test/sleep/sleep-plan.test.ts";
const POD_LIMITS = "test/pool/pod-limits.test.ts";
const POD_LIMITS_LOOP = "test/sessions/loops/pod-limits.test.ts";
const REMOVAL = "test/sleep/removal.test.ts";
const RETENTION = "test/pool/finished-retention.test.ts";
const SESSION_LOOP = "test/sessions/session-loop.test.ts";
const SESSION_PODS = "test/sleep/session-pods.test.ts";
const SLEEPING = "test/sessions/loops/sleeping.test.ts";
const SLEEPING_FAULTS = "test/sessions/loops/sleeping-faults.test.ts";
const SLEEPING_PODS = "test/sleep/sleeping-pods.test.ts";
const SLEEP_MARK = "test/pods/sleep-mark.test.ts";
const STREAMS = "test/attach/pod-streams.test.ts";
const TURNS = "test/pods/turns.test.ts";
const TURN_ACTS = "test/claims/turn-acts.test.ts";
const TURN_ADDING = "test/sleep/turn-adding.test.ts";
const SLEEPER_SEARCH = "test/claims/sleeper-search.test.ts";
const WAITING_ITEMS = "test/sessions/loops/waiting-items.test.ts";
const WAITING_SESSIONS = "test/queue/waiting-sessions.test.ts";
const TURN_STATE = "test/pods/turn-state.test.ts";

/** Sessions that sleep in their Pods, and the turns in which their work items run. */
export const SLEEPING_MUTATIONS: readonly FileMutations[] = [
  {
    file: "src/sessions/runtime.ts",
    tests: [SLEEPING_FAULTS],
    mutations: [
      {
        name: "keeps a sleeping Pod that has changed since its removal began",
        guard: "guard",
        find: ' || (why === "kept" && pod !== undefined && isAsleep(pod))',
        replace: "",
      },
    ],
  },
  {
    file: "src/sessions/session-loop.ts",
    tests: [SLEEPING, SLEEPING_FAULTS],
    mutations: [
      {
        name: "marks a Pod as sleeping after its claim's Secret is deleted",
        guard: "sleep",
        find: 'const asleep = pod ? await this.#putToSleep(claim, pod, outcome) : null;\n    await dropSecret(context, claim, "session.settled", because);',
        replace:
          'await dropSecret(context, claim, "session.settled", because);\n    const asleep = pod ? await this.#putToSleep(claim, pod, outcome) : null;',
      },
      {
        name: "deletes the Pod of a woken session whose template fails",
        guard: "guard",
        find: "return Math.max(0, (this.#spared.get(claim) ?? 0) - this.#context.clock.monotonic());",
        replace: "return 0;",
        tests: ["test/sessions/loops/sleeping-starts-failing.test.ts"],
      },
      {
        name: "leaves a Pod to a program although its template serves",
        guard: "guard",
        find: " || !this.#context.holds.starts.isFailing(claim.templateHash)) return;",
        replace: ") return;",
        tests: ["test/sessions/loops/sleeping-starts-failing.test.ts"],
      },
      {
        name: "keeps a Pod whose first program never served",
        guard: "guard",
        find: "if (!isWanted || isUseless || ",
        replace: "if (!isWanted || ",
      },
      {
        name: "keeps a Pod whose claim was not opened",
        guard: "guard",
        find: "isUseless || !claim.record.journal.opened ||",
        replace: "isUseless ||",
      },
      {
        name: "lets a session sleep in a Pod that ends",
        guard: "guard",
        find: " || !livesOn(pod, claim.turn)) return null;",
        replace: ") return null;",
      },
      {
        name: "uses a Pod for any number of work items",
        guard: "bound",
        find: "if (claim.turn >= MOST_TURNS) {",
        replace: "if (false) {",
      },
      {
        name: "deletes a Pod in which the session sleeps meanwhile",
        guard: "deleteVersion",
        find: "const how = { graceSeconds: grace, asRead: hasTurns };",
        replace: "const how = { graceSeconds: grace };",
        tests: [SESSION_LOOP],
      },
    ],
  },
  {
    file: "src/sessions/claim-facts.ts",
    tests: [CLAIM_FACTS, SLEEPING_FAULTS],
    mutations: [
      {
        name: "takes a woken Pod for one that sleeps until it is assigned",
        guard: "guard",
        find: "asAssigned(this.#context, claim, pod)",
        replace: "pod",
      },
    ],
  },
  {
    file: "src/protocol/operator-lease.ts",
    tests: [SLEEPING_FAULTS],
    mutations: [
      {
        name: "lets a woken Pod look asleep until the lease of its session is adopted",
        guard: "bound",
        find: 'claim.turn > 1 && facts.nowMs >= assignAtMs(facts) ? { do: "touch" } : adopt(facts);',
        replace: "adopt(facts);",
      },
    ],
  },
  {
    file: "src/protocol/delivering.ts",
    tests: [SLEEPING_FAULTS],
    mutations: [
      {
        name: "assigns a woken Pod before its line",
        guard: "bound",
        find: 'if (isWoken && record.delivery === "unsent" &&',
        replace: 'if (false && record.delivery === "unsent" &&',
      },
      {
        name: "sends a line again to a woken Pod that looks asleep",
        guard: "guard",
        find: 'return step.do === "deliver" && untilAssigned ? untilAssigned : step;',
        replace: "return step;",
        tests: [DECIDE_DELIVERING],
      },
      {
        name: "doesn't look for the start of a woken Pod's program until the Pod is assigned",
        guard: "guard",
        find: "if (!isWoken && untilAssigned)",
        replace: "if (untilAssigned)",
        tests: [DECIDE_DELIVERING],
      },
    ],
  },
  {
    file: "src/protocol/worker-lease.ts",
    tests: [DECIDE],
    mutations: [
      {
        name: "settles an item, and lets its session sleep, while its container runs",
        guard: "sleepEnd",
        find: "if (isOver(item) || isReacknowledged(claim, item)) {",
        replace:
          'if (isOver(item)) return { do: "settled", because: "stopped" };\n  if (isReacknowledged(claim, item)) {',
      },
    ],
  },
  {
    file: "src/claims/pod-acts.ts",
    tests: [TURN_ACTS],
    mutations: [
      {
        name: "assigns a Pod with turns in any version",
        guard: "touchVersion",
        find: "...(version && { resourceVersion: version })",
        replace: "",
      },
      {
        name: "assigns the version of the cache instead of the one that was read before the acknowledgement",
        guard: "precondition",
        find: "claim.record.podVersion ?? pod.metadata.resourceVersion",
        replace: "pod.metadata.resourceVersion",
      },
      {
        name: "assigns a Pod whose claimed turn has ended",
        guard: "touchVersion",
        find: "!hasOpenTurn(live) || newestTurn",
        replace: "newestTurn",
      },
      {
        name: "assigns a Pod that waits in a later turn",
        guard: "touchVersion",
        find: " || newestTurn(live) !== claim.turn) throw error;",
        replace: ") throw error;",
      },
      {
        name: "assigns another Pod of the same name after a conflict",
        guard: "identity",
        find: "live.metadata.uid === claim.record.journal.podUid && !live",
        replace: "!live",
      },
      {
        name: "touches a Pod again and again while it changes",
        guard: "bound",
        find: "if (!isConflict(error) || tries === PATCH_TRIES) throw error;\n      const live = await context",
        replace: "if (!isConflict(error) || tries === 1_000) throw error;\n      const live = await context",
      },
      {
        name: "doesn't record the container of a claimed turn",
        guard: "rerun",
        find: "[ANNOTATION_TURN_CONTAINER]: container ?? turnContainerId(pod, turn) ?? null,",
        replace: "",
      },
      {
        name: "takes a turn that runs again for the one that was claimed",
        guard: "rerun",
        find: "container ?? turnContainerId(pod, turn)",
        replace: "turnContainerId(pod, turn)",
      },
      {
        name: "takes a container that ended before its line for a program",
        guard: "guard",
        find: " || isUnsent || !isAsleep",
        replace: " || !isAsleep",
        tests: [CLAIM_FACTS],
      },
      {
        name: "takes a session that sleeps again for a running one",
        guard: "endedRecord",
        find: " || endedTurn(pod) >= turn) return pod;",
        replace: ") return pod;",
        tests: [CLAIM_FACTS],
      },
      {
        name: "doesn't record which work item a Pod served that was never assigned",
        guard: "guard",
        find: "return isLate ? assignment(claim, pod)",
        replace: "return false ? assignment(claim, pod)",
      },
      {
        name: "ends a Pod with turns after the time of one work item",
        guard: "bound",
        find: "...(isTurn ? {} : { spec: { activeDeadlineSeconds",
        replace: "...(false ? {} : { spec: { activeDeadlineSeconds",
      },
      {
        name: "marks a recorded end of a turn again",
        guard: "endedRecord",
        find: "if (endedTurn(seen) >= claim.turn) return seen;",
        replace: "",
      },
      {
        name: "marks the end of an earlier turn while a later one runs",
        guard: "endedRecord",
        find: "if (endedTurn(seen) >= claim.turn) return seen;",
        replace: "if (endedTurn(seen) === claim.turn) return seen;",
      },
      {
        name: "lets a session sleep in another Pod of the same name",
        guard: "identity",
        find: "if (uid !== claim.record.journal.podUid || deletionTimestamp) return null;",
        replace: "if (deletionTimestamp) return null;",
      },
      {
        name: "lets a session sleep in a Pod that is being deleted",
        guard: "guard",
        find: "if (uid !== claim.record.journal.podUid || deletionTimestamp) return null;",
        replace: "if (uid !== claim.record.journal.podUid) return null;",
      },
    ],
  },
  {
    file: "src/pods/sleep-mark.ts",
    tests: [SLEEP_MARK],
    mutations: [
      {
        name: "marks any version of a Pod as sleeping",
        guard: "sleepVersion",
        find: "uid: metadata.uid, resourceVersion: metadata.resourceVersion, labels",
        replace: "uid: metadata.uid, labels",
      },
      {
        name: "marks another Pod of the same name as sleeping",
        guard: "precondition",
        find: "uid: metadata.uid, resourceVersion: metadata.resourceVersion, labels",
        replace: "resourceVersion: metadata.resourceVersion, labels",
      },
      {
        name: "doesn't record which turn has ended",
        guard: "endedRecord",
        find: "[ANNOTATION_ENDED_TURN]: String(endedTurn),",
        replace: "",
      },
      {
        name: "lets the keeper end a sleeping Pod at the time of the operator",
        guard: "bound",
        find: "untilMs + sleepMsOf(environment) + KEEPER_SLACK_MS",
        replace: "untilMs + sleepMsOf(environment)",
      },
      {
        name: "lets the keeper end a sleeping Pod whose session's item waits",
        guard: "bound",
        find: "untilMs + sleepMsOf(environment) + KEEPER_SLACK_MS",
        replace: "untilMs + KEEPER_SLACK_MS",
      },
    ],
  },
  {
    file: "src/sleep/removal.ts",
    tests: [REMOVAL],
    mutations: [
      {
        name: "removes a sleeping Pod without its lock",
        guard: "removalLock",
        find: "removal.lock ??= await this.#takeSlot(name, removal);",
        replace: "removal.lock ??= { metadata: {} };",
      },
      {
        name: "locks the first turn of a Pod whatever turn waits",
        guard: "removalLock",
        find: "renderJournal({ name: slot, namespace, environment }, journal, null)",
        replace: "renderJournal({ name, namespace, environment }, journal, null)",
      },
      {
        name: "removes a Pod that waits in another turn than the locked one",
        guard: "removalRead",
        find: " || slotOf(live) !== slot;",
        replace: ";",
      },
      {
        name: "gives up a removal that holds its lock",
        guard: "removalEnd",
        find: "removal.dueMs = this.#context.clock.monotonic() + removal.backoff.next();",
        replace: "this.#begun.delete(name);",
      },
      {
        name: "removes a sleeping Pod that changed since it was read",
        guard: "removalVersion",
        find: "{ graceSeconds, asRead: hasTurns }",
        replace: "{ graceSeconds }",
      },
      {
        name: "reports the end of a sleep again when its lock is deleted later",
        guard: "record",
        find: "    removal.sleep = null;\n",
        replace: "",
      },
      {
        name: "forgets the reason of a removal that it adopts",
        guard: "record",
        find: "isSleepEnd(why) ? { sessionId, why } : null",
        replace: "null",
        tests: [SLEEPING_FAULTS],
      },
    ],
  },
  {
    file: "src/pods/delete.ts",
    tests: [REMOVAL],
    mutations: [
      {
        name: "deletes a Pod with turns that changed since it was read",
        guard: "precondition",
        find: "...(how.asRead?.(live) && resourceVersion !== undefined ? { resourceVersion } : {}),",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/acknowledging.ts",
    tests: [ACKNOWLEDGING],
    mutations: [
      {
        name: "wakes a Pod that waits in another turn than the claimed one",
        guard: "wakeRead",
        find: "newestTurn(live) === claim.turn && ",
        replace: "",
      },
      {
        name: "wakes a Pod whose turn the kubelet has started again",
        guard: "rerun",
        find: " && turnContainerId(live, claim.turn) === container",
        replace: "",
      },
      {
        name: "doesn't note the version of the Pod that it read",
        guard: "precondition",
        find: "if (claim.turn > 0) notePodVersion(claim, live.metadata.resourceVersion);",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: [SLEEPING, SLEEPING_FAULTS],
    mutations: [
      {
        name: "gives an item to another Pod while its session's Pod is busy",
        guard: "freshPod",
        find: "if (own) {",
        replace: 'if (own?.is === "ready") {',
      },
      {
        name: "starts a session in a free Pod beyond maxConcurrent",
        guard: "bound",
        find: "const isFull = this.#options.pool.isFull;",
        replace: "const isFull = false as boolean;",
      },
      {
        name: "wakes a session beyond maxConcurrent",
        guard: "bound",
        find: "if (this.#options.pool.isFull) {",
        replace: "if (false) {",
      },
      {
        name: "gives up a sleeping Pod while the environment key is missing",
        guard: "guard",
        find: 'if (this.#context.environmentKey() === "") {',
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/queue/waiting-sessions.ts",
    tests: [WAITING_SESSIONS],
    mutations: [
      {
        name: "believes an old list that no item of a session waits",
        guard: "bound",
        find: "ageMs <= ABSENT_MS && isComplete",
        replace: "isComplete",
      },
      {
        name: "believes an old list that an item of a session waits",
        guard: "bound",
        find: "ageMs <= SHOWN_MS && ",
        replace: "",
      },
      {
        name: "treats an item that a list did not reach as absent",
        guard: "error",
        find: "ageMs <= ABSENT_MS && isComplete",
        replace: "ageMs <= ABSENT_MS",
      },
      {
        name: "believes a list from before the session was served",
        guard: "bound",
        find: "this.#served.add(sessionId);",
        replace: "",
      },
      {
        name: "reads long lists without a pause",
        guard: "bound",
        find: "this.#nextMs = this.#nowMs + read.pages * PAGE_REST_MS;",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/sleeper-search.ts",
    tests: [SLEEPER_SEARCH],
    mutations: [
      {
        name: "searches without a pause between two searches",
        guard: "bound",
        find: "nowMs < this.#lastMs + EVERY_MS",
        replace: "false",
      },
      {
        name: "searches on after an item came twice",
        guard: "bound",
        find: "if (this.#current?.seen.has(workId)) this.ended();",
        replace: "if (false) this.ended();",
      },
      {
        name: "searches on when no sleeping session's item is awaited",
        guard: "bound",
        find: "if (!this.#isAwaited()) this.ended();",
        replace: "if (false) this.ended();",
      },
    ],
  },
  {
    file: "src/claims/claim-loop.ts",
    tests: [WAITING_ITEMS],
    mutations: [
      {
        name: "gets the same items again before a long search has reached a sleeping session's item",
        guard: "guard",
        find: " + Math.ceil(this.#claiming.searchedMs)",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/yielding.ts",
    tests: [SLEEPING_PODS],
    mutations: [
      {
        name: "deletes one sleeping Pod after another for a Pod that waits for room",
        guard: "bound",
        find: "const more = lacking - this.#yieldedTo.length;",
        replace: "const more = lacking;",
      },
      {
        name: "deletes a sleeping Pod for an item that is claimed soon",
        guard: "bound",
        find: "if (nowMs < yieldMs) return { count: 0, againAtMs: yieldMs };",
        replace: "",
      },
      {
        name: "forgets that another Pod took the room",
        guard: "bound",
        find: "return still.slice(found.filter((name) => !this.#yieldedTo.includes(name)).length);",
        replace: "return still;",
      },
    ],
  },
  {
    file: "src/sleep/sleeping-pods.ts",
    tests: [SLEEPING_PODS],
    mutations: [
      {
        name: "wakes any sleeping Pod for an item",
        guard: "wakeSession",
        find: "const all = pods.ofSession(sessionId);",
        replace: "const all = pods.sleeping();",
        tests: [SLEEPING],
      },
      {
        name: "gives a session another Pod before its sleeping Pod is deleted",
        guard: "freshPod",
        find: 'return all.some((pod) => isAsleep(pod) && this.#isBeingRemoved(pod)) ? { is: "busy" } : null;',
        replace: "return null;",
      },
      {
        name: "lets a session wait for a Pod that is being deleted",
        guard: "guard",
        find: "deletionTimestamp === undefined && this.#options.departing.isRemoving(name)",
        replace: "this.#options.departing.isRemoving(name)",
      },
      {
        name: "ignores a Pod of the session whose last item is being settled",
        guard: "freshPod",
        find: 'if (own.some((pod) => !isAsleep(pod))) return { is: "busy" };',
        replace: "",
      },
      {
        name: "wakes a Pod that a claim holds",
        guard: "guard",
        find: 'if (!this.#isFree(latest)) return { is: "busy" };',
        replace: "",
      },
      {
        name: "wakes a Pod whose next turn doesn't wait",
        guard: "guard",
        find: 'return stateOf(latest).is === "parked" ? { is: "ready", pod: latest } : { is: "busy" };',
        replace: 'return { is: "ready", pod: latest };',
      },
      {
        name: "wakes a Pod on a node that is about to be removed",
        guard: "guard",
        find: 'if (outlook === "silent" || outlook === "leaves") {',
        replace: 'if (outlook === "silent") {',
      },
      {
        name: "gives up a Pod at once whose node does not answer",
        guard: "guard",
        find: 'if (outlook === "silent") this.noteReach(latest, false);',
        replace: 'if (outlook === "silent") this.giveUp(latest);',
      },
      {
        name: "wakes a Pod that is being deleted",
        guard: "guard",
        find: "return deletionTimestamp !== undefined || this.#options.departing.has(name);",
        replace: "return this.#options.departing.has(name);",
      },
      {
        name: "wakes a Pod that it is removing",
        guard: "guard",
        find: "return deletionTimestamp !== undefined || this.#options.departing.has(name);",
        replace: "return deletionTimestamp !== undefined;",
      },
      {
        name: "waits forever for a Pod whose slot another client holds",
        guard: "bound",
        find: "!this.#isLeaving(pod) && !this.#isLeft(pod) && !hasEnded(pod)",
        replace: "!this.#isLeaving(pod) && !hasEnded(pod)",
      },
      {
        name: "takes the older of two Pods of a session",
        guard: "guard",
        find: "own.toSorted((one, other) => readSleeper(other).sinceMs - readSleeper(one).sinceMs",
        replace: "own.toSorted((one, other) => readSleeper(one).sinceMs - readSleeper(other).sinceMs",
      },
      {
        name: "deletes a sleeping Pod for an item that waits for one that can't be reached",
        guard: "bound",
        find: "lacking: lacking - this.#unreached.size",
        replace: "lacking",
      },
      {
        name: "notes room for all waiting Pods, although too few sessions slept",
        guard: "bound",
        find: "this.#yielding.yielded(Math.min(yielding.count, plan.ends.length));",
        replace: "if (plan.ends.length > 0) this.#yielding.yielded(yielding.count);",
      },
      {
        name: "removes a Pod that was claimed since the plan",
        guard: "identity",
        find: "if (!this.#isFree(pod)) return;",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/session-pods.ts",
    tests: [SESSION_PODS],
    mutations: [
      {
        name: "treats a sleeping session as running",
        guard: "guard",
        find: "!isAsleep(pod) && !isOverdue",
        replace: "!isOverdue",
      },
      {
        name: "treats a Pod in which its session may sleep as ended",
        guard: "freshPod",
        find: " && !livesOn(pod, newestTurn(pod))",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/sleep-plan.ts",
    tests: [PLAN],
    mutations: [
      {
        name: "lets any number of sessions sleep",
        guard: "bound",
        find: "const surplus = Math.max(0, stay.length - input.maxSleeping);",
        replace: "const surplus = 0;",
      },
      {
        name: "deletes every sleeping Pod for a Pod that waits for room",
        guard: "bound",
        find: "Math.min(stay.length - surplus, input.waiting - ends.length - surplus)",
        replace: "input.waiting > 0 ? stay.length - surplus : 0",
      },
      {
        name: "makes room twice for one Pod that waits",
        guard: "bound",
        find: "input.waiting - ends.length - surplus",
        replace: "input.waiting",
      },
      {
        name: "deletes a Pod for others although its session's item waits",
        guard: "guard",
        find: "items.waits(sessionId));",
        replace: "false as boolean | null);",
      },
      {
        name: "deletes a Pod for others before it is known whether its session's item waits",
        guard: "guard",
        find: "(items.isBlind ? (known.get(null) ?? []) : [])",
        replace: "(known.get(null) ?? [])",
      },
      {
        name: "lets no Pod go for others while the list can't be read",
        guard: "bound",
        find: "(items.isBlind ? (known.get(null) ?? []) : [])",
        replace: "[]",
      },
      {
        name: "ends a sleep at its time although it is not known whether an item waits",
        guard: "error",
        find: 'if (waits === false) return "Expired";',
        replace: 'if (waits !== true) return "Expired";',
      },
      {
        name: "lets a session sleep forever while its item waits",
        guard: "bound",
        find: "if (lastMs(sleeper, input) <= input.nowMs) return waits",
        replace: "if (lastMs(sleeper, input) < 0) return waits",
      },
      {
        name: "deletes the Pods that have slept the shortest",
        guard: "guard",
        find: "one.sinceMs - other.sinceMs",
        replace: "other.sinceMs - one.sinceMs",
      },
      {
        name: "lets a session sleep longer than the spec says now",
        guard: "bound",
        find: "return Math.min(untilMs, sinceMs > 0 ? sinceMs + sleepMs : Number.POSITIVE_INFINITY);",
        replace: "return untilMs + 0 * (sinceMs + sleepMs);",
      },
      {
        name: "waits forever for a Pod to get ready",
        guard: "bound",
        find: 'notReadyMs !== null && notReadyMs + input.prepareTimeoutMs <= input.nowMs ? "NotReady" : null',
        replace: 'notReadyMs !== null && notReadyMs > input.nowMs ? "NotReady" : null',
      },
      {
        name: "keeps two Pods of a session",
        guard: "bound",
        find: '(latest.get(sleeper.sessionId) === sleeper ? null : "Superseded")',
        replace: "null",
      },
      {
        name: "keeps a Pod in which an ended turn runs again",
        guard: "guard",
        find: 'if (sleeper.hasRerunTurn) return "Rerun";',
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/turn-adding.ts",
    tests: [TURN_ADDING],
    mutations: [
      {
        name: "adds the next turn while the last one runs",
        guard: "nextTurn",
        find: "return hasOpenTurn(pod) ? isWaitingTurnDead(pod) :",
        replace: "return",
      },
      {
        name: "adds any number of turns",
        guard: "bound",
        find: " || nextTurn(pod) > MOST_TURNS) return false;",
        replace: ") return false;",
      },
      {
        name: "adds a turn to another Pod of the same name",
        guard: "identity",
        find: "if (live.metadata.uid !== adding.uid || ",
        replace: "if (",
      },
      {
        name: "adds a turn to the Pod of another Environment",
        guard: "identity",
        find: "!isSessionPodOf(live, this.#context) || ",
        replace: "",
      },
      {
        name: "adds a turn that the live Pod doesn't need",
        guard: "nextTurn",
        find: " || !needsTurn(live)) return true;",
        replace: ") return true;",
      },
      {
        name: "adds a turn next to a container that outlives the keeper",
        guard: "guard",
        find: "if (other) {",
        replace: "if (false) {",
      },
      {
        name: "adds a turn again before the cache shows it",
        guard: "bound",
        find: "adding.dueMs = clock.monotonic() + timing.expectationMs;",
        replace: "adding.dueMs = clock.monotonic();",
      },
      {
        name: "repeats a failed try without a pause",
        guard: "bound",
        find: "adding.dueMs = clock.monotonic() + adding.backoff.next();",
        replace: "adding.dueMs = clock.monotonic();",
      },
      {
        name: "adds turns to all Pods at once",
        guard: "bound",
        find: "new Slots(CONCURRENCY)",
        replace: "new Slots(1_000)",
      },
      {
        name: "treats an error as a refusal by the cluster",
        guard: "error",
        find: "const isRefused = isForbidden(error) || isInvalid(error);",
        replace: "const isRefused = true;",
      },
    ],
  },
  {
    file: "src/pods/turns.ts",
    tests: [TURNS],
    mutations: [
      {
        name: "adds a turn to a Pod that changed since it was read",
        guard: "precondition",
        find: "return { metadata: { uid, resourceVersion }, spec",
        replace: "return { metadata: { uid }, spec",
      },
      {
        name: "adds a turn to any Pod of the same name",
        guard: "precondition",
        find: "return { metadata: { uid, resourceVersion }, spec",
        replace: "return { metadata: { resourceVersion }, spec",
      },
      {
        name: "uses one Secret for all turns of a Pod",
        guard: "removalLock",
        find: "return turn > 1 ? ",
        replace: "return turn > Infinity ? ",
      },
      {
        name: "treats a turn with a recorded end as open",
        guard: "endedRecord",
        find: "return newestTurn(pod) > endedTurn(pod);",
        replace: "return newestTurn(pod) > 0;",
      },
      {
        name: "uses the number of an ended turn again",
        guard: "nextTurn",
        find: ": Math.max(newestTurn(pod), endedTurn(pod)) + 1;",
        replace: ": newestTurn(pod) + 1;",
      },
      {
        name: "treats a restarted container as the one that got the session",
        guard: "rerun",
        find: "&& id !== undefined && id !== claimed;",
        replace: '&& id === "";',
      },
      {
        name: "starts a program ahead in a sleeping Pod",
        guard: "guard",
        find: "return turn === 1 && annotations",
        replace: "return turn >= 1 && annotations",
      },
      {
        name: "restarts an ended program that waits for its item itself",
        guard: "endedRecord",
        find: `\`\${number}\${END_AGAIN}\\nexec "$@"\``,
        replace: "'exec \"$@\"'",
      },
      {
        name: "starts an ended turn again",
        guard: "rerun",
        find: "2>/dev/null && exit 0; unset _e",
        replace: "2>/dev/null && false; unset _e",
      },
      {
        name: "lets a session sleep in a Pod without a keeper",
        guard: "guard",
        find: " && keeperStatus(pod)?.state?.running !== undefined;\n}\n\n/** Whether the turn that waits",
        replace: ";\n}\n\n/** Whether the turn that waits",
      },
      {
        name: "renders a turn from any container",
        guard: "identity",
        find: "if (keeper?.command?.[3] !== KEEPER_NAME) throw",
        replace: "if (!keeper?.command) throw",
      },
      {
        name: "ends a Pod whose deadline can't be read",
        guard: "error",
        find: "case $_d in ''|*[!0-9]*) ;;",
        replace: "case $_d in ''|*[!0-9]*) exit 4;;",
      },
      {
        name: "reads a Pod's deadline only once",
        guard: "bound",
        find: "[ $_s -gt 300 ] && _s=300 ;;",
        replace: ";;",
      },
    ],
  },
  {
    file: "src/pods/pod-state.ts",
    tests: [TURN_STATE],
    mutations: [
      {
        name: "treats a restarted turn as its session",
        guard: "rerun",
        find: 'if (isRerun(pod, turn)) return { is: "ended", end: END_BEFORE_RERUN };',
        replace: "",
      },
      {
        name: "reads a turn with a recorded end like one that just ended",
        guard: "endedRecord",
        find: "const isOver = turn > 0 && turn <= endedTurn(pod);",
        replace: "const isOver = false;",
      },
      {
        name: "treats a turn with a recorded end as running",
        guard: "endedRecord",
        find: 'if (isOver) return { is: "ended", end: END_WITHOUT_STATUS };',
        replace: "",
      },
      {
        name: "treats a turn whose keeper has ended as running",
        guard: "error",
        find: 'if (keeperEnd) return { is: "ended", end: endOfKeeper(pod, status, keeperEnd) };',
        replace: "",
      },
      {
        name: "claims a turn without a running keeper",
        guard: "guard",
        find: "if (state.running && keeper?.state?.running && sandboxReady(status))",
        replace: "if (state.running && sandboxReady(status))",
      },
      {
        name: "claims a turn of a Pod that is not ready",
        guard: "guard",
        find: "if (state.running && keeper?.state?.running && sandboxReady(status))",
        replace: "if (state.running && keeper?.state?.running)",
      },
    ],
  },
  {
    file: "src/pods/cached-pod.ts",
    tests: [CACHED_POD],
    mutations: [
      {
        name: "forgets an earlier turn that runs again",
        guard: "rerun",
        find: " || (turnNumber(name) > 0 && state?.running),",
        replace: " || (turnNumber(name) > 1e6 && state?.running),",
      },
      {
        name: "keeps the statuses of all turns",
        guard: "bound",
        find: "turnNumber(name) >= Math.max(1, ended)",
        replace: "turnNumber(name) >= Math.min(1, ended)",
      },
      {
        name: "forgets which container a turn runs in",
        guard: "rerun",
        find: "containerID: status.containerID",
        replace: "containerID: undefined",
      },
    ],
  },
  {
    file: "src/pods/parking.ts",
    tests: [PARKING],
    mutations: [
      {
        name: "lets sessions sleep whose template prevents it",
        guard: "guard",
        find: "keptFromSleep(sessions) ?? waitsForKey ?? refused",
        replace: "waitsForKey ?? refused",
      },
      {
        name: "lets sessions sleep in Pods that wait for a key",
        guard: "guard",
        find: "keptFromSleep(sessions) ?? waitsForKey ?? refused",
        replace: "keptFromSleep(sessions) ?? refused",
      },
      {
        name: "lets sessions sleep where turns can't be added",
        guard: "guard",
        find: "keptFromSleep(sessions) ?? waitsForKey ?? refused",
        replace: "keptFromSleep(sessions) ?? waitsForKey",
      },
    ],
  },
  {
    file: "src/pool/pod-limits.ts",
    tests: [POD_LIMITS],
    mutations: [
      {
        name: "gives init containers the session container's limits",
        guard: "guard",
        find: " || initContainers.length > 0",
        replace: "",
      },
      {
        name: "replaces the limits of the Pod that the template states",
        guard: "guard",
        find: " || resources !== undefined",
        replace: "",
      },
    ],
  },
  {
    file: "src/pool/pod-creation.ts",
    tests: [POD_LIMITS_LOOP],
    mutations: [
      {
        name: "gives up a Pod whose limits are refused",
        guard: "error",
        find: "if (!isRefused(error)) throw error;",
        replace: "if (error) throw error;",
      },
      {
        name: "tries again to create a Pod that a quota refuses",
        guard: "bound",
        find: "(isForbidden(error) && !isQuotaExceeded(error))",
        replace: "isForbidden(error)",
      },
      {
        name: "tries each Pod with limits that were refused",
        guard: "bound",
        find: "this.#unlimited === hash ? null : withPodLimits(pod)",
        replace: "withPodLimits(pod)",
      },
    ],
  },
  {
    file: "src/attach/sleeping-streams.ts",
    tests: [STREAMS],
    mutations: [
      {
        name: "keeps a connection that was opened for a dropped claim",
        guard: "bound",
        find: "this.#prepared.delete(key);\n      closeLater(prepared);",
        replace: "this.#prepared.delete(key);",
      },
      {
        name: "closes a connection at the time of an earlier one",
        guard: "identity",
        find: "if (this.#prepared.get(key) !== prepared) return;\n      this.#prepared.delete(key);\n      closeLater(prepared)",
        replace:
          "const again = this.#prepared.get(key) ?? prepared;\n      this.#prepared.delete(key);\n      closeLater(again)",
      },
      {
        name: "sends a line to an earlier turn of the Pod",
        guard: "identity",
        find: "runningContainerName(pod)}`;",
        replace: '""}`;',
      },
      {
        name: "sends a line into a prepared connection that was lost",
        guard: "error",
        find: "return prepared && stream?.isOpen ?",
        replace: "return prepared && stream ?",
      },
      {
        name: "keeps connections to all sleeping Pods of an Environment",
        guard: "bound",
        find: "pods.slice(0, MOST_OPEN_OF_ENVIRONMENT)",
        replace: "pods",
      },
      {
        name: "keeps more connections to sleeping Pods than a replica may",
        guard: "bound",
        find: " || !this.#options.budget.take()) return;",
        replace: ") return;",
      },
      {
        name: "keeps the share of a connection to a sleeping Pod that ended",
        guard: "bound",
        find: "    budget.give();\n    const isKept",
        replace: "    const isKept",
      },
      {
        name: "keeps the share of a connection to a sleeping Pod that was never opened",
        guard: "bound",
        find: "      budget.give();\n      if (this.#closed) return;",
        replace: "      if (this.#closed) return;",
      },
      {
        name: "attaches to sleeping Pods again and again without a pause",
        guard: "bound",
        find: "    }, this.#backoff.next());",
        replace: "    }, 0);",
      },
      {
        name: "attaches to all sleeping Pods again while none can be attached to",
        guard: "bound",
        find: " || this.#failed.has(key)) continue;",
        replace: ") continue;",
      },
      {
        name: "tries the same sleeping Pod each time, although others may be reachable",
        guard: "guard",
        find: "    this.#failed.delete(key);\n    if (this.#wanted",
        replace: "    if (this.#wanted",
      },
      {
        name: "tries other sleeping Pods after a pause although attaching succeeds again",
        guard: "guard",
        find: "if (isRetry) this.#failed.clear();",
        replace: "if (isRetry) this.#failed.delete(key);",
      },
      {
        name: "counts a connection that was cut at once as one that lasted",
        guard: "bound",
        find: "if (clock.monotonic() - openedMs < EARLY_END_MS) {\n      this.#noteFailure(key);\n      return;\n    }",
        replace: "",
      },
      {
        name: "keeps a connection to a Pod that no longer sleeps",
        guard: "guard",
        find: "for (const [key, stream] of this.#open) if (!this.#wanted.has(key)) stream.close();",
        replace: "",
      },
    ],
  },
  {
    file: "src/pool/finished-retention.ts",
    tests: [RETENTION],
    mutations: [
      {
        name: "deletes a left-behind Pod that serves another turn",
        guard: "identity",
        find: "slotOf(live) !== slotOf(pod) ||\n",
        replace: "",
      },
      {
        name: "deletes a left-behind Pod that got a claim while it was read",
        guard: "identity",
        find: "slotOf(live) !== slotOf(pod) ||\n      this.#claims.has(name);",
        replace: "slotOf(live) !== slotOf(pod);",
      },
      {
        name: "looks for the record of a Pod's first turn only",
        guard: "record",
        find: "kube.get(SECRETS, { namespace, name: slotOf(pod) })",
        replace: "kube.get(SECRETS, { namespace, name })",
      },
      {
        name: "keeps a left-behind Pod with turns, in which a program may start",
        guard: "takeBack",
        find: "if (secret) return this.#onForeignSlot(secret);",
        replace: "if (secret) return this.#onForeignSlot(secret);\n        if (hasTurns(pod)) return;",
      },
      {
        name: "deletes a left-behind Pod with turns that changed since it was read",
        guard: "deleteVersion",
        find: "isOther, { asRead: hasTurns });",
        replace: "isOther);",
      },
    ],
  },
];
