import { runOnNode } from "../node/node-run.ts";
import type { PodUsage } from "../node/pod-cgroups.ts";
import type { Waiting, WaitingOptions, WaitingResult } from "../node/waiting-costs.ts";
import { quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Scenario, Table } from "../scenario.ts";

const MAIN = new URL("../node/waiting-main.ts", import.meta.url);
const MIB = 1_024 ** 2;
const MILLI = 1_000;
const SECONDS_PER_HOUR = 3_600;

const FULL: WaitingOptions = { pods: 20, settleSeconds: 60, seconds: 300 };
const QUICK: WaitingOptions = { pods: 4, settleSeconds: 15, seconds: 30 };

export const waiting: Scenario = {
  name: "waiting",
  title: "Waiting Pods",
  needsNode: true,
  about:
    "What Pods that wait for their sessions cost on a real node: their memory and CPU, those of the node's programs, " +
    "Events and requests. The first measurement has no Pods. Then the kinds follow one after another, each in its " +
    "own namespace.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const input = options.quick ? QUICK : FULL;
  const { seconds, kinds, refused } = await runOnNode<WaitingResult>(MAIN, { seed: options.seed, options: input }, log);
  return {
    tables: [podTable(kinds), programTable(kinds), requestTable(kinds, seconds)],
    gates: [],
    notes: [
      `${input.pods} Pods of each kind, watched for ${seconds} s. Load over a minute: ` +
        `${kinds.map(({ title, load }) => `${title} ${load.toFixed(1)}`).join(", ")}.`,
      ...(refused.length === 0 ? [] : [`The operator does not support these kinds: ${refused.join(", ")}.`]),
    ],
  };
}

function podTable(kinds: readonly Waiting[]): Table {
  const rows = kinds
    .filter(({ pods }) => pods > 0)
    .map((kind): Cell[] => {
      const shims = kind.rss["containerd-shim-runc-v2"];
      const perShim = (bytes: number) => bytes / shims.processes / MIB;
      const median = (of: (usage: PodUsage) => number) => quantiles(kind.podUsages.map(of)).p50;
      return [
        kind.title,
        median(({ workingSetBytes }) => workingSetBytes / MIB),
        median(({ anonymousBytes }) => anonymousBytes / MIB),
        (kind.podCores / kind.pods) * MILLI,
        ...[perShim(shims.rssBytes), perShim(shims.anonymousBytes)],
      ];
    });
  return {
    title: "Each waiting Pod",
    columns: [
      "",
      "working set, MiB",
      "anonymous part",
      "thousandths of a core",
      "its shim's RSS, MiB",
      "anonymous part",
    ],
    rows,
  };
}

/** What the programs take with these Pods more than without any, by Pod. */
function programTable(kinds: readonly Waiting[]): Table {
  const none = kinds.find(({ pods }) => pods === 0);
  const programs = Object.keys(none?.cores ?? {}) as (keyof Waiting["cores"])[];
  const rows = kinds.map((kind): Cell[] => [
    kind.title,
    ...programs.map((program) => {
      const more = kind.cores[program] - (kind.pods === 0 ? 0 : (none?.cores[program] ?? 0));
      return (more / Math.max(1, kind.pods)) * MILLI;
    }),
  ]);
  return {
    title: "CPU of the node's programs for each Pod, in thousandths of a core, compared with none",
    columns: ["", ...programs],
    rows,
  };
}

function requestTable(kinds: readonly Waiting[], seconds: number): Table {
  const users = [...new Set(kinds.flatMap(({ requests }) => Object.keys(requests)))].sort();
  const rows = kinds
    .filter(({ pods }) => pods > 0)
    .map(({ title, pods, events, requests }): Cell[] => {
      const hourly = (count: number) => (count / pods / seconds) * SECONDS_PER_HOUR;
      const all = Object.values(requests).reduce((sum, count) => sum + count, 0);
      return [title, hourly(events), hourly(all), ...users.map((user) => hourly(requests[user] ?? 0))];
    });
  return {
    title: "Per waiting Pod and hour",
    columns: ["", "writes of Events", "requests", ...users.map((user) => `from ${user}`)],
    rows,
  };
}
