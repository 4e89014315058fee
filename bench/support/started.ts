import { setTimeout as pause } from "node:timers/promises";
import { anonymousBytes, cpuSeconds, residentBytes } from "./process-status.ts";

/** A process that has come up. */
export interface Started {
  readonly pid: number;
  /** From just before it was started to its first good answer over HTTP. */
  readonly readyMs: number;
  /** User and system time of all its threads until then. */
  readonly readyCpuMs: number;
}

/** What a process holds, in MiB, as the kernel counts it. */
export interface Resident {
  readonly total: number;
  readonly anonymous: number;
}

const LOOK_AGAIN_MS = 2;
const MIB = 1_024 ** 2;

/** Asks a server until it says 200. @param startedAt performance.now() just before its process was started */
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
