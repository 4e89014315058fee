import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { MissingToolError } from "../cluster/missing.ts";

const MAX_OUTPUT_BYTES = 64 * 1024 ** 2;
/** Where Debian keeps programs for root. They aren't on the PATH of a normal user. */
const SYSTEM_DIRS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/** The number of output lines to show if a command fails. */
const LAST_LINES = 30;

/** The Debian package of each program that builds images. */
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

/** Returns the path of a program. Throws a MissingToolError that names its package if there is none. */
export function findProgram(name: Program, env: NodeJS.ProcessEnv = process.env): string {
  for (const dir of [...(env["PATH"] ?? "").split(delimiter).filter(Boolean), ...SYSTEM_DIRS]) {
    const path = join(dir, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The program isn't in this folder.
    }
  }
  throw new MissingToolError(`${name}, which makes images, is not installed: run apt-get install ${PACKAGES[name]}`);
}

/** Throws MissingToolError unless this process is root on Linux. Images contain files of other users. */
export function requireRoot(what: string): void {
  if (process.platform !== "linux") throw new MissingToolError(`${what} needs Linux; this is ${process.platform}.`);
  if (process.getuid?.() !== 0) throw new MissingToolError(`${what} needs root: use sudo, or a container.`);
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  /** The signal that ends the program after the timeout. Defaults to SIGTERM. */
  readonly killSignal?: NodeJS.Signals;
}

/** Runs a program to its end and returns its output. Throws with the last lines of its output. */
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
