import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { compileStatic, INIT_SOURCE } from "../../../testbed/init/init-binary.ts";

/** A user of the container, without rights. */
export const USER = 10_001;
const PATIENCE_MS = 30_000;
/** Runs the program for arm64 instead, with this emulator: `qemu-aarch64-static` (Debian: qemu-user-static). */
const EMULATOR = process.env["BERTH_TEST_ARM64_EMULATOR"];

/**
 * A script for bash. As in a container, the streams are pipes and no other file is open. This process would give a child
 * sockets, and those can't be opened again.
 */
const AS_A_RUNTIME = `
  mkfifo output errors; (cat output &); (cat errors >&2 &)
  for fd in /proc/self/fd/*; do [ "\${fd##*/}" -gt 2 ] && eval "exec \${fd##*/}>&-"; done 2>/dev/null
  exec "$@" > output 2> errors`;

export interface InitOptions {
  /** What runs as the program. Default: a shell that runs `script`. */
  readonly command?: readonly string[];
  /** A script for `/bin/sh`. */
  readonly script?: string;
  /** A file that is copied to where the container's user can run it, and is the program. */
  readonly program?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Default: the one of the project. */
  readonly binary?: string;
  /** Whether it runs as process 1 of a namespace. Default: true. */
  readonly isFirst?: boolean;
  /** The user of the container. Default: this process's. */
  readonly user?: number;
  /** What sets up the container's process before it becomes berth-init: a shell script. */
  readonly prepare?: string;
  /** Whether nothing reads standard output. Default: false. */
  readonly isOutputStuck?: boolean;
}

/** A state as berth-init reports it. */
export interface State {
  readonly boot: string;
  readonly nonce: string;
  readonly claim: string;
  readonly phase: string;
  /** `exit`, `signal`, `oom` or `unstarted`. */
  readonly how?: string;
  readonly number?: number;
  readonly asked?: string;
  readonly left?: string;
  readonly words?: string;
}

/** Frames what a line says. */
export function frame(text: string): string {
  return `\nberth2 ${Buffer.byteLength(text, "latin1")} ${text} #end\n`;
}

/** berth-init as process 1 of a new namespace, as a container's runtime starts it. */
export class FirstProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  /** Its working directory, which is also in $TEST_FOLDER. */
  readonly folder: string;
  /** Reports that no test has waited for yet. */
  readonly #reports: State[] = [];
  #changed = Promise.withResolvers<void>();
  #read = 0;
  #nonces = 0;
  /** Everything on standard output, and on standard error. */
  output = "";
  errors = "";
  boot = "";
  /** The code that it ended with. */
  readonly ended: Promise<number | null>;

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.folder = folder;
    this.ended = once(child, "close").then(([code]) => {
      this.#note();
      return code as number | null;
    });
    child.stderr?.setEncoding("latin1").on("data", (text: string) => {
      this.errors += text;
      this.#readReports();
    });
    // It may end before all lines are written.
    child.stdin?.on("error", () => {});
  }

  static async start(options: InitOptions = {}): Promise<FirstProcess> {
    const { script = "true", flags = [], env = {}, user, prepare = "" } = options;
    const folder = await mkdtemp(join(tmpdir(), "berth-init-"));
    const copied = join(folder, "program");
    if (options.program) await copyFile(options.program, copied);
    const { command = options.program ? [copied] : ["/bin/sh", "-c", script] } = options;
    // Another user may not read the cache.
    const binary = join(folder, "berth-init");
    await copyFile(options.binary ?? (await compileStatic(INIT_SOURCE, EMULATOR ? "arm64" : undefined)), binary);
    const as = user === undefined ? [] : ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
    const prepared = [
      "/bin/sh",
      "-c",
      `chmod 755 ${folder}; ${prepare}\nexec "$@"`,
      "sh",
      ...as,
      ...(EMULATOR && !options.binary ? [EMULATOR] : []),
      binary,
    ];
    const namespace = options.isFirst === false ? [] : ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const child = spawn(
      "bash",
      ["--norc", "-c", AS_A_RUNTIME, "bash", ...namespace, ...prepared, ...flags, "--", ...command],
      {
        cwd: folder,
        env: { PATH: process.env["PATH"], TEST_FOLDER: folder, ...env },
        stdio: "pipe",
      },
    );
    const started = new FirstProcess(child, folder);
    if (!options.isOutputStuck) started.readOutput();
    return started;
  }

  /** Starts it, and waits until it waits for lines. */
  static async waiting(options: InitOptions = {}): Promise<FirstProcess> {
    const started = await FirstProcess.start(options);
    const state = await started.next();
    expect(state).toEqual({ boot: expect.stringMatching(/^[0-9a-f]{32}$/), nonce: "-", claim: "-", phase: "waiting" });
    started.boot = state.boot;
    return started;
  }

  readOutput(): void {
    this.#child.stdout?.setEncoding("latin1").on("data", (text: string) => {
      this.output += text;
      this.#note();
    });
  }

  /** Its process, as seen from here. */
  async pid(): Promise<number> {
    const { pid } = this.#child;
    return Number((await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim());
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    process.kill(await this.pid(), signal);
  }

  write(text: string): void {
    this.#child.stdin?.write(text, "latin1");
  }

  endInput(): void {
    this.#child.stdin?.end();
  }

  /** Sends a line, and returns the state that answers it. */
  async ask(verb: string, ...rest: readonly (string | number)[]): Promise<State> {
    this.#nonces += 1;
    const nonce = `n${this.#nonces}`;
    this.write(frame([verb, nonce, ...rest].join(" ")));
    const state = await this.next();
    expect(state.nonce).toBe(nonce);
    return state;
  }

  /** Runs the program for a claim, and returns the answer. */
  run(claim: string, number: number, rest: { seconds?: number; grace?: number; variables?: readonly string[] } = {}) {
    const { seconds = 0, grace = 30, variables = [] } = rest;
    return this.ask("run", this.boot, claim, number, seconds, grace, ...variables);
  }

  /** Runs the program to its end. */
  async runToEnd(claim: string, number: number, variables: readonly string[] = []): Promise<State> {
    expect(await this.run(claim, number, { variables })).toMatchObject({ claim, phase: "running" });
    const state = await this.next();
    expect(state).toMatchObject({ nonce: "-", claim, phase: "ended" });
    return state;
  }

  /** The next report. */
  async next(): Promise<State> {
    await this.until("another report", () => this.#reports.length > 0);
    return this.#reports.shift() as State;
  }

  /** Waits until it is true. Throws if it isn't in time, or can't be any more. */
  async until(what: string, isTrue: () => boolean | Promise<boolean>): Promise<void> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const changed = this.#changed.promise;
      if (await isTrue()) return;
      const told = `${what}: ${JSON.stringify({ output: this.output.slice(-2000), errors: this.errors.slice(-2000) })}`;
      if (this.#child.exitCode !== null) throw new Error(`it ended with ${this.#child.exitCode} before ${told}`);
      if (signal.aborted) throw new Error(`not in time: ${told}`);
      await Promise.race([changed, once(signal, "abort")]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
    await rm(this.folder, { recursive: true, force: true });
  }

  #note(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #readReports(): void {
    for (;;) {
      const end = this.errors.indexOf("\n", this.#read);
      if (end < 0) break;
      const line = this.errors.slice(this.#read, end);
      this.#read = end + 1;
      const [, length, text = ""] = /^berth2 (\d+) (.*) #end$/.exec(line) ?? [];
      if (Number(length) === text.length && text !== "") this.#reports.push(stateOf(text));
    }
    this.#note();
  }
}

function stateOf(text: string): State {
  const [word, boot = "", nonce = "", claim = "", phase = "", how, number, asked, left, words, ...rest] =
    text.split(" ");
  expect([word, rest]).toEqual(["state", []]);
  const state = { boot, nonce, claim, phase };
  if (how === undefined) return state;
  const said = words === "-" ? "" : decodeURIComponent(words ?? "");
  return { ...state, how, number: Number(number), ...(asked && { asked }), ...(left && { left }), words: said };
}
