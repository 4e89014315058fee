import { cp, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { finalConfig, performDockerfile } from "./dockerfile.ts";
import { keyOf, treeKey } from "./keys.ts";
import type { ImageConfig, LayerBlob } from "./oci.ts";
import type { LayerStore } from "./store.ts";
import type { TarEntry } from "./tar.ts";
import { directory, treeEntries } from "./tree.ts";

/** Increase this when the same files give a different result. */
const RECIPE = 3;
/** The folder of the store for the results of `npm ci`, by lock file. */
export const INSTALLS = "installs";
/** The Dockerfile's target folder. */
const APP = "app";

export interface Operator {
  readonly layer: LayerBlob;
  readonly config: ImageConfig;
}

/**
 * Copies the files that the Dockerfile can read, so that edits during the build don't separate what is hashed from what
 * is built.
 */
export async function copyContext(root: string, to: string): Promise<string> {
  const ignore = await readFile(join(root, ".dockerignore"), "utf8");
  const names = [...ignore.matchAll(/^!(.+)$/gm)].map(([, name = ""]) => name);
  for (const name of ["Dockerfile", ".dockerignore", ...names]) {
    await mkdir(dirname(join(to, name)), { recursive: true });
    await cp(join(root, name), join(to, name), { recursive: true, verbatimSymlinks: true });
  }
  return to;
}

/**
 * Returns the operator's layer on top of Debian and Node. The Dockerfile defines its contents, and is executed only if
 * something that it can read has changed.
 */
export async function operatorLayer(root: string, store: LayerStore): Promise<Operator> {
  return await store.inFolder(async (work) => {
    const context = await copyContext(root, join(work, "context"));
    const make = async (): Promise<TarEntry[]> => {
      const { root } = await performDockerfile(context, join(work, "stages"), { installs: join(store.root, INSTALLS) });
      return [directory(APP), ...(await treeEntries(join(root, APP), { at: APP }))];
    };
    const key = keyOf("operator", RECIPE, process.version, process.arch, await treeKey(context));
    const layer = await store.layer({ name: "operator", key, make });
    return { layer, config: finalConfig(await readFile(join(context, "Dockerfile"), "utf8")) };
  });
}
