import { link, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { realClock, sleep } from "../../../src/core/clock.ts";

/** A folder in the run's folder: `NAMESPACE_POD_UID/CONTAINER/N.log`, as in the kubelet's folder. */
export const POD_LOGS = "pod-logs";
/** Shorter than the life of a Pod. */
const PAUSE_MS = 500;

/**
 * Keeps the logs of containers, which the kubelet deletes with their Pods. It uses hard links, which need no copying
 * and include what is written later.
 */
export class PodLogKeeper implements AsyncDisposable {
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  /** @param podLogs the kubelet's folder, on the same file system as `dir` */
  constructor(podLogs: string, dir: string) {
    this.#running = this.#run(podLogs, join(dir, POD_LOGS));
  }

  async #run(from: string, to: string): Promise<void> {
    const kept = new Set<string>();
    do {
      for (const file of await filesBelow(from)) {
        if (kept.has(file)) continue;
        try {
          await mkdir(join(to, file, ".."), { recursive: true, mode: 0o700 });
          await link(join(from, file), join(to, file));
        } catch (error) {
          // The file may have been deleted meanwhile.
          if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        }
        kept.add(file);
      }
    } while (await sleep(realClock, PAUSE_MS, this.#ending.signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }
}

/** Paths of all files below a folder, relative to it; empty if there is no such folder. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.map(async (entry) => {
    if (!entry.isDirectory()) return entry.isFile() ? [entry.name] : [];
    return (await filesBelow(join(folder, entry.name))).map((path) => join(entry.name, path));
  });
  return (await Promise.all(below)).flat();
}
