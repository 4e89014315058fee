import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { rolldown } from "rolldown";
import { cacheRoot } from "../cluster/cache.ts";
import { findGo, goEnvironment } from "../cluster/go.ts";
import { withLock } from "../cluster/lock.ts";
import { MissingToolError } from "../cluster/missing.ts";
import { runProgram } from "../images/commands.ts";
import { keyOf } from "../images/keys.ts";

// The example workers, made to run as processes of this machine. What is downloaded and compiled for them is kept per
// user and outside the tree.

const EXAMPLES = join(import.meta.dirname, "..", "..", "examples");
const TIMEOUT_MS = 600_000;

/**
 * Bundles a TypeScript worker with the SDK, as examples/images/typescript.Dockerfile does.
 * @returns the text of one module, the same for the same packages
 */
export async function bundleWorker(path: string): Promise<string> {
  const bundle = await rolldown({
    cwd: dirname(path),
    input: path,
    platform: "node",
    // Such as a package that isn't installed, which would be missing in the image.
    onLog: (level, { message }) => {
      if (level === "warn") throw new Error(message);
    },
  });
  try {
    const { output } = await bundle.generate({ format: "esm", codeSplitting: false });
    return output[0].code;
  } finally {
    await bundle.close();
  }
}

/** Compiles the programs of examples/worker-go into a folder: `worker` and `waiting`. Needs Go. */
export async function buildGoWorkers(target: string, source: string = join(EXAMPLES, "worker-go")): Promise<void> {
  const { env } = process;
  const go = await findGo(env);
  const work = join(workersRoot(env), "go");
  await mkdir(work, { recursive: true });
  // Without -buildvcs=false, each commit of the checkout would give other programs.
  const args = ["build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", `${target}/`, ".", "./waiting"];
  await runProgram(go, args, { cwd: source, env: goEnvironment(env, go, work), timeoutMs: TIMEOUT_MS });
}

/** Returns the folder with the sources of a Go module, in the version that examples/worker-go requires. Needs Go. */
export async function goModuleFolder(module: string): Promise<string> {
  const { env } = process;
  const go = await findGo(env);
  const work = join(workersRoot(env), "go");
  await mkdir(work, { recursive: true });
  const options = { cwd: join(EXAMPLES, "worker-go"), env: goEnvironment(env, go, work), timeoutMs: TIMEOUT_MS };
  const { Dir } = JSON.parse(await runProgram(go, ["mod", "download", "-json", module], options)) as { Dir: string };
  return Dir;
}

export interface PythonPackages {
  /** The interpreter. */
  readonly python: string;
  /** The folder of the packages, for PYTHONPATH. */
  readonly packages: string;
}

/**
 * Installs the packages of a requirements.txt, by default those that the Python workers import, for this machine's
 * Python. Needs pip.
 */
export async function installPythonPackages(
  requirements = join(EXAMPLES, "worker", "requirements.txt"),
): Promise<PythonPackages> {
  // A version manager's `python3` starts the interpreter late.
  const facts = "import sys, sysconfig; print(sys.executable, sysconfig.get_platform(), sys.version, sep='\\n')";
  const found = await runPython("python3", ["-c", facts]);
  const [python = ""] = found.split("\n");
  const key = keyOf(found, await readFile(requirements, "utf8"));
  const packages = join(workersRoot(process.env), `python-${key}`);
  await withLock(`${packages}.lock`, async () => {
    if (await stat(packages).catch(() => undefined)) return;
    const half = `${packages}.installing-${randomBytes(4).toString("hex")}`;
    const flags = [
      "--require-hashes",
      "--only-binary=:all:",
      "--no-cache-dir",
      "--disable-pip-version-check",
      "--quiet",
    ];
    try {
      await runPython(python, ["-m", "pip", "install", ...flags, "--target", half, "--requirement", requirements]);
      await rename(half, packages);
    } finally {
      await rm(half, { recursive: true, force: true });
    }
  });
  return { python, packages };
}

async function runPython(python: string, args: readonly string[]): Promise<string> {
  try {
    return await runProgram(python, args, { timeoutMs: TIMEOUT_MS });
  } catch (error) {
    const { message } = error as Error;
    throw new MissingToolError(
      `Python's packages need Python 3.11 or later with pip (Debian: python3-pip) and an index. ${message}`,
    );
  }
}

function workersRoot(env: NodeJS.ProcessEnv): string {
  return join(cacheRoot(env), "workers");
}
