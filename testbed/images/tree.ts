import type { Stats } from "node:fs";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { TarEntry } from "./tar.ts";

export interface TreeOptions {
  /** The tree's path in the image: `app`, or "" for the root. */
  readonly at?: string;
  /** Whether to leave out a path, relative to the tree, and everything in it. */
  readonly without?: (path: string) => boolean;
  /**
   * Owner and permissions. `root` makes root the owner, with 0755 for folders and programs and 0644 for the rest,
   * independent of the umask of the files. `kept` keeps both as they are.
   */
  readonly owner?: "root" | "kept";
}

const ALL_BITS = 0o7777;
const ANY_EXECUTE = 0o111;
/** The mode of a symbolic link has no effect. All tools show this value. */
const LINK_MODE = 0o777;
const PROGRAM = 0o755;
const DOCUMENT = 0o644;

/**
 * Returns the contents of a folder as members of a layer. Leaves out sockets, pipes, and devices, because a container
 * gets its own.
 */
export async function treeEntries(root: string, options: TreeOptions = {}): Promise<TarEntry[]> {
  const { at = "", without = () => false, owner = "root" } = options;
  const entries: TarEntry[] = [];
  const firstName = new Map<string, string>();
  const visit = async (path: string): Promise<void> => {
    // Sorted, because a file with several names is written under the first one.
    for (const name of (await readdir(join(root, path))).sort()) {
      const inner = path === "" ? name : `${path}/${name}`;
      if (without(inner)) continue;
      const stats = await lstat(join(root, inner));
      const entry = await entryOf(join(root, inner), at === "" ? inner : `${at}/${inner}`, stats, owner, firstName);
      if (entry) entries.push(entry);
      if (stats.isDirectory()) await visit(inner);
    }
  };
  await visit("");
  return entries;
}

async function entryOf(
  source: string,
  path: string,
  stats: Stats,
  owner: "root" | "kept",
  firstName: Map<string, string>,
): Promise<TarEntry | undefined> {
  const ids = owner === "root" ? { uid: 0, gid: 0 } : { uid: stats.uid, gid: stats.gid };
  const isProgram = stats.isDirectory() || (stats.mode & ANY_EXECUTE) !== 0;
  const mode = owner === "kept" ? stats.mode & ALL_BITS : isProgram ? PROGRAM : DOCUMENT;
  if (stats.isDirectory()) return { type: "directory", path, mode, ...ids };
  if (stats.isSymbolicLink()) {
    return { type: "symlink", path, mode: LINK_MODE, ...ids, target: await readlink(source) };
  }
  if (!stats.isFile()) return undefined;
  // Files of a checkout may be hard links into a cache. That isn't part of the image.
  if (owner === "kept" && stats.nlink > 1) {
    const file = `${stats.dev}:${stats.ino}`;
    const target = firstName.get(file);
    if (target !== undefined) return { type: "hardlink", path, mode, ...ids, target };
    firstName.set(file, path);
  }
  return { type: "file", path, mode, ...ids, source, size: stats.size };
}

/**
 * Loads the contents of entries into memory, so that hashing and writing see the same data even if the files change.
 */
export async function loaded(entries: readonly TarEntry[]): Promise<TarEntry[]> {
  return await Promise.all(
    entries.map(async (entry): Promise<TarEntry> => {
      if (entry.type !== "file" || "content" in entry) return entry;
      const { source, size: _, ...rest } = entry;
      return { ...rest, content: await readFile(source) };
    }),
  );
}

/** Returns a folder that belongs to root by default. */
export function directory(path: string, mode: number = PROGRAM, uid = 0, gid = uid): TarEntry {
  return { type: "directory", path, mode, uid, gid };
}

/** Returns a file with this content that belongs to root. */
export function file(path: string, content: string | Buffer, mode: number = DOCUMENT): TarEntry {
  return { type: "file", path, mode, uid: 0, gid: 0, content: Buffer.from(content) };
}
