import type { Act, Acts, Struck } from "../acts/act.ts";
import { CLUSTER } from "../acts/cluster.ts";
import { type KubeCalls, kubeApi, WORK_API } from "../acts/network.ts";
import { OPERATORS } from "../acts/operators.ts";
import { ENVIRONMENT } from "../acts/spec.ts";
import { giveFate, WORK } from "../acts/work.ts";
import type { Step } from "../mode.ts";
import { DEPLOYMENT } from "./acts/deployments.ts";
import { SPEC } from "./acts/spec.ts";
import type { FateKind } from "./fates.ts";
import { type WorkersStage, workersSpecOf } from "./stage.ts";
import type { Kind } from "./steps.ts";

/** The last entry matches any request. */
const KUBE_CALLS: KubeCalls = [
  ["POST", "deployments"],
  ["PATCH", "deployments"],
  ["PATCH", "deployments"],
  ["DELETE", "deployments"],
  ["PATCH", "pods"],
  ["GET", "pods"],
  ["PATCH", "environments"],
  [undefined, undefined],
];

const ACTS: Acts<Exclude<Kind, FateKind>, WorkersStage> = {
  ...WORK,
  ...CLUSTER,
  ...DEPLOYMENT,
  ...SPEC,
  ...ENVIRONMENT,
  ...WORK_API,
  ...kubeApi(KUBE_CALLS),
  ...OPERATORS,
};

export async function perform(stage: WorkersStage, { kind, choice }: Step<Kind>): Promise<Struck> {
  const act: Act<WorkersStage> = isFate(kind) ? giveFate(kind) : ACTS[kind];
  return await act(stage, choice);
}

function isFate(kind: Kind): kind is FateKind {
  return kind.startsWith("fate:");
}

/** The workers' image after all faults end. A failing worker is not replaced until its template is fixed. */
export const CALM_IMAGE = "worker:calm";

/** Restores the spec of the start, with another image and without scaling delays. */
export async function calm(stage: WorkersStage): Promise<void> {
  await stage.fix();
  const setting = { ...stage.setting, pace: "at-once" as const };
  const workers = workersSpecOf(stage.world, setting, CALM_IMAGE);
  // The patch is a merge, so what was added meanwhile must be removed explicitly.
  await stage.patchSpec({ workers: { busyProbe: null, ...workers }, paused: false });
}
