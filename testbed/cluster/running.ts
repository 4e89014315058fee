import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheRoot } from "./cache.ts";
import { processStart } from "./lock.ts";

const PROJECT_DIR = join(import.meta.dirname, "..", "..");

/** A cluster that a process keeps running for this checkout. */
export interface RunningCluster {
  readonly kubeconfig: string;
  /** The process that started the cluster. The cluster ends with it. */
  readonly pid: number;
  /** The start time of that process in clock ticks since boot. */
  readonly started: string;
  /** Milliseconds since the epoch. */
  readonly announcedAt: number;
  /** Whether the cluster has a real node. */
  readonly hasNode: boolean;
}

/**
 * Announces a cluster of this process, so that `npm run cluster -- COMMAND` finds it. Returns a function that withdraws
 * the announcement.
 */
export async function announceCluster(
  cluster: { readonly kubeconfig: string; readonly hasNode?: boolean },
  env?: NodeJS.ProcessEnv,
): Promise<() => Promise<void>> {
  const dir = announcementsDir(env);
  const file = join(dir, `${process.pid}.json`);
  const { kubeconfig, hasNode = false } = cluster;
  const running: RunningCluster = {
    kubeconfig,
    pid: process.pid,
    started: processStart(process.pid) ?? "",
    announcedAt: Date.now(),
    hasNode,
  };
  await mkdir(dir, { recursive: true, mode: 0o700 });
  // Renaming the file means that a reader never sees half of it.
  await writeFile(`${file}.new`, JSON.stringify(running), { mode: 0o600 });
  await rename(`${file}.new`, file);
  return () => rm(file, { force: true });
}

/**
 * Returns the clusters of this checkout whose processes are alive, the newest first. Removes the announcements of the
 * others.
 */
export async function runningClusters(env?: NodeJS.ProcessEnv): Promise<RunningCluster[]> {
  const dir = announcementsDir(env);
  const names = await readdir(dir).catch(() => []);
  const running: RunningCluster[] = [];
  for (const name of names.filter((name) => name.endsWith(".json"))) {
    const file = join(dir, name);
    const cluster = parse(await readFile(file, "utf8").catch(() => ""));
    if (cluster && processStart(cluster.pid) === cluster.started) running.push(cluster);
    else await rm(file, { force: true });
  }
  return running.sort((a, b) => b.announcedAt - a.announcedAt);
}

/** Each checkout of the project has its own clusters. */
function announcementsDir(env?: NodeJS.ProcessEnv): string {
  const project = createHash("sha256").update(PROJECT_DIR).digest("hex").slice(0, 12);
  return join(cacheRoot(env), "clusters", project);
}

function parse(text: string): RunningCluster | undefined {
  try {
    const value = JSON.parse(text) as Partial<RunningCluster> | null;
    const { kubeconfig, pid, started, announcedAt, hasNode = false } = value ?? {};
    if (typeof kubeconfig !== "string" || typeof pid !== "number") return undefined;
    if (typeof started !== "string" || typeof announcedAt !== "number") return undefined;
    return { kubeconfig, pid, started, announcedAt, hasNode };
  } catch {
    return undefined;
  }
}
