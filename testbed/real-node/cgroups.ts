import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { processStart } from "../cluster/lock.ts";

const MOUNT = "/sys/fs/cgroup";
/** The kernel takes a moment to let go of the last process of a group. */
const REMOVAL_ATTEMPTS = 50;
const REMOVAL_PAUSE_MS = 100;

/** A new name that tells which process it belongs to, for whoever finds it later. */
export function cgroupName(pid: number = process.pid): string {
  return `berth-node-${pid}-${processStart(pid) ?? "0"}-${randomBytes(3).toString("hex")}`;
}

/** Folders of all hierarchies of this machine: one of version 2, several of version 1. */
export async function hierarchies(mount = MOUNT): Promise<string[]> {
  const text = await readFile("/proc/mounts", "utf8");
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, path = "", type = ""]) => (type === "cgroup" || type === "cgroup2") && path.startsWith(mount))
    .map(([, path = ""]) => path);
}

/** Makes a control group in every hierarchy. */
export async function makeCgroups(name: string): Promise<void> {
  for (const hierarchy of await hierarchies()) await mkdir(join(hierarchy, name), { recursive: true });
}

/** Removes a control group that has no process any more, and all beneath it, from every hierarchy. */
export async function removeCgroups(name: string): Promise<void> {
  for (const hierarchy of await hierarchies()) await removeTree(join(hierarchy, name));
}

/** Removes the groups of nodes whose process is gone: it was killed, and could not do it. */
export async function removeOrphans(): Promise<void> {
  const orphans = new Set<string>();
  for (const hierarchy of await hierarchies()) {
    for (const name of await readdir(hierarchy)) {
      const [, pid, started] = /^berth-node-(\d+)-(\d+)(-|$)/.exec(name) ?? [];
      if (pid !== undefined && processStart(Number(pid)) !== started) orphans.add(name);
    }
  }
  for (const name of orphans) await removeCgroups(name);
}

async function removeTree(dir: string): Promise<void> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => undefined);
  if (!entries) return;
  // Its files are the kernel's: only folders can be removed, from the leaves up.
  for (const entry of entries) if (entry.isDirectory()) await removeTree(join(dir, entry.name));
  for (let attempt = 1; ; attempt += 1) {
    try {
      await rmdir(dir);
      return;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ENOENT") return;
      if (code !== "EBUSY" || attempt === REMOVAL_ATTEMPTS) throw error;
      await delay(REMOVAL_PAUSE_MS);
    }
  }
}
