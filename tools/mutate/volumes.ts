import type { FileMutations } from "./mutation.ts";

const VOLUMES = "test/sleep/session-volumes.test.ts";
const VOLUME = "test/sleep/workspace-volume.test.ts";
const BOUND = "test/pool/bound-capacity.test.ts";
const VOLUME_PLAN = "test/sleep/volume-plan.test.ts";
const WARM = "test/sessions/loops/warm-volumes.test.ts";

/** Volumes of sessions, and the warm Pods that have one. */
export const VOLUME_MUTATIONS: readonly FileMutations[] = [
  {
    file: "src/sleep/session-volumes.ts",
    tests: [VOLUMES, WARM],
    mutations: [
      {
        name: "assigns a volume that a request of an earlier process may still assign",
        guard: "volumeList",
        find: "if (isFirst && volume.sessionId === null) this.#doubts.set(volume.name, null);",
        replace: "",
      },
      {
        name: "forgets an assignment without an answer",
        guard: "volumeDoubt",
        find: "this.#doubts.set(name, sessionId);",
        replace: "",
      },
      {
        name: "gives a session another volume while its assignment has no answer",
        guard: "volumeDoubt",
        find: " && ![...this.#doubts.values()].includes(sessionId);",
        replace: ";",
      },
      {
        name: "gives a session that has a volume another one",
        guard: "warmPod",
        find: "!this.has(sessionId) && ",
        replace: "",
      },
      {
        name: "gives a Pod whose volume has a session to another session",
        guard: "boundPod",
        find: "const sessionId = sessionBoundTo(pod) ?? volume?.sessionId ?? null;",
        replace: "const sessionId = sessionBoundTo(pod);",
      },
      {
        name: "takes a volume from the session that has it",
        guard: "boundPod",
        find: '} else if (volume.sessionId !== null || volume.going) return "taken";',
        replace: '} else if (volume.going) return "taken";',
      },
      {
        name: "acknowledges a session's item while a mark as unused may arrive",
        guard: "claimTakes",
        find: "if (await this.mark(volume, null, { timeoutMs: timing.requestBoundMs })) return",
        replace: "return",
      },
      {
        name: "takes a volume without a write if it has no mark",
        guard: "claimTakes",
        find: "...(lastUsed === null ? { [ANNOTATION_ADOPTED_AT]: new Date(this.#context.kube.now()).toISOString() } : {}),",
        replace: "",
      },
      {
        name: "makes a Pod for a session whose volume may be deleted",
        guard: "podTakes",
        find: "if (found.lastUsedMs === null || (await this.mark(found, null))) return",
        replace: "return",
      },
      {
        name: "marks a volume that was written since it was read",
        guard: "markVersion",
        find: "this.#patch(point, name, { metadata: { uid, resourceVersion, annotations } }, asks, options)",
        replace: "this.#patch(point, name, { metadata: { uid, annotations } }, asks, options)",
      },
      {
        name: "assigns a volume that is being deleted",
        guard: "goingVolume",
        find: "if (volume ? volume.going : this",
        replace: "if (volume ? false : this",
      },
      {
        name: "runs a session in a Pod that was made for it, although its volume is gone",
        guard: "lostPod",
        find: "if (sessionBoundTo(pod) !== null) return this.#listedMs !== Number.NEGATIVE_INFINITY;",
        replace: "if (sessionBoundTo(pod) !== null) return false;",
      },
      {
        name: "acknowledges an item whose session's volume is gone",
        guard: "lostPod",
        find: 'if (!volume) return "taken";',
        replace: 'if (!volume) return isBound ? "assigned" : "taken";',
      },
      {
        name: "forgets a volume that was written during a list",
        guard: "guard",
        find: "for (const [each, known] of newer) this.#known.set(each, known);",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/workspace-volume.ts",
    tests: [VOLUME, VOLUMES, WARM],
    mutations: [
      {
        name: "assigns a volume that was written since it was read",
        guard: "assignVersion",
        find: "return { metadata: { uid, resourceVersion, labels, annotations } };",
        replace: "return { metadata: { uid, labels, annotations } };",
      },
      {
        name: "treats a volume whose session's name was removed as one without a session",
        guard: "identity",
        find: " || (sessionId === null && annotations?.[ANNOTATION_UNASSIGNED] === undefined)",
        replace: "",
      },
    ],
  },
  {
    file: "src/sleep/volume-plan.ts",
    tests: [VOLUME_PLAN, VOLUMES, WARM],
    mutations: [
      {
        name: "marks a volume as unused that a Pod uses",
        guard: "marks",
        find: "} else if (use.inUse(volume)) {",
        replace: "} else if (false) {",
      },
      {
        name: "deletes a volume whose Pod may be created later",
        guard: "guard",
        find: '(pod === "never-seen" && dueMs <= nowMs)',
        replace: 'pod === "never-seen"',
      },
      {
        name: "deletes a volume whose session's item waits",
        guard: "guard",
        find: " && use.mayWait(volume))",
        replace: " && false)",
      },
      {
        name: "keeps a volume forever while an item of its session waits",
        guard: "bound",
        find: "else if (nowMs < lastUsedMs + use.retainMs + WAITING_KEPT_MS && ",
        replace: "else if (",
      },
    ],
  },
  {
    file: "src/sleep/workspaces.ts",
    tests: [WARM],
    mutations: [
      {
        name: "deletes a volume that was written since it was read",
        guard: "volumeDeleteVersion",
        find: "{ namespace, name }, { uid, resourceVersion }),",
        replace: "{ namespace, name }, { uid }),",
      },
      {
        name: "marks a volume as unused whose session got a Pod meanwhile",
        guard: "marks",
        find: "if (lastUsed !== null && this.#inUse()(now)) return;",
        replace: "",
        tests: ["test/sessions/loops/workspaces.test.ts"],
      },
      {
        name: "deletes the volume of a Pod that the cache does not show yet",
        guard: "guard",
        find: " || this.#options.expected(name)",
        replace: "",
      },
      {
        name: "keeps a volume without a session after its Pod until it is old",
        guard: "guard",
        find: 'return this.#seen.has(name) ? "gone" : "never-seen";',
        replace: 'return "never-seen";',
      },
      {
        name: "assigns a volume by its state before the volume was bound",
        guard: "bound",
        find: "      await this.#volumes.read(name);\n      this.#seen",
        replace: "      this.#seen",
      },
    ],
  },
  {
    file: "src/claims/claiming.ts",
    tests: [WARM],
    mutations: [
      {
        name: "acknowledges an item before its session has a volume",
        guard: "assign",
        find: 'if (assigned !== "assigned") {',
        replace: "if (false) {",
      },
    ],
  },
  {
    file: "src/pool/bound-capacity.ts",
    tests: [BOUND],
    mutations: [
      {
        name: "keeps warm Pods next to the Pods of sessions beyond the maximum",
        guard: "bound",
        find: "busy: unassigned.busy + own.wanted",
        replace: "busy: unassigned.busy",
      },
      {
        name: "creates no Pod for a session without a volume",
        guard: "guard",
        find: "demand: next.length - sessions.length,",
        replace: "demand: 0,",
      },
      {
        name: "keeps a Pod whose volume is gone",
        guard: "guard",
        find: "...lost.map((name) =>",
        replace: "...lost.slice(lost.length).map((name) =>",
      },
    ],
  },
  {
    file: "src/pool/pod-creation.ts",
    tests: [WARM],
    mutations: [
      {
        name: "makes another volume for each Pod that is refused",
        guard: "bound",
        find: "if (made === null && !isMaybeApplied(error)) this.#options.volumes.spare(podName);",
        replace: "",
      },
    ],
  },
];
