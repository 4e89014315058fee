import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MissingToolError } from "../cluster/missing.ts";
import { distribution } from "./apt-sources.ts";
import { findProgram, requireRoot, runProgram } from "./commands.ts";
import { keyOf } from "./keys.ts";
import type { LayerRecipe } from "./store.ts";
import { MTIME_SECONDS, type TarEntry } from "./tar.ts";
import { treeEntries } from "./tree.ts";

/** The mirror may be slow. */
const TIMEOUT_MS = 600_000;
/** Increase this when the recipe changes. The packages have the versions of the day on which the layer is built. */
const RECIPE = 1;

/**
 * What workers' tools and Node need in addition to Debian's essential packages. usr-is-merged replaces a package that
 * would install all of Perl.
 */
export const BASE_PACKAGES = ["usr-is-merged", "ca-certificates", "libstdc++6", "unzip"] as const;
const MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr";
/** Containers don't need documentation. */
const NOT_UNPACKED = ["doc", "info", "locale", "man"].map((name) => `/usr/share/${name}/*`);

/** Folders that are kept but emptied: caches, logs, and state of a running system. */
const EMPTIED =
  /^(dev|proc|run|sys|tmp|var\/cache|var\/lib\/apt|var\/log|var\/tmp|usr\/share\/(doc|info|locale|man))\//;
/** Files that reveal the machine or the time of the build. */
const REMOVED =
  /^(etc\/(apt|hostname|machine-id|resolv\.conf|dpkg\/dpkg\.cfg\.d\/99mmdebstrap|[^/]+-)|var\/lib\/dpkg\/(.*-old|lock.*))$/;

/** Whether a path of a new root file system doesn't belong in an image. */
export function isLeftOut(path: string): boolean {
  return EMPTIED.test(path) || REMOVED.test(path);
}

/** The smallest Debian (or Ubuntu) for workers, of the same release as this machine. */
export async function debianRecipe(): Promise<LayerRecipe> {
  return {
    name: "debian",
    key: keyOf("debian", RECIPE, process.arch, await distribution(), BASE_PACKAGES),
    make: async (work) => debianEntries(await bootstrap(join(work, "root"), work, BASE_PACKAGES)),
  };
}

/** Returns the members of a root file system that belong in an image, with their owners and permissions. */
export async function debianEntries(root: string): Promise<TarEntry[]> {
  return await treeEntries(root, { owner: "kept", without: isLeftOut });
}

/**
 * Installs a root file system with these packages into a new folder. Uses the machine's package sources and its network
 * settings for apt. Throws MissingToolError without root or mmdebstrap.
 */
export async function bootstrap(root: string, work: string, packages: readonly string[]): Promise<string> {
  requireRoot("Making images");
  const mmdebstrap = findProgram("mmdebstrap");
  const machine = await distribution();
  if (!machine) {
    throw new MissingToolError(
      "Images are made from Debian or Ubuntu packages, but apt on this machine has no sources for them.",
    );
  }
  const settings = join(work, "apt.conf");
  await writeFile(settings, await networkSettings());
  const args = [
    "--mode=root",
    "--variant=essential",
    "--format=directory",
    `--include=${packages.join(",")}`,
    `--hook-dir=${MERGED_USR}`,
    `--aptopt=${settings}`,
    ...NOT_UNPACKED.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
    machine.codename,
    root,
    ...machine.sources,
  ];
  await runProgram(mmdebstrap, args, {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(MTIME_SECONDS) },
    timeoutMs: TIMEOUT_MS,
  });
  return root;
}

/**
 * Returns settings such as proxies, because mmdebstrap doesn't read the machine's settings. They don't get into the
 * image.
 */
async function networkSettings(): Promise<string> {
  const dump = await runProgram(findProgram("apt-config"), ["dump"]);
  return dump
    .split("\n")
    .filter((line) => /^Acquire::(https?|Check-[\w-]+|Retries)\b.*";$/.test(line))
    .map((line) => `${line}\n`)
    .join("");
}
