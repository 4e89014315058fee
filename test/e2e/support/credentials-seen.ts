import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";

const FILE = "credentials";

/** Records credentials that were issued, for the leak search at the end of the run. */
export async function recordCredentials(dir: string, credentials: readonly string[]): Promise<void> {
  // A single write, because other test files write to the same file.
  await appendFile(join(dir, FILE), credentials.map((credential) => `${credential}\n`).join(""), { mode: 0o600 });
}

/** All credentials recorded in this run. */
export async function recordedCredentials(dir: string): Promise<Set<string>> {
  const text = await readFile(join(dir, FILE), "utf8").catch(() => "");
  return new Set(text.split("\n").filter((line) => line !== ""));
}
