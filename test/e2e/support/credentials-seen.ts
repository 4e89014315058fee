import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";

const FILE = "credentials";

/** Writes down credentials that were given out, for the search for leaked ones at the end of the run. */
export async function recordCredentials(dir: string, credentials: readonly string[]): Promise<void> {
  // One write: other test files write too.
  await appendFile(join(dir, FILE), credentials.map((credential) => `${credential}\n`).join(""), { mode: 0o600 });
}

/** All that were written down in this run. */
export async function recordedCredentials(dir: string): Promise<Set<string>> {
  const text = await readFile(join(dir, FILE), "utf8").catch(() => "");
  return new Set(text.split("\n").filter((line) => line !== ""));
}
