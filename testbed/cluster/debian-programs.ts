import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "./cache.ts";
import { withLock } from "./lock.ts";
import { MissingToolError } from "./missing.ts";

/** A Debian package, and those of its programs that are used. */
export interface DebianPackage {
  readonly name: string;
  readonly programs: readonly string[];
  /** What a person can do if the package can't be downloaded. */
  readonly otherwise: string;
}

/**
 * Returns the paths of a package's programs: the user's own, or those of the package. It is downloaded once and unpacked
 * into the cache. It isn't installed, because Debian would start a server. This needs no root.
 * @throws MissingToolError if they aren't available
 */
export async function findDebianPrograms(
  wanted: DebianPackage,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Readonly<Record<string, string>>> {
  const { name, programs } = wanted;
  const installed = onPath(programs, env);
  if (installed) return installed;
  const dir = join(cacheRoot(env), "debian", name);
  if (!hasPrograms(dir, programs)) {
    await withLock(`${dir}.lock`, async () => {
      if (!hasPrograms(dir, programs)) await fetchPackage(wanted, dir, env);
    });
  }
  return inFolder(dir, programs);
}

function inFolder(dir: string, programs: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(programs.map((program) => [program, join(dir, "usr", "bin", program)]));
}

function onPath(programs: readonly string[], env: NodeJS.ProcessEnv): Readonly<Record<string, string>> | undefined {
  const dirs = (env["PATH"] ?? "").split(delimiter).filter(Boolean);
  const found = programs.flatMap((program) => {
    const path = dirs.map((dir) => join(dir, program)).find(isProgram);
    return path ? [[program, path] as const] : [];
  });
  return found.length === programs.length ? Object.fromEntries(found) : undefined;
}

function hasPrograms(dir: string, programs: readonly string[]): boolean {
  return Object.values(inFolder(dir, programs)).every(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function fetchPackage(wanted: DebianPackage, dir: string, env: NodeJS.ProcessEnv): Promise<void> {
  const { name, programs, otherwise } = wanted;
  const work = `${dir}.fetching-${randomBytes(4).toString("hex")}`;
  const tree = join(work, "tree");
  await mkdir(tree, { recursive: true });
  try {
    // apt checks the archive's signature on downloads.
    await run("apt-get", ["download", name], { work, env, otherwise });
    const file = (await readdir(work)).find((entry) => entry.endsWith(".deb"));
    if (!file) throw new MissingToolError(`apt-get download ${name} left no package`);
    await run("dpkg-deb", ["--extract", file, tree], { work, env, otherwise });
    if (!hasPrograms(tree, programs)) {
      throw new MissingToolError(`Debian's package ${name} has no ${programs.join(" or ")} in usr/bin.`);
    }
    await rm(dir, { recursive: true, force: true });
    await rename(tree, dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function run(
  command: string,
  args: readonly string[],
  { work, env, otherwise }: { readonly work: string; readonly env: NodeJS.ProcessEnv; readonly otherwise: string },
): Promise<void> {
  try {
    await promisify(execFile)(command, args, { cwd: work, env });
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new MissingToolError(`${command} ${args.join(" ")} failed: ${said || error}. ${otherwise}`);
  }
}
