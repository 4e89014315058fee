import fc from "fast-check";
import { sequenceWith as draw, switches } from "../draw.ts";
import type { Sequence } from "../mode.ts";
import type { CommonSetting } from "../stage.ts";
import { SURROUNDINGS, USERS, WORK_COMES } from "../surroundings.ts";

/** Everything that may happen to an Environment with `sessions`, by origin. */
export const KINDS = [
  ...WORK_COMES,
  // A session that sleeps gets its next item.
  "work:wakes",
  // A session arrives, and the next Pod that is created has this fate.
  "fate:crash",
  "fate:exit-code",
  "fate:oom",
  "fate:killed",
  "fate:silent-exit",
  "fate:endless",
  "fate:ignores-sigterm",
  "fate:never-beats",
  "fate:start-error",
  "fate:create-error",
  "fate:never-starts",
  "fate:image-error",
  "fate:sandbox-error",
  "fate:evicted",
  "fate:refused",
  "fate:slow-start",
  // Users, the cluster and the node.
  "pod:deleted",
  "pod:parked-deleted",
  "pod:sleeping-deleted",
  "pod:sleeping-evicted",
  "pod:keeper-killed",
  "pod:evicted-by-api",
  "pod:evicted-by-node",
  "pod:killed",
  "pod:out-of-memory",
  "node:lost",
  "node:rebooted",
  "node:drained",
  "node:shut-down",
  "claim:edited",
  "stream:dropped",
  ...USERS,
  // Changes of the spec.
  "spec:warm",
  "spec:max",
  "spec:sleep",
  "spec:template",
  "spec:bad-template",
  "spec:lease",
  "spec:parking",
  "spec:credential",
  "spec:paused",
  "spec:resumed",
  "spec:on-pod-failure",
  "spec:disruption",
  "spec:max-duration",
  "spec:mode",
  "environment:made-again",
  ...SURROUNDINGS,
] as const;

export type Kind = (typeof KINDS)[number];

/** The initial spec of an Environment, and the behavior of its Work API. */
export interface Setting extends CommonSetting {
  readonly lease: "Worker" | "Operator";
  readonly onPodFailure: "Stop" | "Release";
  /** Without delivery as a file, because scripted programs read no files. */
  readonly parking: "Key" | "Shell" | "Program";
  readonly disruption: "Allow" | "Protect";
  readonly maxConcurrent: number;
  readonly warm: number;
  /** Seconds for which a session sleeps in its Pod; 0: it has no volume, and does not sleep. */
  readonly sleepSeconds: number;
}

/** Steps that need sessions that sleep. */
const OF_SLEEP: ReadonlySet<Kind> = new Set([
  "work:wakes",
  "pod:sleeping-deleted",
  "pod:sleeping-evicted",
  "pod:keeper-killed",
  "spec:sleep",
]);

function setting(replicas: fc.Arbitrary<1 | 2>, sleeps: boolean): fc.Arbitrary<Setting> {
  return fc.record({
    replicas,
    lease: fc.constantFrom("Worker", "Worker", "Operator"),
    onPodFailure: fc.constantFrom("Stop", "Release"),
    // Pods that wait for a key have no turns.
    parking: sleeps ? fc.constantFrom("Shell", "Program") : fc.constantFrom("Key", "Shell", "Shell", "Program"),
    disruption: fc.constantFrom("Allow", "Allow", "Protect"),
    maxConcurrent: fc.integer({ min: 1, max: 4 }),
    warm: fc.integer({ min: 0, max: 2 }),
    sleepSeconds: sleeps ? fc.constantFrom(3, 600, 600) : fc.constantFrom(0, 0, 3, 600, 600),
    switches,
  });
}

const WORK: readonly Kind[] = ["work:session", "work:session", "work:burst", "work:same-session"];

export function sequenceWith(kind: Kind): fc.Arbitrary<Sequence<Kind, Setting>> {
  return draw({ kind, kinds: KINDS, work: WORK, setting: (replicas) => setting(replicas, OF_SLEEP.has(kind)) });
}
