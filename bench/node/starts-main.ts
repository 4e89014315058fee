import { setTimeout as pause } from "node:timers/promises";
import { seededRandom } from "../../simulator/ids.ts";
import { ADMIN, OPERATOR } from "../../testbed/cluster/users.ts";
import { OPERATOR_NAMESPACE } from "../support/stand.ts";
import { BareStarter } from "./bare.ts";
import { type Inside, load, measureInside, startNodeSimulator } from "./inside.ts";
import { KINDS, type Kind } from "./kinds.ts";
import { BareLane, BerthLane, type Lane } from "./lane.ts";
import { type Measured, measuredOf, type Start } from "./starts.ts";

/** Measures starts on the node: see the scenario in scenarios/starts.ts. */
export interface StartsOptions {
  /** Counted starts of each kind. */
  readonly count: number;
  /** Starts of each kind that aren't counted, because code is slow when it first runs. */
  readonly warmUp: number;
  /** The names of the kinds. */
  readonly kinds: readonly string[];
}

export interface StartsResult {
  readonly starts: readonly (Start & { readonly measured?: Measured })[];
  /** Kinds that the operator refused. */
  readonly refused: readonly string[];
  /** The machine's load over the last minute, after each round. */
  readonly loads: readonly number[];
}

/**
 * From the moment in which nothing of the previous start is left to the next start. The random part makes it
 * independent of the kubelet's own rhythm of a second.
 */
const SETTLE_MS = 300;
const RANDOM_SETTLE_MS = 1_000;
/** Lines of the operator's log that are printed if a start fails. */
const LOG_LINES = 50;

await measureInside<StartsOptions>(async (inside): Promise<StartsResult> => {
  const { stand, options, seed } = inside;
  await using things = new AsyncDisposableStack();
  const { lanes, refused, operatorLog } = await makeLanes(inside, things);
  const random = seededRandom(seed);
  const starts: Start[] = [];
  const loads: number[] = [];
  let since = await stand.cluster.audit.mark();
  for (let round = 1 - options.warmUp; round <= options.count; round += 1) {
    if (round === 1) since = await stand.cluster.audit.mark();
    const times: string[] = [];
    for (const lane of shuffled(lanes, random)) {
      await Promise.all(lanes.map((each) => each.ready()));
      await lane.wake();
      await pause(SETTLE_MS + random() * RANDOM_SETTLE_MS);
      const start = await lane.start().catch((error: unknown) => {
        for (const line of operatorLog.slice(-LOG_LINES)) console.log(JSON.stringify(line));
        throw error;
      });
      if (round > 0) starts.push(start);
      times.push(`${lane.kind.name} ${Math.round(start.startedAt - start.queuedAt)}`);
    }
    loads.push(load());
    console.log(`${round} of ${options.count}, load ${load().toFixed(1)}: ${times.join(", ")}`);
  }
  const byNamespace = Map.groupBy(await stand.cluster.audit.entries({ since }), ({ namespace }) => namespace);
  const users = new Map(KINDS.map(({ name, by }) => [name, by.server === "Berth" ? OPERATOR : ADMIN]));
  const measured = starts.map((start) => {
    const entries = (byNamespace.get(start.namespace) ?? []).filter(({ user }) => user === users.get(start.kind));
    const found = measuredOf(start, entries);
    return found ? { ...start, measured: found } : start;
  });
  return { starts: measured, refused, loads };
});

async function makeLanes(inside: Inside<StartsOptions>, things: AsyncDisposableStack) {
  const { stand, options } = inside;
  const simulator = await startNodeSimulator(inside);
  const starter = things.use(new BareStarter({ kubeconfig: stand.cluster.kubeconfig }));
  const lanes: Lane[] = [];
  const refused: string[] = [];
  const chosen = KINDS.filter(({ name }) => options.kinds.includes(name));
  for (const kind of chosen) {
    const lane = await makeLane(kind);
    if (lane) lanes.push(things.use(lane));
    else refused.push(kind.title);
  }
  const hasBerth = chosen.some(({ by }) => by.server === "Berth");
  const flags = ["--leader-elect-namespace", OPERATOR_NAMESPACE];
  const operatorLog = hasBerth ? (await stand.operator(simulator.url, flags)).log : [];
  return { lanes, refused, operatorLog };

  async function makeLane(kind: Kind): Promise<Lane | null> {
    const { id: environmentId } = simulator.createEnvironment();
    const namespace = await stand.namespace(`start-${kind.name}`);
    const served = { namespace, name: "bench", simulator, environmentId };
    if (kind.by.server === "Berth") return await BerthLane.create(kind, kind.by, served, inside);
    return new BareLane(kind, kind.by, served, inside, starter);
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}
