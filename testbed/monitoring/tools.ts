import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "../cluster/cache.ts";
import { withLock } from "../cluster/lock.ts";
import { MissingToolError } from "../cluster/missing.ts";

/** The programs that tests of alerts and dashboards need, by Debian package. */
const PACKAGES = {
  prometheus: ["prometheus", "promtool"],
  "prometheus-alertmanager": ["prometheus-alertmanager", "amtool"],
} as const;

type Package = keyof typeof PACKAGES;
export type MonitoringTool = (typeof PACKAGES)[Package][number];

/** The path of each program. */
export type MonitoringTools = Readonly<Record<MonitoringTool, string>>;

/**
 * Returns the paths of Prometheus and Alertmanager and their tools: the user's own, or those of Debian's packages. The
 * packages are downloaded once (30 MB) and unpacked into the cache. They aren't installed, because Debian would start a
 * server for each. This needs no root.
 * @throws MissingToolError if they aren't available
 */
export async function findMonitoringTools(env: NodeJS.ProcessEnv = process.env): Promise<MonitoringTools> {
  const found: [string, string][] = [];
  for (const [name, programs] of Object.entries(PACKAGES)) {
    found.push(...Object.entries(await folderOf(name, programs, env)));
  }
  return Object.fromEntries(found) as MonitoringTools;
}

async function folderOf(
  name: string,
  programs: readonly MonitoringTool[],
  env: NodeJS.ProcessEnv,
): Promise<Readonly<Record<string, string>>> {
  const installed = onPath(programs, env);
  if (installed) return installed;
  const dir = join(cacheRoot(env), "debian", name);
  if (!hasPrograms(dir, programs)) {
    await withLock(`${dir}.lock`, async () => {
      if (!hasPrograms(dir, programs)) await fetchPackage(name, programs, dir, env);
    });
  }
  return inFolder(dir, programs);
}

function inFolder(dir: string, programs: readonly MonitoringTool[]): Readonly<Record<string, string>> {
  return Object.fromEntries(programs.map((program) => [program, join(dir, "usr", "bin", program)]));
}

function onPath(
  programs: readonly MonitoringTool[],
  env: NodeJS.ProcessEnv,
): Readonly<Record<string, string>> | undefined {
  const dirs = (env["PATH"] ?? "").split(delimiter).filter(Boolean);
  const found = programs.flatMap((program) => {
    const path = dirs.map((dir) => join(dir, program)).find(isProgram);
    return path ? [[program, path] as const] : [];
  });
  return found.length === programs.length ? Object.fromEntries(found) : undefined;
}

function hasPrograms(dir: string, programs: readonly MonitoringTool[]): boolean {
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

async function fetchPackage(
  name: string,
  programs: readonly MonitoringTool[],
  dir: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const work = `${dir}.fetching-${randomBytes(4).toString("hex")}`;
  const tree = join(work, "tree");
  await mkdir(tree, { recursive: true });
  try {
    // apt checks the archive's signature on downloads.
    await run("apt-get", ["download", name], work, env);
    const file = (await readdir(work)).find((entry) => entry.endsWith(".deb"));
    if (!file) throw new MissingToolError(`apt-get download ${name} downloaded no package`);
    await run("dpkg-deb", ["--extract", file, tree], work, env);
    if (!hasPrograms(tree, programs)) {
      throw new MissingToolError(`Debian's package ${name} has no ${programs.join(" or ")} in usr/bin.`);
    }
    await rm(dir, { recursive: true, force: true });
    await rename(tree, dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Promise<void> {
  try {
    await promisify(execFile)(command, args, { cwd, env });
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new MissingToolError(
      `${command} ${args.join(" ")} failed: ${said || error}. Run \`npm run setup:node\` as root, or put ` +
        "prometheus, alertmanager, promtool and amtool on your PATH.",
    );
  }
}
