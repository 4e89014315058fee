/**
 * Runs between a simulated node and the processes of its containers, like a container runtime's shim, so that they end
 * with the node in any case. The kernel closes the IPC channel of a process even when SIGKILL ends it, and this process
 * listens for that. It runs in its own session, so Ctrl-C on a terminal reaches the node but not the containers.
 *
 * Guaranteed: when the channel closes, everything that a container started gets SIGKILL (see process-tree.ts for what
 * can be found). Then the folder is removed. Not guaranteed: a SIGKILL to the node and this process at once.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import type { FromHost, ProcessSpec, ToHost } from "./process-host-protocol.ts";
import { processesOf } from "./process-tree.ts";

/** A killed process is gone within microseconds. If it forked in the meantime, the next round finds the child. */
const KILL_ROUNDS = 50;
const KILL_ROUND_MS = 10;
/** How long the outputs of an ended container may stay open: a process that escaped the kill may hold them. */
const OUTPUT_ENDS_MS = 1_000;

const [, , folder, keep] = process.argv;
if (!folder || !process.send) throw new Error("process-host-main.ts is started by process-host.ts");

const children = new Map<string, ChildProcess>();
/** The containers whose standard output is wanted. */
const followed = new Set<string>();
let ending = false;

process.on("message", (message: ToHost) => {
  if (message.type === "start") start(message);
  else if (message.type === "signal") signal(message.id, message.signal);
  else if (message.type === "input") input(message.id, message.bytes);
  else if (message.type === "follow") follow(message.id, message.on);
  else void end();
});
process.on("disconnect", () => void end());
// Only the node ends this process. A signal to the whole terminal must not end it.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => {});

// The node may have ended while this process was loading, before it listened for `disconnect`.
if (process.connected) say({ type: "ready" });
else void end();

function say(message: FromHost): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

function start({ id, command, args, env, cwd, logFile, stdin }: ProcessSpec): void {
  if (ending) return;
  let child: ChildProcess;
  try {
    const log = openSync(logFile, "a", 0o600);
    const stdio = stdin ? (["pipe", "pipe", "pipe"] as const) : (["ignore", log, log] as const);
    // `detached` creates a separate process group.
    child = spawn(command, args, { cwd, env: { ...env }, stdio: [...stdio], detached: true });
    if (stdin) connect(id, child, log);
    else closeSync(log);
  } catch (error) {
    failed(id, error);
    return;
  }
  child.once("error", (error) => {
    if (child.pid === undefined) failed(id, error);
  });
  if (child.pid === undefined) return;
  children.set(id, child);
  say({ type: "started", id, pid: child.pid });
  child.once(
    "exit",
    (code, signalName) => void exited(id, child, code ?? 128 + constants.signals[signalName ?? "SIGKILL"]),
  );
}

/** Copies both outputs to the log, and standard output to the node while it wants it. */
function connect(id: string, child: ChildProcess, log: number): void {
  child.stdout?.on("data", (bytes: Buffer) => {
    writeSync(log, bytes);
    if (followed.has(id)) say({ type: "output", id, bytes: bytes.toString("base64") });
  });
  child.stderr?.on("data", (bytes: Buffer) => void writeSync(log, bytes));
  // The program may have closed its input or have ended.
  child.stdin?.on("error", () => {});
  child.once("close", () => closeSync(log));
}

function input(id: string, bytes: string | null): void {
  const stdin = children.get(id)?.stdin;
  if (bytes === null) stdin?.end();
  else if (stdin?.writable) stdin.write(Buffer.from(bytes, "base64"));
}

function follow(id: string, on: boolean): void {
  if (on) followed.add(id);
  else followed.delete(id);
}

function failed(id: string, error: unknown): void {
  const { code = "EUNKNOWN", message } = error as NodeJS.ErrnoException;
  say({ type: "failed", id, code, message });
}

/** When the first process of a container ends, all its other processes are killed. */
async function exited(id: string, child: ChildProcess, exitCode: number): Promise<void> {
  const closed = child.stdout ? once(child, "close") : undefined;
  await killAll(id, child);
  await Promise.race([closed, wait(OUTPUT_ENDS_MS)]);
  children.delete(id);
  followed.delete(id);
  say({ type: "exited", id, exitCode });
}

function signal(id: string, name: "SIGTERM" | "SIGKILL"): void {
  const child = children.get(id);
  if (!child) return;
  if (name === "SIGKILL") void killAll(id, child);
  else child.kill(name);
}

async function killAll(id: string, child: ChildProcess): Promise<void> {
  if (child.pid === undefined) return;
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    const members = processesOf(id, child.pid);
    if (members.length === 0) return;
    for (const pid of members) kill(pid);
    await wait(KILL_ROUND_MS);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // The process has already ended.
  }
}

async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  await Promise.all([...children].map(([id, child]) => killAll(id, child)));
  if (keep !== "keep" && folder) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  process.exit(0);
}
