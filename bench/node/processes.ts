import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { anonymousBytes, cpuSeconds, residentBytes } from "../support/process-status.ts";

/** What several processes use together. */
export interface Usage {
  readonly processes: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  /** The part of the resident sets that belongs to the processes alone. */
  readonly anonymousBytes: number;
}

/** The programs of a node and its control plane, by the name of their file. */
export const PROGRAMS = ["kube-apiserver", "etcd", "kubelet", "containerd", "containerd-shim-runc-v2"] as const;
export type Program = (typeof PROGRAMS)[number];

/** Returns what each of the node's programs has used so far, of all its processes. Only works on the node. */
export async function programUsage(): Promise<Record<Program, Usage>> {
  const all = await Promise.all((await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(programOf));
  const usages = PROGRAMS.map(async (program) => {
    const pids = all.filter(({ name }) => name === program).map(({ pid }) => pid);
    return [program, await usageOf(pids)] as const;
  });
  return Object.fromEntries(await Promise.all(usages)) as Record<Program, Usage>;
}

export async function usageOf(pids: readonly number[]): Promise<Usage> {
  const each = await Promise.all(
    pids.map(async (pid) => [await cpuSeconds(pid), await residentBytes(pid), await anonymousBytes(pid)] as const),
  );
  const sum = (at: 0 | 1 | 2) => each.reduce((total, values) => total + values[at], 0);
  return { processes: pids.length, cpuSeconds: sum(0), rssBytes: sum(1), anonymousBytes: sum(2) };
}

async function programOf(pid: string): Promise<{ pid: number; name: string }> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return { pid: Number(pid), name: basename(commandLine.split("\0")[0] ?? "") };
}
