import type { ItemRecord } from "../../simulator/item.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";
import { parkPods, startBareLoop } from "./bare.ts";
import { cpuSeconds } from "./process-status.ts";
import type { Served, Stand } from "./stand.ts";
import { Touches } from "./touches.ts";
import { untilServed } from "./until-served.ts";

/** How items arrive. */
export interface Load {
  readonly name: string;
  /** The number of Pods that are parked before the first item arrives. */
  readonly warm: number;
  readonly atSeconds: readonly number[];
  /** The bare loop serves each round first, then Berth, so that other activity on the machine affects both. */
  readonly rounds: number;
}

export type Server = "bare loop" | "Berth";

/** The results of the items of one round. */
export interface Round {
  readonly items: readonly ItemRecord[];
  readonly touches: Touches;
  /** Requests to the API server during the round. */
  readonly entries: readonly AuditEntry[];
  /** The CPU time of the serving process, in milliseconds. */
  readonly cpuMs: number;
}

/**
 * The number of items that are served before the counted ones, because code is slow when it first runs and an operator
 * runs for weeks.
 */
const WARM_UP = 30;
const WARM_UP_EVERY_S = 0.1;
const PATIENCE_MS = 180_000;
const SECOND_MS = 1_000;

/** Serves one load in its own namespace, which is empty again afterwards. */
export async function serveRound(stand: Stand, load: Load, who: Server, number: number): Promise<Round> {
  const namespace = await stand.namespace(`${load.name}-${who === "Berth" ? "berth" : "bare"}-${number}`);
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const served: Served = { namespace, name: "bench", simulator, environmentId };
  await using touches = new Touches(stand.kube, namespace);
  const server = await (who === "Berth" ? operator : bareLoop)(stand, served, load, touches);
  const serve = async (atSeconds: number[]) => {
    await simulator.arrivals(environmentId, { kind: "replay", atSeconds }).done;
    await untilServed(simulator, environmentId, PATIENCE_MS);
  };
  await serve(Array.from({ length: WARM_UP }, (_, at) => at * WARM_UP_EVERY_S));
  await touches.untilParked(who === "Berth" ? load.warm : load.atSeconds.length);
  const warmUp = new Set(simulator.items(environmentId).map(({ id }) => id));
  const since = await stand.cluster.audit.mark();
  const cpuBefore = await cpuSeconds(server.pid);
  await serve([...load.atSeconds]);
  const cpuMs = ((await cpuSeconds(server.pid)) - cpuBefore) * SECOND_MS;
  const entries = await stand.cluster.audit.entries({ since, namespace });
  await server.end();
  simulator.assertNoViolations();
  await stand.empty(namespace);
  await touches.untilGone();
  const items = simulator.items(environmentId).filter(({ id }) => !warmUp.has(id));
  return { items, touches, entries, cpuMs };
}

async function bareLoop(stand: Stand, served: Served, { atSeconds, warm }: Load, touches: Touches) {
  const count = WARM_UP + atSeconds.length;
  await parkPods(stand, served, specFor(warm), count, touches);
  const loop = await startBareLoop(stand, served, touches.parked, count);
  return loop;
}

async function operator(stand: Stand, served: Served, { warm }: Load, touches: Touches) {
  await stand.environment(served, specFor(warm));
  const running = await stand.operator(served.simulator.url, ["--leader-elect=false", "--namespace", served.namespace]);
  await touches.untilParked(warm);
  return { pid: running.pid, end: () => running.stop() };
}

function specFor(warm: number) {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  return { sessions: { maxConcurrent: 200, warm, retainEndedSeconds: 0, template } };
}
