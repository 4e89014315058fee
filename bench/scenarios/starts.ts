import { cpus } from "node:os";
import { KINDS } from "../node/kinds.ts";
import { runOnNode } from "../node/node-run.ts";
import { STEPS, toBeat, toStarted } from "../node/starts.ts";
import type { StartsOptions, StartsResult } from "../node/starts-main.ts";
import { DISTRIBUTION_COLUMNS, distributionCells, quantile, quantiles } from "../report/distribution.ts";
import { linePlot, shares } from "../report/plot.ts";
import type { Cell, Context, Findings, Gate, Scenario, Table } from "../scenario.ts";

const FLOOR_AT_MOST = 1.5;
const WARM_UP = 3;
const QUICK_STARTS = 3;
const MAIN = new URL("../node/starts-main.ts", import.meta.url);

type Measured = StartsResult["starts"][number];

/** What one kind must keep, beside the floor of the same steps. Times in milliseconds. */
interface Bound {
  readonly kind: string;
  readonly floor: string;
  readonly what: string;
  readonly of: (start: Measured) => number;
  readonly p50: number;
  readonly p95?: number;
  readonly max?: number;
}

const BOUNDS: readonly Bound[] = [
  {
    ...{ kind: "shell", floor: "floor-shell", what: "queued to program started", of: toStarted },
    ...{ p50: 40, p95: 80, max: 300 },
  },
  { kind: "program", floor: "floor-program", what: "queued to first heartbeat", of: toBeat, p50: 120 },
];

export const starts: Scenario = {
  name: "starts",
  title: "Starts on a real node",
  needsNode: true,
  about:
    "The time from an item's arrival in the queue to the start of its program, and to its first heartbeat. It uses " +
    "the kubelet, containerd and the stock TypeScript worker, with one session at a time. The kinds take turns in " +
    "random order, so other load on the machine affects all of them. The program counts as started when containerd " +
    "reads the first line of its output. The bare loop only sends the same requests in the same order over the same " +
    "libraries: poll, Secret, live read of the Pod, acknowledgement, both patches in parallel, delivery. A running " +
    "sandbox gets its session with a POST to its server, as from agent-sandbox's clients. The operator, the bare " +
    "loop and the simulator are separate processes on the node.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const input: StartsOptions = {
    count: options.quick ? QUICK_STARTS : options.starts,
    warmUp: options.quick ? 1 : WARM_UP,
    kinds: options.kinds.length === 0 ? KINDS.filter(({ isExtra }) => !isExtra).map(({ name }) => name) : options.kinds,
    minutes: options.minutes,
  };
  const gvisor = KINDS.some(
    ({ name, by }) => input.kinds.includes(name) && by.server === "Berth" && by.sessions.isolation !== undefined,
  );
  const result = await runOnNode<StartsResult>(MAIN, { seed: options.seed, options: input, gvisor }, log);
  const kinds = KINDS.filter(({ name }) => result.starts.some(({ kind }) => kind === name));
  const of = (kind: string) => result.starts.filter((start) => start.kind === kind);
  const times = (title: string, value: (start: Measured) => number): Table => ({
    title,
    columns: ["milliseconds", ...DISTRIBUTION_COLUMNS],
    rows: kinds.map((kind): Cell[] => [kind.title, ...distributionCells(of(kind.name).map(value))]),
  });
  const series = kinds.map(({ name, title }) => shares(title, of(name).map(toStarted)));
  const axes = { x: { title: "milliseconds", isLog: true }, y: { title: "share of the starts" } };
  const bounds = BOUNDS.filter(({ kind }) => of(kind).length > 0);
  return {
    tables: [
      times("Queued to program started", toStarted),
      times("Queued to first heartbeat", toBeat),
      stepTable(kinds.map(({ name, title }) => ({ title, starts: of(name) }))),
      slowestTable(kinds.map(({ name, title }) => ({ title, starts: of(name) }))),
      ...(bounds.length === 0 ? [] : [boundTable(bounds, of)]),
    ],
    gates: bounds.filter(({ floor }) => of(floor).length > 0).flatMap((bound) => ratioGates(bound, of)),
    plots: [await linePlot({ name: "started", title: "Queued to program started", ...axes }, series)],
    notes: [
      `The machine has ${cpus().length} processors. Its load over a minute was ${loadText(result.loads)}.`,
      "`own` is the time that the operator, or the bare loop, takes itself. It is the time from the offer to the " +
        "answers of both patches, without the time in which the API server handled a request of the start. A " +
        "negative step was done in parallel.",
      ...(result.failures.length === 0 ? [] : [`Starts that failed: ${result.failures.join("; ")}.`]),
      ...(result.refused.length === 0
        ? []
        : [`The operator does not support these kinds: ${result.refused.join(", ")}.`]),
    ],
  };
}

interface TitledStarts {
  readonly title: string;
  readonly starts: readonly Measured[];
}

/** The median of each step. A cold Pod has other steps. */
export function stepTable(kinds: readonly TitledStarts[]): Table {
  const rows = kinds.flatMap(({ title, starts }): Cell[][] => {
    const measured = starts.flatMap(({ measured }) => measured ?? []);
    if (measured.length === 0) return [];
    const p50 = (values: readonly number[]) => quantiles(values).p50;
    const own = measured.map(({ ownMs }) => ownMs);
    const steps = STEPS.map((step) => p50(measured.map(({ steps }) => steps[step])));
    return [[title, ...steps, p50(own), quantile(own, 0.9)]];
  });
  return {
    title: "Each step since the previous one",
    columns: ["p50, milliseconds", ...STEPS, "own", "own p90"],
    rows,
  };
}

/** The steps of the start of each kind whose program started last. */
export function slowestTable(kinds: readonly TitledStarts[]): Table {
  const rows = kinds.flatMap(({ title, starts }): Cell[][] => {
    const [slowest] = starts.filter(({ measured }) => measured).toSorted((a, b) => toStarted(b) - toStarted(a));
    if (!slowest?.measured) return [];
    const { steps, ownMs } = slowest.measured;
    return [[title, toStarted(slowest), ...STEPS.map((step) => steps[step]), ownMs]];
  });
  return { title: "The slowest start", columns: ["milliseconds", "to program started", ...STEPS, "own"], rows };
}

function boundTable(bounds: readonly Bound[], of: (kind: string) => readonly Measured[]): Table {
  const rows = bounds.flatMap((bound): Cell[][] => {
    const values = of(bound.kind).map(bound.of);
    const floor = of(bound.floor).map(bound.of);
    const row = (name: string, q: number, limit?: number): Cell[][] => {
      if (limit === undefined) return [];
      const value = quantile(values, q);
      const beside = floor.length === 0 ? "" : quantile(floor, q);
      return [[`${bound.kind}: ${bound.what}, ${name}`, value, limit, beside, value <= limit ? "kept" : "missed"]];
    };
    return [...row("p50", 0.5, bound.p50), ...row("p95", 0.95, bound.p95), ...row("max", 1, bound.max)];
  });
  return { title: "Bounds", columns: ["milliseconds", "measured", "allowed", "bare loop", ""], rows };
}

function ratioGates(bound: Bound, of: (kind: string) => readonly Measured[]): Gate[] {
  const [values, floor] = [of(bound.kind).map(bound.of), of(bound.floor).map(bound.of)];
  return ([0.5, 0.95] as const).map((q) => ({
    name: `${bound.kind}: ${bound.what}, p${q * 100} divided by the bare loop's`,
    value: quantile(values, q) / quantile(floor, q),
    atMost: FLOOR_AT_MOST,
    unit: "x",
  }));
}

export function loadText(loads: readonly number[]): string {
  const { p50, max } = quantiles(loads);
  return `${p50.toFixed(1)} (median), ${max.toFixed(1)} (maximum)`;
}
