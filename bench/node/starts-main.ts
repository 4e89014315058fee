import { seededRandom } from "../../simulator/ids.ts";
import { SECOND_MS } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import { ADMIN, OPERATOR } from "../../testbed/cluster/users.ts";
import { quantile } from "../report/distribution.ts";
import { OPERATOR_NAMESPACE } from "../support/stand.ts";
import { BareStarter } from "./bare.ts";
import { type Inside, load, measureInside, startNodeSimulator } from "./inside.ts";
import { KINDS, type Kind } from "./kinds.ts";
import { BareLane, BerthLane, type Lane, settle, shuffled } from "./lane.ts";
import { type Measured, type Start, toBeat, toStarted, withMeasured } from "./starts.ts";

/** Measures starts on the node: see the scenario in scenarios/starts.ts. */
export interface StartsOptions {
  /** Counted starts of each kind. */
  readonly count: number;
  /** Starts of each kind that aren't counted, because code is slow when it first runs. */
  readonly warmUp: number;
  /** The names of the kinds. */
  readonly kinds: readonly string[];
  /** The run ends after this time, with the starts that it has. */
  readonly minutes: number;
}

export interface StartsResult {
  readonly starts: readonly (Start & { readonly measured?: Measured })[];
  /** Kinds that the operator refused. */
  readonly refused: readonly string[];
  /** Starts that failed, and why. They are not counted. */
  readonly failures: readonly string[];
  /** The machine's load over the last minute, after each round. */
  readonly loads: readonly number[];
}

/** The run ends early after this many failed starts. */
const MOST_FAILURES = 5;
/** Between two summaries of what was measured so far. */
const SUMMARY_ROUNDS = 25;
/** Lines of the operator's log that are printed if a start fails. */
const LOG_LINES = 50;

await measureInside<StartsOptions>(async (inside): Promise<StartsResult> => {
  const { stand, options, seed } = inside;
  await using things = new AsyncDisposableStack();
  const { lanes, refused, operatorLog } = await makeLanes(inside, things);
  const random = seededRandom(seed);
  const starts: Start[] = [];
  const failures: string[] = [];
  const loads: number[] = [];
  let endsAt = Number.POSITIVE_INFINITY;
  const mayGoOn = () => !inside.isEnding() && performance.now() < endsAt && failures.length < MOST_FAILURES;
  let since = await stand.cluster.audit.mark();
  for (let round = 1 - options.warmUp; round <= options.count && mayGoOn(); round += 1) {
    if (round === 1) {
      since = await stand.cluster.audit.mark();
      endsAt = performance.now() + options.minutes * 60 * SECOND_MS;
    }
    const times: string[] = [];
    for (const lane of shuffled(lanes, random)) {
      if (!mayGoOn()) break;
      try {
        await settle(lanes, random);
        const start = await lane.start();
        if (round > 0) starts.push(start);
        times.push(`${lane.kind.name} ${toStarted(start).toFixed(0)}/${toBeat(start).toFixed(0)}`);
      } catch (error) {
        for (const line of operatorLog.slice(-LOG_LINES)) console.log(JSON.stringify(line));
        failures.push(`${lane.kind.name}: ${errorText(error)}`);
        console.log(failures.at(-1));
      }
    }
    loads.push(load());
    console.log(`${round} of ${options.count}, load ${load().toFixed(1)}: ${times.join(", ")}`);
    if (round > 0 && round % SUMMARY_ROUNDS === 0) for (const line of summary(starts)) console.log(line);
  }
  const bare = new Set(KINDS.filter(({ by }) => by.server !== "Berth").map(({ name }) => name));
  const userOf = (kind: string) => (bare.has(kind) ? ADMIN : OPERATOR);
  const measured = withMeasured(starts, await stand.cluster.audit.entries({ since }), userOf);
  return { starts: measured, refused, failures, loads };
});

/** What was measured so far, for a run that is cut short. */
function summary(starts: readonly Start[]): string[] {
  const text = (values: readonly number[]) => {
    return [0.5, 0.95, 1].map((q) => quantile(values, q).toFixed(0)).join(", ");
  };
  return [...Map.groupBy(starts, ({ kind }) => kind)].map(([kind, own]) => {
    const [started, beat] = [own.map(toStarted), own.map(toBeat)];
    return `${kind}, ${own.length} starts, p50, p95 and max: started ${text(started)}; first heartbeat ${text(beat)}`;
  });
}

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
