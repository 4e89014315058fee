import { execFile } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { quantiles } from "../report/distribution.ts";
import { linePlot, type Plot } from "../report/plot.ts";
import type { Cell, Context, Findings, Gate, Scenario, Table } from "../scenario.ts";
import { INSPECTED, Inspector } from "../soak/inspector.ts";
import { OPERATOR_NAMESPACE, Stand } from "../support/stand.ts";
import { type Added, addOneByOne } from "./many-environments/adding.ts";
import { Crowd } from "./many-environments/crowd.ts";
import { growthExponent } from "./many-environments/growth.ts";
import type { MemoryCost } from "./many-environments/memory-main.ts";
import { type Cost, costOf } from "./many-environments/window.ts";

/** The documented limit of the platform for one organization. */
const READS_PER_MINUTE = 1_200;
/**
 * How long the operator needs to become quiet. It looks for late records one minute after an Environment's start, and
 * removes a finalizer earlier. It spreads the first lists of items over a minute if many Environments start, so they
 * come after at most twice that time.
 */
const SETTLE_MS = 130_000;
const EXPONENT_AT_MOST = 1.1;
const ADDING_AT_MOST = 1.5;
/** With fewer Environments, the operator's fixed costs hide the costs per Environment. */
const MANY_FROM = 100;
const MIB = 2 ** 20;
const KIB = 2 ** 10;

interface Load {
  /**
   * The sizes on the real API server, in ascending order. Environments are added to the smallest and to the largest.
   */
  readonly sizes: readonly number[];
  readonly windowSeconds: number;
  readonly settleMs: number;
  readonly samples: number;
  /** The sizes in memory, and the minutes of idling to measure. */
  readonly memorySizes: readonly number[];
  readonly memoryMinutes: number;
}

const FULL: Load = {
  sizes: [10, 100, 1_000],
  // The operator reads each key once a minute.
  windowSeconds: 60,
  settleMs: SETTLE_MS,
  samples: 5,
  memorySizes: [10, 100, 1_000, 10_000],
  memoryMinutes: 1,
};
const QUICK: Load = {
  sizes: [4, 12],
  windowSeconds: 3,
  settleMs: 0,
  samples: 1,
  memorySizes: [10, 30],
  memoryMinutes: 1,
};

export const manyEnvironments: Scenario = {
  name: "environments",
  title: "Many idle Environments",
  about:
    "What the operator's process costs with many Environments without work, and how long it takes to add another one, which " +
    "has a warm Pod. The Environments have `warm: 0`, one namespace, one budget group and separate keys. They run on a real " +
    `API server, and on a simulator that refuses more than ${READS_PER_MINUTE} reads a minute. Larger numbers are measured in ` +
    "memory: the whole controller on a fake API server and a virtual clock, in one process for each size, with 1,000 " +
    "Environments per organization. Its CPU time and heap include those of the fakes.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const load = options.quick ? QUICK : FULL;
  const real = await onServer(load, options.seed, log);
  const memory: MemoryCost[] = [];
  for (const size of load.memorySizes) {
    log(`${size} in memory`);
    memory.push(await inMemory(size, load.memoryMinutes, options.seed));
  }
  return {
    tables: [costTable(real.costs), addingTable(real.added), memoryTable(memory)],
    gates: [...serverGates(real.costs), ...addingGates(real.added), ...memoryGates(memory)],
    plots: [await costPlot(real.costs), await memoryPlot(memory)],
  };
}

interface OnServer {
  /** The first entry is the cost of an operator without Environments. */
  readonly costs: readonly Cost[];
  readonly added: readonly { readonly beside: number; readonly all: readonly Added[] }[];
}

async function onServer(load: Load, seed: number, log: (line: string) => void): Promise<OnServer> {
  await using stand = await Stand.start();
  await stand.node({ seed });
  const simulator = await stand.simulator({ limits: { readsPerMinute: READS_PER_MINUTE } });
  const namespace = await stand.namespace("many");
  const operator = await stand.operator(simulator.url, ["--leader-elect-namespace", OPERATOR_NAMESPACE], INSPECTED);
  using inspector = await Inspector.connect(operator);
  await using crowd = new Crowd(stand, simulator, namespace);
  const on = { stand, simulator, operator, inspector };
  const costs = [await costOf(0, load.windowSeconds, on)];
  const added = [];
  for (const [at, size] of load.sizes.entries()) {
    const startMs = performance.now();
    await crowd.growTo(size);
    log(`${size}: all ready after ${((performance.now() - startMs) / 1_000).toFixed(1)} s`);
    await pause(load.settleMs);
    costs.push(await costOf(size, load.windowSeconds, on));
    if (at === 0 || at === load.sizes.length - 1) {
      added.push({ beside: size, all: await addOneByOne(crowd, simulator, load.samples) });
    }
  }
  simulator.assertNoViolations();
  return { costs, added };
}

async function inMemory(environments: number, minutes: number, seed: number): Promise<MemoryCost> {
  const main = new URL("./many-environments/memory-main.ts", import.meta.url).pathname;
  const args = ["--expose-gc", main, ...[environments, minutes, seed].map(String)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout) as MemoryCost;
}

// --- gates --------------------------------------------------------------------------------------------------------

function serverGates(costs: readonly Cost[]): Gate[] {
  const [empty, ...some] = costs;
  const last = some.at(-1);
  if (!empty || !last) return [];
  const above = (of: (cost: Cost) => number, from = 0) => growthOf(some, (cost) => of(cost) - of(empty), from);
  const exponent = (what: string, value: number): Gate => ({
    name: `growth of ${what} with Environments`,
    value,
    atMost: EXPONENT_AT_MOST,
    unit: "exponent",
  });
  return [
    exponent(
      "CPU time",
      above(({ cpuSeconds }) => cpuSeconds),
    ),
    exponent(
      "the heap",
      above(({ heapBytes }) => heapBytes, MANY_FROM),
    ),
    exponent(
      "requests to the API server",
      growthOf(some, ({ reads, writes }) => reads + writes, MANY_FROM),
    ),
    exponent(
      "calls to the Work API",
      above(({ workCalls }) => workCalls),
    ),
    {
      name: `calls to the Work API per minute, ${last.environments} Environments`,
      value: last.workCalls,
      atMost: READS_PER_MINUTE,
      unit: "calls",
    },
    {
      name: "calls of an idle operator that the Work API refused with 429",
      value: Math.max(...some.map(({ refused }) => refused)),
      atMost: 0,
      unit: "calls",
    },
    {
      name: "writes of an idle operator, without Leases",
      value: Math.max(...some.map(({ writes }) => writes)),
      atMost: 0,
      unit: "writes",
    },
  ];
}

function growthOf<C extends { readonly environments: number }>(costs: readonly C[], of: (cost: C) => number, from = 0) {
  return growthExponent(
    costs.filter(({ environments }) => environments >= from).map((cost) => ({ x: cost.environments, y: of(cost) })),
  );
}

function addingGates(added: OnServer["added"]): Gate[] {
  const [few, many] = [added[0], added.at(-1)];
  if (!few || !many || few === many) return [];
  const ratio = (of: (one: Added) => number) => quantiles(many.all.map(of)).p50 / quantiles(few.all.map(of)).p50;
  const gate = (what: string, of: (one: Added) => number): Gate => ({
    name: `adding one to ${many.beside}, divided by adding one to ${few.beside}: median to ${what}`,
    value: ratio(of),
    atMost: ADDING_AT_MOST,
    unit: "x",
  });
  return [gate("ready", ({ readyMs }) => readyMs), gate("its first poll", ({ firstPollMs }) => firstPollMs)];
}

function memoryGates(memory: readonly MemoryCost[]): Gate[] {
  const growth = (what: string, of: (cost: MemoryCost) => number, from = 0): Gate => ({
    name: `in memory: growth of ${what} with Environments`,
    value: growthOf(memory, of, from),
    atMost: EXPONENT_AT_MOST,
    unit: "exponent",
  });
  return [
    growth("CPU time, idle", ({ idleCpuSeconds }) => idleCpuSeconds),
    growth("CPU time to end all loops", ({ stopCpuSeconds }) => stopCpuSeconds, MANY_FROM),
    growth("the heap", ({ heapGrownBytes }) => heapGrownBytes, MANY_FROM),
    growth("requests to the API server", ({ kubeRequests }) => kubeRequests),
    growth("calls to the Work API", ({ workCalls }) => workCalls),
    {
      name: "in memory: calls of idle Environments that the Work API refused with 429",
      value: Math.max(...memory.map(({ refused }) => refused)),
      atMost: 0,
      unit: "calls",
    },
  ];
}

// --- tables and plots -----------------------------------------------------------------------------------------------

function costTable(costs: readonly Cost[]): Table {
  const rows = costs.map((cost): Cell[] => [
    cost.environments,
    cost.cpuSeconds,
    cost.rssBytes / MIB,
    cost.heapBytes / MIB,
    ...[cost.reads, cost.writes, cost.workCalls, cost.refusedBefore, cost.refused],
    cost.scrapeBytes / MIB,
    cost.scrapeMs,
  ]);
  const columns = ["Environments", "CPU seconds per minute", "RSS, MiB", "heap, MiB"];
  const requests = ["reads per minute", "writes per minute", "Work API calls per minute", "429 before", "429"];
  return {
    title: "An idle operator, on a real API server",
    columns: [...columns, ...requests, "scrape, MiB", "scrape, ms"],
    rows,
  };
}

function addingTable(added: OnServer["added"]): Table {
  const rows = added.flatMap(({ beside, all }) =>
    (
      [
        ["ready", ({ readyMs }: Added) => readyMs],
        ["first call to the Work API", ({ firstCallMs }: Added) => firstCallMs],
        ["first poll", ({ firstPollMs }: Added) => firstPollMs],
      ] as const
    ).map(([what, of]): Cell[] => {
      const { p50, max } = quantiles(all.map(of));
      return [beside, what, all.length, p50, max];
    }),
  );
  return {
    title: "Adding another Environment, milliseconds from its creation",
    columns: ["added to", "until", "samples", "p50", "max"],
    rows,
  };
}

function memoryTable(memory: readonly MemoryCost[]): Table {
  const rows = memory.map((cost): Cell[] => [
    ...[cost.environments, cost.readyMs / 1_000, cost.readyCpuSeconds, cost.idleCpuSeconds, cost.stopCpuSeconds],
    cost.heapGrownBytes / cost.environments / KIB,
    ...[cost.kubeRequests, cost.workCalls, cost.refusedAtStart, cost.refused],
  ]);
  const cpu = ["CPU seconds until ready", "CPU seconds per idle minute", "CPU seconds to end all loops"];
  const requests = ["API server requests per minute", "Work API calls per minute", "429 at the start", "429"];
  return {
    title: "In memory, on a virtual clock",
    columns: ["Environments", "all ready, s", ...cpu, "heap per Environment, KiB", ...requests],
    rows,
  };
}

function costPlot(costs: readonly Cost[]): Promise<Plot> {
  const [empty, ...some] = costs;
  const points = (of: (cost: Cost) => number) =>
    some.map((cost) => ({ x: cost.environments, y: of(cost) })).filter(({ y }) => y > 0);
  return plotOf("server", "On a real API server, compared with an operator without Environments", [
    { name: "CPU ms per minute", points: points((cost) => (cost.cpuSeconds - (empty?.cpuSeconds ?? 0)) * 1_000) },
    { name: "RSS, KiB", points: points((cost) => (cost.rssBytes - (empty?.rssBytes ?? 0)) / KIB) },
    { name: "API server requests per minute", points: points((cost) => cost.reads + cost.writes) },
    { name: "Work API calls per minute", points: points(({ workCalls }) => workCalls) },
  ]);
}

function memoryPlot(memory: readonly MemoryCost[]): Promise<Plot> {
  const points = (of: (cost: MemoryCost) => number) =>
    memory.map((cost) => ({ x: cost.environments, y: of(cost) })).filter(({ y }) => y > 0);
  return plotOf("memory", "In memory, on a virtual clock", [
    { name: "CPU ms per minute", points: points(({ idleCpuSeconds }) => idleCpuSeconds * 1_000) },
    { name: "heap, KiB", points: points(({ heapGrownBytes }) => heapGrownBytes / KIB) },
    { name: "API server requests per minute", points: points(({ kubeRequests }) => kubeRequests) },
    { name: "Work API calls per minute", points: points(({ workCalls }) => workCalls) },
  ]);
}

function plotOf(name: string, title: string, series: Parameters<typeof linePlot>[1]): Promise<Plot> {
  const axes = { x: { title: "Environments", isLog: true }, y: { title: "", isLog: true } };
  return linePlot({ name, title, ...axes, hasPoints: true }, series);
}
