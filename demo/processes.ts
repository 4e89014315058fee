import { readdir, readFile } from "node:fs/promises";

/**
 * Local processes that serve an environment: workers and their children, found by the environment id in their process
 * environment. Empty without /proc.
 */
export async function workerProcesses(environmentId: string): Promise<number[]> {
  const mark = `ANTHROPIC_ENVIRONMENT_ID=${environmentId}`;
  const entries = await readdir("/proc").catch(() => []);
  const found = await Promise.all(
    entries
      .filter((entry) => /^\d+$/.test(entry))
      .map(async (entry) => ((await isMarked(entry, mark)) ? [Number(entry)] : [])),
  );
  return found.flat();
}

async function isMarked(pid: string, mark: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/environ`, "latin1")).split("\0").includes(mark);
  } catch {
    // The process has ended, or belongs to another user.
    return false;
  }
}
