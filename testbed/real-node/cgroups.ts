import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { processStart } from "../cluster/lock.ts";

const MOUNT = "/sys/fs/cgroup";
/** The kernel needs a moment to release the last process of a group. */
const REMOVAL_ATTEMPTS = 50;
const REMOVAL_PAUSE_MS = 100;

/** Returns a new name that identifies the process it belongs to, so that orphans can be found later. */
export function cgroupName(pid: number = process.pid): string {
  return `berth-node-${pid}-${processStart(pid) ?? "0"}-${randomBytes(3).toString("hex")}`;
}

/** Returns the folders of all hierarchies of this machine: one for version 2, several for version 1. */
export async function hierarchies(mount = MOUNT): Promise<string[]> {
  const text = await readFile("/proc/mounts", "utf8");
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, path = "", type = ""]) => (type === "cgroup" || type === "cgroup2") && path.startsWith(mount))
    .map(([, path = ""]) => path);
}

/** Creates a control group in every hierarchy. */
export async function makeCgroups(name: string): Promise<void> {
  for (const hierarchy of await hierarchies()) await mkdir(join(hierarchy, name), { recursive: true });
}

/** Removes a control group without processes, and everything below it, from every hierarchy. */
export async function removeCgroups(name: string): Promise<void> {
  for (const hierarchy of await hierarchies()) await removeTree(join(hierarchy, name));
}

/** Removes the groups of nodes whose process was killed and therefore couldn't remove them. */
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
  // The files belong to the kernel. Only folders can be removed, starting with the innermost.
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
