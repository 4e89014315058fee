import { mkdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PortTakenError, saysPortTaken } from "./ports.ts";
import type { Exit, SupervisedProcess, Supervisor } from "./supervisor.ts";

/** It usually takes 1 to 3 s, but two busy cores and a cold disk are slower. */
const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 25;
/** An API server with open watches takes 30 s or more to end. By this time, it has closed all its watches. */
const STOP_TIMEOUT_MS = 3_000;
/** The number of log lines in an error. */
const TAIL_LINES = 20;

export interface ComponentSpec {
  /** The path of the binary. Its last part is the component's name. */
  readonly binary: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly logs: string;
}

/** One program of the control plane, started by a supervisor. */
export class Component {
  readonly name: string;
  readonly logFile: string;
  readonly #supervisor: Supervisor;
  readonly #spec: ComponentSpec;
  readonly #onDeath: (error: Error) => void;
  #process: SupervisedProcess | undefined;
  #stopping = false;

  /** @param onDeath called when the program ends without being stopped */
  constructor(supervisor: Supervisor, spec: ComponentSpec, onDeath: (error: Error) => void) {
    this.name = basename(spec.binary);
    this.logFile = join(spec.logs, `${this.name}.log`);
    this.#supervisor = supervisor;
    this.#spec = spec;
    this.#onDeath = onDeath;
  }

  get pid(): number | undefined {
    return this.#process?.exit ? undefined : this.#process?.pid;
  }

  /**
   * Starts the program and waits until `ready` returns true.
   * Throws PortTakenError if its port is taken, and otherwise an error with the end of its log.
   */
  async start(ready: () => Promise<boolean>): Promise<void> {
    const { binary, args, cwd } = this.#spec;
    await mkdir(dirname(this.logFile), { recursive: true });
    const logStart = (await this.#log()).length;
    this.#stopping = false;
    const running = await this.#supervisor.spawn({
      name: this.name,
      command: binary,
      args,
      cwd,
      // GOGC trades memory for half of the garbage collector's work. The caller's environment isn't passed on.
      env: { PATH: process.env["PATH"], HOME: cwd, GOGC: "200" },
      logFile: this.logFile,
    });
    this.#process = running;
    await this.#waitUntilReady(running, ready, logStart);
    void running.exited.then((exit) => this.#ended(exit));
  }

  /** Ends the program and waits for its end. Sends SIGKILL if that takes too long. Does nothing if it isn't running. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const running = this.#process;
    if (!running) return;
    this.#stopping = true;
    running.kill(signal);
    const timeout = new AbortController();
    const late = delay(STOP_TIMEOUT_MS, "late", { signal: timeout.signal }).catch(() => "");
    if ((await Promise.race([running.exited, late])) === "late") running.kill("SIGKILL");
    timeout.abort();
    await running.exited;
    this.#process = undefined;
  }

  async #waitUntilReady(running: SupervisedProcess, ready: () => Promise<boolean>, logStart: number): Promise<void> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    while (!running.exit) {
      if (await ready()) return;
      if (performance.now() > deadline) {
        await this.stop("SIGKILL");
        throw new Error(await this.#failure(`is not ready after ${READY_TIMEOUT_MS / 1000} s`));
      }
      await delay(READY_POLL_MS);
    }
    this.#process = undefined;
    if (saysPortTaken((await this.#log()).slice(logStart)))
      throw new PortTakenError(`the port of ${this.name} is in use`);
    throw new Error(await this.#failure(describe(running.exit)));
  }

  async #ended(exit: Exit): Promise<void> {
    if (this.#stopping || this.#supervisor.ending) return;
    this.#process = undefined;
    this.#onDeath(new Error(await this.#failure(describe(exit))));
  }

  async #failure(what: string): Promise<string> {
    const tail = (await this.#log()).trimEnd().split("\n").slice(-TAIL_LINES);
    return `${this.name} ${what}. The end of its log (${this.logFile}):\n${tail.map((line) => `  ${line}`).join("\n")}`;
  }

  async #log(): Promise<string> {
    return await readFile(this.logFile, "utf8").catch(() => "");
  }
}

function describe(exit: Exit): string {
  return exit.signal ? `was ended by ${exit.signal}` : `ended with exit code ${exit.code}`;
}
