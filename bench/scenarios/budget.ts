import { ApiError } from "../../simulator/errors.ts";
import { json } from "../../simulator/http.ts";
import { seededRandom } from "../../simulator/ids.ts";
import { RateLimit } from "../../simulator/rate-limit.ts";
import { Budget } from "../../src/work/budget.ts";
import { LoopWorld, type LoopWorldOptions } from "../../test/sessions/loops/loop-world.ts";
import { WorkApi } from "../../test/sessions/loops/work-api.ts";
import { VirtualClock } from "../../test/support/virtual-clock.ts";
import { quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Gate, Scenario } from "../scenario.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
/** The documented limit of the platform: reads per minute and organization. */
const READS_PER_MINUTE = 1_200;
/** The time in which a Pod that isn't kept warm is scheduled and its image is pulled. */
const PREPARE_MS = 2_000;
const STEP_MS = 50;
/** The time from the start of one Environment to the start of the next when the operator starts. */
const START_MS = 10;
const PATIENCE_MS = 10 * MINUTE_MS;
/** What docs/request-budget.md promises to users: the longest pause plus its jitter. */
const SEEN_WITHIN_MS = 66_000;

interface Load {
  readonly sizes: readonly number[];
  /** How long to wait until all Environments are idle, and then how long to count requests. */
  readonly quietMinutes: number;
  readonly minutes: number;
  /** The number of items, queued one at a time. */
  readonly samples: number;
}

const FULL: Load = { sizes: [1, 10, 100, 1_000], quietMinutes: 30, minutes: 10, samples: 60 };
const QUICK: Load = { sizes: [1, 5], quietMinutes: 3, minutes: 1, samples: 2 };

export const budget: Scenario = {
  name: "budget",
  title: "Idle Environments and the Work API",
  about:
    "How many requests idle Environments of one budget group send to the Work API, and how late they see work. Each " +
    "Environment has a whole controller with its real loops, on a virtual clock. The simulator has the platform's " +
    "documented limit. Pick-up is the time from an item's arrival to its acknowledgement. Without warm Pods it " +
    "includes two seconds until a Pod is ready.",
  run,
};

/** How the Environments serve their items. */
interface Mode {
  readonly name: string;
  readonly options: LoopWorldOptions;
  /** Whether this mode picks up items. Simulated nodes run no always-on workers. */
  readonly isServed: boolean;
}

const MODES: readonly Mode[] = [
  { name: "one warm Pod", options: { sessions: { warm: 1, maxConcurrent: 2 } }, isServed: true },
  { name: "no warm Pods", options: { sessions: { warm: 0, maxConcurrent: 2 } }, isServed: true },
  { name: "always-on workers, none running", options: { spec: workersOnly() }, isServed: false },
];

function workersOnly(): Record<string, unknown> {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  return { sessions: undefined, workers: { maxReplicas: 2, template } };
}

interface Row {
  readonly environments: number;
  readonly mode: string;
  readonly poll: number;
  readonly stats: number;
  readonly list: number;
  readonly refused: number;
  readonly isServed: boolean;
  readonly p50: number;
  readonly max: number;
}

/** Environments that share one budget, one Work API, and one clock. Each has its own cluster and operator. */
class Group {
  readonly clock = new VirtualClock();
  readonly api: WorkApi;
  readonly worlds: LoopWorld[];
  refused = 0;

  constructor(environments: number, mode: Mode, seed: number) {
    this.api = new WorkApi(this.clock, { seed });
    const budget = new Budget({ clock: this.clock });
    const limit = new RateLimit(READS_PER_MINUTE, this.clock.now());
    this.api.world.events.setMaxListeners(environments + 1);
    this.api.answer = (_call, { method }) => {
      const waitSeconds = method === "GET" ? limit.take(this.clock.now()) : 0;
      if (waitSeconds === 0) return undefined;
      this.refused += 1;
      const { status, body } = new ApiError(429, "rate_limit_error", "too many requests");
      return { ...json(status, body), headers: { "retry-after": String(waitSeconds) } };
    };
    const { clock, api } = this;
    this.worlds = Array.from({ length: environments }, (_, at) => {
      return new LoopWorld({ clock, api, budget, ...mode.options, seed: seed + at, prepareMs: () => PREPARE_MS });
    });
  }

  async start(): Promise<void> {
    for (const world of this.worlds) {
      world.createEnvironment();
      world.startOperator();
      await this.clock.advance(START_MS);
    }
  }

  /** Advances in small steps, because a virtual clock treats too many timers in one step as an endless loop. */
  async pass(ms: number): Promise<void> {
    for (let leftMs = ms; leftMs > 0; leftMs -= STEP_MS) await this.clock.advance(Math.min(STEP_MS, leftMs));
  }

  requests(call: string): number {
    return this.api.requests.get(call) ?? 0;
  }

  /** Returns the time from an item's arrival to its acknowledgement, in milliseconds. */
  async pickUp(world: LoopWorld): Promise<number> {
    const id = world.enqueue();
    const fromMs = this.clock.monotonic();
    await this.clock.advanceUntil(() => world.item(id).acks.length > 0, PATIENCE_MS, STEP_MS);
    return this.clock.monotonic() - fromMs;
  }
}

async function measure(environments: number, mode: Mode, load: Load, seed: number): Promise<Row> {
  const { quietMinutes, minutes, samples } = load;
  const random = seededRandom(seed);
  const group = new Group(environments, mode, seed);
  await group.start();
  await group.pass(quietMinutes * MINUTE_MS);
  const before = new Map(["poll", "stats", "list"].map((call) => [call, group.requests(call)]));
  const refusedBefore = group.refused;
  await group.pass(minutes * MINUTE_MS);
  const perMinute = (call: string) => (group.requests(call) - (before.get(call) ?? 0)) / minutes;
  const asked = {
    poll: perMinute("poll"),
    stats: perMinute("stats"),
    list: perMinute("list"),
    refused: (group.refused - refusedBefore) / minutes,
  };
  const taken: number[] = [];
  for (let sample = 0; mode.isServed && sample < samples; sample += 1) {
    const world = group.worlds[sample % environments];
    if (!world) break;
    // An Environment that served the previous sample needs this time to become idle again.
    const restMs = environments < samples ? 5 * MINUTE_MS : SECOND_MS;
    await group.pass(restMs + random() * MINUTE_MS);
    taken.push(await group.pickUp(world));
  }
  const violations = group.api.world.violations.length;
  if (violations > 0) throw new Error(`${violations} protocol violations`);
  const { p50, max } = quantiles(taken);
  return { environments, mode: mode.name, isServed: mode.isServed, ...asked, p50, max };
}

async function run({ options, log }: Context): Promise<Findings> {
  const load = options.quick ? QUICK : FULL;
  const rows: Row[] = [];
  for (const mode of MODES) {
    for (const environments of load.sizes) {
      log(`${environments}, ${mode.name}`);
      rows.push(await measure(environments, mode, load, options.seed));
    }
  }
  const columns = ["Environments", "mode", "polls", "statistics", "lists", "all", "429"];
  const title = `Requests per minute, counted for ${load.minutes} min after ${load.quietMinutes} min of quiet; ${load.samples} pick-ups`;
  return {
    tables: [{ title, columns: [...columns, "pick-up p50, s", "worst pick-up, s"], rows: rows.map(cellsOf) }],
    gates: gatesOf(rows),
  };
}

function cellsOf({ environments, mode, poll, stats, list, refused, isServed, p50, max }: Row): Cell[] {
  const times = [p50, max].map((ms): Cell => (isServed ? ms / SECOND_MS : ""));
  return [environments, mode, poll, stats, list, poll + stats + list, refused, ...times];
}

function gatesOf(rows: readonly Row[]): Gate[] {
  const most = (of: (row: Row) => number) => Math.max(...rows.map(of));
  const lateness = rows.filter(({ isServed }) => isServed).map(({ max }) => max / (SEEN_WITHIN_MS + PREPARE_MS));
  return [
    {
      name: "requests per minute",
      value: most(({ poll, stats, list }) => poll + stats + list),
      atMost: READS_PER_MINUTE,
      unit: "requests",
    },
    { name: "requests refused with 429", value: most(({ refused }) => refused), atMost: 0, unit: "per minute" },
    { name: "worst pick-up, divided by the documented maximum", value: Math.max(...lateness), atMost: 1, unit: "x" },
  ];
}
