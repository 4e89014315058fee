import { once } from "node:events";
import { readdir, readlink } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import type { OperatorProcess } from "../../test/support/operator-process.ts";
import { residentBytes } from "../support/process-status.ts";
import type { Inspector } from "./inspector.ts";

/** What an operator's process holds at one moment, after a garbage collection. */
export interface Vitals {
  /** The JavaScript heap and the external memory that it holds, such as buffers. */
  readonly heapBytes: number;
  /** The resident set, as the kernel reports it. */
  readonly rssBytes: number;
  /** Open sockets and other open files in /proc/PID/fd. */
  readonly sockets: number;
  readonly files: number;
  /** Timers that are set, and finished timers that something still references. */
  readonly timers: number;
  /** What keeps the event loop alive, according to `process.getActiveResourcesInfo()`. */
  readonly handles: number;
  /** The number of elements in all Maps and Sets. */
  readonly entries: number;
  /** AbortSignals. Each wait has one, and one that is never released keeps its listeners. */
  readonly signals: number;
  /** Series of /metrics with the label of an Environment, and all others. */
  readonly environmentSeries: number;
  readonly otherSeries: number;
}

export type Measure = keyof Vitals;

const TIMER_PROTOTYPE =
  "(() => { const timer = setTimeout(() => {}, 0); clearTimeout(timer); return Object.getPrototypeOf(timer); })()";
/** The objects include the prototypes of classes that extend Map, whose `size` throws. */
const SUM_OF_SIZES = "let sum = 0; for (const each of this) { try { sum += each.size; } catch {} } return sum;";

/** Measures an operator's process from outside. */
export async function readVitals(
  operator: Pick<OperatorProcess, "pid" | "addresses">,
  inspector: Inspector,
): Promise<Vitals> {
  // Count descriptors first, because reading the rest opens connections.
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

/** Returns the minimum of each measure, because a value that is only momentary isn't growth. */
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
  // Use a separate connection and wait until it is closed, because an open one would count as a socket in the next look.
  const request = get(`http://${addresses.metrics}/metrics`, { agent: false });
  const read = once(request, "response").then(([reply]) => text(reply as IncomingMessage));
  const [body] = await Promise.all([read, once(request, "close")]);
  const lines = body.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const environmentSeries = lines.filter((line) => /[{,]environment="/.test(line)).length;
  return { environmentSeries, otherSeries: lines.length - environmentSeries };
}
