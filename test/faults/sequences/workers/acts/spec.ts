import { type Act, pick } from "../../acts/act.ts";
import { BUSY_PROBE, behaviorOf, templateOf, type WorkersStage } from "../stage.ts";

const MOST = 4;

/** Changes of `spec.workers`. */
export const SPEC = {
  "spec:min": (stage, choice) => change(stage, { minReplicas: Math.min(choice % 3, stage.spec.maxReplicas) }),
  "spec:max": (stage, choice) => {
    const maxReplicas = 1 + (choice % MOST);
    return change(stage, { maxReplicas, minReplicas: Math.min(stage.spec.minReplicas, maxReplicas) });
  },
  "spec:sessions-per-replica": (stage, choice) => change(stage, { sessionsPerReplica: 1 + (choice % 3) }),
  "spec:behavior": (stage, choice) =>
    change(stage, { behavior: behaviorOf(pick(["at-once", "steps", "window"], choice)) }),
  "spec:template": (stage, choice) => change(stage, { template: templateOf(stage.world, `worker:${choice}`) }),
  // The dry run refuses it; the spec keeps it until the faults end.
  "spec:bad-template": (stage) =>
    change(stage, { template: templateOf(stage.world, "worker:1", { imagePulPolicy: "Never" }) }),
  // Alternates between a probe and none; each is a different template.
  "spec:busy-probe": (stage) => change(stage, { busyProbe: stage.spec.busyProbe ? null : BUSY_PROBE }),
  "spec:mode": async (stage) => {
    const template = templateOf(stage.world, "worker:1");
    const patch = { workers: null, sessions: { maxConcurrent: 1, template } };
    const taken = await stage.patchSpec(patch).then(
      () => true,
      () => false,
    );
    if (taken) throw new Error("the API server let workers be exchanged for sessions");
    return true;
  },
} as const satisfies Record<string, Act<WorkersStage>>;

/** Merges into `spec.workers`. */
export async function change(stage: WorkersStage, workers: Record<string, unknown>): Promise<true> {
  await stage.patchSpec({ workers });
  return true;
}
