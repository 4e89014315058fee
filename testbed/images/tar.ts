import { createReadStream } from "node:fs";

/** A member of an archive. Paths are relative to the root, without a leading or trailing slash. */
export type TarEntry = {
  readonly path: string;
  /** Permission bits, including setuid, setgid, and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
} & (
  | { readonly type: "directory" }
  | { readonly type: "symlink" | "hardlink"; readonly target: string }
  | { readonly type: "file"; readonly content: Buffer }
  /** Read when the member is written. If the size has changed, that is an error. */
  | { readonly type: "file"; readonly source: string; readonly size: number }
);

/**
 * The modification time of every member, so that the same files give the same bytes: 1 January 2000, because some tools
 * reject 1970.
 */
export const MTIME_SECONDS = 946_684_800;

const BLOCK = 512;
/** POSIX requires two empty blocks at the end. */
const END_BLOCKS = 2;
const NAME_BYTES = 100;
/** The largest size that fits in eleven octal digits. */
const MAX_SIZE = 8 ** 11 - 1;
/** Type flags of ustar, and of the pax header before a member. */
const FLAGS = { file: "0", hardlink: "1", symlink: "2", directory: "5", pax: "x" } as const;

/**
 * Returns the bytes of a tar archive with these members (ustar, with pax headers for long names). Members are sorted by
 * path, so that the same members give the same bytes. Throws if two members have the same path.
 */
export async function* tarBytes(entries: Iterable<TarEntry>): AsyncGenerator<Buffer> {
  let before: string | undefined;
  for (const entry of sortEntries(entries)) {
    if (entry.path === before) throw new Error(`two members are named ${entry.path}`);
    before = entry.path;
    yield* memberBytes(entry);
  }
  yield Buffer.alloc(END_BLOCKS * BLOCK);
}

/** Sorts by the bytes of the path, so that the locale has no influence and a folder comes before its contents. */
export function sortEntries(entries: Iterable<TarEntry>): TarEntry[] {
  return [...entries].sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
}

async function* memberBytes(entry: TarEntry): AsyncGenerator<Buffer> {
  const size = entry.type !== "file" ? 0 : "content" in entry ? entry.content.length : entry.size;
  if (size > MAX_SIZE) throw new Error(`${entry.path} is too large for a tar archive`);
  const name = entry.type === "directory" ? `${entry.path}/` : entry.path;
  const target = "target" in entry ? entry.target : "";
  const pax = paxRecords({ path: name, linkpath: target });
  if (pax) {
    // GNU tar and libarchive use this name. No tool reads it.
    yield header({ ...entry, name: `PaxHeaders/${name}`, target: "", flag: FLAGS.pax, size: pax.length });
    yield padded(pax);
  }
  yield header({ ...entry, name, target, flag: FLAGS[entry.type], size });
  if (entry.type !== "file") return;
  if ("content" in entry) yield padded(entry.content);
  else yield* fileBytes(entry.source, size);
}

async function* fileBytes(source: string, size: number): AsyncGenerator<Buffer> {
  let left = size;
  for await (const chunk of createReadStream(source, { highWaterMark: 1024 ** 2 }) as AsyncIterable<Buffer>) {
    left -= chunk.length;
    if (left < 0) break;
    yield chunk;
  }
  if (left !== 0) throw new Error(`${source} changed while it was read`);
  yield Buffer.alloc(padding(size));
}

interface Header {
  readonly name: string;
  readonly target: string;
  readonly flag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
}

/** Builds a POSIX.1-1988 ustar header: fields of fixed width, with octal numbers. */
function header({ name, target, flag, mode, uid, gid, size }: Header): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number) =>
    block.write(`${value.toString(8).padStart(width - 1, "0")}\0`, at, "ascii");
  Buffer.from(name).copy(block, 0, 0, NAME_BYTES);
  octal(mode, 100, 8);
  octal(uid, 108, 8);
  octal(gid, 116, 8);
  octal(size, 124, 12);
  octal(MTIME_SECONDS, 136, 12);
  // The checksum treats its own field as spaces.
  block.write("        ", 148, "ascii");
  block.write(flag, 156, "ascii");
  Buffer.from(target).copy(block, 157, 0, NAME_BYTES);
  block.write("ustar\x0000", 257, "ascii");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "ascii");
  return block;
}

/**
 * Returns pax records for values that don't fit in the header's 100 bytes or aren't ASCII. Returns undefined if all
 * fit.
 */
function paxRecords(values: Readonly<Record<string, string>>): Buffer | undefined {
  const records = Object.entries(values)
    .filter(([, value]) => Buffer.byteLength(value) > NAME_BYTES || /[^\x20-\x7e]/.test(value))
    .map(([key, value]) => paxRecord(key, value));
  return records.length > 0 ? Buffer.from(records.join("")) : undefined;
}

/** Returns `length key=value\n`. The length includes its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes;
  while (length !== bytes + String(length).length) length = bytes + String(length).length;
  return `${length}${rest}`;
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc(padding(content.length))]);
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}
