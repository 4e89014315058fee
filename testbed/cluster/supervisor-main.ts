/**
 * Runs between a process and the programs that it starts, so that they end with it in any case. The kernel closes the
 * IPC channel of a process even when SIGKILL ends it, and the supervisor listens for that. It runs in its own session,
 * so Ctrl-C on a terminal doesn't reach the programs before their owner ends them properly.
 *
 * Guaranteed: when the channel closes, the process groups of all programs get SIGKILL. Then the supervisor runs the
 * command that its arguments name, if any, and removes the directory.
 * Not guaranteed: programs that leave their process group, and a SIGKILL to the supervisor and its owner at once.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync } from "node:fs";
import type { FromSupervisor, ProcessSpec, ToSupervisor } from "./supervisor-protocol.ts";

const [dir, ...afterwards] = process.argv.slice(2);
if (!dir || !process.send) throw new Error("supervisor-main.ts is started by supervisor.ts");

/** Longer than the kernel needs to release the resources of killed programs. */
const AFTERWARDS_TIMEOUT_MS = 30_000;

const children = new Map<string, ChildProcess>();
let ending = false;

process.on("message", (message: ToSupervisor) => {
  if (message.type === "start") start(message);
  else if (message.type === "signal") signal(message.name, message.signal);
  else end();
});
process.on("disconnect", end);
// Only the owner ends the supervisor. A signal to the whole session of a terminal must not end it.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => {});
process.on("exit", () => {
  const [command, ...args] = afterwards;
  if (command !== undefined) {
    spawnSync(command, args, { stdio: ["ignore", "ignore", "inherit"], timeout: AFTERWARDS_TIMEOUT_MS });
  }
  // Retry because a dying grandchild may have written a file in the meantime.
  rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
});

// The owner may have ended while this process was loading, before it listened for `disconnect`.
if (process.connected) {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  say({ type: "ready" });
} else {
  end();
}

function say(message: FromSupervisor): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

function start(spec: ProcessSpec): void {
  if (ending) return;
  const log = openSync(spec.logFile, "a", 0o600);
  const { name } = spec;
  const child = spawn(spec.command, spec.args, {
    cwd: spec.cwd,
    env: { ...spec.env },
    stdio: ["ignore", log, log],
    // A separate process group, so that what the program starts (a compiler, a plug-in) ends with it.
    detached: true,
  });
  closeSync(log);
  children.set(name, child);
  child.once("error", (error) => {
    children.delete(name);
    say({ type: "failed", name, message: error.message });
  });
  child.once("exit", (code, signalName) => {
    children.delete(name);
    say({ type: "exited", name, code, signal: signalName });
    if (ending && children.size === 0) process.exit(0);
  });
  if (child.pid !== undefined) say({ type: "started", name, pid: child.pid });
}

function signal(name: string, signalName: NodeJS.Signals): void {
  const child = children.get(name);
  if (child) killGroup(child, signalName);
}

function end(): void {
  if (ending) return;
  ending = true;
  for (const child of children.values()) killGroup(child, "SIGKILL");
  if (children.size === 0) process.exit(0);
}

function killGroup(child: ChildProcess, signalName: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signalName);
  } catch {
    // The process has already ended.
  }
}
