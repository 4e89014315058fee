import {
  type AttachOptions,
  type AttachResult,
  DELIVERIES,
  type Level,
  PASSED,
  type Passed,
} from "../node/attach-costs.ts";
import { runOnNode } from "../node/node-run.ts";
import { DISTRIBUTION_COLUMNS, distributionCells, quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Scenario, Table } from "../scenario.ts";

const MAIN = new URL("../node/attach-main.ts", import.meta.url);
const MIB = 1_024 ** 2;
const KIB = 1_024;
const MILLI = 1_000;

const FULL = { pods: 200, levels: [0, 1, 10, 100, 500, 0], seconds: 60 };
const QUICK = { pods: 12, levels: [0, 1, 10, 50, 0], seconds: 20 };

export const attach: Scenario = {
  name: "attach",
  title: "Attach connections",
  needsNode: true,
  about:
    "What open attach connections to waiting containers cost the client, the API server, the kubelet, and " +
    "containerd. Also how long it takes to deliver a session's line, with a connection that was opened before and " +
    "with one that is opened when needed. The client is a separate process on the node with the operator's client, " +
    "which pings each connection every 20 s and closes one that doesn't answer.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const input: AttachOptions = options.quick ? QUICK : FULL;
  const { levels, deliveries } = await runOnNode<AttachResult>(MAIN, { seed: options.seed, options: input }, log);
  const delivered = DELIVERIES.flatMap((how): Cell[][] => {
    const own = deliveries.filter((delivery) => delivery.how === how);
    const row = (what: string, values: readonly number[]): Cell[] => [`${how}: ${what}`, ...distributionCells(values)];
    return [
      row(
        "to open",
        own.map(({ openMs }) => openMs),
      ),
      row(
        "line to program started",
        own.map(({ startedMs }) => startedMs),
      ),
      row(
        "both",
        own.map(({ openMs, startedMs }) => openMs + startedMs),
      ),
    ];
  });
  const lost = levels.at(-1)?.lost ?? [];
  return {
    tables: [
      levelTable("Cores", levels, ({ cores }, name) => cores[name]),
      levelTable("Resident memory in MiB", levels, ({ rssBytes }, name) => rssBytes[name] / MIB),
      perConnection(levels),
      otherTable(levels),
      { title: "Delivery of a line", columns: ["milliseconds", ...DISTRIBUTION_COLUMNS], rows: delivered },
    ],
    gates: [{ name: "connections that closed", value: lost.length, atMost: 0, unit: "" }],
    notes: [`${input.pods} Pods. ${lost.join("; ")}`],
  };
}

type Value = (level: Level, name: Passed) => number;

function levelTable(title: string, levels: readonly Level[], value: Value): Table {
  const rows = levels.map((level): Cell[] => {
    const values = PASSED.map((name) => value(level, name));
    return [String(level.connections), ...values];
  });
  return { title, columns: ["connections", ...PASSED], rows };
}

function otherTable(levels: readonly Level[]): Table {
  const rows = levels.map(({ connections, goroutines, openedMs, load }): Cell[] => {
    return [String(connections), goroutines, quantiles(openedMs).p50, load];
  });
  const columns = ["connections", "goroutines of the API server", "p50 to open a connection, ms", "load"];
  return { title: "At each level", columns, rows };
}

/**
 * Compares the level with the most connections with levels that have none: the first one in memory, which programs
 * don't give back, and the last one in CPU, which their start no longer takes.
 */
export function perConnection(levels: readonly Level[]): Table {
  const none = levels.filter(({ connections }) => connections === 0);
  const [first, last] = [none[0], none.at(-1)];
  const most = levels.reduce((a, b) => (b.connections > a.connections ? b : a));
  if (!first || !last) throw new Error("no level without connections was measured");
  const each = (more: number, unit: number) => (more / most.connections) * unit;
  const rows = PASSED.map((name): Cell[] => [
    name,
    each(most.rssBytes[name] - first.rssBytes[name], 1 / KIB),
    each(most.cores[name] - last.cores[name], MILLI),
  ]);
  return {
    title: `Per connection, of ${most.connections}`,
    columns: ["", "resident memory, KiB", "thousandths of a core"],
    rows,
  };
}
