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

/** Sources, compiler cache and binaries of one build, measured, and some air. Nearly all of it is removed after. */
const NEEDED_BYTES = 8 * 1024 ** 3;
/** How often the compiler's output is read. */
const POLL_MS = 200;
/** A build that was killed leaves its folder; it is removed by the next of the same programs. */
const WORK_PREFIX = ".building-";
/** Of the random end of such a folder's name. */
const WORK_BYTES = 6;

/** Where the binaries of a control plane are. */
export interface Binaries {
  readonly dir: string;
  readonly from: "KUBEBUILDER_ASSETS" | "cache" | "build";
}

/** Programs that are built once per user and kept. */
export interface BuildPlan {
  /** What people call them together. */
  readonly title: string;
  readonly binaries: readonly string[];
  /** In the order of building. */
  readonly modules: readonly ToolModule[];
  /** Folder of all builds of this plan. */
  readonly root: string;
  /** About how long it takes on 2 cores. */
  readonly minutes: number;
}

export interface BuildOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly progress?: Progress;
}

/**
 * The binaries of the control plane: those of `KUBEBUILDER_ASSETS`, or of an earlier build, or built now. The minor
 * version is that of `BERTH_TEST_KUBERNETES`, else the newest.
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

/** The binaries of a plan: those of an earlier build, or built now. Throws MissingToolError when they cannot be built here. */
export async function buildOnce(plan: BuildPlan, options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const dir = join(plan.root, await cacheKey(plan.modules));
  const isBuilt = () => missingBinaries(dir, plan.binaries).length === 0;
  if (isBuilt()) return { dir, from: "cache" };
  return await withLock(
    `${dir}.lock`,
    async () => {
      // The one that held the lock before us may have built it.
      if (isBuilt()) return { dir, from: "cache" };
      await build(plan, dir, env, progress);
      return { dir, from: "build" };
    },
    { onWait: (pid) => progress.line(`Waiting for process ${pid}, which builds ${plan.title} now`) },
  );
}

/** Names of the binaries that a folder lacks. */
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
  // Another version of the same plan may be being built beside this one: its folder is not ours.
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

/** `kubernetes v1.36.3 (kube-apiserver, ...)`. */
function describe(module: ToolModule): string {
  const names = Object.keys(module.commands).filter((name) => name !== shortName(module));
  return `${shortName(module)} ${module.version}${names.length > 0 ? ` (${names.join(", ")})` : ""}`;
}

interface Workshop {
  /** Path of the compiler. */
  readonly go: string;
  readonly env: NodeJS.ProcessEnv;
  /** Runs the compiler, in its folder. */
  readonly work: Supervisor;
  /** Where the binaries go. */
  readonly bin: string;
  readonly progress: Progress;
  /** On the monotonic clock, in milliseconds. */
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
export function compiling(log: string, total: number, written: readonly string[]): string {
  const started = lines(log).filter((line) => !line.startsWith("go: ") && !line.startsWith("#"));
  // The count comes first: a line is cut at the width of the terminal.
  const parts = [`${started.length} of ${total} packages`, ...written.map((name) => `${name} done`)];
  const last = started.at(-1);
  if (last) parts.push(`now ${last}`);
  return parts.join(", ");
}

/** The last lines of a failed build without the names of packages that went well. */
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

/** Only the holder of the lock builds, so any working folder of it that is there was left by a build that was killed. */
async function removeLeftovers(root: string, prefix: string): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(prefix)) continue;
    const dir = join(root, name);
    // Its supervisor may be about to remove it, too.
    if (await stat(dir).catch(() => undefined)) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
