import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { expect } from "vitest";

// The shells that run Berth's scripts, and what tests need to know of a process that runs one.

export interface Shell {
  readonly program: string;
  readonly args: readonly string[];
  /** bash behaves like a POSIX shell when it is called `sh`. */
  readonly argv0?: string;
}

/** The shells that images have as `/bin/sh`. Their Debian packages: dash, bash, busybox-static. */
export const SHELLS: Readonly<Record<string, Shell>> = {
  dash: { program: "/bin/dash", args: [] },
  "bash as sh": { program: "/bin/bash", args: [], argv0: "sh" },
  "bash --posix": { program: "/bin/bash", args: ["--posix"] },
  "busybox sh": { program: "/bin/busybox", args: ["sh"] },
};

export const isInstalled = ({ program }: Shell) => existsSync(program);

/** Starts a program as the first process of a namespace, as in a container. */
export const AS_FIRST_PROCESS = ["unshare", "--pid", "--fork", "--kill-child"];
export const hasNamespaces = spawnSync("unshare", [...AS_FIRST_PROCESS.slice(1), "true"]).status === 0;

/** The id of the only child of a process; undefined: it has none yet. */
export function childOf(pid: number | undefined): number | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return children === "" ? undefined : Number(children);
}

const SIGTERM_BIT = 1n << 14n;

/** Resolves when the shell has set its trap and waits. */
export async function waits(pid: () => number | undefined): Promise<void> {
  const status = () => readFileSync(`/proc/${pid()}/status`, "utf8");
  const catches = () => (BigInt(`0x${/^SigCgt:\s*(\w+)$/m.exec(status())?.[1]}`) & SIGTERM_BIT) !== 0n;
  const isWaiting = () => pid() !== undefined && catches() && status().includes("(sleeping)");
  await expect.poll(isWaiting, { timeout: 10_000 }).toBe(true);
}
