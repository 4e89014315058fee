import { cpus } from "node:os";
import { runOnNode } from "../node/node-run.ts";
import { type Start, toBeat, toStarted } from "../node/starts.ts";
import {
  type BesideFound,
  type BesideKind,
  type FilesFound,
  type PodCosts,
  type SleepingFound,
  type TurnsFound,
  type TurnsOptions,
  WAKES_PARTS,
  type Wake,
  type WakesFound,
  type WakesOptions,
  type WakesResult,
} from "../node/wakes.ts";
import { quantile } from "../report/distribution.ts";
import { linePlot, shares } from "../report/plot.ts";
import type { Cell, Context, Findings, Gate, Scenario, Table } from "../scenario.ts";
import { loadText, slowestTable, stepTable } from "./starts.ts";

const MAIN = new URL("../node/wakes-main.ts", import.meta.url);
const MIB = 1_024 ** 2;
const KIB = 1_024;

const RATIO_AT_MOST = 1.25;
const LATE_TURN_AT_MOST = 1.2;
const WAKE_P95_MS = 200;
const MEMORY_AT_MOST_MIB = 3;
const CPU_AT_MOST_MS = 1;

/** Longer than the pause of the keeper between two reads of its deadline. */
const FULL = {
  sleeping: { pods: 20, settleSeconds: 60, seconds: 300 },
  turns: { sessions: 20, late: 50, rounds: 3, relistSeconds: 60 },
};
const QUICK = {
  sleeping: { pods: 4, settleSeconds: 15, seconds: 60 },
  turns: { sessions: 3, late: 6, rounds: 1, relistSeconds: 15 },
};
const QUICK_WAKES = { count: 3, gaps: [10, 30], returns: 3 };
const KEPT = 4;
/** Each takes seconds. */
const MOST_RETURNS = 20;

const COLUMNS = ["items", "p50", "p95", "max"];

export const wakes: Scenario = {
  name: "wakes",
  title: "Wakes on a real node",
  needsNode: true,
  about:
    "Sessions that sleep in their Pods. The time runs from an item's arrival to the start of its program, and to its " +
    "first heartbeat. A session's first item is measured, and its next one after a gap. The node runs the kubelet, " +
    "containerd and the stock TypeScript worker. Starts are measured one at a time, while other sessions sleep. Each " +
    "wake is followed by a first start in a Pod that waited. The first item writes a thousand files, and the next " +
    "one compares them. The scenario also compares a sleeping Pod with an empty one, which has only its sandbox, and " +
    "late turns of a Pod with second turns. The reference is a Pod that is kept running between the items of its " +
    "session. Its server starts the same worker on a POST, and the bare loop serves it.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const { quick, wakes: count, gaps, parts, minutes, seed } = options;
  const input: WakesOptions = {
    ...(quick ? QUICK : FULL),
    parts: parts.length === 0 ? WAKES_PARTS : parts,
    wakes: { ...(quick ? QUICK_WAKES : { count, gaps, returns: Math.min(count, MOST_RETURNS) }), minutes, kept: KEPT },
  };
  const { wakes, sleeping, turns, beside, failures } = await runOnNode<WakesResult>(
    MAIN,
    { seed, options: input },
    log,
  );
  const found = wakes && groupsOf(wakes);
  return {
    tables: [
      ...(found && wakes ? wakeTables(found, wakes) : []),
      ...(sleeping ? [sleepingTable(sleeping)] : []),
      ...(beside ? [survivalTable(beside), roomTable(beside)] : []),
      ...(turns ? turnTables(turns, input.turns) : []),
    ],
    gates: [
      ...(found && wakes ? wakeGates(found, wakes) : []),
      ...(sleeping ? sleepingGates(sleeping) : []),
      ...(turns ? [turnGate(turns, input.turns)] : []),
      { name: "starts and parts that failed", value: failures.length, atMost: 0, unit: "" },
    ],
    plots: found
      ? [
          await linePlot(
            {
              ...{ name: "woken", title: "Queued to program started" },
              ...{ x: { title: "milliseconds", isLog: true }, y: { title: "share of the starts" } },
            },
            found.map(({ title, starts }) => shares(title, starts.map(toStarted))),
          ),
        ]
      : [],
    notes: [
      `The machine has ${cpus().length} processors.`,
      ...(wakes
        ? [`Its load over a minute was ${loadText(wakes.loads)}. At most ${wakes.mostAsleep} sessions slept.`]
        : []),
      ...(failures.length === 0 ? [] : [`What failed: ${failures.join("; ")}.`]),
    ],
  };
}

/** Starts of one kind after one gap. */
export interface Group {
  readonly title: string;
  readonly kind: Wake["kind"];
  readonly gap: number | null;
  readonly starts: readonly Wake[];
}

const FIRST_TITLES = { pod: "workspace: Pod, first start", volume: "PerSession, first start" };
const BESIDE_TITLE = "turn 2 of other sessions, measured alternately";
const KEPT_TITLE = "bare loop, next item in a Pod that was kept running";
const RETURNED_TITLES = {
  berth: "PerSession, next item after the Pod was deleted",
  kept: "bare loop, next item in a new Pod with the volume",
};
const WAKE_TITLES = { pod: "workspace: Pod, wake", volume: "PerSession, wake" };

/** First starts come before wakes, and short gaps before long ones. */
export function groupsOf({ wakes }: Pick<WakesFound, "wakes">): Group[] {
  const groups = Map.groupBy(wakes, ({ kind, gap }) => `${kind} ${gap}`);
  return [...groups.values()]
    .flatMap((starts): Group[] => {
      const [first] = starts;
      if (!first) return [];
      const { kind, gap } = first;
      const title = gap === null ? FIRST_TITLES[kind] : `${WAKE_TITLES[kind]} after ${gap} s`;
      return [{ title, kind, gap, starts }];
    })
    .sort((one, other) => one.kind.localeCompare(other.kind) || (one.gap ?? -1) - (other.gap ?? -1));
}

function wakeTables(groups: readonly Group[], { kept, returned, files, returnedFiles }: WakesFound): Table[] {
  const withSteps = [...groups, { title: KEPT_TITLE, starts: kept }];
  const all = [
    ...withSteps,
    { title: RETURNED_TITLES.berth, starts: returned.berth },
    { title: RETURNED_TITLES.kept, starts: returned.kept },
  ];
  const times = (title: string, of: (start: Start) => number): Table => ({
    title,
    columns: ["milliseconds", ...COLUMNS],
    rows: all.map(({ title, starts }): Cell[] => [title, ...cells(starts.map(of))]),
  });
  const row = (title: string, { woken, changed, foreign, elsewhere }: FilesFound): Cell[] => {
    return [title, woken, changed, foreign, elsewhere];
  };
  return [
    times("Queued to program started", toStarted),
    times("Queued to first heartbeat", toBeat),
    stepTable(withSteps),
    slowestTable(withSteps),
    {
      title: "Files of the session's next item",
      columns: ["sessions", "count", "other hash", "saw another session's file", "in another Pod"],
      rows: [row("woken", files), row("after the Pod was deleted, with the volume", returnedFiles)],
    },
    boundTable(groups),
  ];
}

function cells(values: readonly number[]): number[] {
  return [values.length, quantile(values, 0.5), quantile(values, 0.95), quantile(values, 1)];
}

function boundTable(groups: readonly Group[]): Table {
  const rows = groups
    .filter(({ gap }) => gap !== null)
    .map(({ title, starts }): Cell[] => {
      const value = quantile(starts.map(toStarted), 0.95);
      return [`${title}, p95`, value, WAKE_P95_MS, value <= WAKE_P95_MS ? "kept" : "missed"];
    });
  return { title: "Bounds", columns: ["milliseconds", "measured", "allowed", ""], rows };
}

/** Wakes of both kinds against the same first starts: those without volumes, which wait for less. */
export function wakeGates(
  groups: readonly Group[],
  { files, returnedFiles }: Pick<WakesFound, "files" | "returnedFiles">,
): Gate[] {
  const first = groups.filter(({ kind, gap }) => kind === "pod" && gap === null).flatMap(({ starts }) => starts);
  const p50 = quantile(first.map(toStarted), 0.5);
  const ratios = groups
    .filter(({ gap }) => gap !== null)
    .map(({ title, starts }): Gate => {
      const value = quantile(starts.map(toStarted), 0.5) / p50;
      return { name: `${title}: p50 divided by that of first starts`, value, atMost: RATIO_AT_MOST, unit: "x" };
    });
  const none = (name: string, value: number): Gate => ({ name, value, atMost: 0, unit: "sessions" });
  return [
    ...ratios,
    none("sessions whose files changed", files.changed + returnedFiles.changed),
    none("sessions that saw a file of another session", files.foreign + returnedFiles.foreign),
    none("sessions woken in another Pod", files.elsewhere),
  ];
}

const OF_POD: readonly (readonly [string, (costs: PodCosts) => number])[] = [
  ["anonymous memory, MiB", ({ anonymousBytes }) => anonymousBytes / MIB],
  ["kernel memory, MiB", ({ kernelBytes }) => kernelBytes / MIB],
  ["working set, MiB", ({ workingSetBytes }) => workingSetBytes / MIB],
  ["CPU per minute, ms", ({ cpuMsPerMinute }) => cpuMsPerMinute],
];

function sleepingTable({ empty, sleeping, kept }: SleepingFound): Table {
  const rows = OF_POD.map(([title, of]): Cell[] => {
    const [without, asleep] = [empty.map(of), sleeping.map(of)];
    const more = mean(asleep) - mean(without);
    return [
      title,
      quantile(without, 0.5),
      quantile(asleep, 0.5),
      quantile(asleep, 1),
      more,
      quantile(kept.map(of), 0.5),
    ];
  });
  return {
    title: "A sleeping Pod compared with an empty one, and with one that is kept running",
    columns: ["", "empty, p50", "asleep, p50", "asleep, max", "more on average", "kept running, p50"],
    rows,
  };
}

const BESIDE_TITLES: Record<BesideKind, string> = {
  pod: "workspace: Pod",
  volume: "PerSession",
  kept: "kept running, with a volume",
};

function survivalTable({ survived }: BesideFound): Table {
  const row = ([kind, { next, drained }]: [string, BesideFound["survived"][BesideKind]]): Cell[] => {
    const found = [next, drained].flatMap(({ workspace, elsewhere, process }) => [workspace, elsewhere, process]);
    return [BESIDE_TITLES[kind as BesideKind], ...found.map((is) => (is ? "yes" : "no"))];
  };
  const kept = ["workspace", "files elsewhere", "processes"];
  return {
    title: "What the session's next item finds of the previous one, without and after a drain",
    columns: ["", ...kept, ...kept.map((what) => `${what}, drained`)],
    rows: Object.entries(survived).map(row),
  };
}

function roomTable({ room }: BesideFound): Table {
  const { kept, served, asleep } = room;
  return {
    title: "Sessions on a node",
    columns: ["", "sessions"],
    rows: [
      ["kept running, until the node is full", kept],
      ["served by Berth one after another, while earlier ones sleep", served],
      ["of these, asleep at the end", asleep],
    ],
  };
}

function sleepingGates({ empty, sleeping }: SleepingFound): Gate[] {
  const more = (of: (costs: PodCosts) => number) => mean(sleeping.map(of)) - mean(empty.map(of));
  const memory = more(({ anonymousBytes, kernelBytes }) => (anonymousBytes + kernelBytes) / MIB);
  const cpu = more(({ cpuMsPerMinute }) => cpuMsPerMinute);
  return [
    {
      ...{ name: "anonymous and kernel memory of a sleeping Pod, minus that of an empty one" },
      ...{ value: memory, atMost: MEMORY_AT_MOST_MIB, unit: "MiB" },
    },
    {
      ...{ name: "CPU of a sleeping Pod per minute, minus that of an empty one" },
      ...{ value: cpu, atMost: CPU_AT_MOST_MS, unit: "ms" },
    },
  ];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function turnTables(found: TurnsFound, options: TurnsOptions): Table[] {
  const { second, secondBeside, late, objectBytes, relists, diskPerTurn } = found;
  const { late: n } = options;
  const title = lateTurns(options);
  const row = (title: string, turns: readonly Start[]): Cell[] => {
    return [title, ...cells(turns.map(toStarted)), ...cells(turns.map(toBeat)).slice(1)];
  };
  const relist = (title: string, { count, meanMs, p95Ms }: (typeof relists)["early"]): Cell[] => {
    return [title, count, meanMs, p95Ms];
  };
  const { layers, logs, records } = diskPerTurn;
  const steps = stepTable([
    { title, starts: late },
    { title: BESIDE_TITLE, starts: secondBeside },
  ]);
  return [
    {
      title: `A Pod's ${title} compared with turn 2`,
      columns: [
        "milliseconds",
        ...COLUMNS.map((name, at) => (at === 0 ? name : `started ${name}`)),
        "heartbeat p50",
        "p95",
        "max",
      ],
      rows: [row(title, late), row(BESIDE_TITLE, secondBeside), row("turn 2 of the same sessions", second)],
    },
    { ...steps, title: `Each step since the previous one, of ${title} and of turn 2` },
    {
      title: "Relists of the kubelet (PLEG)",
      columns: ["milliseconds", "relists", "mean", "p95 at most"],
      rows: [relist("after turn 2", relists.early), relist(`after turn ${n - 1}`, relists.late)],
    },
    {
      title: `A Pod after ${n - 1} turns`,
      columns: ["KiB", ""],
      rows: [
        ["its object as JSON, p50", quantile(objectBytes, 0.5) / KIB],
        ["its object as JSON, max", quantile(objectBytes, 1) / KIB],
        ["writable layer of each ended turn", layers / KIB],
        ["log of each ended turn", logs / KIB],
        ["records of the kubelet and containerd for each ended turn", records / KIB],
      ],
    },
  ];
}

function lateTurns({ late, rounds }: TurnsOptions): string {
  return rounds === 1 ? `turn ${late}` : `turns ${late} to ${late + rounds - 1}`;
}

function turnGate({ late, secondBeside }: TurnsFound, options: TurnsOptions): Gate {
  const value = quantile(late.map(toStarted), 0.5) / quantile(secondBeside.map(toStarted), 0.5);
  return { name: `${lateTurns(options)}: p50 divided by that of turn 2`, value, atMost: LATE_TURN_AT_MOST, unit: "x" };
}
