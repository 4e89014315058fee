import { readFileSync } from "node:fs";
import { constants } from "node:os";

/** Why the demo ends early. */
export type Cause = { readonly kind: "interrupted" } | { readonly kind: "failed"; readonly error: Error };

/** A shell adds this to the number of the signal that ended a command. */
const EXIT_SIGNAL = 128;
/** Under npm, Ctrl-C may arrive twice: from the terminal, and passed on by npm. A person is slower. */
const ECHO_MS = 400;
/** How often the demo checks whether the npm that started it still runs. */
const ORPHAN_POLL_MS = 1_000;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * The early end of the demo. The first signal or failure aborts `signal`, so that everything ends in order. A second
 * signal ends the process at once, along with what it started.
 */
export class Ending implements Disposable {
  readonly #controller = new AbortController();
  /** Called before the process ends abruptly. */
  onAbrupt: () => void = () => {};
  #cause: Cause | undefined;
  #interruptedAt: number | undefined;
  readonly #handlers = new Map<NodeJS.Signals, () => void>();
  #orphanTimer: NodeJS.Timeout | undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The first cause; undefined: there is none yet. */
  get cause(): Cause | undefined {
    return this.#cause;
  }

  get interrupted(): boolean {
    return this.#cause?.kind === "interrupted";
  }

  /**
   * Handles the process's signals from now on, and notices if the npm that started it has ended without passing one on.
   */
  listen(): void {
    for (const name of SIGNALS) {
      const handler = () => this.interrupt(name);
      this.#handlers.set(name, handler);
      process.on(name, handler);
    }
    const ancestors = npmAncestors();
    if (ancestors.length === 0) return;
    this.#orphanTimer = setInterval(() => {
      if (ancestors.every(isAlive)) return;
      clearInterval(this.#orphanTimer);
      this.#end({ kind: "interrupted" });
    }, ORPHAN_POLL_MS);
    this.#orphanTimer.unref();
  }

  interrupt(name: NodeJS.Signals, nowMs: number = performance.now()): void {
    if (this.#interruptedAt === undefined) {
      this.#interruptedAt = nowMs;
      this.#end({ kind: "interrupted" });
    } else if (nowMs - this.#interruptedAt > ECHO_MS) {
      this.onAbrupt();
      process.exit(EXIT_SIGNAL + constants.signals[name]);
    }
  }

  /** Another process has ended or the output is closed, so the demo can't go on. */
  fail(error: Error): void {
    this.#end({ kind: "failed", error });
  }

  [Symbol.dispose](): void {
    for (const [name, handler] of this.#handlers) process.off(name, handler);
    clearInterval(this.#orphanTimer);
  }

  #end(cause: Cause): void {
    this.#cause ??= cause;
    this.#controller.abort();
  }
}

interface Ancestor {
  readonly pid: number;
  readonly startedAt: string;
}

/** npm, its shell, and this process: there are no more levels. */
const MAX_GENERATIONS = 3;

/**
 * The shell and the npm that started this process, if npm did. npm passes SIGTERM on to its shell only, and the shell
 * ends without passing it on.
 */
function npmAncestors(): Ancestor[] {
  if (process.env["npm_lifecycle_event"] === undefined) return [];
  const chain: Ancestor[] = [];
  let pid = process.ppid;
  for (let generation = 0; generation < MAX_GENERATIONS; generation += 1) {
    const stat = statOf(pid);
    if (!stat) return [];
    chain.push({ pid, startedAt: stat.startedAt });
    // npm's process name starts with `npm`.
    if (stat.name.startsWith("npm")) return chain;
    pid = stat.parent;
  }
  return [];
}

function isAlive({ pid, startedAt }: Ancestor): boolean {
  return statOf(pid)?.startedAt === startedAt;
}

function statOf(pid: number): { name: string; parent: number; startedAt: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may contain anything.
    const [state, parent, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z") return undefined;
    const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    // Field 22 of proc(5); `rest` begins with field 5.
    return { name, parent: Number(parent), startedAt: rest[17] ?? "" };
  } catch {
    return undefined;
  }
}
