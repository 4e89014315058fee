import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { cacheRoot } from "../cluster/cache.ts";
import { withLock } from "../cluster/lock.ts";
import { runProgram } from "../images/commands.ts";
import { keyOf } from "../images/keys.ts";
import { installPythonPackages } from "../workers/programs.ts";

const INIT = join(import.meta.dirname, "..", "..", "init");
const REQUIREMENTS = join(INIT, "requirements.txt");
/** The first build for an architecture also compiles its C library, which takes a minute. */
const TIMEOUT_MS = 600_000;
const FLAGS = ["-static", "-s", "-Os", "-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const TARGETS = { amd64: "x86_64-linux-musl", arm64: "aarch64-linux-musl" } as const;
export type InitArchitecture = keyof typeof TARGETS;

const OWN: InitArchitecture = process.arch === "arm64" ? "arm64" : "amd64";

/** The source of berth-init. */
export const INIT_SOURCE = join(INIT, "berth-init.c");

/**
 * Compiles a C file to a static program, or finds it in the cache. Needs pip and an index, for the compiler.
 * @returns the path of the program. Equal sources give equal bytes, on each machine and from each folder.
 * @throws {MissingToolError} without a Python that has pip
 */
export async function compileStatic(source: string, architecture: InitArchitecture = OWN): Promise<string> {
  const root = join(cacheRoot(), "init");
  const [name, target] = [basename(source, ".c"), TARGETS[architecture]];
  const inputs = await Promise.all([source, REQUIREMENTS].map((path) => readFile(path, "utf8")));
  const program = join(root, `${name}-${architecture}-${keyOf(target, FLAGS, inputs)}`);
  await withLock(`${program}.lock`, async () => {
    if (await stat(program).catch(() => undefined)) return;
    const { python, packages } = await installPythonPackages(REQUIREMENTS);
    await mkdir(root, { recursive: true });
    const half = `${program}.${randomBytes(4).toString("hex")}`;
    const caches = { ZIG_GLOBAL_CACHE_DIR: join(root, "zig"), ZIG_LOCAL_CACHE_DIR: join(root, "zig") };
    const env = { ...process.env, ...caches, PYTHONPATH: packages };
    try {
      const args = ["-m", "ziglang", "cc", "-target", target, ...FLAGS, "-o", half, basename(source)];
      await runProgram(python, args, { cwd: dirname(source), env, timeoutMs: TIMEOUT_MS });
      await rename(half, program);
    } finally {
      await rm(half, { force: true });
    }
  });
  return program;
}
