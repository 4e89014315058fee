import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { MissingToolError } from "../cluster/missing.ts";

const MAX_OUTPUT_BYTES = 64 * 1024 ** 2;
/** Where Debian keeps what only root runs; the PATH of a plain user lacks it. */
const SYSTEM_DIRS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/** What of a failed command's output is worth reading. */
const LAST_LINES = 30;

/** The Debian package of each program that images are made with. */
const PACKAGES = {
  mmdebstrap: "mmdebstrap",
  busybox: "busybox-static",
  chroot: "coreutils",
  tar: "tar",
  unshare: "util-linux",
  "apt-config": "apt",
  pip3: "python3-pip",
  buildah: "buildah",
} as const;
export type Program = keyof typeof PACKAGES;

/** Path of a program. Throws MissingToolError, which names its package, when there is none. */
export function findProgram(name: Program, env: NodeJS.ProcessEnv = process.env): string {
  for (const dir of [...(env["PATH"] ?? "").split(delimiter).filter(Boolean), ...SYSTEM_DIRS]) {
    const path = join(dir, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here.
    }
  }
  throw new MissingToolError(`Images are made with ${name}, which is not here: apt-get install ${PACKAGES[name]}`);
}

/** Throws MissingToolError unless this process is root on Linux: other users' files go into the images. */
export function requireRoot(what: string): void {
  if (process.platform !== "linux") throw new MissingToolError(`${what} takes Linux; this is ${process.platform}.`);
  if (process.getuid?.() !== 0) throw new MissingToolError(`${what} takes root: run it by sudo, or in a container.`);
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  /** What ends it when the time is over; SIGTERM unless given. */
  readonly killSignal?: NodeJS.Signals;
}

/** Runs a program to its end and returns what it printed. Throws with the last lines of its output. */
export async function runProgram(path: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { env = process.env, cwd, timeoutMs, killSignal } = options;
  try {
    const { stdout } = await promisify(execFile)(path, args, {
      env: { ...env, LC_ALL: "C.UTF-8" },
      maxBuffer: MAX_OUTPUT_BYTES,
      ...(cwd !== undefined && { cwd }),
      ...(timeoutMs !== undefined && { timeout: timeoutMs }),
      ...(killSignal !== undefined && { killSignal }),
    });
    return stdout;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    const told = `${stdout}${stderr}`.trim().split("\n").slice(-LAST_LINES).join("\n");
    throw new Error(`${path} ${args[0] ?? ""} failed:\n${told}`, { cause: error });
  }
}
