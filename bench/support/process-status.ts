import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

const KIB = 1_024;
const FIELD_UTIME = 13;

/** The resident set. */
export const residentBytes = (pid: number) => statusBytes(pid, "VmRSS");

/** What of it is the process's own; the rest is of files, such as Node's binary, which processes of one node share. */
export const anonymousBytes = (pid: number) => statusBytes(pid, "RssAnon");

/** The most that was ever resident. */
export const peakBytes = (pid: number) => statusBytes(pid, "VmHWM");

async function statusBytes(pid: number, field: string): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) * KIB;
}

/** User and system time of all threads (proc(5), stat). */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name may hold anything, in parentheses; the fields after it are numbers.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user, system] = [fields[FIELD_UTIME - 2], fields[FIELD_UTIME - 1]];
  return (Number(user) + Number(system)) / (await ticksPerSecond());
}

let ticks: Promise<number> | undefined;

function ticksPerSecond(): Promise<number> {
  ticks ??= promisify(execFile)("getconf", ["CLK_TCK"]).then(({ stdout }) => Number(stdout));
  return ticks;
}
