import { type Clock, deadlineSignal, sleep } from "../../src/core/clock.ts";
import type { WorkerFate } from "./fate.ts";
import { type ContainerExit, EXIT_SIGKILL, type LiveContainer, type StartRequest } from "./runtime.ts";
import { type WorkAnswer, WorkCalls, type WorkerApi, type WorkIdentity } from "./work-calls.ts";

/** The constants of the stock worker (SDK, lib/environments/worker.ts). */
const NO_HEARTBEAT = "NO_HEARTBEAT";
const DEFAULT_TTL_MS = 90_000;
const LONGEST_BEAT_MS = 30_000;
const SHORTEST_BEAT_MS = 1_000;

/**
 * The stock worker's client tries a call three times. The pause starts at half a second and doubles (SDK, client.ts).
 */
const TRIES = 3;
const RETRY_BASE_MS = 500;

/** A worker's call must not hang forever. The SDK's own limit is ten minutes, longer than any test. */
const CALL_TIMEOUT_MS = 30_000;

/**
 * How long a heartbeat that is in progress when the worker leaves may take. If it were aborted at once, it could still
 * be on the wire and arrive after the worker's own stop.
 */
const LAST_BEAT_MS = 1_000;

/** Why a worker leaves, which determines what it does about its item. */
type Leaving = "done" | "told" | "lost" | "rejected" | "no-session";

/**
 * Simulates stock workers without processes, so that thousands of sessions run on one machine. Each takes its item's
 * lease, sends heartbeats, works, stops the item, and exits, as the SDK's EnvironmentWorker.handleItem() does.
 * Heartbeats run in real time, like the server's TTL. Only the fate's own durations use the node's time scale.
 */
export class ScriptedWorkers {
  readonly #clock: Clock;
  readonly #calls: WorkerApi;

  constructor(clock: Clock, calls: WorkerApi = new WorkCalls()) {
    this.#clock = clock;
    this.#calls = calls;
  }

  start(request: StartRequest, fate: WorkerFate): LiveContainer {
    const worker = new ScriptedWorker(this.#clock, this.#calls, request, fate);
    worker.run();
    return worker;
  }

  async close(): Promise<void> {
    await this.#calls.close();
  }
}

class ScriptedWorker implements LiveContainer {
  readonly #clock: Clock;
  readonly #calls: WorkerApi;
  readonly #request: StartRequest;
  readonly #fate: WorkerFate;
  /** Aborts when the process is gone. Nothing is sent after that. */
  readonly #dead = new AbortController();
  /** Aborts when the worker has decided to leave. */
  readonly #leave = new AbortController();
  /** Aborts a while later, and with it a heartbeat that is still in progress. */
  readonly #cut = new AbortController();
  #leaving: Leaving | undefined;
  #last = NO_HEARTBEAT;
  #ttlMs = DEFAULT_TTL_MS;
  #intervalMs = LONGEST_BEAT_MS;
  #lastSuccessMs: number;

  constructor(clock: Clock, calls: WorkerApi, request: StartRequest, fate: WorkerFate) {
    this.#clock = clock;
    this.#calls = calls;
    this.#request = request;
    this.#fate = fate;
    this.#lastSuccessMs = clock.monotonic();
  }

  run(): void {
    void this.#run().catch((error: unknown) => {
      this.#exit({ exitCode: 1, message: `Error: ${error instanceof Error ? error.message : String(error)}\n` });
    });
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (signal === "SIGKILL") {
      this.#exit({ exitCode: EXIT_SIGKILL });
      return;
    }
    if (this.#fate.onTerm === "ignore") return;
    // A custom SIGTERM handler belongs to another program: it doesn't stop the item and has its own exit code.
    if (this.#fate.onTerm) {
      const { code, afterMs } = this.#fate.onTerm;
      this.#clock.setTimer(() => this.#exit({ exitCode: code }), this.#request.latency.of(afterMs));
      return;
    }
    this.#depart("told");
  }

  async #run(): Promise<void> {
    const who = identityOf(this.#request);
    if (typeof who === "string") return this.#exit({ exitCode: 1, message: `Error: ${who}\n` });
    const { latency } = this.#request;
    await this.#sleep(latency.of(this.#fate.firstBeatMs));
    const beating = this.#fate.neverBeats ? undefined : this.#beatUntilLeave(who);
    await this.#work(who);
    if (this.#dead.signal.aborted) return;
    await beating;
    await this.#end(who);
  }

  /** Plays the session: from requesting it to the end of its work. */
  async #work(who: WorkIdentity): Promise<void> {
    if (this.#fate.retrieveSession && !this.#fate.neverBeats) {
      const answer = await this.#try((signal) => this.#calls.session(who, signal));
      if (this.#leaving) return;
      if (answer === undefined || answer.status >= 400) return this.#depart("no-session");
    }
    const { end, workMs } = this.#fate;
    if (end === "hang") await this.#sleep(Number.POSITIVE_INFINITY);
    else await this.#sleep(this.#request.latency.of(workMs));
    if (this.#leaving) return;
    if (end === "oom") return this.#exit({ exitCode: EXIT_SIGKILL, reason: "OOMKilled" });
    if (end === "killed") return this.#exit({ exitCode: EXIT_SIGKILL });
    this.#depart("done");
  }

  /** Leaves as the contract says: only the holder of an item stops it. */
  async #end(who: WorkIdentity): Promise<void> {
    const lost = this.#leaving === "lost";
    const silent = this.#leaving === "done" && this.#fate.end === "exit-without-stop";
    if (!lost && !silent) await this.#try((signal) => this.#calls.stop(who, signal));
    const failed = this.#leaving === "no-session";
    this.#exit(failed ? { exitCode: 1, message: "NotFoundError: 404 session not found\n" } : { exitCode: 0 });
  }

  async #beatUntilLeave(who: WorkIdentity): Promise<void> {
    while (!this.#leaving && !this.#dead.signal.aborted) {
      await this.#beat(who);
      if (!this.#leaving) await this.#sleep(this.#intervalMs);
    }
  }

  async #beat(who: WorkIdentity): Promise<void> {
    // Like the stock worker, abort a heartbeat that takes longer than an interval.
    const either = AbortSignal.any([this.#dead.signal, this.#cut.signal]);
    const beat = (signal: AbortSignal) => this.#calls.heartbeat(who, this.#last, signal);
    const answer = await this.#try(beat, this.#intervalMs, either, this.#leave.signal);
    if (this.#dead.signal.aborted || this.#leaving) return;
    if (answer === undefined || isTransient(answer.status) || (answer.status < 400 && !isReply(answer.body))) {
      if (this.#clock.monotonic() - this.#lastSuccessMs > this.#ttlMs) this.#depart("lost");
    } else if (answer.status === 412) {
      this.#depart("lost");
    } else if (answer.status >= 400) {
      this.#depart("rejected");
    } else {
      this.#accept(answer.body as HeartbeatReply);
    }
  }

  #accept(reply: HeartbeatReply): void {
    this.#lastSuccessMs = this.#clock.monotonic();
    this.#last = reply.last_heartbeat;
    if (reply.ttl_seconds > 0) {
      this.#ttlMs = reply.ttl_seconds * 1_000;
      this.#intervalMs = Math.max(SHORTEST_BEAT_MS, Math.min(this.#ttlMs / 2, LONGEST_BEAT_MS));
    }
    const ends = reply.state === "stopping" || reply.state === "stopped" || reply.lease_extended !== true;
    if (ends) this.#depart("told");
  }

  /** Makes up to three calls, within a common timeout or until `noMore`. Returns undefined if none was answered. */
  async #try(
    call: (signal: AbortSignal) => Promise<WorkAnswer>,
    timeoutMs = CALL_TIMEOUT_MS,
    parent = this.#dead.signal,
    noMore = parent,
  ): Promise<WorkAnswer | undefined> {
    const { signal, cancel } = deadlineSignal(this.#clock, timeoutMs, parent);
    try {
      for (let attempt = 1; !signal.aborted; attempt += 1) {
        const answer = await call(signal).catch(() => undefined);
        if ((answer && !isTransient(answer.status)) || attempt === TRIES || noMore.aborted) return answer;
        await sleep(this.#clock, RETRY_BASE_MS * 2 ** (attempt - 1), AbortSignal.any([signal, noMore]));
        if (noMore.aborted) return undefined;
      }
      return undefined;
    } finally {
      cancel();
    }
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#leaving || this.#dead.signal.aborted) return;
    const either = AbortSignal.any([this.#dead.signal, this.#leave.signal]);
    if (ms !== Number.POSITIVE_INFINITY) await sleep(this.#clock, ms, either);
    else await new Promise((resolve) => either.addEventListener("abort", resolve, { once: true }));
  }

  /** The first reason to leave counts. */
  #depart(why: Leaving): void {
    if (this.#leaving) return;
    this.#leaving = why;
    this.#leave.abort();
    this.#clock.setTimer(() => this.#cut.abort(), LAST_BEAT_MS);
  }

  #exit(exit: ContainerExit): void {
    if (this.#dead.signal.aborted) return;
    this.#dead.abort();
    this.#request.onExit(exit);
  }
}

interface HeartbeatReply {
  readonly last_heartbeat: string;
  readonly lease_extended: boolean;
  readonly state: string;
  readonly ttl_seconds: number;
}

/** A proxy's page or half a reply isn't an answer. */
function isReply(body: unknown): body is HeartbeatReply {
  if (typeof body !== "object" || body === null) return false;
  const { last_heartbeat, state, ttl_seconds } = body as Partial<HeartbeatReply>;
  return typeof last_heartbeat === "string" && typeof state === "string" && typeof ttl_seconds === "number";
}

/** Whether the stock worker retries: after everything but a clear rejection (SDK, internal/utils/backoff.ts). */
function isTransient(status: number): boolean {
  return status >= 500 || status === 408 || status === 409 || status === 429;
}

/** Returns the worker's identity from its environment, or why it has none. */
function identityOf({ env }: StartRequest): WorkIdentity | string {
  const workId = env["ANTHROPIC_WORK_ID"];
  const environmentId = env["ANTHROPIC_ENVIRONMENT_ID"];
  const sessionId = env["ANTHROPIC_SESSION_ID"];
  if (!workId) return "handleItem: workId is required";
  if (!environmentId) return "handleItem: environmentId is required";
  if (!sessionId) return "handleItem: sessionId is required";
  const credential = sessionsToken(env["ANTHROPIC_WORK_SECRET"]) ?? env["ANTHROPIC_ENVIRONMENT_KEY"];
  if (!credential) return "handleItem: no sessions token and no environment key";
  const baseUrl = env["ANTHROPIC_BASE_URL"];
  // The stock worker would call the public API. A test-bed must never do that.
  if (!baseUrl) return "handleItem: ANTHROPIC_BASE_URL is required";
  return { baseUrl, environmentId, workId, sessionId, credential };
}

/** Returns the sessions token in a work item's secret (base64url JSON), or undefined if there is none. */
function sessionsToken(secret: string | undefined): string | undefined {
  try {
    const payload = JSON.parse(Buffer.from(secret ?? "", "base64url").toString("utf8")) as { sessions_token?: unknown };
    return typeof payload.sessions_token === "string" && payload.sessions_token !== ""
      ? payload.sessions_token
      : undefined;
  } catch {
    return undefined;
  }
}
