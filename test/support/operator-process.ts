/** Starts the operator as its own process, which tests can stop or kill. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Timing } from "../../src/core/timing.ts";
import type { Death } from "./sudden-death.ts";

/** The variable that tells operator-main.ts by how many milliseconds its wall clock is off. */
export const WALL_OFFSET = "OPERATOR_WALL_OFFSET_MS";
/** The variable that gives it other times, as JSON. */
export const OTHER_TIMES = "OPERATOR_TIMES";

const ROOT = join(import.meta.dirname, "..", "..");

/** A line of the operator's log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly msg?: string; readonly level?: string };

/** An operator in its own process. */
export interface OperatorProcess extends AsyncDisposable {
  readonly pid: number;
  /** The addresses of its servers. */
  readonly addresses: { readonly metrics?: string; readonly health?: string };
  /** Its log so far; complete once it has ended. */
  readonly log: readonly LogLine[];
  /** Other lines on its standard error: Node's output when a process crashes. */
  readonly stray: readonly string[];
  /** Resolves with the exit code or the signal's name. */
  readonly ended: Promise<number | string>;
  /** Sends SIGKILL: the process can't clean up. */
  kill(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  /** Sends SIGTERM and waits. Resolves with the exit code. */
  stop(): Promise<number | string>;
}

/** What a test changes of a process in addition to its flags. */
export interface ProcessOptions {
  /** How far its wall clock is ahead of the machine's; negative: behind. */
  readonly wallOffsetMs?: number;
  /** Other times, which the time scale does not change. */
  readonly timing?: Partial<Timing> | undefined;
  /** Flags for Node. */
  readonly nodeFlags?: readonly string[];
  /** Where it dies, or which answers it loses. */
  readonly death?: Death;
}

/** Starts the operator as a process from its sources. Resolves when its servers listen. */
export async function startOperatorProcess(
  flags: readonly string[],
  timeScale = 1,
  { wallOffsetMs = 0, timing = {}, nodeFlags = [], death }: ProcessOptions = {},
): Promise<OperatorProcess> {
  const main = join(ROOT, "test", "support", "operator-main.ts");
  const dying = death ? ["--death", JSON.stringify(death)] : [];
  return await startOperatorMain([...nodeFlags, main, String(timeScale), ...dying, ...flags], {
    [WALL_OFFSET]: String(wallOffsetMs),
    [OTHER_TIMES]: JSON.stringify(timing),
  });
}

/**
 * Starts a main that prints its servers' addresses as JSON when they listen, and that ends with its standard input.
 * @param args Node's flags, the main, and its arguments
 */
export async function startOperatorMain(
  args: readonly string[],
  variables: Readonly<Record<string, string>> = {},
): Promise<OperatorProcess> {
  // Settings of test runs are variables too, and the operator refuses unknown ones with its own prefix.
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith("BERTH_"));
  const env = { ...Object.fromEntries(own), ...variables };
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "pipe"], env });
  const log: LogLine[] = [];
  const stray: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    try {
      log.push(JSON.parse(line) as LogLine);
    } catch {
      stray.push(line);
    }
  });
  const ended = endOf(child);
  const listening = once(createInterface({ input: child.stdout }), "line") as Promise<[string]>;
  const first = await Promise.race([listening, ended]);
  if (!Array.isArray(first)) throw new Error(`the operator ended at its start (${first}):\n${stray.join("\n")}`);
  return {
    pid: child.pid ?? 0,
    addresses: JSON.parse(first[0]) as OperatorProcess["addresses"],
    log,
    stray,
    ended,
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
    signal: (name) => void child.kill(name),
    async stop() {
      child.kill("SIGTERM");
      return await ended;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function endOf(child: ChildProcess): Promise<number | string> {
  // Wait for "close", not "exit": the last lines may still be in the pipe at the exit.
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return code ?? signal ?? "unknown";
}
