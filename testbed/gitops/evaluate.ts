import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "../cluster/cache.ts";
import { findGo, goEnvironment } from "../cluster/go.ts";
import { withLock } from "../cluster/lock.ts";
import { runProgram } from "../images/commands.ts";
import { keyOf } from "../images/keys.ts";

const SOURCES = ["main.go", "go.mod", "go.sum"].map((name) => join(import.meta.dirname, name));
const BUILD_TIMEOUT_MS = 600_000;
const RUN_TIMEOUT_MS = 30_000;

/** What a tool says about an object. */
interface Judgement {
  readonly status: string;
  readonly message: string;
}

export interface Judgements {
  readonly flux: Judgement;
  readonly argocd: Judgement;
}

/**
 * Returns what Flux and Argo CD say about objects, by their own rules: the library kstatus, and a health check in Lua.
 * The program with these rules is built once, which needs Go.
 * @param healthCheck the file of the health check
 */
export async function judge(objects: readonly unknown[], healthCheck: string): Promise<Judgements[]> {
  const program = await findProgram(process.env);
  const running = promisify(execFile)(program, [healthCheck], { timeout: RUN_TIMEOUT_MS });
  running.child.stdin?.end(objects.map((object) => JSON.stringify(object)).join("\n"));
  const { stdout } = await running;
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Judgements);
}

async function findProgram(env: NodeJS.ProcessEnv): Promise<string> {
  const sources = await Promise.all(SOURCES.map((path) => readFile(path, "utf8")));
  const root = join(cacheRoot(env), "gitops");
  const program = join(root, keyOf(...sources));
  await withLock(`${program}.lock`, async () => {
    if (existsSync(program)) return;
    const go = await findGo(env);
    const work = join(root, "go");
    await mkdir(work, { recursive: true });
    const built = `${program}.building`;
    const args = ["build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", built, "."];
    await runProgram(go, args, {
      cwd: import.meta.dirname,
      env: goEnvironment(env, go, work),
      timeoutMs: BUILD_TIMEOUT_MS,
    });
    await rename(built, program);
  });
  return program;
}
