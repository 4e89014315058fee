import { once } from "node:events";
import { readdir, readlink } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import type { OperatorProcess } from "../../test/support/operator-process.ts";
import { residentBytes } from "../support/process-status.ts";
import type { Inspector } from "./inspector.ts";

/** What an operator's process holds at a moment, after a collection of garbage. */
export interface Vitals {
  /** JavaScript heap and what hangs on it outside, such as buffers. */
  readonly heapBytes: number;
  /** Resident set, as the kernel says. */
  readonly rssBytes: number;
  /** Open sockets, and other open files, of /proc/PID/fd. */
  readonly sockets: number;
  readonly files: number;
  /** Timers that are set, and those that are done with and still held by something. */
  readonly timers: number;
  /** What keeps its event loop alive, as `process.getActiveResourcesInfo()` has it. */
  readonly handles: number;
  /** Elements of all Maps and Sets. */
  readonly entries: number;
  /** AbortSignals: each wait has one, and one that is never let go of keeps its listeners. */
  readonly signals: number;
  /** Series of /metrics that bear the label of an Environment, and all others. */
  readonly environmentSeries: number;
  readonly otherSeries: number;
}

export type Measure = keyof Vitals;

const TIMER_PROTOTYPE =
  "(() => { const timer = setTimeout(() => {}, 0); clearTimeout(timer); return Object.getPrototypeOf(timer); })()";
/** The prototype of a class that extends Map is among them, and throws when it is asked for its size. */
const SUM_OF_SIZES = "let sum = 0; for (const each of this) { try { sum += each.size; } catch {} } return sum;";

/** Looks at an operator's process from outside. */
export async function readVitals(
  operator: Pick<OperatorProcess, "pid" | "addresses">,
  inspector: Inspector,
): Promise<Vitals> {
  // What is open comes first: looking at the rest opens connections of its own.
  const descriptors = await openDescriptors(operator.pid);
  const timers = await inspector.ofAll<number>(TIMER_PROTOTYPE, "return this.length;");
  const signals = await inspector.ofAll<number>("AbortSignal.prototype", "return this.length;");
  const maps = await inspector.ofAll<number>("Map.prototype", SUM_OF_SIZES);
  const sets = await inspector.ofAll<number>("Set.prototype", SUM_OF_SIZES);
  const handles = await inspector.evaluate<number>("process.getActiveResourcesInfo().length");
  await inspector.collectGarbage();
  const memory = await inspector.evaluate<NodeJS.MemoryUsage>("process.memoryUsage()");
  const series = await seriesOf(operator);
  return {
    heapBytes: memory.heapUsed + memory.external,
    rssBytes: await residentBytes(operator.pid),
    ...descriptors,
    timers,
    handles,
    entries: maps + sets,
    signals,
    ...series,
  };
}

/** The least of each measure: what is only there for a moment is no growth. */
export function leastOf(all: readonly [Vitals, ...Vitals[]]): Vitals {
  const names = Object.keys(all[0]) as Measure[];
  return Object.fromEntries(
    names.map((name) => [name, Math.min(...all.map((each) => each[name]))]),
  ) as unknown as Vitals;
}

export async function openDescriptors(pid: number): Promise<{ readonly sockets: number; readonly files: number }> {
  const names = await readdir(`/proc/${pid}/fd`);
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => undefined)));
  const open = targets.filter((target) => target !== undefined);
  const sockets = open.filter((target) => target.startsWith("socket:")).length;
  return { sockets, files: open.length - sockets };
}

async function seriesOf({ addresses }: Pick<OperatorProcess, "addresses">) {
  // A connection of its own, that is closed after it: one that is kept would count as a socket of the next look.
  const [reply] = (await once(get(`http://${addresses.metrics}/metrics`, { agent: false }), "response")) as [
    IncomingMessage,
  ];
  const lines = (await text(reply)).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const environmentSeries = lines.filter((line) => /[{,]environment="/.test(line)).length;
  return { environmentSeries, otherSeries: lines.length - environmentSeries };
}
