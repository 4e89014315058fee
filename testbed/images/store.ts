import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, statfs, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeHashed } from "../cluster/hashed-file.ts";
import { MissingToolError } from "../cluster/missing.ts";
import type { LayerBlob } from "./oci.ts";
import { type TarEntry, tarBytes } from "./tar.ts";

/** The measured size of root file systems, packages, layers, and an archive is 1.6 GB. The rest is a margin. */
const NEEDED_BYTES = 3 * 1024 ** 3;
/**
 * How long to keep layers for other commits and checkouts. The layers of Node's stand-in image aren't in any archive.
 */
const UNUSED_MS = 24 * 3600_000;
/** A killed build leaves its folder behind. The next build removes it. */
const WORK_PREFIX = ".building-";

/** How to build a layer. */
export interface LayerRecipe {
  /** A short name for people. */
  readonly name: string;
  /** A hash of everything that determines the layer's contents. */
  readonly key: string;
  /** Builds the layer's members. Their files may be in `work`, which exists until they're written. */
  make(work: string): Promise<readonly TarEntry[]>;
}

/** The layers of all builds, one file each, named by key. Only the holder of the folder's lock may write. */
export class LayerStore {
  readonly root: string;
  readonly #layers: string;

  constructor(root: string) {
    this.root = root;
    this.#layers = join(root, "layers");
  }

  /** Returns the layer if it's in the store. */
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

  /** Returns the layer, and builds it if needed. */
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
      // The order matters: a description without its layer is not trusted.
      await rename(half, file);
      await rename(`${half}.json`, `${file}.json`);
      return { name: recipe.name, digest, size, file };
    });
  }

  /** Calls `fn` with a folder that is removed afterwards. */
  async inFolder<T>(fn: (dir: string) => Promise<T>): Promise<T> {
    const dir = join(this.root, `${WORK_PREFIX}${randomBytes(6).toString("hex")}`);
    await mkdir(dir, { recursive: true });
    try {
      return await fn(dir);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  /** Throws MissingToolError if the disk lacks the space for a build. */
  async checkSpace(needed: number = NEEDED_BYTES): Promise<void> {
    await mkdir(this.root, { recursive: true });
    const { bavail, bsize } = await statfs(this.root);
    const free = bavail * bsize;
    if (free >= needed) return;
    const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
    throw new MissingToolError(
      `Making the images needs ${gigabytes(needed)} GB, but ${this.root} has ${gigabytes(free)} GB free. ` +
        "Free some space, or set XDG_CACHE_HOME to a folder on a larger disk.",
    );
  }

  /**
   * Removes what killed builds left behind. Only the holder of the lock may call this, because no other process builds
   * then.
   */
  async removeLeftovers(): Promise<void> {
    for (const name of await readdir(this.root).catch(() => [])) {
      if (name.startsWith(WORK_PREFIX)) await rm(join(this.root, name), { recursive: true, force: true });
    }
  }

  /** Keeps the `count` most recently used entries of a folder and removes the others. */
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

  /** Removes layers that aren't among `files` and that weren't used for a day. */
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

/** Marks a file as used now. Recently used files are kept longest. */
export async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => {});
}
