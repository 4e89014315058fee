import { link, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { realClock, sleep } from "../../../src/core/clock.ts";

/** Folder within that of a run: `NAMESPACE_POD_UID/CONTAINER/N.log`, as kubelet has them. */
export const POD_LOGS = "pod-logs";
/** A Pod is there for longer. */
const PAUSE_MS = 500;

/**
 * Keeps what containers wrote, as long as it runs: kubelet deletes it with the Pod. By hard links, so that nothing is
 * copied and what is written later is there too.
 */
export class PodLogKeeper implements AsyncDisposable {
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  /** @param podLogs kubelet's folder, on the file system of `dir`. */
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
          // It may be gone by now.
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

/** Paths of all files below a folder, relative to it; none where there is no such folder. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.map(async (entry) => {
    if (!entry.isDirectory()) return entry.isFile() ? [entry.name] : [];
    return (await filesBelow(join(folder, entry.name))).map((path) => join(entry.name, path));
  });
  return (await Promise.all(below)).flat();
}
