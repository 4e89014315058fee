import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { findGo, goEnvironment } from "./go.ts";
import { withLock } from "./lock.ts";
import { MissingToolError } from "./missing.ts";

/** A release of a Go module. */
export interface ModuleRelease {
  readonly path: string;
  readonly version: string;
  /** The checksum that go.sum has. */
  readonly sum: string;
}

/**
 * Copies a file or folder of a Go module's sources to `target`, unless it is there. The sources are downloaded for that
 * and then removed.
 * @param source its path in the module
 * @throws MissingToolError if the module isn't available
 */
export async function copyFromModule(
  module: ModuleRelease,
  source: string,
  target: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  if (existsSync(target)) return;
  await withLock(`${target}.lock`, async () => {
    if (!existsSync(target)) await fetchSource(module, source, target, env);
  });
}

async function fetchSource(
  module: ModuleRelease,
  source: string,
  target: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const go = await findGo(env);
  const work = `${target}.fetching-${randomBytes(4).toString("hex")}`;
  await mkdir(work, { recursive: true });
  try {
    const { dir, sum } = await download(module, go, goEnvironment(env, go, work), work);
    if (sum !== module.sum) throw new Error(`${module.path} ${module.version} has the checksum ${sum}`);
    await cp(join(dir, source), join(work, "copy"), { recursive: true });
    await rename(join(work, "copy"), target);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function download(
  { path, version }: ModuleRelease,
  go: string,
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<{ dir: string; sum: string }> {
  const args = ["mod", "download", "-json", `${path}@${version}`];
  try {
    const { stdout } = await promisify(execFile)(go, args, { cwd, env });
    const { Dir: dir, Sum: sum } = JSON.parse(stdout) as { Dir: string; Sum: string };
    return { dir, sum };
  } catch (error) {
    const said = error instanceof Error && "stdout" in error ? String(error.stdout).trim() : "";
    throw new MissingToolError(`go ${args.join(" ")} failed: ${said || error}`);
  }
}
