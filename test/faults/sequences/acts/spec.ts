import { isNotFound } from "../../../../src/kube/errors.ts";
import { SECRETS } from "../../../../src/kube/resource.ts";
import type { Stage } from "../stage.ts";
import { type Acts, pick } from "./act.ts";

export const SPEC: Acts<"spec" | "environment" | "key"> = {
  "spec:warm": (stage, choice) => change(stage, { warm: Math.min(choice % 3, stage.witness.maxConcurrentNow) }),
  "spec:max": (stage, choice) => change(stage, { maxConcurrent: 1 + (choice % 4), warm: choice % 2 }),
  "spec:template": (stage, choice) => change(stage, template(stage, { image: `worker:${choice}` })),
  // Refused by the dry run; it stays until the faults end.
  "spec:bad-template": (stage) => change(stage, template(stage, { imagePulPolicy: "Never" })),
  "spec:lease": (stage, choice) => change(stage, { lease: pick(["Worker", "Operator"], choice) }),
  "spec:parking": (stage, choice) => change(stage, { parking: pick(["Key", "Init"], choice) }),
  "spec:credential": (stage, choice) => change(stage, { credential: pick(["EnvironmentKey", "WorkSecret"], choice) }),
  "spec:paused": (stage) => change(stage, {}, { paused: true }),
  "spec:resumed": (stage) => change(stage, {}, { paused: false }),
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
  "environment:made-again": async (stage) => {
    stage.witness.excuseAll();
    await stage.remake();
    return true;
  },

  "key:rotated": (stage, choice) => {
    const key = stage.world.simulator.rotateKey(stage.world.environmentId);
    stage.later(pick([0, 400, 1_500], choice), () => stage.writeKey(key));
    return true;
  },
  "key:rejected": ({ world }) => {
    world.simulator.rotateKey(world.environmentId);
    return true;
  },
  "key:wrong": async (stage) => {
    await stage.writeKey("sk-ant-oat01-of-another-environment");
    return true;
  },
  "key:deleted": async ({ world }) => {
    const { kube, namespace } = world;
    try {
      await kube.delete(SECRETS, { namespace, name: "key" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return true;
  },
  "key:restored": async (stage) => {
    await stage.writeKey(stage.world.simulator.environmentKey(stage.world.environmentId));
    return true;
  },
};

/** Merges into the spec; null takes `sessions` away. */
export async function change(
  stage: Stage,
  sessions: Record<string, unknown> | null,
  spec: Record<string, unknown> = {},
): Promise<true> {
  if (typeof sessions?.["maxConcurrent"] === "number") stage.witness.allows(sessions["maxConcurrent"]);
  await stage.world.patchSpec({ sessions, ...spec });
  return true;
}

/** `sessions.template` with this container; merged whole, since lists are. */
export function template({ world }: Stage, container: Record<string, unknown>): Record<string, unknown> {
  const { sessions } = world.spec() as { sessions: { template: { spec: Record<string, unknown> } } };
  const containers = [{ name: "worker", image: "worker:1", ...container }];
  return { template: { spec: { ...sessions.template.spec, containers } } };
}
