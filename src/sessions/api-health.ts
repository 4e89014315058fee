import type { ConditionReason } from "../api/conditions.ts";
import type { Backoff } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import type { Random } from "../core/random.ts";
import { WorkApiError, type WorkErrorKind } from "../work/errors.ts";
import { retryDelayMs } from "../work/retry-after.ts";

/** A reason of the conditions Authenticated and QueueReachable, with its message. */
export interface Verdict {
  readonly reason: ConditionReason;
  readonly message: string;
}

/** So many failures in a row make the queue unreachable: one lost request is no news to a person. */
const FAILURES_TO_SHOW = 2;

/** Nothing but another id or key helps: ask seldom. */
const NOT_FOUND_PAUSE_MS = 30_000;

const REASON_OF: Partial<Record<WorkErrorKind, ConditionReason>> = {
  "not-found": "EnvironmentNotFound",
  "rate-limited": "RateLimited",
  protocol: "BadReply",
};

/**
 * What the answers of the Work API say about the key and about the queue. A rejected key stops polling until its Secret
 * changes; everything else is tried again with backoff.
 */
export class ApiHealth {
  #key: Verdict = { reason: "KeyUnchecked", message: "the key was not used yet" };
  #queue: Verdict = { reason: "QueueUnchecked", message: "no request was sent yet" };
  #rejected = false;
  #failures = 0;
  readonly #onChange: () => void;
  readonly #random: Random;

  constructor(options: { onChange: () => void; random: Random }) {
    this.#onChange = options.onChange;
    this.#random = options.random;
  }

  get key(): Verdict {
    return this.#key;
  }

  get queue(): Verdict {
    return this.#queue;
  }

  /** True from a 401 until `keyChanged`. */
  get keyRejected(): boolean {
    return this.#rejected;
  }

  /** A request was answered as it should be. */
  answered(): void {
    this.#failures = 0;
    this.#set(
      { reason: "KeyAccepted", message: "the Work API accepts the key" },
      { reason: "Reachable", message: "the Work API answers" },
    );
    this.#rejected = false;
  }

  /** Another key than the one that was rejected: try it. */
  keyChanged(): void {
    this.#rejected = false;
    this.#set({ reason: "KeyUnchecked", message: "the key was not used yet" }, this.#queue);
  }

  /** A request failed. Returns how long to wait before the next of its kind, in milliseconds. */
  failed(error: unknown, backoff: Backoff): number {
    const waitMs = retryDelayMs(error, backoff, this.#random);
    const message = errorText(error);
    if (error instanceof WorkApiError && error.kind === "auth") {
      this.#rejected = true;
      this.#set({ reason: "KeyRejected", message }, this.#queue);
      return waitMs;
    }
    this.#failures += 1;
    const kind = error instanceof WorkApiError ? error.kind : "network";
    if (kind === "not-found" || this.#failures >= FAILURES_TO_SHOW) {
      this.#set(this.#key, { reason: REASON_OF[kind] ?? "Unreachable", message });
    }
    return kind === "not-found" ? Math.max(waitMs, NOT_FOUND_PAUSE_MS) : waitMs;
  }

  #set(key: Verdict, queue: Verdict): void {
    const changed = key.reason !== this.#key.reason || queue.reason !== this.#queue.reason;
    this.#key = key;
    this.#queue = queue;
    if (changed) this.#onChange();
  }
}
