import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { FromHost, ProcessSpec, ToHost } from "./process-host-protocol.ts";
import { EXIT_SIGKILL } from "./runtime.ts";

/** The operating system couldn't start a command. `code` is the name of the errno: ENOENT, EACCES. */
export class SpawnError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** A started process and its end. */
export interface HostedProcess {
  readonly pid: number;
  signal(signal: "SIGTERM" | "SIGKILL"): void;
  write(bytes: Buffer): void;
  closeInput(): void;
  /** Calls `fn` with all standard output from now on. Returns a function that ends this. */
  follow(fn: (bytes: Buffer) => void): () => void;
  /** Resolves with the exit code (128 + n after signal n) after everything that the process started has ended too. */
  readonly exited: Promise<number>;
}

interface Hosted {
  readonly started: PromiseWithResolvers<HostedProcess>;
  readonly exited: PromiseWithResolvers<number>;
  readonly followers: Set<(bytes: Buffer) => void>;
  pid: number | undefined;
}

/** Starts processes that end with this one, even if SIGKILL ends it. See process-host-main.ts. */
export class ProcessHost {
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  readonly #hosted = new Map<string, Hosted>();

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on("message", (message: FromHost) => this.#hear(message));
    this.#gone = new Promise((resolve) => {
      child.once("exit", () => {
        this.#cleanUp();
        resolve();
      });
    });
  }

  /** @param folder the host removes it at its end, unless `keep` is set */
  static async start(folder: string, keep: boolean): Promise<ProcessHost> {
    const child = fork(join(import.meta.dirname, "process-host-main.ts"), [folder, keep ? "keep" : "remove"], {
      detached: true,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      // A test runner's loader and inspector flags must not apply to the host.
      execArgv: [],
      env: { PATH: process.env["PATH"], NODE_NO_WARNINGS: "1" },
    });
    const ready = Promise.withResolvers<void>();
    child.once("error", ready.reject);
    child.once("exit", (code) => ready.reject(new Error(`the host of the node's processes ended with ${code}`)));
    child.once("message", () => ready.resolve());
    await ready.promise;
    return new ProcessHost(child);
  }

  /** The pid of the host itself. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Starts a process. Rejects with a SpawnError if it can't be started. */
  spawn(spec: ProcessSpec): Promise<HostedProcess> {
    const hosted: Hosted = {
      started: Promise.withResolvers(),
      exited: Promise.withResolvers(),
      followers: new Set(),
      pid: undefined,
    };
    this.#hosted.set(spec.id, hosted);
    if (this.#child.connected) this.#say({ type: "start", ...spec });
    else hosted.started.reject(new SpawnError("EPIPE", "the host of the node's processes has ended"));
    return hosted.started.promise;
  }

  /** Kills everything and ends the host. Idempotent. */
  async end(): Promise<void> {
    this.#say({ type: "end" });
    await this.#gone;
  }

  #follow(id: string, { followers }: Hosted, fn: (bytes: Buffer) => void): () => void {
    if (followers.size === 0) this.#say({ type: "follow", id, on: true });
    followers.add(fn);
    return () => {
      if (followers.delete(fn) && followers.size === 0) this.#say({ type: "follow", id, on: false });
    };
  }

  #say(message: ToHost): void {
    // Without a channel, the host is gone, and #cleanUp has settled what was waiting.
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  #hear(message: FromHost): void {
    if (message.type === "ready") return;
    const { id } = message;
    const hosted = this.#hosted.get(id);
    if (!hosted) return;
    if (message.type === "started") {
      hosted.pid = message.pid;
      hosted.started.resolve({
        pid: message.pid,
        signal: (signal) => this.#say({ type: "signal", id, signal }),
        write: (bytes) => this.#say({ type: "input", id, bytes: bytes.toString("base64") }),
        closeInput: () => this.#say({ type: "input", id, bytes: null }),
        follow: (fn) => this.#follow(id, hosted, fn),
        exited: hosted.exited.promise,
      });
      return;
    }
    if (message.type === "output") {
      for (const follower of hosted.followers) follower(Buffer.from(message.bytes, "base64"));
      return;
    }
    this.#hosted.delete(id);
    if (message.type === "failed") hosted.started.reject(new SpawnError(message.code, message.message));
    else hosted.exited.resolve(message.exitCode);
  }

  /** Does nothing after a normal end. It kills the processes if the host itself was killed. */
  #cleanUp(): void {
    for (const { pid, started, exited } of this.#hosted.values()) {
      if (pid === undefined) started.reject(new SpawnError("EPIPE", "the host of the node's processes has ended"));
      else {
        killGroup(pid);
        exited.resolve(EXIT_SIGKILL);
      }
    }
    this.#hosted.clear();
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // The process has already ended.
  }
}
