import { readdir, readFile } from "node:fs/promises";

/**
 * Processes of this machine that serve an environment: those of its workers and what they started, found by the id in
 * their own environment. Empty where there is no /proc.
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
    // Gone meanwhile, or somebody else's.
    return false;
  }
}
