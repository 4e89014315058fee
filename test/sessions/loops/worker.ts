import { type Clock, sleep } from "../../../src/core/clock.ts";
import type { HttpSender } from "../../../src/work/http.ts";

/**
 * How the program in a container behaves.
 * - `stock` sends a first heartbeat, serves, stops its item and exits; it exits without a stop when it loses its lease.
 * - `dies` serves like `stock` and exits with 1, without a stop.
 * - `silent` never sends a heartbeat and never exits.
 * - `late` sends its first heartbeat only after `servesMs`, then is like `stock`.
 * - `crashes` and `killed` end without a heartbeat or a stop.
 * - `deaf` sends heartbeats and never exits.
 * - `patient` is like `stock`, but retries an unanswered heartbeat every 25 s indefinitely.
 * - `plain` does not know the item: it serves and exits with 0.
 */
export type Program = "plain" | "stock" | "silent" | "crashes" | "killed" | "dies" | "deaf" | "patient" | "late";

export interface WorkerEnvironment {
  readonly baseUrl: string;
  readonly environmentId: string;
  readonly workId: string;
  /** Base64url JSON with the sessions token, or the environment key. */
  readonly secret: string;
}

const NO_HEARTBEAT = "NO_HEARTBEAT";
const REQUEST_MS = 1_500;
const ASSUMED_TTL_MS = 90_000;
const PATIENT_RETRY_MS = 25_000;

interface Beat {
  readonly state: string;
  readonly last_heartbeat: string;
  readonly ttl_seconds: number;
}

/** One run of a program against the Work API. */
export class Worker {
  readonly #clock: Clock;
  readonly #http: HttpSender;
  readonly #env: WorkerEnvironment;
  /** Null: the secret is malformed. */
  readonly #token: string | null;
  readonly #told = new AbortController();
  /** Whether the program believes that it holds the lease. */
  holds = false;

  constructor(clock: Clock, http: HttpSender, env: WorkerEnvironment) {
    this.#clock = clock;
    this.#http = http;
    this.#env = env;
    this.#token = tokenOf(env.secret);
  }

  /** Sends SIGTERM. */
  terminate(): void {
    this.#told.abort();
  }

  /** Resolves with the exit code, or never if the program doesn't exit. `killed` aborts at SIGKILL. */
  async run(program: Program, servesMs: number, killed: AbortSignal): Promise<number> {
    if (this.#token === null) return 1;
    if (program === "silent") return never(killed);
    if (program === "crashes" || program === "killed") {
      await sleep(this.#clock, servesMs, killed);
      return program === "crashes" ? 1 : 137;
    }
    if (program === "plain") {
      await sleep(this.#clock, servesMs, AbortSignal.any([killed, this.#told.signal]));
      return killed.aborted ? 137 : this.#told.signal.aborted ? 143 : 0;
    }
    if (program === "late") await sleep(this.#clock, servesMs, AbortSignal.any([killed, this.#told.signal]));
    const doneMs = this.#clock.monotonic() + servesMs;
    let expected = NO_HEARTBEAT;
    let boughtMs = this.#clock.monotonic();
    let ttlMs = ASSUMED_TTL_MS;
    while (!killed.aborted) {
      const sentMs = this.#clock.monotonic();
      const beat = await this.#beat(expected);
      if (killed.aborted) break;
      if (beat === "refused") return this.#leave();
      if (beat !== null && beat.state !== "active") {
        if (program === "deaf") return never(killed);
        return this.#stopAndLeave();
      }
      if (beat !== null) {
        expected = beat.last_heartbeat;
        ttlMs = beat.ttl_seconds * 1_000;
        boughtMs = sentMs;
        this.holds = true;
      }
      // The next heartbeat must be answered before the lease expires.
      const isPatient = program === "patient";
      if (!isPatient && this.#clock.monotonic() - boughtMs > ttlMs * 0.8) return this.#leave();
      const isDone = this.#told.signal.aborted || this.#clock.monotonic() >= doneMs;
      if (program === "dies" && isDone) return 1;
      if ((program === "stock" || program === "late" || isPatient) && isDone) return this.#stopAndLeave();
      const retryMs = isPatient ? PATIENT_RETRY_MS : 1_000;
      const beatMs = beat === null ? retryMs : Math.max(1_000, Math.min(ttlMs / 2, 30_000));
      const leaves = program !== "deaf";
      const leftMs = leaves ? Math.max(0, doneMs - this.#clock.monotonic()) : beatMs;
      await sleep(
        this.#clock,
        Math.min(beatMs, leftMs),
        AbortSignal.any([killed, ...(leaves ? [this.#told.signal] : [])]),
      );
    }
    return 137;
  }

  #leave(): number {
    this.holds = false;
    return 0;
  }

  async #stopAndLeave(): Promise<number> {
    this.holds = false;
    await this.#send("stop", "", JSON.stringify({ force: true })).catch(() => null);
    return 0;
  }

  async #beat(expected: string): Promise<Beat | "refused" | null> {
    const reply = await this.#send("heartbeat", `?expected_last_heartbeat=${encodeURIComponent(expected)}`).catch(
      () => null,
    );
    if (reply === null || reply.status >= 500) return null;
    return reply.status === 200 ? (JSON.parse(reply.body.toString("utf8")) as Beat) : "refused";
  }

  #send(verb: string, query: string, body?: string) {
    const { baseUrl, environmentId, workId } = this.#env;
    return this.#http.send({
      method: "POST",
      origin: baseUrl,
      path: `/v1/environments/${environmentId}/work/${workId}/${verb}${query}`,
      headers: { authorization: `Bearer ${this.#token}` },
      body,
      lane: "protocol",
      timeoutMs: REQUEST_MS,
      maxBytes: 1_000_000,
    });
  }
}

function never(killed: AbortSignal): Promise<number> {
  return new Promise((resolve) => killed.addEventListener("abort", () => resolve(137), { once: true }));
}

function tokenOf(secret: string): string | null {
  if (secret.startsWith("sk-ant-")) return secret;
  try {
    return JSON.parse(Buffer.from(secret, "base64url").toString("utf8")).sessions_token;
  } catch {
    return null;
  }
}
