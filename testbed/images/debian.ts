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
/** To change when the recipe does; the packages' versions are those of the day when the layer is made. */
const RECIPE = 1;

/**
 * What workers' tools and Node need beyond Debian's essential packages. usr-is-merged takes the place of a package that
 * would bring all of Perl along.
 */
export const BASE_PACKAGES = ["usr-is-merged", "ca-certificates", "libstdc++6", "unzip"] as const;
const MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr";
/** Nobody reads documentation in a container. */
const NOT_UNPACKED = ["doc", "info", "locale", "man"].map((name) => `/usr/share/${name}/*`);

/** Folders that stay and lose what is in them: caches, logs, what belongs to a running system. */
const EMPTIED =
  /^(dev|proc|run|sys|tmp|var\/cache|var\/lib\/apt|var\/log|var\/tmp|usr\/share\/(doc|info|locale|man))\//;
/** What tells of the machine where the layer was made, or of the moment. */
const REMOVED =
  /^(etc\/(apt|hostname|machine-id|resolv\.conf|dpkg\/dpkg\.cfg\.d\/99mmdebstrap|[^/]+-)|var\/lib\/dpkg\/(.*-old|lock.*))$/;

/** Whether a path of a fresh root file system has no place in an image. */
export function isLeftOut(path: string): boolean {
  return EMPTIED.test(path) || REMOVED.test(path);
}

/** The smallest Debian (or Ubuntu) that workers run on, of this machine's own release. */
export async function debianRecipe(): Promise<LayerRecipe> {
  return {
    name: "debian",
    key: keyOf("debian", RECIPE, process.arch, await distribution(), BASE_PACKAGES),
    make: async (work) => debianEntries(await bootstrap(join(work, "root"), work, BASE_PACKAGES)),
  };
}

/** The members of a root file system that belong into an image, with their owners and permissions. */
export async function debianEntries(root: string): Promise<TarEntry[]> {
  return await treeEntries(root, { owner: "kept", without: isLeftOut });
}

/**
 * Installs a root file system with these packages into a new folder, from the machine's package sources and with its
 * settings for apt's network. Throws MissingToolError without root or mmdebstrap.
 */
export async function bootstrap(root: string, work: string, packages: readonly string[]): Promise<string> {
  requireRoot("Making images");
  const mmdebstrap = findProgram("mmdebstrap");
  const machine = await distribution();
  if (!machine) {
    throw new MissingToolError(
      "Images are made from this machine's Debian or Ubuntu packages, and apt has no sources.",
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

/** Proxies and the like: mmdebstrap reads no settings of the machine by itself. They stay out of the image. */
async function networkSettings(): Promise<string> {
  const dump = await runProgram(findProgram("apt-config"), ["dump"]);
  return dump
    .split("\n")
    .filter((line) => /^Acquire::(https?|Check-[\w-]+|Retries)\b.*";$/.test(line))
    .map((line) => `${line}\n`)
    .join("");
}
