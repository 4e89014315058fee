import { type ChildProcess, fork } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { FromSupervisor, ProcessSpec, ToSupervisor } from "./supervisor-protocol.ts";

export type { ProcessSpec } from "./supervisor-protocol.ts";

/** How a program ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

/** A running program. */
export interface SupervisedProcess {
  readonly name: string;
  readonly pid: number;
  /** Resolves when the program has ended, and never rejects. */
  readonly exited: Promise<Exit>;
  /** Undefined while the program runs. */
  readonly exit: Exit | undefined;
  /** Sends a signal to the program's process group. Does nothing after the program ended. */
  kill(signal: NodeJS.Signals): void;
}

/**
 * Starts programs and creates a directory that all end with this process, even if SIGKILL ends it. See
 * supervisor-main.ts for the guarantees.
 */
export class Supervisor {
  readonly dir: string;
  readonly pid: number;
  #ending = false;
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  readonly #running = new Map<string, Running>();
  readonly #waiting = new Map<string, PromiseWithResolvers<SupervisedProcess>>();

  private constructor(dir: string, child: ChildProcess) {
    this.dir = dir;
    this.pid = child.pid ?? 0;
    this.#child = child;
    child.on("message", (message: FromSupervisor) => this.#hear(message));
    this.#gone = new Promise((resolve) => child.once("exit", () => resolve(this.#cleanUp())));
  }

  /**
   * Starts the supervisor, which creates `dir` and later removes it.
   * @param afterwards a command that the supervisor runs after all programs have ended, to clean up what else they left
   */
  static async start(dir: string, afterwards: readonly string[] = []): Promise<Supervisor> {
    const child = fork(join(import.meta.dirname, "supervisor-main.ts"), [dir, ...afterwards], {
      detached: true,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      // The inspector or loader flags of a test runner must not apply to the supervisor.
      execArgv: [],
      env: { PATH: process.env["PATH"], NODE_NO_WARNINGS: "1" },
    });
    const ready = Promise.withResolvers<void>();
    child.once("error", ready.reject);
    child.once("exit", (code) => ready.reject(new Error(`the supervisor of ${dir} ended with ${code}`)));
    child.once("message", () => ready.resolve());
    await ready.promise;
    return new Supervisor(dir, child);
  }

  /** Whether `end` was called, which explains why programs end now. */
  get ending(): boolean {
    return this.#ending;
  }

  /** Starts a program. Rejects if it can't be started. */
  spawn(spec: ProcessSpec): Promise<SupervisedProcess> {
    const { name } = spec;
    if (!this.#child.connected) return Promise.reject(new Error(`cannot start ${name}: its supervisor has ended`));
    if (this.#running.has(name) || this.#waiting.has(name))
      return Promise.reject(new Error(`${name} is already running`));
    const waiting = Promise.withResolvers<SupervisedProcess>();
    this.#waiting.set(name, waiting);
    this.#say({ type: "start", ...spec });
    return waiting.promise;
  }

  /** Ends all programs at once (SIGKILL) and removes the directory. Idempotent. */
  async end(): Promise<void> {
    this.#ending = true;
    this.#say({ type: "end" });
    await this.#gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  #say(message: ToSupervisor): void {
    // A closed channel means that the supervisor is gone. #cleanUp then settles everything that waits.
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  #hear(message: FromSupervisor): void {
    if (message.type === "ready") return;
    const { name } = message;
    if (message.type === "started") {
      const running = new Running(name, message.pid, (signal) => this.#say({ type: "signal", name, signal }));
      this.#running.set(name, running);
      this.#take(name)?.resolve(running);
    } else if (message.type === "failed") {
      this.#take(name)?.reject(new Error(`cannot start ${name}: ${message.message}`));
    } else {
      this.#running.get(name)?.end({ code: message.code, signal: message.signal });
      this.#running.delete(name);
    }
  }

  #take(name: string): PromiseWithResolvers<SupervisedProcess> | undefined {
    const waiting = this.#waiting.get(name);
    this.#waiting.delete(name);
    return waiting;
  }

  /** Does nothing after a normal end. It ends the programs if the supervisor itself was killed. */
  async #cleanUp(): Promise<void> {
    for (const running of this.#running.values()) {
      try {
        process.kill(-running.pid, "SIGKILL");
      } catch {
        // The process has already ended.
      }
      running.end({ code: null, signal: "SIGKILL" });
    }
    this.#running.clear();
    for (const name of [...this.#waiting.keys()])
      this.#take(name)?.reject(new Error(`cannot start ${name}: its supervisor has ended`));
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Running implements SupervisedProcess {
  readonly name: string;
  readonly pid: number;
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  readonly #resolve: (exit: Exit) => void;
  readonly #signal: (signal: NodeJS.Signals) => void;

  constructor(name: string, pid: number, signal: (signal: NodeJS.Signals) => void) {
    this.name = name;
    this.pid = pid;
    this.#signal = signal;
    const { promise, resolve } = Promise.withResolvers<Exit>();
    this.exited = promise;
    this.#resolve = resolve;
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.exit) this.#signal(signal);
  }

  end(exit: Exit): void {
    this.exit = exit;
    this.#resolve(exit);
  }
}
