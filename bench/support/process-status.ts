import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

const KIB = 1_024;
const FIELD_UTIME = 13;

/** Returns the resident set. */
export const residentBytes = (pid: number) => statusBytes(pid, "VmRSS");

/**
 * Returns the part of the resident set that belongs to the process alone. The rest is from files such as Node's binary,
 * which the processes of a node share.
 */
export const anonymousBytes = (pid: number) => statusBytes(pid, "RssAnon");

/** Returns the peak of the resident set. */
export const peakBytes = (pid: number) => statusBytes(pid, "VmHWM");

async function statusBytes(pid: number, field: string): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) * KIB;
}

/** Returns the user and system time of all threads (proc(5), stat). */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The process name is in parentheses and may contain anything. The fields after it are numbers.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user, system] = [fields[FIELD_UTIME - 2], fields[FIELD_UTIME - 1]];
  return (Number(user) + Number(system)) / (await ticksPerSecond());
}

let ticks: Promise<number> | undefined;

function ticksPerSecond(): Promise<number> {
  ticks ??= promisify(execFile)("getconf", ["CLK_TCK"]).then(({ stdout }) => Number(stdout));
  return ticks;
}
