import type { Stats } from "node:fs";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { TarEntry } from "./tar.ts";

export interface TreeOptions {
  /** Where the tree is in the image: `app`, or "" for its root. */
  readonly at?: string;
  /** Whether a path, relative to the tree, is left out, with what is in it. */
  readonly without?: (path: string) => boolean;
  /**
   * Owner and permissions: `root` gives everything to root, with 0755 for folders and programs and 0644 for the rest,
   * whatever umask the files were made under; `kept` takes them as they are.
   */
  readonly owner?: "root" | "kept";
}

const ALL_BITS = 0o7777;
const ANY_EXECUTE = 0o111;
/** A symbolic link's mode means nothing; every tool shows this. */
const LINK_MODE = 0o777;
const PROGRAM = 0o755;
const DOCUMENT = 0o644;

/** What a folder holds, as members of a layer. Sockets, pipes and devices are left out: a container gets its own. */
export async function treeEntries(root: string, options: TreeOptions = {}): Promise<TarEntry[]> {
  const { at = "", without = () => false, owner = "root" } = options;
  const entries: TarEntry[] = [];
  const firstName = new Map<string, string>();
  const visit = async (path: string): Promise<void> => {
    // Sorted, since the first name of a file with several is the one that is written.
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
  // Files of a checkout may be hard links into some cache: that is no part of what they are.
  if (owner === "kept" && stats.nlink > 1) {
    const file = `${stats.dev}:${stats.ino}`;
    const target = firstName.get(file);
    if (target !== undefined) return { type: "hardlink", path, mode, ...ids, target };
    firstName.set(file, path);
  }
  return { type: "file", path, mode, ...ids, source, size: stats.size };
}

/** The same entries with their contents in memory: hashing and writing then see the same, whoever edits the files. */
export async function loaded(entries: readonly TarEntry[]): Promise<TarEntry[]> {
  return await Promise.all(
    entries.map(async (entry): Promise<TarEntry> => {
      if (entry.type !== "file" || "content" in entry) return entry;
      const { source, size: _, ...rest } = entry;
      return { ...rest, content: await readFile(source) };
    }),
  );
}

/** A folder, owned by root unless said otherwise. */
export function directory(path: string, mode: number = PROGRAM, uid = 0, gid = uid): TarEntry {
  return { type: "directory", path, mode, uid, gid };
}

/** A file of root's with this content. */
export function file(path: string, content: string | Buffer, mode: number = DOCUMENT): TarEntry {
  return { type: "file", path, mode, uid: 0, gid: 0, content: Buffer.from(content) };
}
