import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { hierarchies } from "../../testbed/real-node/cgroups.ts";

/**
 * What the containers of a Pod use together, its sandbox included, from its control group. The kubelet's summary has
 * no Pods whose containers wait for a key.
 */
export interface PodUsage {
  /** Without files that nothing has used for a while, as the kubelet computes it. */
  readonly workingSetBytes: number;
  readonly anonymousBytes: number;
  /** Of the kernel for the Pod's processes and files, such as page tables, sockets and cached directory entries. */
  readonly kernelBytes: number;
  readonly cpuSeconds: number;
}

const NANOSECONDS = 1e9;
const MICROSECONDS = 1e6;

/** Reads the control groups of Pods, in the order of their uids. @throws {Error} if a Pod has none */
export async function podUsages(uids: readonly string[]): Promise<PodUsage[]> {
  const folders = await podFolders();
  return await Promise.all(uids.map((uid) => usageOf(uid, folders.get(`pod${uid}`) ?? [])));
}

/** Finds the folders of all Pods in all hierarchies, by their names. */
async function podFolders(): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const visit = async (folder: string): Promise<void> => {
    const name = basename(folder);
    if (/^pod[0-9a-f-]{36}$/.test(name)) {
      found.set(name, [...(found.get(name) ?? []), folder]);
      return;
    }
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) await visit(join(folder, entry.name));
    }
  };
  for (const hierarchy of await hierarchies()) await visit(hierarchy);
  return found;
}

/** Each hierarchy of version 1 has some of the files. That of version 2 has files with other names. */
async function usageOf(uid: string, folders: readonly string[]): Promise<PodUsage> {
  const read = async (file: string): Promise<string | undefined> => {
    for (const folder of folders) {
      const text = await readFile(join(folder, file), "utf8").catch(() => undefined);
      if (text !== undefined) return text;
    }
    return undefined;
  };
  const usage = (await read("memory.current")) ?? (await read("memory.usage_in_bytes"));
  const stat = await read("memory.stat");
  const kernel = (await read("memory.kmem.usage_in_bytes")) ?? field(stat ?? "", "kernel") ?? 0;
  const [nanoseconds, cpuStat] = [await read("cpuacct.usage"), await read("cpu.stat")];
  if (usage === undefined || stat === undefined) throw new Error(`Pod ${uid} has no control group`);
  const inactive = field(stat, "total_inactive_file") ?? field(stat, "inactive_file") ?? 0;
  return {
    workingSetBytes: Number(usage) - inactive,
    anonymousBytes: field(stat, "total_rss") ?? field(stat, "anon") ?? 0,
    kernelBytes: Number(kernel),
    cpuSeconds:
      nanoseconds === undefined
        ? (field(cpuStat ?? "", "usage_usec") ?? 0) / MICROSECONDS
        : Number(nanoseconds) / NANOSECONDS,
  };
}

function field(stat: string, name: string): number | undefined {
  const value = new RegExp(`^${name} (\\d+)$`, "m").exec(stat)?.[1];
  return value === undefined ? undefined : Number(value);
}
