import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { checkIntegrity } from "../cluster/client-tools.ts";
import { runProgram } from "./commands.ts";
import { keyOf } from "./keys.ts";
import type { LayerRecipe } from "./store.ts";
import { directory, treeEntries } from "./tree.ts";

/** The npm of the stand-in for Node's official image. The package `node-linux-*` doesn't contain npm. */
const NPM = {
  version: "11.19.1",
  integrity: "sha512-ztsxKxt/kkIaAs+2i0GU6I+DRmUdrNasxTZKJe9TCdSjKxlhah/4r/hl5ygMD6XAg1qZ9c2TNomR4qgOydp10g==",
} as const;
const MODULES = "usr/local/lib/node_modules";
/** A registry may be slow. */
const TIMEOUT_MS = 120_000;
/** The npm settings that determine whether a registry is reachable. */
const NETWORK_SETTINGS = ["registry", "proxy", "https-proxy", "noproxy", "strict-ssl"] as const;

/** Installs npm where Node's official images have it. */
export function npmRecipe(): LayerRecipe {
  return {
    name: "npm",
    key: keyOf("npm", NPM),
    make: async (work) => {
      const spec = `npm@${NPM.version}`;
      const packed = await runProgram("npm", ["pack", spec, "--json", "--pack-destination", work], {
        cwd: work,
        timeoutMs: TIMEOUT_MS,
      });
      const [file] = JSON.parse(packed) as { filename: string }[];
      const tarball = join(work, file?.filename ?? "");
      checkIntegrity(await readFile(tarball), NPM.integrity, spec);
      const modules = join(work, "modules");
      await mkdir(modules);
      await runProgram("tar", ["-xzf", tarball, "-C", modules]);
      return [
        directory("usr/local/lib"),
        directory(MODULES),
        directory(join(MODULES, "npm")),
        ...(await treeEntries(join(modules, "package"), { at: join(MODULES, "npm") })),
        ...["npm", "npx"].map((name) => ({
          ...({ type: "symlink", path: `usr/local/bin/${name}`, mode: 0o777, uid: 0, gid: 0 } as const),
          target: `../lib/node_modules/npm/bin/${name}-cli.js`,
        })),
      ];
    },
  };
}

/** How npm reaches its registry on this machine. */
export interface NpmNetwork {
  /** The contents of an npmrc. */
  readonly npmrc: string;
  /** A file with additional certificate authorities. It must be available under the same path. */
  readonly cafile: string | undefined;
}

/**
 * Returns what a build in its own container needs to reach the registry as this machine does. It must never get into an
 * image.
 */
export async function npmNetwork(env: NodeJS.ProcessEnv = process.env): Promise<NpmNetwork> {
  const setting = async (name: string): Promise<string | undefined> => {
    const value = (await runProgram("npm", ["config", "get", name], { env })).trim();
    return ["", "null", "undefined"].includes(value) ? undefined : value;
  };
  const lines: string[] = [];
  for (const name of NETWORK_SETTINGS) {
    const value = await setting(name);
    if (value !== undefined) lines.push(`${name}=${value}\n`);
  }
  const cafile = (await setting("cafile")) ?? (env["NODE_EXTRA_CA_CERTS"] || undefined);
  if (cafile !== undefined) lines.push(`cafile=${cafile}\n`);
  return { npmrc: lines.join(""), cafile };
}
