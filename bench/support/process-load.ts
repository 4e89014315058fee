import { cpuSeconds, residentBytes } from "./process-status.ts";

const SAMPLE_MS = 1_000;

/** What a process uses over a period, as the kernel counts it. */
export interface ProcessLoad {
  readonly seconds: number;
  /** The number of cores used: 0.5 is half a core. */
  readonly cores: number;
  /** The resident set, sampled every second. */
  readonly rssBytes: { readonly mean: number; readonly max: number };
}

/** Watches a process until `end` resolves. */
export async function measureLoad(pid: number, end: Promise<unknown>): Promise<ProcessLoad> {
  const startedAt = performance.now();
  const before = await cpuSeconds(pid);
  const samples = [await residentBytes(pid)];
  let ended = false;
  const ending = end.finally(() => {
    ended = true;
  });
  while (!ended) {
    const tick = Promise.withResolvers<void>();
    const timer = setTimeout(tick.resolve, SAMPLE_MS);
    await Promise.race([tick.promise, ending]);
    clearTimeout(timer);
    samples.push(await residentBytes(pid));
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  const used = (await cpuSeconds(pid)) - before;
  const mean = samples.reduce((sum, bytes) => sum + bytes, 0) / samples.length;
  return { seconds, cores: used / seconds, rssBytes: { mean, max: Math.max(...samples) } };
}
