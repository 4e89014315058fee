import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheRoot } from "../cluster/cache.ts";
import { writeHashed } from "../cluster/hashed-file.ts";
import { withLock } from "../cluster/lock.ts";
import { duration, type Progress, silentProgress } from "../cluster/progress.ts";
import { keyOf } from "./keys.ts";
import { archiveBytes, type ImageSpec, imageLayout, type LayerBlob } from "./oci.ts";
import { INSTALLS } from "./operator.ts";
import { byName, IMAGE_NAMES, type ImageName, makeImages, makeNodeImage } from "./recipes.ts";
import { LayerStore, touch } from "./store.ts";

export type { ImageName } from "./recipes.ts";

/**
 * The number of archives to keep in addition to the current one: those of other checkouts, or of the previous commit.
 */
const KEPT_ARCHIVES = 3;
/** A build makes two: with and without development dependencies. */
const KEPT_INSTALLS = 4;
/** Another run may have an archive open that was used more recently. */
const IN_USE_MS = 10 * 60_000;
/** The image specification's names of architectures that Node names differently. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64" };
const ROOT = join(import.meta.dirname, "..", "..");

export interface BuildImagesOptions {
  readonly progress?: Progress;
  readonly env?: NodeJS.ProcessEnv;
  /** The checkout whose images are built. */
  readonly root?: string;
  /** The folder of the Dockerfile and of the files that it copies, if it isn't the checkout. */
  readonly context?: string;
}

export interface Images {
  /** The path of an OCI archive with all images, for `ctr -n k8s.io images import`. */
  readonly archive: string;
  readonly images: Readonly<Record<ImageName, ImageFacts>>;
  readonly from: "cache" | "build";
}

export interface ImageFacts {
  readonly reference: string;
  /** The digest of the manifest. */
  readonly digest: string;
  readonly layers: readonly Pick<LayerBlob, "name" | "digest" | "size">[];
}

/**
 * Returns the images of the end-to-end tests in one archive, from an earlier build of the same inputs or newly built.
 * The same inputs give the same digests. Throws MissingToolError if they can't be built here.
 */
export async function buildImages(options: BuildImagesOptions = {}): Promise<Images> {
  const { progress = silentProgress } = options;
  return await withStore(options, async (store, root) => {
    const started = performance.now();
    const images = await makeImages(root, store, options.context);
    const made = await findOrWriteArchive(store, images);
    if (made.from === "build") {
      await removeOld(store);
      progress.line(`Made the images in ${duration(performance.now() - started)}: ${made.archive}`);
    }
    return made;
  });
}

/**
 * Writes an OCI archive with a stand-in for Node's official image.
 * @param reference the name with its registry: `docker.io/library/node:24-slim`
 */
export async function writeNodeImage(
  archive: string,
  reference: string,
  options: BuildImagesOptions = {},
): Promise<void> {
  await withStore(options, async (store, root) => {
    const image = await makeNodeImage(root, store, reference);
    await writeHashed(archive, archiveBytes(imageLayout([image], architecture())));
  });
}

/** Calls `fn` with the store while no other process writes to it. */
async function withStore<T>(
  options: BuildImagesOptions,
  fn: (store: LayerStore, root: string) => Promise<T>,
): Promise<T> {
  const { progress = silentProgress, env = process.env, root = ROOT } = options;
  const store = new LayerStore(join(cacheRoot(env), "images"));
  const onWait = (pid: number) => progress.line(`Waiting for process ${pid}, which is making the images`);
  return await withLock(
    join(store.root, "build.lock"),
    async () => {
      await store.removeLeftovers();
      return await fn(store, root);
    },
    { onWait },
  );
}

function architecture(): string {
  return ARCHITECTURES[process.arch] ?? process.arch;
}

async function findOrWriteArchive(store: LayerStore, specs: Record<ImageName, ImageSpec>): Promise<Images> {
  const layout = imageLayout(
    IMAGE_NAMES.map((name) => specs[name]),
    architecture(),
  );
  const images = byName((name, i): ImageFacts => {
    const layers = specs[name].layers.map((layer) => ({ name: layer.name, digest: layer.digest, size: layer.size }));
    return { reference: specs[name].reference, digest: layout.digests[i] ?? "", layers };
  });
  const dir = join(store.root, "archives");
  const archive = join(dir, `${keyOf(layout.digests)}.tar`);
  const layers = [...new Set(IMAGE_NAMES.flatMap((name) => specs[name].layers.map(({ file }) => file)))];
  if (await isWhole(archive)) {
    await touch(`${archive}.json`);
    return { archive, images, from: "cache" };
  }
  await store.checkSpace();
  await mkdir(dir, { recursive: true });
  await store.inFolder(async (work) => {
    const half = join(work, "archive.tar");
    const { size } = await writeHashed(half, archiveBytes(layout));
    await writeFile(`${half}.json`, JSON.stringify({ size, layers }));
    await rename(half, archive);
    await rename(`${half}.json`, `${archive}.json`);
  });
  return { archive, images, from: "build" };
}

async function isWhole(archive: string): Promise<boolean> {
  try {
    const { size } = JSON.parse(await readFile(`${archive}.json`, "utf8")) as { size: number };
    return (await stat(archive)).size === size;
  } catch {
    return false;
  }
}

/** Removes archives that weren't used recently, and layers that aren't in any archive. */
async function removeOld(store: LayerStore): Promise<void> {
  const dir = join(store.root, "archives");
  const found = [];
  for (const name of (await readdir(dir)).filter((file) => file.endsWith(".tar.json"))) {
    found.push({ path: join(dir, name), usedAt: (await stat(join(dir, name))).mtimeMs });
  }
  found.sort((a, b) => b.usedAt - a.usedAt);
  const kept = found.filter(({ usedAt }, i) => i < KEPT_ARCHIVES || Date.now() - usedAt < IN_USE_MS);
  for (const { path } of found.filter((archive) => !kept.includes(archive))) {
    await rm(path);
    await rm(path.replace(/\.json$/, ""), { force: true });
  }
  const files = new Set<string>();
  for (const { path } of kept) {
    const { layers } = JSON.parse(await readFile(path, "utf8")) as { layers: string[] };
    for (const layer of layers) files.add(layer);
  }
  await store.keepLayers(files);
  await store.keepNewest(INSTALLS, KEPT_INSTALLS);
}
