import { cpus } from "node:os";
import type { Simulator } from "../../simulator/simulator.ts";
import type { Inside } from "./inside.ts";
import { KeptLane } from "./kept-lane.ts";
import { type SleepKind, SleepLane, type Turn } from "./sleep-lane.ts";
import { type BesideFound, LEAVING, LOOKING, readSurvived, type Survived } from "./wakes.ts";

interface Found {
  readonly next: Survived;
  readonly drained: Survived;
}

/** Pods for which the node has room. */
const PLACES = 4;
/** For whatever else runs on the node. */
const SPARE_MILLICORES = 10;

/** Finds what sessions that sleep keep, and how many fit on the node, beside sessions whose Pod is kept running. */
export async function measureBeside(
  inside: Inside<unknown>,
  simulator: Simulator,
  random: () => number,
): Promise<BesideFound> {
  const survived = {
    pod: await survivedAsleep(inside, simulator, "pod"),
    volume: await survivedAsleep(inside, simulator, "volume"),
    kept: await survivedKept(inside, simulator, random),
  };
  return { survived, room: await measureRoom(inside, simulator) };
}

async function survivedAsleep(inside: Inside<unknown>, simulator: Simulator, kind: SleepKind): Promise<Found> {
  const name = `survival-${kind}`;
  await using lane = await SleepLane.create({ kind, name, simulator, maxConcurrent: 1, volumes: 1 }, inside);
  const left = await lane.startAndSleep(LEAVING);
  const next = await lane.startAndSleep(LOOKING, left.sessionId);
  await lane.evict(next.pod);
  const drained = await lane.startAndSleep(LOOKING, left.sessionId);
  await lane.endAll();
  return { next: readSurvived(next.outputs), drained: readSurvived(drained.outputs) };
}

async function survivedKept(inside: Inside<unknown>, simulator: Simulator, random: () => number): Promise<Found> {
  await using lane = await KeptLane.create({ name: "survival-kept", simulator, sessions: 1 }, inside);
  const session = await lane.begin(random, LEAVING);
  const next = await lane.next(session, LOOKING);
  await lane.evict(next.pod);
  const drained = await lane.comeBack(session, LOOKING);
  await inside.stand.empty(lane.served.namespace);
  return { next: readSurvived(next.outputs), drained: readSurvived(drained.outputs) };
}

/** Fills the node with Pods of the reference, and later serves twice as many sessions as it has room for. */
async function measureRoom(inside: Inside<unknown>, simulator: Simulator): Promise<BesideFound["room"]> {
  const requests = { cpu: `${Math.floor((cpus().length * 1_000) / PLACES) - SPARE_MILLICORES}m`, memory: "64Mi" };
  await using keeping = await KeptLane.create({ name: "room-kept", simulator, sessions: 0, requests }, inside);
  const kept = await keeping.fill();
  await inside.stand.empty(keeping.served.namespace);
  await keeping.untilEmpty();
  await using lane = await SleepLane.create(
    { kind: "pod", name: "room", simulator, maxConcurrent: PLACES, requests },
    inside,
  );
  const served: Turn[] = [];
  while (served.length < 2 * PLACES) served.push(await lane.startAndSleep());
  const asleep = lane.asleep();
  await lane.endAll();
  return { kept, served: served.length, asleep };
}
