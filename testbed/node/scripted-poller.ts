import { createServer, type Server } from "node:http";
import { type Clock, sleep } from "../../src/core/clock.ts";
import { type PollerFate, parseFate, type WorkerFate } from "./fate.ts";
import { PollCalls, type PolledItem, type PollerIdentity } from "./poll-calls.ts";
import { type ContainerExit, EXIT_SIGKILL, EXIT_SIGTERM, type LiveContainer, type StartRequest } from "./runtime.ts";
import type { ScriptedWorkers } from "./scripted-worker.ts";

/** The stock poller's pause after an empty poll (SDK, lib/environments/poller.ts). */
const EMPTY_PAUSE = { min: 1_000, max: 3_000 } as const;
/** The stock poller's first pause after a failure. Its growth isn't simulated. */
const FAILURE_PAUSE_MS = 1_000;

const BUSY = 200;
const IDLE = 204;
const NOT_FOUND = 404;

/**
 * Simulates always-on workers without processes: each polls, acknowledges, serves one item like a scripted worker, and
 * polls again, as the SDK's EnvironmentWorker.run() does. On SIGTERM, it force-stops its item and exits, unlike
 * examples/worker/always-on.mjs.
 */
export class ScriptedPollers {
  readonly #clock: Clock;
  readonly #workers: ScriptedWorkers;
  readonly #calls = new PollCalls();

  constructor(clock: Clock, workers: ScriptedWorkers) {
    this.#clock = clock;
    this.#workers = workers;
  }

  start(request: StartRequest, fate: PollerFate): LiveContainer {
    const poller = new ScriptedPoller(
      { clock: this.#clock, calls: this.#calls, workers: this.#workers },
      request,
      fate,
    );
    poller.run();
    return poller;
  }

  close(): Promise<void> {
    return this.#calls.close();
  }
}

interface Parts {
  readonly clock: Clock;
  readonly calls: PollCalls;
  readonly workers: ScriptedWorkers;
}

class ScriptedPoller implements LiveContainer {
  readonly #parts: Parts;
  readonly #request: StartRequest;
  readonly #fate: PollerFate;
  readonly #leave = new AbortController();
  #server: Server | undefined;
  #serving: LiveContainer | undefined;
  /** Whether a signal cut its session off. */
  #isCutOff = false;
  #isBusy = false;
  #hasEnded = false;

  constructor(parts: Parts, request: StartRequest, fate: PollerFate) {
    this.#parts = parts;
    this.#request = request;
    this.#fate = fate;
  }

  run(): void {
    this.#listen();
    void this.#poll().then(
      (exit) => this.#end(exit),
      (error: unknown) => this.#end({ exitCode: 1, message: `Error: ${String(error)}\n` }),
    );
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (signal === "SIGTERM" && this.#fate.onTerm === "ignore") return;
    this.#leave.abort();
    this.#isCutOff = this.#serving !== undefined;
    this.#serving?.signal(signal);
    if (signal === "SIGKILL") this.#end({ exitCode: EXIT_SIGKILL });
  }

  async #poll(): Promise<ContainerExit> {
    const who = identityOf(this.#request);
    if (typeof who === "string") return { exitCode: 1, message: `Error: ${who}\n` };
    const { calls, clock } = this.#parts;
    const { signal } = this.#leave;
    const { latency } = this.#request;
    while (!signal.aborted) {
      const answer = await calls.poll(who, signal);
      if (answer.kind === "refused") return { exitCode: 1, message: `Error: poll answered ${answer.status}\n` };
      if (answer.kind === "item") await this.#serve(who, answer.item);
      else await sleep(clock, latency.of(answer.kind === "failed" ? FAILURE_PAUSE_MS : EMPTY_PAUSE), signal);
    }
    return { exitCode: this.#isCutOff ? EXIT_SIGTERM : 0 };
  }

  async #serve(who: PollerIdentity, item: PolledItem): Promise<void> {
    this.#isBusy = true;
    // Wait for a pending acknowledgement. If it were aborted, it would be unclear who holds the item.
    if (await this.#parts.calls.acknowledge(who, item.id, new AbortController().signal)) {
      await new Promise<ContainerExit>((resolve) => {
        const env = {
          ...this.#request.env,
          ANTHROPIC_WORK_ID: item.id,
          ANTHROPIC_SESSION_ID: item.data.id,
          ...(item.secret === undefined ? {} : { ANTHROPIC_WORK_SECRET: item.secret }),
        };
        const fate = parseFate({ kind: "worker", workMs: this.#fate.workMs, firstBeatMs: 0 }) as WorkerFate;
        this.#serving = this.#parts.workers.start({ ...this.#request, env, onExit: resolve }, fate);
        if (this.#leave.signal.aborted) this.#serving.signal("SIGTERM");
      });
      this.#serving = undefined;
    }
    this.#isBusy = false;
  }

  /** Reports at the Pod's own address whether it's busy. */
  #listen(): void {
    const { busyPort } = this.#fate;
    const host = this.#request.pod.status?.podIP;
    if (busyPort === undefined || host === undefined) return;
    this.#server = createServer((request, response) => {
      response.writeHead(request.url === "/busy" ? (this.#isBusy ? BUSY : IDLE) : NOT_FOUND).end();
    });
    this.#server.on("error", () => {});
    this.#server.listen(busyPort, host);
  }

  #end(exit: ContainerExit): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#leave.abort();
    this.#server?.close();
    this.#server?.closeAllConnections();
    this.#request.onExit(exit);
  }
}

function identityOf({ env }: StartRequest): PollerIdentity | string {
  const { ANTHROPIC_ENVIRONMENT_ID: environmentId, ANTHROPIC_ENVIRONMENT_KEY: environmentKey } = env;
  const { ANTHROPIC_BASE_URL: baseUrl, ANTHROPIC_WORKER_ID: workerId } = env;
  if (!environmentId || !environmentKey) return "EnvironmentWorker.run: environmentId and environmentKey are required";
  // The stock worker would call the public API. A test-bed must never do that.
  if (!baseUrl) return "EnvironmentWorker.run: ANTHROPIC_BASE_URL is required";
  return { baseUrl, environmentId, environmentKey, workerId: workerId ?? "" };
}
