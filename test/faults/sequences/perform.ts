import type { Act, Struck } from "./acts/act.ts";
import { CLUSTER } from "./acts/cluster.ts";
import { NETWORK } from "./acts/network.ts";
import { OPERATORS } from "./acts/operators.ts";
import { change, SPEC, template } from "./acts/spec.ts";
import { giveFate, WORK } from "./acts/work.ts";
import { type Stage, sessionsOf } from "./stage.ts";
import type { Kind, Step } from "./steps.ts";

type FateKind = Extract<Kind, `fate:${string}`>;

const ACTS: Readonly<Record<Exclude<Kind, FateKind>, Act>> = {
  ...WORK,
  ...CLUSTER,
  ...SPEC,
  ...NETWORK,
  ...OPERATORS,
};

/** Does what a step says. Returns true when it took effect by itself. */
export async function perform(stage: Stage, { kind, choice }: Step): Promise<Struck> {
  const act = isFate(kind) ? giveFate(kind) : ACTS[kind];
  return await act(stage, choice);
}

function isFate(kind: Kind): kind is FateKind {
  return kind.startsWith("fate:");
}

/** What was put on gets a while to strike. */
export async function linger(stage: Stage): Promise<void> {
  const isOver = () =>
    stage.world.simulator.faults().length === 0 && stage.replicas.every(({ proxy }) => !proxy.hasFaults);
  await stage.aim(() => isOver() || undefined);
}

/** Everything is well again, and stays so: the spec is as it was at the start, with another image. */
export async function calm(stage: Stage): Promise<void> {
  const { world } = stage;
  stage.fates.calm();
  world.simulator.clearFaults();
  await stage.settleLater();
  for (const { clock, proxy } of stage.replicas) {
    clock.goOn();
    clock.setWall(0);
    proxy.clear();
  }
  await world.node.cordon(false);
  await stage.writeKey(world.simulator.environmentKey(world.environmentId));
  if (stage.replicas.length === 0) await stage.startReplica();
  const sessions = {
    ...sessionsOf(stage.setting),
    ...template(stage, { image: "worker:calm" }),
    maxDurationSeconds: 86_400,
    credential: "WorkSecret",
  };
  await change(stage, sessions, { paused: false });
}
