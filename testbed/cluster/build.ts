import { randomBytes } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { controlPlaneRoot } from "./cache.ts";
import { DOWNLOADS_VARIABLE, downloadBase, downloadReleases, releaseArch } from "./download.ts";
import { findGo, goEnvironment } from "./go.ts";
import { withLock } from "./lock.ts";
import { MissingToolError } from "./missing.ts";
import { duration, type Progress, silentProgress } from "./progress.ts";
import { Supervisor } from "./supervisor.ts";
import {
  CONTROL_PLANE,
  cacheKey,
  MINOR_VARIABLE,
  type SourcePatch,
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
/** A run that was killed leaves its folder behind. The next run that needs the same programs removes it. */
const WORK_PREFIX = ".building-";
/** The length of the random suffix of such a folder's name. */
const WORK_BYTES = 6;
/** The end of the name of a folder with official binaries. */
const DOWNLOADED_SUFFIX = "-release";

/** The location of the control plane's binaries. */
export interface Binaries {
  readonly dir: string;
  readonly from: "KUBEBUILDER_ASSETS" | "cache" | "download" | "build";
}

/** Programs that are downloaded or built once per user, and then kept. */
export interface BuildPlan {
  /** The common name of the programs, for people. */
  readonly title: string;
  readonly binaries: readonly string[];
  /** In build order. */
  readonly modules: readonly ToolModule[];
  /** The folder with all versions of this plan's programs. */
  readonly root: string;
  /** The approximate build time on 2 cores. */
  readonly minutes: number;
}

export interface BuildOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly progress?: Progress;
}

/**
 * Returns the control plane's binaries: those in `KUBEBUILDER_ASSETS`, those in the cache, or new ones (see
 * `ensureBinaries`). `BERTH_TEST_KUBERNETES` selects the minor version, which defaults to the newest.
 * Throws MissingToolError if they can be neither downloaded nor built here.
 */
export async function findBinaries(options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const assets = env["KUBEBUILDER_ASSETS"];
  if (assets) {
    const missing = missingBinaries(assets);
    if (missing.length === 0) return { dir: assets, from: "KUBEBUILDER_ASSETS" };
    progress.line(`ignoring KUBEBUILDER_ASSETS: ${assets} does not contain ${missing.join(", ")}`);
  }
  return await ensureBinaries(
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
 * Returns the binaries of a plan: those in the cache, else the official ones, which are downloaded, else newly built ones.
 * Throws MissingToolError if they can be neither downloaded nor built here.
 */
export async function ensureBinaries(plan: BuildPlan, options: BuildOptions = {}): Promise<Binaries> {
  const { env = process.env, progress = silentProgress } = options;
  const base = downloadBase(env);
  const built = join(plan.root, await cacheKey(plan.modules));
  // In its own folder, so that a run without downloads never uses a downloaded program.
  const downloaded = `${built}${DOWNLOADED_SUFFIX}`;
  const cached = () =>
    [built, ...(base === undefined ? [] : [downloaded])].find(
      (dir) => missingBinaries(dir, plan.binaries).length === 0,
    );
  const found = cached();
  if (found !== undefined) return { dir: found, from: "cache" };
  return await withLock(
    `${built}.lock`,
    async () => {
      // The previous holder of the lock may have left them there.
      const dir = cached();
      if (dir !== undefined) return { dir, from: "cache" };
      await mkdir(plan.root, { recursive: true });
      // Another version of the same plan may be in the works at the same time. Leave its folder alone.
      const prefix = `${WORK_PREFIX}${basename(built)}-`;
      await removeLeftovers(plan.root, prefix);
      await using work = await Supervisor.start(join(plan.root, `${prefix}${randomBytes(WORK_BYTES).toString("hex")}`));
      if (base !== undefined && (await download(plan, { base, work, progress, dir: downloaded }))) {
        return { dir: downloaded, from: "download" };
      }
      await build(plan, { env, work, progress, dir: built });
      return { dir: built, from: "build" };
    },
    { onWait: (pid) => progress.line(`Waiting for process ${pid}, which is downloading or building ${plan.title}`) },
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

/** One way to get the programs of a plan. */
interface Attempt {
  /** Removes its folder even if this process is killed. */
  readonly work: Supervisor;
  readonly progress: Progress;
  /** The folder in the cache, which exists only with all programs in it. */
  readonly dir: string;
}

/** Returns whether the official binaries are now in the cache. If not, a line has said why. */
async function download(plan: BuildPlan, attempt: Attempt & { readonly base: string }): Promise<boolean> {
  const { base, work, progress, dir } = attempt;
  const { modules, title } = plan;
  const arch = releaseArch();
  if (arch === undefined || modules.some((module) => module.release(arch).length === 0)) return false;
  const addresses = modules.flatMap((module) => module.release(arch)).map(({ address }) => `${base}${address}`);
  const hosts = new Set(addresses.map((url) => new URL(url).host));
  const started = performance.now();
  progress.line(`Downloading ${modules.map(describe).join(" and ")} (only once) from ${[...hosts].join(" and ")}`);
  const parts = join(work.dir, "download");
  try {
    await mkdir(parts);
    await publish(await downloadReleases(modules, parts, { base, arch, progress }), dir);
  } catch (error) {
    progress.clear();
    // What tar prints has several lines.
    const why = (error instanceof Error ? error.message : String(error)).trim().replaceAll("\n", " ");
    progress.line(`Could not download ${title}: ${why}. To use a mirror, set ${DOWNLOADS_VARIABLE} to its URL.`);
    // A build needs the space.
    await rm(parts, { recursive: true, force: true });
    return false;
  }
  progress.line(`Downloaded ${title} in ${duration(performance.now() - started)}: ${dir}`);
  return true;
}

async function build(plan: BuildPlan, attempt: Attempt & { readonly env: NodeJS.ProcessEnv }): Promise<void> {
  const { modules, root, title, minutes } = plan;
  const { env, work, progress, dir } = attempt;
  const go = await findGo(env);
  await checkSpace(root, title);
  const started = performance.now();
  progress.line(
    `Building ${modules.map(describe).join(" and ")} (only once), in about ${minutes} minutes on 2 cores. Later starts take seconds.`,
  );
  const bin = join(work.dir, "bin");
  await mkdir(bin);
  for (const module of modules) await buildModule(module, { go, env, work, bin, progress, started });
  await publish(bin, dir);
  progress.line(`Built ${title} in ${duration(performance.now() - started)}: ${dir}`);
}

/** Moves complete programs to their place in one step, so that nothing half-written is ever there. */
async function publish(bin: string, dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true });
  await rename(bin, dir);
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

  const dir = module.patch === undefined ? module.dir : await patchedSources(module.patch);
  const listLog = join(work.dir, `${shortName(module)}-list.log`);
  const tags = module.tags === undefined ? [] : ["-tags", module.tags];
  await runGo(["list", "-deps", ...tags, ...packages], listLog, (log) => show(downloading(log)), dir);
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
    dir,
  );
  // With several packages, Go names each program after its folder.
  for (const [name, path] of Object.entries(module.commands)) {
    if (names.length > 1 && basename(path) !== name) await rename(join(bin, basename(path)), join(bin, name));
  }
  progress.line(`[${duration(performance.now() - started)}] built ${names.join(", ")}`);

  /** Copies the sources of all packages, because Go refuses changes below its own cache. Returns the folder. */
  async function patchedSources({ file, find, replace }: SourcePatch): Promise<string> {
    const copy = join(work.dir, `${shortName(module)}-sources`);
    await mkdir(copy);
    for (const each of ["go.mod", "go.sum"]) await copyFile(join(module.dir, each), join(copy, each));
    const log = join(work.dir, `${shortName(module)}-vendor.log`);
    await runGo(["mod", "vendor"], log, (text) => show(downloading(text)), copy);
    const path = join(copy, "vendor", module.module, file);
    const parts = (await readFile(path, "utf8")).split(find);
    if (parts.length !== 2) throw new Error(`${title}: ${file} has \`${find}\` ${parts.length - 1} times, not once`);
    await writeFile(path, parts.join(replace));
    return copy;
  }

  async function runGo(args: string[], logFile: string, onLog: (log: string) => unknown, cwd: string): Promise<void> {
    const running = await work.spawn({ name: "go", command: go, args, env: goEnv, cwd, logFile });
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
    `Building ${title} needs ${gigabytes(NEEDED_BYTES)} GB for a few minutes, but ${dir} has ` +
      `${gigabytes(free)} GB free. Free some space, or set XDG_CACHE_HOME to a folder on a larger disk.`,
  );
}

/** Only the holder of the lock works here, so any existing working folder is from a run that was killed. */
async function removeLeftovers(root: string, prefix: string): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(prefix)) continue;
    const dir = join(root, name);
    // The supervisor of that run may be about to remove it too.
    if (await stat(dir).catch(() => undefined)) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
