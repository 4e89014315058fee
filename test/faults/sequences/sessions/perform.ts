import type { Act, Acts, Struck } from "../acts/act.ts";
import { CLUSTER } from "../acts/cluster.ts";
import { type KubeCalls, kubeApi, WORK_API } from "../acts/network.ts";
import { OPERATORS } from "../acts/operators.ts";
import { ENVIRONMENT } from "../acts/spec.ts";
import { giveFate, WORK } from "../acts/work.ts";
import type { Step } from "../mode.ts";
import { PREPARED } from "./acts/cluster.ts";
import { change, SPEC, template } from "./acts/spec.ts";
import type { FateKind } from "./fates.ts";
import { type SessionsStage, sessionsOf } from "./stage.ts";
import type { Kind } from "./steps.ts";

/** The last entry matches any request. */
const KUBE_CALLS: KubeCalls = [
  ["POST", "secrets"],
  ["PATCH", "pods"],
  ["POST", "pods"],
  ["PATCH", "secrets"],
  ["DELETE", "secrets"],
  ["GET", "pods"],
  ["DELETE", "pods"],
  ["PATCH", "environments"],
  [undefined, undefined],
];

const ACTS: Acts<Exclude<Kind, FateKind>, SessionsStage> = {
  ...WORK,
  ...CLUSTER,
  ...PREPARED,
  ...SPEC,
  ...ENVIRONMENT,
  ...WORK_API,
  ...kubeApi(KUBE_CALLS),
  ...OPERATORS,
};

export async function perform(stage: SessionsStage, { kind, choice }: Step<Kind>): Promise<Struck> {
  const act: Act<SessionsStage> = isFate(kind) ? giveFate(kind) : ACTS[kind];
  return await act(stage, choice);
}

function isFate(kind: Kind): kind is FateKind {
  return kind.startsWith("fate:");
}

/** Restores the spec of the start, with another image. */
export async function calm(stage: SessionsStage): Promise<void> {
  await stage.fix();
  const sessions = {
    ...sessionsOf(stage.setting),
    ...template(stage, { image: "worker:calm" }),
    maxDurationSeconds: 86_400,
    credential: "WorkSecret",
  };
  await change(stage, sessions, { paused: false });
}
