import { createHash } from "node:crypto";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { sortEntries, type TarEntry } from "./tar.ts";

/** Enough of a SHA-256 for a name, because no attacker tries to create a collision. */
const KEY_CHARACTERS = 32;

/** Returns a name that depends on everything that determines a cache entry. */
export function keyOf(...parts: readonly unknown[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, KEY_CHARACTERS);
}

/** Returns the key of a file or folder: names, contents, and execute permissions, but not times or owners. */
export async function treeKey(path: string): Promise<string> {
  const stats = await lstat(path);
  if (stats.isSymbolicLink()) return keyOf("link", await readlink(path));
  if (!stats.isDirectory()) return keyOf("file", stats.mode & 0o111, hashOf(await readFile(path)));
  const names = (await readdir(path)).sort();
  return keyOf("folder", ...(await Promise.all(names.map(async (name) => [name, await treeKey(join(path, name))]))));
}

/** Returns the key of members that are in memory. */
export function entriesKey(entries: readonly TarEntry[]): string {
  const facts = sortEntries(entries).map((entry) => {
    if (entry.type !== "file") return entry;
    if (!("content" in entry)) throw new Error(`${entry.path} is not in memory`);
    return { ...entry, content: hashOf(entry.content) };
  });
  return keyOf(...facts);
}

function hashOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
