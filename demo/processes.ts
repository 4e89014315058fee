import { readdir, readFile } from "node:fs/promises";

/**
 * Local processes that serve an environment: workers and their children, found by the environment id in their process
 * environment. Empty without /proc.
 * @param which `all` includes shells that wait for a session
 */
export async function workerProcesses(environmentId: string, which: "all" | "with a session"): Promise<number[]> {
  const marks = [
    `\0ANTHROPIC_ENVIRONMENT_ID=${environmentId}\0`,
    ...(which === "all" ? [] : ["\0ANTHROPIC_SESSION_ID="]),
  ];
  const entries = await readdir("/proc").catch(() => []);
  const found = await Promise.all(
    entries
      .filter((entry) => /^\d+$/.test(entry))
      .map(async (entry) => ((await isMarked(entry, marks)) ? [Number(entry)] : [])),
  );
  return found.flat();
}

async function isMarked(pid: string, marks: readonly string[]): Promise<boolean> {
  try {
    // Each variable ends with a null character.
    const environ = `\0${await readFile(`/proc/${pid}/environ`, "latin1")}`;
    return marks.every((mark) => environ.includes(mark));
  } catch {
    // The process has ended, or belongs to another user.
    return false;
  }
}
