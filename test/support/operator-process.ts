import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** A line of the operator's log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly msg?: string; readonly level?: string };

/** An operator in a process of its own. */
export interface OperatorProcess extends AsyncDisposable {
  readonly pid: number;
  /** Where its servers listen. */
  readonly addresses: { readonly metrics?: string; readonly health?: string };
  /** Everything it logged so far. */
  readonly log: readonly LogLine[];
  /** Resolves with the exit code or the signal's name. */
  readonly ended: Promise<number | string>;
  /** kill -9: no clean-up of any kind. */
  kill(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  /** SIGTERM, and waits for its end. Resolves with the exit code. */
  stop(): Promise<number | string>;
}

/** Starts the operator as a process and resolves when its servers listen. */
export async function startOperatorProcess(flags: readonly string[], timeScale = 1): Promise<OperatorProcess> {
  const main = new URL("./operator-main.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, String(timeScale), ...flags], { stdio: ["pipe", "pipe", "pipe"] });
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
  const [code, signal] = (await once(child, "exit")) as [number | null, string | null];
  return code ?? signal ?? "unknown";
}
