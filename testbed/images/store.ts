import { createHash, randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, statfs, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { MissingToolError } from "../cluster/missing.ts";
import type { LayerBlob } from "./oci.ts";
import { type TarEntry, tarBytes } from "./tar.ts";

/** Root file systems, packages, layers and an archive: measured 1.6 GB, and some air. */
const NEEDED_BYTES = 3 * 1024 ** 3;
/** Layers are kept so long for other commits and checkouts; the stand-in for Node's image is in no archive. */
const UNUSED_MS = 24 * 3600_000;
/** A build that was killed leaves its folder; the next one removes it. */
const WORK_PREFIX = ".building-";

/** How a layer is made. */
export interface LayerRecipe {
  /** A word or two for people. */
  readonly name: string;
  /** Of everything that decides what the layer holds. */
  readonly key: string;
  /** Makes its members; files may lie in `work`, which stays until they are written. */
  make(work: string): Promise<readonly TarEntry[]>;
}

/** The layers of all builds, one file each, named by their keys. Writing takes the lock of the folder. */
export class LayerStore {
  readonly root: string;
  readonly #layers: string;

  constructor(root: string) {
    this.root = root;
    this.#layers = join(root, "layers");
  }

  /** The layer, if it is here. */
  async find({ name, key }: Pick<LayerRecipe, "name" | "key">): Promise<LayerBlob | undefined> {
    const file = join(this.#layers, `${key}.tar`);
    try {
      const { digest, size } = JSON.parse(await readFile(`${file}.json`, "utf8")) as LayerBlob;
      if ((await stat(file)).size !== size) return undefined;
      await touch(`${file}.json`);
      return { name, digest, size, file };
    } catch {
      return undefined;
    }
  }

  /** The layer, made now if need be. */
  async layer(recipe: LayerRecipe): Promise<LayerBlob> {
    const found = await this.find(recipe);
    if (found) return found;
    await this.checkSpace();
    return await this.inFolder(async (work) => {
      const half = join(work, "layer.tar");
      const dir = join(work, "files");
      await mkdir(dir);
      const { digest, size } = await writeHashed(half, tarBytes(await recipe.make(dir)));
      const file = join(this.#layers, `${recipe.key}.tar`);
      await mkdir(this.#layers, { recursive: true });
      await writeFile(`${half}.json`, JSON.stringify({ digest, size }));
      // In this order: a description without its layer is not believed.
      await rename(half, file);
      await rename(`${half}.json`, `${file}.json`);
      return { name: recipe.name, digest, size, file };
    });
  }

  /** Calls `fn` with a folder that goes afterwards. */
  async inFolder<T>(fn: (dir: string) => Promise<T>): Promise<T> {
    const dir = join(this.root, `${WORK_PREFIX}${randomBytes(6).toString("hex")}`);
    await mkdir(dir, { recursive: true });
    try {
      return await fn(dir);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  /** Throws MissingToolError when the disk is too full for a build. */
  async checkSpace(needed: number = NEEDED_BYTES): Promise<void> {
    await mkdir(this.root, { recursive: true });
    const { bavail, bsize } = await statfs(this.root);
    const free = bavail * bsize;
    if (free >= needed) return;
    const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
    throw new MissingToolError(
      `Making the images takes ${gigabytes(needed)} GB, and ${this.root} has ${gigabytes(free)} GB free. ` +
        "Make room, or set XDG_CACHE_HOME to a folder on a larger disk.",
    );
  }

  /** Removes what killed builds left. Only for the holder of the lock: nobody else builds then. */
  async removeLeftovers(): Promise<void> {
    for (const name of await readdir(this.root).catch(() => [])) {
      if (name.startsWith(WORK_PREFIX)) await rm(join(this.root, name), { recursive: true, force: true });
    }
  }

  /** Removes all but so many entries of a folder: those that were used last stay. */
  async keepNewest(folder: string, count: number): Promise<void> {
    const dir = join(this.root, folder);
    const found = [];
    for (const name of await readdir(dir).catch(() => [])) {
      const path = join(dir, name);
      found.push({ path, usedAt: (await stat(path)).mtimeMs });
    }
    found.sort((a, b) => b.usedAt - a.usedAt);
    for (const { path } of found.slice(count)) await rm(path, { recursive: true, force: true });
  }

  /** Removes the layers whose files are not among these and that nobody used for a day. */
  async keepLayers(files: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(this.#layers).catch(() => [])) {
      const path = join(this.#layers, name);
      if (!name.endsWith(".tar") || files.has(path)) continue;
      const usedAt = (await stat(`${path}.json`).catch(() => undefined))?.mtimeMs ?? 0;
      if (Date.now() - usedAt < UNUSED_MS) continue;
      await rm(`${path}.json`, { force: true });
      await rm(path, { force: true });
    }
  }
}

/** Writes bytes to a file and returns their digest and number. */
export async function writeHashed(
  path: string,
  bytes: AsyncIterable<Buffer>,
): Promise<{ readonly digest: string; readonly size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  await pipeline(
    bytes,
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    },
    createWriteStream(path),
  );
  return { digest: `sha256:${hash.digest("hex")}`, size };
}

/** Notes that a file was used now: what was used last is kept longest. */
export async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => {});
}
