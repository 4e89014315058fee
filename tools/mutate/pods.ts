import type { FileMutations } from "./mutation.ts";

const STARTS = "test/pods/starts.test.ts";
const CAPACITY = "test/pool/capacity.test.ts";
const CAPACITY_PROPERTIES = "test/pool/capacity.properties.test.ts";
const FREE_PODS = "test/pool/free-pods.test.ts";
const POD_RENDER = "test/pods/pod-render.test.ts";
const POD_STATE = "test/pods/pod-state.test.ts";
const REMOVAL = "test/sleep/removal.test.ts";
const FIRST_POD = "test/sessions/loops/first-pod.test.ts";
const RETENTION = "test/pool/finished-retention.test.ts";
const RUNTIME = "test/sessions/loops/runtime.test.ts";
const SESSION_PODS = "test/sessions/loops/session-pods.test.ts";

/** Step 1 of the protocol, and the removal of Pods that are no longer needed. */
export const SESSION_PODS_MUTATIONS: readonly FileMutations[] = [
  {
    file: "src/api/sleep-needs.ts",
    tests: ["test/api/sleep-needs.test.ts"],
    mutations: [
      {
        name: "lets a session sleep whose container mounts a part of a volume",
        guard: "guard",
        find: " ?? mountWithPart(session)",
        replace: "",
      },
      {
        name: "lets a session sleep that needs a device",
        guard: "guard",
        find: " ?? ownResource(session)",
        replace: "",
      },
      {
        name: "lets a session sleep next to a container that does not end with its Pod's keeper",
        guard: "guard",
        find: "if (other < 0) return null;",
        replace: "if (other < 2) return null;",
      },
    ],
  },
  {
    file: "src/api/isolation.ts",
    tests: ["test/api/environment.test.ts"],
    mutations: [
      {
        name: "renders Pods without the RuntimeClass of isolation",
        guard: "guard",
        find: "if (isolation === undefined) return mode;",
        replace: "if (mode !== null) return mode;",
      },
      {
        name: "accepts isolation beside another RuntimeClass",
        guard: "guard",
        find: "isolation === undefined || template.spec.runtimeClassName === undefined",
        replace: "isolation === undefined || true",
      },
    ],
  },
  {
    file: "src/pods/workspace-pods.ts",
    tests: ["test/pods/workspace-pods.test.ts"],
    mutations: [
      {
        name: "accepts a second mount at the workspace's path",
        guard: "guard",
        find: "(place) => place.value === mountPath &&",
        replace: "(place) => false &&",
      },
    ],
  },
  {
    file: "src/pool/capacity.ts",
    tests: [CAPACITY, CAPACITY_PROPERTIES],
    mutations: [
      {
        name: "wants more Pods than the maximum",
        guard: "bound",
        find: "Math.min(maxConcurrent - busy, input.warm + input.demand)",
        replace: "input.warm + input.demand",
      },
      {
        name: "creates Pods beyond the maximum",
        guard: "bound",
        find: "Math.min(missing, maxConcurrent - total + surging)",
        replace: "missing",
      },
      {
        name: "doesn't count Pods that are being created toward the maximum",
        guard: "bound",
        find: "const total = pods.length + input.creating + busy;",
        replace: "const total = pods.length + busy;",
      },
      {
        name: "creates Pods again that are already being created",
        guard: "bound",
        find: "wanted + replacing - current().length - input.creating",
        replace: "wanted + replacing - current().length",
      },
      {
        name: "replaces Pods that wait for scheduling",
        guard: "guard",
        find: 'pod.state === "preparing" && preparedByMs(pod, input) <= input.nowMs',
        replace: 'pod.state !== "warm" && preparedByMs(pod, input) <= input.nowMs',
      },
      {
        name: "removes parked Pods of the last template before new ones are ready",
        guard: "guard",
        find: "...parked.slice(0, Math.max(0, parked.length - keep))",
        replace: "...parked.slice(0, parked.length - 0 * keep)",
      },
      {
        name: "replaces all old Pods at once",
        guard: "bound",
        find: 'drop(aged().slice(0, 1), "Aged")',
        replace: 'drop(aged(), "Aged")',
      },
      {
        name: "replaces an old Pod while the last replacement is being prepared",
        guard: "bound",
        find: "current().length >= wanted && inProgress() === 0",
        replace: "current().length >= wanted",
      },
      {
        name: "removes parked Pods for creations that may fail",
        guard: "guard",
        find: '(state === "warm" ? excess : excess + input.creating)',
        replace: "excess + input.creating",
      },
      {
        name: "keeps preparing while it drains",
        guard: "guard",
        find: "if (input.draining) {",
        replace: "if (false) {",
      },
      {
        name: "keeps Pods on nodes that are about to be removed",
        guard: "guard",
        find: "pods.filter(({ leaving }) => leaving),",
        replace: "[],",
      },
      {
        name: "keeps Pods that the policy forbids",
        guard: "guard",
        find: "pods.filter(({ forbidden }) => forbidden),",
        replace: "[],",
      },
    ],
  },
  {
    file: "src/pool/parked-age.ts",
    tests: [CAPACITY, CAPACITY_PROPERTIES],
    mutations: [
      {
        name: "accepts a scheduling time in the far future",
        guard: "bound",
        find: "scheduledAtMs !== null && scheduledAtMs - nowMs <= withinMs",
        replace: "scheduledAtMs !== null",
      },
    ],
  },
  {
    file: "src/pool/expectations.ts",
    tests: ["test/pool/expectations.test.ts"],
    mutations: [
      {
        name: "doesn't count creations that the cache doesn't show yet",
        guard: "bound",
        find: "this.#expected.set(name, this.#context.clock.monotonic());",
        replace: "",
      },
      {
        name: "treats an unanswered creation as failed",
        guard: "error",
        find: "if (!isMaybeApplied(error)) this.#expected.delete(name);",
        replace: "this.#expected.delete(name);",
      },
      {
        name: "counts a creation that was refused",
        guard: "bound",
        find: "if (!isMaybeApplied(error)) this.#expected.delete(name);",
        replace: "",
      },
      {
        name: "treats a Pod that can't be read as lost",
        guard: "error",
        find: "if (isNotFound(error)) {",
        replace: "if (error) {",
      },
      {
        name: "counts a lost creation forever",
        guard: "bound",
        find: "else if (nowMs - sinceMs > timing.expectationMs) overdue.push(name);",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/removal.ts",
    tests: [REMOVAL],
    mutations: [
      {
        name: "removes another Pod of the same name",
        guard: "identity",
        find: "live.metadata.uid !== podUid || ",
        replace: "",
      },
      {
        name: "removes a Pod that has been assigned since",
        guard: "identity",
        find: " || !HELD_BY_NONE.has(live.metadata.labels?.[LABEL_PHASE])",
        replace: "",
      },
      {
        name: "treats the Secret of a claim as its own lock",
        guard: "identity",
        find: 'found?.use === "removal" && found.podUid === podUid',
        replace: "found?.podUid === podUid",
      },
      {
        name: "treats the lock of another Pod as its own",
        guard: "identity",
        find: 'found?.use === "removal" && found.podUid === podUid',
        replace: 'found?.use === "removal"',
      },
      {
        name: "removes a Pod whose slot a claim holds",
        guard: "identity",
        find: "this.#onForeignSlot(secret);\n    return null;",
        replace: "this.#onForeignSlot(secret);\n    return secret;",
      },
      {
        name: "deletes any Secret with the name of its lock",
        guard: "precondition",
        find: "kube.delete(SECRETS, ref, uid === undefined ? {} : { uid })",
        replace: "kube.delete(SECRETS, ref, {})",
      },
      {
        name: "forgets a lock that was not deleted",
        guard: "error",
        find: "if (found?.metadata.uid === uid) throw error;",
        replace: "",
      },
      {
        name: "gives a running init container no grace",
        guard: "guard",
        find: "return alone && !all.some(({ state }) => state?.running) ? 0 : undefined;",
        replace: "return alone ? 0 : undefined;",
      },
    ],
  },
  {
    file: "src/pool/free-pods.ts",
    tests: [FREE_PODS],
    mutations: [
      {
        name: "claims a Pod that isn't parked",
        guard: "guard",
        find: 'state === "warm" && !leaving',
        replace: "!leaving",
      },
      {
        name: "deletes a Pod that got its node late, while its first turn starts",
        guard: "bound",
        find: 'pod.status?.startTime ?? ""',
        replace: '""',
        tests: ["test/sessions/loops/sleeping.test.ts"],
      },
      {
        name: "claims a Pod on a node that is about to be removed",
        guard: "guard",
        find: "&& !leaving && ",
        replace: "&& ",
      },
      {
        name: "claims a Pod that the policy forbids",
        guard: "guard",
        find: "&& !forbidden && ",
        replace: "&& ",
      },
      {
        name: "claims a Pod although starts fail",
        guard: "guard",
        find: " && this.#context.holds.starts.admits(hash, nowMs);",
        replace: " && nowMs + hash.length >= 0;",
      },
      {
        name: "claims a Pod that is being deleted",
        guard: "guard",
        find: "return !deletionTimestamp && !this.#options.claims",
        replace: "return !this.#options.claims",
      },
      {
        name: "claims a Pod that a claim holds",
        guard: "reuse",
        find: "!this.#options.claims.has(name) && ",
        replace: "",
      },
      {
        name: "claims a Pod whose slot is taken",
        guard: "guard",
        find: " && !this.#options.isTaken(name);",
        replace: ";",
      },
    ],
  },
  {
    file: "src/pool/pool.ts",
    tests: [RUNTIME, SESSION_PODS],
    mutations: [
      {
        name: "takes the status of an earlier spec for that of the current one",
        guard: "error",
        find: " && capacity.observedGeneration === metadata.generation;",
        replace: ";",
        tests: [FIRST_POD],
      },
      {
        name: "ignores the status of an earlier process",
        guard: "error",
        find: "if (this.#readyHash === null && wasAvailable(environment()))",
        replace: "if (this.#readyHash !== this.#readyHash)",
        tests: [FIRST_POD],
      },
      {
        name: "takes a finished Pod of any template for one of the current template",
        guard: "error",
        find: "templateHashOf(pod) === hash && phase !== undefined",
        replace: "phase !== undefined",
        tests: [FIRST_POD],
      },
      {
        name: "awaits a first Pod although none is kept warm",
        guard: "bound",
        find: "if (warm === 0 || this.wasReady) return null;",
        replace: "if (this.wasReady) return null;",
        tests: [FIRST_POD],
      },
      {
        name: "is not ready while sessions of an earlier template run",
        guard: "error",
        find: "serves: pods.list().some(serves) };",
        replace: "serves: false };",
        tests: [FIRST_POD],
      },
      {
        name: "plans without the Pods that it is creating",
        guard: "bound",
        find: "creating: this.#expected.size,",
        replace: "creating: 0,",
        tests: [SESSION_PODS, RUNTIME, "test/sessions/loops/slow-cluster.test.ts"],
      },
      {
        name: "plans without the Pods that are claimed",
        guard: "bound",
        find: "busy: this.busy,",
        replace: "busy: 0,",
      },
      {
        name: "removes a Pod that was claimed since the plan",
        guard: "identity",
        find: " || this.#departing.has(name) || this.#options.claims.has(name)) return;",
        replace: " || this.#departing.has(name)) return;",
        tests: ["test/pool/pool.test.ts"],
      },
      {
        name: "creates Pods of a template that wasn't accepted",
        guard: "guard",
        find: "if (!this.#mayCreate) return;",
        replace: "",
        tests: ["test/pool/pool.test.ts"],
      },
      {
        name: "creates Pods without backoff",
        guard: "bound",
        find: "if (plan.create > 0 && waitMs > 0) return this.#passes.wakeAfter(waitMs);",
        replace: "",
        tests: ["test/pool/pool.test.ts"],
      },
      {
        name: "counts an eviction as a fault of the template",
        guard: "guard",
        find: "if (!LOST.has(end.cause)) this.#failedToPrepare",
        replace: "this.#failedToPrepare",
        tests: ["test/pool/pool.test.ts"],
      },
    ],
  },
  {
    file: "src/claims/claim-limiter.ts",
    tests: ["test/claims/claim-limiter.test.ts"],
    mutations: [
      {
        name: "starts any number of claims at a time",
        guard: "bound",
        find: "return this.#begun.size >= this.#limit;",
        replace: "return false;",
      },
      {
        name: "waits forever for a claim that hangs",
        guard: "bound",
        find: "tookMs < this.#options.longestMs && this.#isBusy(claim)",
        replace: "this.#isBusy(claim)",
      },
    ],
  },
  {
    file: "src/pods/starts.ts",
    tests: [STARTS],
    mutations: [
      {
        name: "never opens",
        guard: "bound",
        find: "if (length >= FAILURES_TO_OPEN) return true;",
        replace: "",
      },
      {
        name: "lets several probes through",
        guard: "bound",
        find: "return this.#probe === null && nowMs >= this.#probes.untilMs;",
        replace: "return nowMs >= this.#probes.untilMs;",
      },
      {
        name: "lets a probe through before its time",
        guard: "bound",
        find: "return this.#probe === null && nowMs >= this.#probes.untilMs;",
        replace: "return this.#probe === null;",
      },
      {
        name: "lets any number of claims of an unproven template through",
        guard: "bound",
        find: "return this.#isProvenFor(wakes) || this.#rowFor(wakes).length + this.#unproven.size < FAILURES_TO_OPEN;",
        replace: "return true;",
      },
      {
        name: "claims Pods of an earlier template that never worked",
        guard: "guard",
        find: "return hash === this.#hash || (this.#templates.get(hash)?.isTrusted ?? false);",
        replace: "return hash === this.#hash || this.#templates.has(hash);",
      },
      {
        name: "tries a broken template once a minute",
        guard: "bound",
        find: "maxMs: timing.probeMaxMs, spread: 0",
        replace: "maxMs: timing.probeFirstMs, spread: 0",
      },
      {
        name: "counts a failed start from before a successful one",
        guard: "guard",
        find: "if (!isProbe && openedMs < (wakes ? Math.max(this.#servedMs, this.#wokeMs) : this.#servedMs)) return;",
        replace: "",
      },
      {
        name: "delays the probe for failures of claims from before it opened",
        guard: "guard",
        find: "const counts = isProbe || !this.isHeld(start);",
        replace: "const counts = true;",
      },
      {
        name: "holds a template that serves for the failures of one session",
        guard: "bound",
        find: ".slice(-MOST_OF_ONE_SESSION)",
        replace: "",
      },
      {
        name: "never holds a session that alone fails",
        guard: "bound",
        find: "return length > 0 && this.#failures >= FAILURES_TO_OPEN && !this.#isProvenFor(wakes);",
        replace: "return false;",
      },
      {
        name: "lets new sessions start because one that slept has woken",
        guard: "guard",
        find: "(failure) => !failure.wakes || failure.openedMs > this.#wokeMs",
        replace: "(failure) => failure.openedMs > this.#wokeMs",
      },
      {
        name: "moves any number of sleeping sessions to a template that has not served",
        guard: "bound",
        find: "return this.#proven || nowMs >= this.#movedMs + this.#timing.probeFirstMs;",
        replace: "return true;",
      },
    ],
  },
  {
    file: "src/pods/pod-render.ts",
    tests: [POD_RENDER],
    mutations: [
      {
        name: "creates Pods without a deadline that could be lowered",
        guard: "bound",
        find: "activeDeadlineSeconds: NO_DEADLINE_SECONDS,",
        replace: "",
      },
      {
        name: "restarts session containers",
        guard: "guard",
        find: 'restartPolicy: "Never",',
        replace: 'restartPolicy: "Always",',
      },
      {
        name: "lets a template's labels replace Berth's",
        guard: "identity",
        find: '[LABEL_ROLE]: "session",\n        [LABEL_PHASE]: "warm",\n        [LABEL_TEMPLATE_HASH]: made.hash,',
        replace:
          '[LABEL_ROLE]: "session",\n        [LABEL_PHASE]: "warm",\n        [LABEL_TEMPLATE_HASH]: made.hash,\n        ...template.metadata?.labels,',
      },
    ],
  },
  {
    file: "src/pods/pod-state.ts",
    tests: [POD_STATE],
    mutations: [
      {
        name: "treats a Pod with scheduling gates as one that finds no room",
        guard: "guard",
        find: 'condition?.status !== "False" || condition.reason === GATED',
        replace: 'condition?.status !== "False"',
      },
      {
        name: "treats a Pod that waits for another key as parked",
        guard: "identity",
        find: "if (!waitsForSecret(pod, waiting)) return",
        replace: 'if (waiting.reason !== "CreateContainerConfigError") return',
      },
      {
        name: "treats a Pod as parked before its sandbox is ready",
        guard: "guard",
        find: 'return sandboxReady(status) ? { is: "parked" } : { is: "preparing", problem: null };',
        replace: 'return { is: "parked" };',
      },
      {
        name: "doesn't detect that a container ended although its state says waiting",
        guard: "error",
        find: '  const terminated = state.terminated ?? endBeforeWaiting(container);\n  if (terminated) return { is: "ended", end: endOf(pod, status, terminated) };',
        replace:
          '  const terminated = state.terminated;\n  if (terminated) return { is: "ended", end: endOf(pod, status, terminated) };',
      },
      {
        name: "treats a Pod on a lost node as running",
        guard: "error",
        find: 'if (nodeLost(status)) {\n    return { is: "ended", end: { ...NO_TIMES, cause: "NodeLost", message: nodeLostMessage(pod), exitCode: null } };\n  }\n  if (state.running) {',
        replace: "if (state.running) {",
      },
      {
        name: "treats a container killed by a deletion as failed",
        guard: "identity",
        find: "if (endedByDeletion(pod, base.finishedAtMs)) {",
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/pods/own-pods.ts",
    tests: ["test/pods/own-pods.test.ts"],
    mutations: [
      {
        name: "treats a Pod of another controller as its own because of its labels",
        guard: "identity",
        find: "if (owner !== undefined) return owner === environment.uid;",
        replace: "",
      },
      {
        name: "treats any orphan as its own",
        guard: "identity",
        find: 'return role === "session" && name === environment.name;',
        replace: 'return role === "session" || name === environment.name;',
      },
    ],
  },
  {
    file: "src/pool/finished-retention.ts",
    tests: [RETENTION],
    mutations: [
      {
        name: "deletes a Pod that a claim holds meanwhile",
        guard: "identity",
        find: "if (this.#claims.has(name)) return;",
        replace: "",
      },
      {
        name: "keeps an assigned Pod without a record",
        guard: "assignedAlone",
        find: 'return labels?.[LABEL_PHASE] === "running" && !this.#claims',
        replace: 'return labels?.[LABEL_PHASE] === "lost" && !this.#claims',
      },
      {
        name: "deletes an assigned Pod without reading its record",
        guard: "record",
        find: "if (secret) return this.#onForeignSlot(secret);",
        replace: "",
      },
      {
        name: "deletes another Pod of the same name",
        guard: "identity",
        find: "live.metadata.uid !== pod.metadata.uid ||\n",
        replace: "",
      },
      {
        name: "deletes a Pod that was marked since",
        guard: "identity",
        find: "live.metadata.labels?.[LABEL_PHASE] !== phase ||\n",
        replace: "",
      },
      {
        name: "treats any Secret with a Pod's name as its record",
        guard: "identity",
        find: "return secret?.type === CLAIM_SECRET_TYPE ? secret : null;",
        replace: "return secret;",
      },
    ],
  },
  {
    file: "src/pods/finished.ts",
    tests: ["test/pods/finished.test.ts"],
    mutations: [
      {
        name: "keeps any number of finished Pods",
        guard: "bound",
        find: "rank >= keep.limit || ",
        replace: "",
      },
      {
        name: "remembers a series of failures forever",
        guard: "bound",
        find: "!newest?.startFailures || nowMs >= newest.finishedAtMs + keptMs",
        replace: "!newest?.startFailures",
      },
    ],
  },
  {
    file: "src/claims/pod-acts.ts",
    tests: ["test/pods/finished.test.ts"],
    mutations: [
      {
        name: "marks another Pod of the same name",
        guard: "precondition",
        find: "uid: pod.metadata.uid,",
        replace: "",
      },
    ],
  },
  {
    file: "src/claims/releases.ts",
    tests: ["test/claims/releases.test.ts"],
    mutations: [
      {
        name: "releases an item any number of times",
        guard: "bound",
        find: "return this.#before(claim, releaseOf) >= MOST_RELEASES;",
        replace: "return this.#before(claim, releaseOf) >= Number.POSITIVE_INFINITY;",
      },
      {
        name: "runs an item again and again whose stops are answered with 409",
        guard: "guard",
        find: "return (this.#countOf(stopOf(workId))?.releases ?? 0) >= MOST_RELEASES;",
        replace: "return false;",
      },
      {
        name: "counts a release that is settled twice as two",
        guard: "identity",
        find: "return count.claim === hashOf(record.secretUid) ? count.releases - 1 : count.releases;",
        replace: "return count.releases;",
      },
      {
        name: "keeps release counts forever",
        guard: "bound",
        find: "return count && count.atMs >= fromMs ?",
        replace: "return count ?",
      },
      {
        name: "keeps any number of release counts",
        guard: "bound",
        find: ".slice(0, MOST_KEPT)",
        replace: "",
      },
      {
        name: "overwrites the counts of another process",
        guard: "guard",
        find: "[...new Set([...stored.keys(), ...this.#own.keys()])]",
        replace: "[...this.#own.keys()]",
      },
    ],
  },
  {
    file: "src/pods/node-health.ts",
    tests: ["test/pods/node-health.test.ts"],
    mutations: [
      {
        name: "evicts a Pod from a node whose taint it tolerates",
        guard: "guard",
        find: "LEAVING.has(taint.key) && !tolerates(tolerationsOf(pod), taint)",
        replace: "LEAVING.has(taint.key)",
      },
      {
        name: "ignores that a node is cordoned",
        guard: "guard",
        find: 'if (node?.unschedulable) taints.push({ key: UNSCHEDULABLE, effect: "NoSchedule" });',
        replace: "",
      },
    ],
  },
  {
    file: "src/reconcile/finalizer.ts",
    tests: ["test/reconcile/finalizer.test.ts"],
    mutations: [
      {
        name: "holds another Environment of the same name",
        guard: "identity",
        find: 'if (live.metadata.uid !== uid) return "impossible";',
        replace: "",
      },
      {
        name: "adds its finalizer to another Environment of the same name",
        guard: "precondition",
        find: '{ op: "test", path: "/metadata/uid", value: uid },',
        replace: "",
      },
      {
        name: "overwrites finalizers that were added since",
        guard: "precondition",
        find: '{ op: "test", path, value: found ?? null },',
        replace: "",
      },
      {
        name: "removes its finalizer from an Environment that changed since",
        guard: "precondition",
        find: "const patch = { metadata: { resourceVersion, finalizers: kept } };",
        replace: "const patch = { metadata: { finalizers: kept } };",
      },
      {
        name: "holds an Environment that is being deleted",
        guard: "guard",
        find: 'if (wanted && live.metadata.deletionTimestamp) return "impossible";',
        replace: "",
      },
      {
        name: "releases an Environment that is in use again",
        guard: "guard",
        find: "if (this.#held === false || !unused()) return;",
        replace: "if (this.#held === false) return;",
      },
      {
        name: "treats an Environment as held after an unanswered write",
        guard: "error",
        find: 'this.#held = null;\n      this.#held = (await write(this.#context, true)) !== "impossible";',
        replace: 'this.#held = true;\n      this.#held = (await write(this.#context, true)) !== "impossible";',
      },
    ],
  },
  {
    file: "src/pool/disruption-budget.ts",
    tests: ["test/sessions/loops/disruption-budget.test.ts"],
    mutations: [
      {
        name: "reports the first failed write of the budget",
        guard: "error",
        find: "if (!this.#wanted || leftMs > 0 || this.#reported === words) return;",
        replace: "if (!this.#wanted || this.#reported === words) return;",
      },
      {
        name: "does not read the budget again",
        guard: "guard",
        find: "const known = nowMs < this.#readMs + timing.budgetCheckMs ? this.#known : undefined;",
        replace: "const known = this.#known;",
      },
    ],
  },
  {
    file: "src/kube/owned-object.ts",
    tests: ["test/reconcile/policy-keeper.test.ts"],
    mutations: [
      {
        name: "changes an object of another owner",
        guard: "identity",
        find: "if (other ? other.uid === owner.uid : hasLabels(found, labels)) return found;",
        replace: "if (found !== null) return found;",
      },
      {
        name: "applies to an object that it did not read",
        guard: "identity",
        find: "metadata: { ...metadata, uid: found?.metadata.uid }, spec }",
        replace: "metadata, spec }",
      },
      {
        name: "does not compare the stored object with the wanted one",
        guard: "guard",
        find: "if (!isAsWanted(stored, wanted)) throw",
        replace: "if (stored === null) throw",
      },
    ],
  },
  {
    file: "src/sessions/claim-gate.ts",
    tests: [RUNTIME],
    mutations: [
      {
        name: "acknowledges a polled item after the Environment was paused",
        guard: "guard",
        find: "return !this.#permissions.mayAsk || !this.isAllowed || this.#context.environment().spec.paused;",
        replace: "return !this.#permissions.mayAsk || this.#draining;",
      },
      {
        name: "doesn't check whether the Environment runs the session itself",
        guard: "sessionTurn",
        find: "return hasPodFor(this.#context, this.#options.claims, sessionId);",
        replace: 'return sessionId === "";',
        tests: ["test/sessions/loops/one-pod-per-session.test.ts"],
      },
      {
        name: "claims although another Environment has the queue",
        guard: "sessionTurn",
        find: "!this.#draining && this.#context.precedence().mayClaim;",
        replace: "!this.#draining;",
        tests: ["test/sessions/loops/shared-environment-id.test.ts"],
      },
      {
        name: "polls although nothing may be claimed",
        guard: "guard",
        find: "this.mayAsk && this.isAllowed && finds",
        replace: "this.mayAsk && !this.#draining && finds",
      },
      {
        name: "polls without a free Pod",
        guard: "guard",
        find: "this.mayAsk && this.isAllowed && finds;",
        replace: "this.mayAsk && this.isAllowed;",
        tests: ["test/sessions/loops/offers.test.ts"],
      },
      {
        name: "sends requests with a rejected key",
        guard: "guard",
        find: "return this.#permissions.mayAsk && !this.#context.holds.health.keyRejected;",
        replace: "return this.#permissions.mayAsk;",
        tests: ["test/sessions/loops/offers.test.ts"],
      },
    ],
  },
  {
    file: "src/queue/api-health.ts",
    tests: ["test/queue/api-health.test.ts"],
    mutations: [
      {
        name: "applies the verdict on the last key to the new key",
        guard: "identity",
        find: "if (key !== this.#keys) return waitMs;",
        replace: "",
      },
      {
        name: "treats an answer from before a rejection as news about the key",
        guard: "identity",
        find: "if (key === this.#keys && at > this.#rejectedOf) {",
        replace: "if (key === this.#keys) {",
      },
      {
        name: "polls an unknown environment at the full rate",
        guard: "bound",
        find: 'kind === "not-found" ? Math.max(waitMs, timing.notFoundPauseMs) : waitMs',
        replace: "waitMs",
      },
    ],
  },
];
