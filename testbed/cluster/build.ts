import { randomBytes } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import { basename, join } from "node:path";
import { controlPlaneRoot } from "./cache.ts";
import { findGo, goEnvironment } from "./go.ts";
import { withLock } from "./lock.ts";
import { MissingToolError } from "./missing.ts";
import { duration, type Progress, silentProgress } from "./progress.ts";
import { Supervisor } from "./supervisor.ts";
import {
  CONTROL_PLANE,
  cacheKey,
  MINOR_VARIABLE,
  shortName,
  TOOLS_DIR,
  type ToolModule,
  toolModules,
} from "./versions.ts";

/**
 * The measured size of sources, compiler cache, and binaries of one build, plus a margin. Nearly all of it is removed
 * afterwards.
 */
const NEEDED_BYTES = 8 * 1024 ** 3;
/** How often to read the compiler's output. */
const POLL_MS = 200;
/** A killed build leaves its folder behind. The next build of the same programs removes it. */
const WORK_PREFIX = ".building-";
/** The length of the random suffix of such a folder's name. */
const WORK_BYTES = 6;

/** The location of the control plane's binaries. */
export interface Binaries {
  readonly dir: string;
  readonly from: "KUBEBUILDER_ASSETS" | "cache" | "build";
}

/** Programs that are built once per user and then kept. */
export interface BuildPlan {
  /** The common name of the programs, for people. */
  readonly title: string;
  readonly binaries: readonly string[];
  /** In build order. */
  readonly modules: readonly ToolModule[];
  /** The folder with all builds of this plan. */
  readonly root: string;
  /** The approximate build time on 2 cores. */
  readonly minutes: number;
}

export interface BuildOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly progress?: Progress;
}

/**
 * Returns the control plane's binaries: those in `KUBEBUILDER_ASSETS`, those of an earlier build, or newly built ones.
 * `BERTH_TEST_KUBERNETES` selects the minor version, which defaults to the newest.
 * Throws MissingToolError if they can't be built here.
 */
export async function findBinaries(options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const assets = env["KUBEBUILDER_ASSETS"];
  if (assets) {
    const missing = missingBinaries(assets);
    if (missing.length === 0) return { dir: assets, from: "KUBEBUILDER_ASSETS" };
    progress.line(`KUBEBUILDER_ASSETS is not used: ${assets} has no ${missing.join(", ")}`);
  }
  return await buildOnce(
    {
      title: "the control plane",
      binaries: CONTROL_PLANE,
      modules: await toolModules(TOOLS_DIR, env[MINOR_VARIABLE]),
      root: controlPlaneRoot(env),
      minutes: 6,
    },
    { env, progress },
  );
}

/**
 * Returns the binaries of a plan, from an earlier build or newly built. Throws MissingToolError if they can't be built
 * here.
 */
export async function buildOnce(plan: BuildPlan, options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const dir = join(plan.root, await cacheKey(plan.modules));
  const isBuilt = () => missingBinaries(dir, plan.binaries).length === 0;
  if (isBuilt()) return { dir, from: "cache" };
  return await withLock(
    `${dir}.lock`,
    async () => {
      // The previous holder of the lock may have built it.
      if (isBuilt()) return { dir, from: "cache" };
      await build(plan, dir, env, progress);
      return { dir, from: "build" };
    },
    { onWait: (pid) => progress.line(`Waiting for process ${pid}, which builds ${plan.title} now`) },
  );
}

/** Returns the names of the binaries that a folder lacks. */
export function missingBinaries(dir: string, names: readonly string[] = CONTROL_PLANE): string[] {
  return names.filter((name) => {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return false;
    } catch {
      return true;
    }
  });
}

async function build(plan: BuildPlan, dir: string, env: NodeJS.ProcessEnv, progress: Progress): Promise<void> {
  const { modules, root, title, minutes } = plan;
  const go = await findGo(env);
  await mkdir(root, { recursive: true });
  // Another version of the same plan may be building at the same time. Leave its folder alone.
  const prefix = `${WORK_PREFIX}${basename(dir)}-`;
  await removeLeftovers(root, prefix);
  await checkSpace(root, title);
  const started = performance.now();
  progress.line(
    `Building ${modules.map(describe).join(" and ")}, once: about ${minutes} minutes on 2 cores. Later starts take seconds.`,
  );
  await using work = await Supervisor.start(join(root, `${prefix}${randomBytes(WORK_BYTES).toString("hex")}`));
  const bin = join(work.dir, "bin");
  await mkdir(bin);
  for (const module of modules) await buildModule(module, { go, env, work, bin, progress, started });
  await rm(dir, { recursive: true, force: true });
  await rename(bin, dir);
  progress.line(`Built ${title} in ${duration(performance.now() - started)}: ${dir}`);
}

/** For example `kubernetes v1.36.3 (kube-apiserver, ...)`. */
function describe(module: ToolModule): string {
  const names = Object.keys(module.commands).filter((name) => name !== shortName(module));
  return `${shortName(module)} ${module.version}${names.length > 0 ? ` (${names.join(", ")})` : ""}`;
}

interface Workshop {
  /** The path of the compiler. */
  readonly go: string;
  readonly env: NodeJS.ProcessEnv;
  /** Runs the compiler in its folder. */
  readonly work: Supervisor;
  /** The target folder of the binaries. */
  readonly bin: string;
  readonly progress: Progress;
  /** Milliseconds on the monotonic clock. */
  readonly started: number;
}

async function buildModule(module: ToolModule, workshop: Workshop): Promise<void> {
  const { go, env, work, bin, progress, started } = workshop;
  const title = `${shortName(module)} ${module.version}`;
  const packages = Object.values(module.commands);
  const names = Object.keys(module.commands);
  const goEnv = { ...goEnvironment(env, go, work.dir), ...(module.cgo && { CGO_ENABLED: "1" }) };
  const show = (text: string) => {
    progress.update(`[${duration(performance.now() - started)}] ${title}: ${text}`);
  };

  const listLog = join(work.dir, `${shortName(module)}-list.log`);
  const tags = module.tags === undefined ? [] : ["-tags", module.tags];
  await runGo(["list", "-deps", ...tags, ...packages], listLog, (log) => show(downloading(log)));
  const total = countPackages(await readFile(listLog, "utf8"));

  const flags = ["-v", "-trimpath", "-buildvcs=false", ...tags, "-ldflags", module.ldflags];
  const target = names.length === 1 ? join(bin, ...names) : `${bin}/`;
  await runGo(
    ["build", ...flags, "-o", target, ...packages],
    join(work.dir, `${shortName(module)}-build.log`),
    async (log) => {
      const written = (await readdir(bin)).filter((name) => names.includes(name));
      show(compiling(log, total, written));
    },
  );
  progress.line(`[${duration(performance.now() - started)}] built ${names.join(", ")}`);

  async function runGo(args: string[], logFile: string, onLog: (log: string) => unknown): Promise<void> {
    const running = await work.spawn({ name: "go", command: go, args, env: goEnv, cwd: module.dir, logFile });
    while (!running.exit) {
      await Promise.race([running.exited, new Promise((resolve) => setTimeout(resolve, POLL_MS))]);
      await onLog(await readFile(logFile, "utf8"));
    }
    const { exit } = running;
    if (exit.code === 0) return;
    const log = await readFile(logFile, "utf8");
    progress.clear();
    throw new Error(`go ${args[0]} of ${title} ended with ${exit.code ?? exit.signal}:\n${goErrors(log)}`);
  }
}

/**
 * Counts the packages in the output of `go list -deps`, without download messages and without `unsafe`, which isn't
 * compiled.
 */
export function countPackages(list: string): number {
  return lines(list).filter((line) => !line.startsWith("go: ") && line !== "unsafe").length;
}

/** Describes for people what `go list` is doing while it fetches the sources. */
export function downloading(log: string): string {
  const fetched = lines(log).filter((line) => line.startsWith("go: downloading "));
  const last = fetched.at(-1)?.split(" ")[2];
  return last ? `fetching sources, ${fetched.length} modules, now ${last}` : "fetching sources";
}

/** Describes for people what `go build -v` is doing. It prints each package when its compilation starts. */
export function compiling(log: string, total: number, written: readonly string[]): string {
  const started = lines(log).filter((line) => !line.startsWith("go: ") && !line.startsWith("#"));
  // The count comes first because a terminal cuts the line at its width.
  const parts = [`${started.length} of ${total} packages`, ...written.map((name) => `${name} done`)];
  const last = started.at(-1);
  if (last) parts.push(`now ${last}`);
  return parts.join(", ");
}

/** Returns the last lines of a failed build, without the names of packages that compiled. */
export function goErrors(log: string): string {
  const told = lines(log).filter((line) => /\s/.test(line) && !line.startsWith("go: downloading "));
  return told.slice(-30).join("\n");
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

async function checkSpace(dir: string, title: string): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  const free = bavail * bsize;
  if (free >= NEEDED_BYTES) return;
  const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
  throw new MissingToolError(
    `Building ${title} takes ${gigabytes(NEEDED_BYTES)} GB for a few minutes, and ${dir} has ` +
      `${gigabytes(free)} GB free. Make room, or set XDG_CACHE_HOME to a folder on a larger disk.`,
  );
}

/** Only the holder of the lock builds, so any existing working folder is from a build that was killed. */
async function removeLeftovers(root: string, prefix: string): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(prefix)) continue;
    const dir = join(root, name);
    // The supervisor of that build may be about to remove it too.
    if (await stat(dir).catch(() => undefined)) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
