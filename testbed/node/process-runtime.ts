import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, open, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock, Timer } from "../../src/core/clock.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import type { ContainerStreams } from "./container-streams.ts";
import { expand } from "./environment.ts";
import type { Fate } from "./fate.ts";
import { type HostedProcess, ProcessHost, SpawnError } from "./process-host.ts";
import { CONTAINER_MARK } from "./process-host-protocol.ts";
import { type ContainerRuntime, type LiveContainer, StartError, type StartRequest } from "./runtime.ts";
import { Sandbox } from "./sandbox.ts";
import { evictionVerdict } from "./scripted-runtime.ts";
import { mapFrames, parkingOf, STARTED } from "./session-frame.ts";
import type { VolumeFiles } from "./volume-files.ts";
import { fileMounts, writeVolume } from "./volume-writer.ts";

/** The parts of an image that a process needs. */
export interface ImageStandIn {
  /** The entrypoint, which a container's `command` replaces. */
  readonly command: readonly string[];
  /**
   * Variables, which the Pod's variables override. Or a function that returns them for a Pod, such as the address of
   * its API server.
   */
  readonly env?: Readonly<Record<string, string>> | ((pod: Pod) => Promise<Readonly<Record<string, string>>>);
}

export interface ProcessRuntimeOptions {
  readonly clock: Clock;
  /** Kept at the end if given. By default, a new temporary folder that is removed. */
  readonly workDir?: string | undefined;
  /** Replacements for images, by name. */
  readonly images?: Readonly<Record<string, ImageStandIn>> | undefined;
}

/** The limits of the kubelet for a termination message, and for the log that it uses instead. */
const MESSAGE_BYTES = 4_096;
const LOG_MESSAGE_BYTES = 2_048;
const LOG_MESSAGE_LINES = 80;

/**
 * Runs containers as processes of this machine, with the Pod's command and environment, but not this process's
 * environment, in the Pod's own folder. There are no images, so a container needs a command or a replacement for its
 * image. Processes aren't isolated, so only run what you would run in a shell.
 */
export class ProcessRuntime implements ContainerRuntime {
  readonly #options: ProcessRuntimeOptions;
  #host: Promise<{ host: ProcessHost; podsDir: string }> | undefined;

  constructor(options: ProcessRuntimeOptions) {
    this.#options = options;
  }

  createFault(container: Container): string | undefined {
    const { name } = container;
    if (this.#entrypoint(container).length > 0) return undefined;
    return (
      `failed to generate container "${name}" spec: no command specified: the simulated node has no images to take ` +
      "one from; set command"
    );
  }

  async start(request: StartRequest): Promise<LiveContainer> {
    const { pod, container, fate } = request;
    const [program = "", ...rest] = commandOf(request, this.#entrypoint(container));
    if (fate?.kind === "start-error") throw new StartError(program);
    const { host, podsDir } = await this.#ready();
    const sandbox = new Sandbox(podsDir, pod);
    await sandbox.make(container, request.restartCount);
    const id = randomUUID();
    const logFile = sandbox.logFile(container.name, request.restartCount);
    try {
      const hosted = await host.spawn({
        id,
        command: sandbox.map(container, program),
        args: rest.map((word) => sandbox.map(container, word)),
        env: {
          ...(await this.#imageEnv(pod, container)),
          ...sandbox.environment(pod, container, request.env),
          [CONTAINER_MARK]: id,
        },
        cwd: sandbox.workingDir(container),
        logFile,
        stdin: container["stdin"] === true,
      });
      return new ProcessContainer(this.#options.clock, request, hosted, {
        write: (bytes) => hosted.write(mapFrames(bytes, (word) => sandbox.map(container, word))),
        log: () => readFile(logFile),
        endMessage: (exitCode) => endMessage(sandbox, container, logFile, exitCode),
      });
    } catch (error) {
      if (error instanceof SpawnError)
        throw new StartError(program, error.code === "EACCES" ? "permission denied" : undefined);
      throw error;
    }
  }

  /** Returns the output of a container over all its starts. Empty if it wrote nothing. */
  async logs(pod: Pod, container: string): Promise<string> {
    if (!this.#host) return "";
    const sandbox = new Sandbox((await this.#host).podsDir, pod);
    let text = "";
    for (let restart = 0; ; restart += 1) {
      try {
        text += await readFile(sandbox.logFile(container, restart), "utf8");
      } catch {
        return text;
      }
    }
  }

  /** Writes the files of volumes where the Pod's containers mount them. */
  async writeFiles(pod: Pod, volumes: ReadonlyMap<string, VolumeFiles>): Promise<void> {
    const { podsDir } = await this.#ready();
    const sandbox = new Sandbox(podsDir, pod);
    for (const { name, mountPath } of fileMounts(pod)) {
      const files = volumes.get(name);
      if (files) await writeVolume(sandbox.path(mountPath), files);
    }
  }

  async forget(pod: Pod): Promise<void> {
    if (this.#host) await new Sandbox((await this.#host).podsDir, pod).remove();
  }

  /** Kills everything. Idempotent. */
  async close(): Promise<void> {
    const started = await this.#host?.catch(() => undefined);
    await started?.host.end();
  }

  #standIn({ image = "" }: Container): ImageStandIn | undefined {
    return this.#options.images?.[image];
  }

  async #imageEnv(pod: Pod, container: Container): Promise<Readonly<Record<string, string>>> {
    const { env = {} } = this.#standIn(container) ?? {};
    return typeof env === "function" ? await env(pod) : env;
  }

  #entrypoint(container: Container): readonly string[] {
    const { command = [] } = container;
    return command.length > 0 ? command : (this.#standIn(container)?.command ?? []);
  }

  #ready(): Promise<{ host: ProcessHost; podsDir: string }> {
    this.#host ??= this.#startHost();
    return this.#host;
  }

  async #startHost(): Promise<{ host: ProcessHost; podsDir: string }> {
    const { workDir } = this.#options;
    const folder = workDir ?? (await mkdtemp(join(tmpdir(), "simulated-node-")));
    const podsDir = join(folder, "pods");
    await mkdir(podsDir, { recursive: true, mode: 0o700 });
    return { host: await ProcessHost.start(folder, workDir !== undefined), podsDir };
  }
}

/** How a process is reached beside its signals. */
interface Output {
  readonly write: (bytes: Buffer) => void;
  readonly log: () => Promise<Buffer>;
  readonly endMessage: (exitCode: number) => Promise<string>;
}

class ProcessContainer implements LiveContainer {
  readonly streams: ContainerStreams;
  readonly #process: HostedProcess;
  #timer: Timer | undefined;
  #oom = false;

  constructor(clock: Clock, request: StartRequest, hosted: HostedProcess, output: Output) {
    this.#process = hosted;
    this.streams = {
      write: output.write,
      closeInput: hosted.closeInput,
      follow: hosted.follow,
      log: output.log,
    };
    if (parkingOf(request.pod, request.container)) this.#inflictOnceStarted(clock, request);
    else this.#inflict(clock, request);
    void hosted.exited.then(async (exitCode) => {
      this.#timer?.cancel();
      const text = await output.endMessage(exitCode);
      request.onExit({
        exitCode,
        ...(this.#oom ? { reason: "OOMKilled" as const } : {}),
        ...(text === "" ? {} : { message: text }),
      });
    });
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    this.#process.signal(signal);
  }

  /** The fate of a container that waits for its session begins with its program. */
  #inflictOnceStarted(clock: Clock, request: StartRequest): void {
    let output = "";
    const leave = this.streams.follow((bytes) => {
      output += bytes.toString("latin1");
      if (!output.includes(`${STARTED}\n`)) return;
      leave();
      this.#inflict(clock, { ...request, fate: request.fateNow ? request.fateNow() : request.fate });
    });
  }

  /** Applies a chosen fate to a real process after its delay. */
  #inflict(clock: Clock, { fate, latency, pod, evict }: StartRequest): void {
    if (!fate || !isInflicted(fate)) return;
    this.#timer = clock.setTimer(() => {
      if (fate.kind === "evicted") {
        evict(evictionVerdict(pod, fate.cause));
        return;
      }
      this.#oom = fate.kind === "oom";
      this.#process.signal("SIGKILL");
    }, latency.of(fate.afterMs));
  }
}

/** Whether a fate comes from outside the container, so that it also works for a real process. */
function isInflicted(fate: Fate): fate is Extract<Fate, { kind: "oom" | "killed" | "evicted" }> {
  return fate.kind === "oom" || fate.kind === "killed" || fate.kind === "evicted";
}

/** Returns the command and arguments with `$(NAME)` expanded. */
function commandOf({ container, env }: StartRequest, entrypoint: readonly string[]): string[] {
  return [...entrypoint, ...(container.args ?? [])].map((word) => expand(word, env));
}

/** Returns the message of a container's end: its termination log, or the end of its log if the Pod requests that. */
async function endMessage(sandbox: Sandbox, container: Container, logFile: string, exitCode: number): Promise<string> {
  const own = await tail(sandbox.terminationLog(container), MESSAGE_BYTES);
  if (own !== "" || exitCode === 0 || container["terminationMessagePolicy"] !== "FallbackToLogsOnError") return own;
  const log = await tail(logFile, LOG_MESSAGE_BYTES);
  const lines = log.split("\n");
  return lines.slice(Math.max(0, lines.length - 1 - LOG_MESSAGE_LINES)).join("\n");
}

async function tail(path: string, bytes: number): Promise<string> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, Math.max(0, size - bytes));
    return buffer.subarray(0, bytesRead).toString("utf8");
  } catch {
    return "";
  }
}
