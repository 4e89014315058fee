import fc from "fast-check";
import { sequenceWith as draw, switches } from "../draw.ts";
import type { Sequence } from "../mode.ts";
import type { CommonSetting } from "../stage.ts";
import { SURROUNDINGS, USERS, WORK_COMES } from "../surroundings.ts";

/** Everything that may happen to an Environment with `workers`, by origin. */
export const KINDS = [
  ...WORK_COMES,
  // Sessions arrive, and the next worker that is created has this fate.
  "fate:crash",
  "fate:exit-code",
  "fate:start-error",
  "fate:create-error",
  "fate:never-starts",
  "fate:image-error",
  "fate:sandbox-error",
  "fate:evicted",
  "fate:refused",
  "fate:slow-start",
  "fate:endless",
  "fate:ignores-sigterm",
  "fate:silent",
  // Users, the cluster and the node.
  "pod:deleted",
  "pod:idle-deleted",
  "pod:evicted-by-api",
  "pod:evicted-by-node",
  "pod:killed",
  "pod:out-of-memory",
  "pod:mark-removed",
  "node:lost",
  "node:rebooted",
  "node:drained",
  "node:shut-down",
  "deployment:scaled",
  "deployment:changed",
  "deployment:restarted",
  "deployment:deleted",
  ...USERS,
  // Changes of the spec.
  "spec:min",
  "spec:max",
  "spec:sessions-per-replica",
  "spec:behavior",
  "spec:template",
  "spec:bad-template",
  "spec:busy-probe",
  "spec:paused",
  "spec:resumed",
  "spec:mode",
  "environment:made-again",
  ...SURROUNDINGS,
] as const;

export type Kind = (typeof KINDS)[number];

/** How fast the number of workers follows the demand. */
export type Pace = "at-once" | "steps" | "window";

/** The initial spec of an Environment, and the behavior of its Work API. */
export interface Setting extends CommonSetting {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly sessionsPerReplica: number;
  readonly pace: Pace;
  /** With a busyProbe. */
  readonly probed: boolean;
}

const MOST_REPLICAS = 4;

function setting(replicas: fc.Arbitrary<1 | 2>): fc.Arbitrary<Setting> {
  return fc
    .record({
      replicas,
      minReplicas: fc.constantFrom(0, 0, 1, 2),
      maxReplicas: fc.integer({ min: 1, max: MOST_REPLICAS }),
      sessionsPerReplica: fc.constantFrom(1, 1, 2),
      pace: fc.constantFrom("at-once", "at-once", "steps", "window"),
      probed: fc.constantFrom(true, true, false),
      switches,
    })
    .map(({ minReplicas, maxReplicas, ...rest }) => ({
      ...rest,
      minReplicas,
      maxReplicas: Math.max(minReplicas, maxReplicas),
    }));
}

const WORK: readonly Kind[] = ["work:session", "work:session", "work:burst"];

export function sequenceWith(kind: Kind): fc.Arbitrary<Sequence<Kind, Setting>> {
  return draw({ kind, kinds: KINDS, work: WORK, setting });
}
