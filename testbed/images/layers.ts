import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { findProgram, runProgram } from "./commands.ts";
import type { LayerBlob } from "./oci.ts";
import type { TarEntry } from "./tar.ts";
import { file } from "./tree.ts";

/** The image specification's prefix for a file that a layer removes. */
const WHITEOUT = ".wh.";

/** Unpacks layers on top of each other, as a container's root. Needs root, because it sets the owners of files. */
export async function unpack(layers: readonly LayerBlob[], root: string): Promise<string> {
  await mkdir(root, { recursive: true });
  const tar = findProgram("tar");
  for (const layer of layers) {
    await runProgram(tar, [
      "--extract",
      "--same-owner",
      "--same-permissions",
      "--file",
      layer.file,
      "--directory",
      root,
    ]);
  }
  return root;
}

/** Returns the members of a layer that turns the lower tree into the upper tree. */
export async function difference(upper: readonly TarEntry[], lower: readonly TarEntry[]): Promise<TarEntry[]> {
  const [before, after] = [await fingerprints(lower), await fingerprints(upper)];
  const changed = upper.filter(({ path }) => after.get(path) !== before.get(path));
  const gone = lower.filter(({ path }) => !after.has(path));
  const whiteouts = gone
    // A whiteout of a folder also removes its contents.
    .filter(({ path }) => after.has(dirname(path)) || dirname(path) === ".")
    .map(({ path }) => file(join(dirname(path), `${WHITEOUT}${path.slice(path.lastIndexOf("/") + 1)}`), ""));
  return [...changed, ...whiteouts];
}

async function fingerprints(entries: readonly TarEntry[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of entries) {
    const { path, type, mode, uid, gid } = entry;
    found.set(path, JSON.stringify([type, mode, uid, gid, await contentOf(entry)]));
  }
  return found;
}

async function contentOf(entry: TarEntry): Promise<string> {
  if ("target" in entry) return entry.target;
  if (entry.type !== "file") return "";
  const hash = createHash("sha256");
  if ("content" in entry) return hash.update(entry.content).digest("hex");
  for await (const chunk of createReadStream(entry.source)) hash.update(chunk);
  return hash.digest("hex");
}
