import { setTimeout as pause } from "node:timers/promises";
import { anonymousBytes, cpuSeconds, residentBytes } from "./process-status.ts";

/** A process that has started. */
export interface Started {
  readonly pid: number;
  /** From just before the start to the first successful answer over HTTP. */
  readonly readyMs: number;
  /** The user and system time of all its threads until then. */
  readonly readyCpuMs: number;
}

/** The resident memory of a process in MiB, as the kernel counts it. */
export interface Resident {
  readonly total: number;
  readonly anonymous: number;
}

const LOOK_AGAIN_MS = 2;
const MIB = 1_024 ** 2;

/** Polls a server until it answers 200. @param startedAt performance.now() just before the process was started */
export async function untilReady(pid: number, url: string, startedAt: number): Promise<Started> {
  while (
    !(await fetch(url).then(
      ({ ok }) => ok,
      () => false,
    ))
  )
    await pause(LOOK_AGAIN_MS);
  const readyMs = performance.now() - startedAt;
  return { pid, readyMs, readyCpuMs: (await cpuSeconds(pid)) * 1_000 };
}

export async function resident(pid: number): Promise<Resident> {
  const [total, anonymous] = await Promise.all([residentBytes(pid), anonymousBytes(pid)]);
  return { total: total / MIB, anonymous: anonymous / MIB };
}
