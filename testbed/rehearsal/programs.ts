import { join } from "node:path";
import { type BuildOptions, ensureBinaries } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { findDebianPrograms } from "../cluster/debian-programs.ts";
import { RELEASE_BINARIES, releaseModules } from "./versions.ts";

const REGISTRY = {
  name: "docker-registry",
  programs: ["docker-registry"],
  otherwise: "Run `npm run setup:node` as root, or put docker-registry on your PATH.",
} as const;

/** The path of each program. */
export interface ReleasePrograms {
  readonly cosign: string;
  readonly oras: string;
  readonly registry: string;
}

/**
 * Returns the programs of a release: those in the cache, downloaded, or built.
 * @throws MissingToolError
 */
export async function findReleasePrograms(options: BuildOptions = {}): Promise<ReleasePrograms> {
  const { env = process.env } = options;
  const { dir } = await ensureBinaries(
    {
      title: "the programs of a release",
      binaries: RELEASE_BINARIES,
      modules: await releaseModules(),
      root: join(cacheRoot(env), "release"),
      minutes: 8,
    },
    options,
  );
  return { cosign: join(dir, "cosign"), oras: join(dir, "oras"), registry: await findRegistry(env) };
}

/**
 * Returns the path of the registry: the user's own, or that of Debian's package (5 MB).
 * @throws MissingToolError
 */
export async function findRegistry(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const { [REGISTRY.name]: program = "" } = await findDebianPrograms(REGISTRY, env);
  return program;
}
