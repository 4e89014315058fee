import { type Act, pick } from "../../acts/act.ts";
import type { SessionsStage } from "../stage.ts";

export const SPEC = {
  "spec:warm": (stage, choice) => change(stage, { warm: Math.min(choice % 3, stage.witness.maxConcurrentNow) }),
  "spec:max": (stage, choice) => change(stage, { maxConcurrent: 1 + (choice % 4), warm: choice % 2 }),
  "spec:sleep": (stage, choice) => {
    if (stage.setting.sleepSeconds === 0) return false;
    const sleepSeconds = pick([0, 2, 30, 600], choice);
    return change(stage, { workspace: { sleepSeconds }, maxSleeping: pick([0, 1, 4], choice) });
  },
  "spec:template": (stage, choice) => change(stage, template(stage, { image: `worker:${choice}` })),
  // The dry run refuses it; the spec keeps it until the faults end.
  "spec:bad-template": (stage) => change(stage, template(stage, { imagePulPolicy: "Never" })),
  "spec:lease": (stage, choice) => change(stage, { lease: pick(["Worker", "Operator"], choice) }),
  "spec:parking": (stage, choice) => change(stage, { parking: pick(["Key", "Shell", "Program"], choice) }),
  "spec:credential": (stage, choice) => change(stage, { credential: pick(["EnvironmentKey", "WorkSecret"], choice) }),
  "spec:on-pod-failure": (stage, choice) => change(stage, { onPodFailure: pick(["Stop", "Release"], choice) }),
  "spec:disruption": (stage, choice) => change(stage, { disruption: pick(["Allow", "Protect"], choice) }),
  "spec:max-duration": (stage, choice) => {
    stage.witness.excuseAll();
    return change(stage, { maxDurationSeconds: pick([1, 2, 4], choice) });
  },
  "spec:mode": async (stage) => {
    const workers = { maxReplicas: 1, template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } } };
    const taken = await change(stage, null, { workers }).catch(() => false);
    if (taken) throw new Error("the API server let sessions be exchanged for workers");
    return true;
  },
} as const satisfies Record<string, Act<SessionsStage>>;

/** Merges into the spec; null removes `sessions`. */
export async function change(
  stage: SessionsStage,
  sessions: Record<string, unknown> | null,
  spec: Record<string, unknown> = {},
): Promise<true> {
  if (typeof sessions?.["maxConcurrent"] === "number") stage.witness.allows(sessions["maxConcurrent"]);
  await stage.patchSpec({ sessions, ...spec });
  return true;
}

/**
 * `sessions.template` with this container. The list of containers is complete, because a merge patch replaces lists.
 */
export function template({ world }: SessionsStage, container: Record<string, unknown>): Record<string, unknown> {
  const { sessions } = world.spec() as { sessions: { template: { spec: Record<string, unknown> } } };
  const containers = [{ name: "worker", image: "worker:1", command: ["worker"], ...container }];
  return { template: { spec: { ...sessions.template.spec, containers } } };
}
