import type { ConditionReason } from "../api/condition-reasons.ts";
import type { Verdict } from "../api/conditions.ts";
import type { Backoff, Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Timing } from "../core/timing.ts";
import { askedPauseMs, isRefusal, retryDelayMs, WorkApiError, type WorkErrorKind } from "../work/errors.ts";

/** The judged calls, most important first: without polls, Berth serves nothing. */
const JUDGED = ["poll", "stats", "list", "ack", "heartbeat", "stop"] as const;
export type JudgedCall = (typeof JUDGED)[number];

/**
 * Calls about one item. A 403 may concern that item alone, so the key is blamed only after a second item gets one too.
 */
const OF_ITEMS: ReadonlySet<Reported> = new Set(["ack", "heartbeat", "stop"]);

/** Calls that running sessions need. A key that may not make them is reported, but polls continue. */
const OF_RUNNING: ReadonlySet<Reported> = new Set(["heartbeat", "stop"]);

/** Calls about the whole queue: a permission for one implies permission for the other. */
const OF_QUEUE: readonly JudgedCall[] = ["poll", "stats"];

/** An item that can't be served or parsed, although the calls that return it succeed. */
const ITEM = "item";
const REPORTED = [...JUDGED, ITEM] as const;
type Reported = (typeof REPORTED)[number];

/** Consecutive failures before the queue counts as unreachable. One lost request is not worth a condition. */
const FAILURES_TO_SHOW = 2;

/** A call not repeated this long after it was due has been abandoned, so its last failure no longer counts. */
const OVERDUE_MS = 60_000;

const REASON_OF: Partial<Record<WorkErrorKind, ConditionReason>> = {
  "not-found": "EnvironmentNotFound",
  "rate-limited": "RateLimited",
  "bad-request": "BadReply",
  protocol: "BadReply",
  "bad-item": "BadReply",
};

/** The condition reason for an error kind of the Work API. */
export function reasonOfKind(kind: WorkErrorKind): ConditionReason {
  return kind === "auth" ? "KeyRejected" : (REASON_OF[kind] ?? "Unreachable");
}

/** The reason that one answer proves: a network failure can't cause it. */
const FINAL: ConditionReason = "EnvironmentNotFound";

/** Fixes that the condition adds to the client's message. */
const FIX_OF: Partial<Record<WorkErrorKind, string>> = {
  "rate-limited": "; give all Environments of one organization the same spec.api.budgetGroup",
};

/** One request in flight. Its outcome counts only for the key that it was sent with. */
export interface Attempt {
  /** The request succeeded. */
  answered(): void;
  /**
   * The request failed. Returns the wait before the next call of this kind, in milliseconds. Callers that pass no
   * backoff use their own.
   */
  failed(error: unknown, backoff?: Backoff): number;
}

/** A call that has failed since its last success. */
interface Failing {
  failures: number;
  verdict: Verdict;
  /** The latest message, while it differs from the one shown. */
  other: string;
  /** When the call is due again (monotonic). */
  dueMs: number;
  /**
   * The number of requests begun when the call last failed. Failures of requests begun earlier count as the same
   * failure.
   */
  begun: number;
}

export interface ApiHealthOptions {
  readonly onChange: () => void;
  readonly random: Random;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "notFoundPauseMs" | "rejectedKeyRetryMs" | "retryMaxMs">;
}

/**
 * What the answers of the Work API say about the key and the queue. Each call is judged separately: statistics that
 * arrive don't make up for failing polls. A rejected key stops polling until its Secret changes, with a rare retry in
 * between. Every other failure is retried with backoff.
 */
export class ApiHealth {
  readonly #options: ApiHealthOptions;
  #key: Verdict = { reason: "KeyUnchecked", message: "the operator has not used the key yet" };
  #rejected = false;
  /** When the key was last rejected (monotonic). */
  #rejectedMs = 0;
  /**
   * Requests are numbered in the order they begin: the last one begun, and the last one that found the key rejected.
   */
  #begun = 0;
  #rejectedOf = 0;
  #keys = 0;
  #reached = false;
  #shown = "";
  readonly #failing = new Map<Reported, Failing>();
  /**
   * Calls that refused the key: the number of different items in a row, the last item, and when the call is due again
   * (monotonic).
   */
  readonly #refusals = new Map<JudgedCall, { times: number; workId: string | undefined; dueMs: number }>();

  constructor(options: ApiHealthOptions) {
    this.#options = options;
    this.#shown = this.#reasons();
  }

  get key(): Verdict {
    return this.#key;
  }

  get queue(): Verdict {
    for (const call of REPORTED) {
      const failing = this.#failing.get(call);
      if (failing && isShown(failing)) return failing.verdict;
    }
    return this.#reached
      ? { reason: "Reachable", message: "the Work API answers" }
      : { reason: "QueueUnchecked", message: "the operator has not sent a request yet" };
  }

  /** True from a 401 or 403 until `keyChanged` or `retryKey`. */
  get keyRejected(): boolean {
    return this.#rejected;
  }

  /**
   * Allows one more try of a key rejected long enough ago, so that no person has to act after the platform wrongly
   * refused good keys. The verdict does not change until the next answer. Returns whether the retry was due.
   */
  retryKey(): boolean {
    const { clock, timing } = this.#options;
    const nowMs = clock.monotonic();
    if (!this.#rejected || nowMs < this.#rejectedMs + timing.rejectedKeyRetryMs) return false;
    this.#rejected = false;
    const dueMs = nowMs + timing.retryMaxMs;
    for (const refusal of this.#refusals.values()) refusal.dueMs = dueMs;
    return true;
  }

  /** Registers a request of this kind that is about to be sent. */
  attempt(call: JudgedCall, workId?: string): Attempt {
    const key = this.#keys;
    this.#begun += 1;
    const at = this.#begun;
    return {
      answered: () => this.#answered(call, key, at),
      failed: (error, backoff) => this.#failed(call, { key, at, workId }, error, backoff),
    };
  }

  /**
   * Sends a request for a claim and judges it. Returns what it returns and throws what it throws. A refusal that concerns
   * one item still shows that the API answers.
   * @param workId the item that the request is about
   */
  async judge<T>(call: JudgedCall, workId: string | undefined, request: () => Promise<T>): Promise<T> {
    const attempt = this.attempt(call, workId);
    try {
      const answer = await request();
      attempt.answered();
      return answer;
    } catch (error) {
      if (isRefusal(error)) attempt.answered();
      else if (error instanceof WorkApiError && error.kind !== "aborted" && error.kind !== "bad-item")
        attempt.failed(error);
      throw error;
    }
  }

  /** Reports a malformed item. The verdict lasts until a minute after the item was last seen. */
  unreadable(error: WorkApiError): void {
    const verdict = { reason: reasonOfKind(error.kind), message: error.message };
    this.#count(ITEM, verdict, this.#options.clock.monotonic(), Number.POSITIVE_INFINITY);
    this.#notifyOnChange();
  }

  /**
   * The key changed, or a person asked to retry the rejected one. A rejected key stays so until the next answer, since
   * another Environment may serve the queue meanwhile.
   */
  keyChanged(): void {
    this.#keys += 1;
    this.#refusals.clear();
    this.#rejected = false;
    if (this.#key.reason !== "KeyRejected") {
      this.#key = { reason: "KeyUnchecked", message: "the operator has not used the key yet" };
    }
    this.#notifyOnChange();
  }

  #answered(call: JudgedCall, key: number, at: number): void {
    this.#failing.delete(call);
    for (const each of OF_QUEUE.includes(call) ? OF_QUEUE : [call]) this.#refusals.delete(each);
    const nowMs = this.#options.clock.monotonic();
    // Claims send no requests while the key counts as rejected, so overdue refusals must survive that time.
    for (const calls of this.#rejected ? [this.#failing] : [this.#failing, this.#refusals]) {
      for (const [other, { dueMs }] of calls) if (nowMs > dueMs + OVERDUE_MS) calls.delete(other as JudgedCall);
    }
    this.#reached = true;
    // A long poll that began before a later call was refused says nothing about the key.
    if (key === this.#keys && at > this.#rejectedOf) {
      // A call that works with the key proves nothing while another call is refused with it.
      if (!this.#isRefused) {
        this.#rejected = false;
        this.#key = { reason: "KeyAccepted", message: "the Work API accepts the key" };
      }
    }
    this.#notifyOnChange();
  }

  #failed(
    call: JudgedCall,
    { key, at, workId }: { key: number; at: number; workId: string | undefined },
    error: unknown,
    backoff?: Backoff,
  ): number {
    const { clock, random, timing } = this.#options;
    const askedMs = askedPauseMs(error, random) ?? 0;
    const waitMs = backoff ? retryDelayMs(error, backoff, random) : Math.max(timing.retryMaxMs, askedMs);
    const kind = error instanceof WorkApiError ? error.kind : "network";
    const message = `${withoutItem(errorText(error))}${FIX_OF[kind] ?? ""}`;
    if (kind === "auth") {
      // The key was replaced while this request was in flight, so the verdict does not apply to the new one.
      if (key !== this.#keys) return waitMs;
      const before = this.#refusals.get(call);
      const isSameItem = before !== undefined && OF_ITEMS.has(call) && before.workId === workId;
      const times = (before?.times ?? 0) + (isSameItem ? 0 : 1);
      this.#refusals.set(call, { times, workId, dueMs: clock.monotonic() + waitMs });
      if (OF_ITEMS.has(call) && times < FAILURES_TO_SHOW) return waitMs;
      if (!OF_RUNNING.has(call)) this.#rejected = true;
      this.#rejectedMs = clock.monotonic();
      this.#rejectedOf = at;
      // Keep the first message: another call reports the same rejection in other words.
      if (this.#key.reason !== "KeyRejected") this.#key = { reason: "KeyRejected", message };
      this.#failing.delete(call);
      this.#notifyOnChange();
      return waitMs;
    }
    const pauseMs = kind === "not-found" ? Math.max(waitMs, timing.notFoundPauseMs) : waitMs;
    this.#count(call, { reason: reasonOfKind(kind), message }, clock.monotonic() + pauseMs, at);
    this.#notifyOnChange();
    return pauseMs;
  }

  get #isRefused(): boolean {
    return [...this.#refusals].some(([call, { times }]) => !OF_ITEMS.has(call) || times >= FAILURES_TO_SHOW);
  }

  #count(call: Reported, verdict: Verdict, dueMs: number, at: number): void {
    const before = this.#failing.get(call);
    const more = before && at <= before.begun ? 0 : 1;
    const begun = this.#begun;
    if (!before || !isShown(before) || before.verdict.reason !== verdict.reason) {
      const failures = (before?.failures ?? 0) + more;
      this.#failing.set(call, { failures, verdict, other: "", dueMs, begun });
      return;
    }
    before.failures += more;
    before.dueMs = dueMs;
    before.begun = begun;
    // A network that alternates between two failures must not change the message, and with it the status, at each
    // retry.
    if (verdict.message !== before.verdict.message && verdict.message === before.other) before.verdict = verdict;
    before.other = verdict.message;
  }

  #notifyOnChange(): void {
    const reasons = this.#reasons();
    if (reasons === this.#shown) return;
    this.#shown = reasons;
    this.#options.onChange();
  }

  #reasons(): string {
    return `${this.#key.reason} ${this.queue.reason}`;
  }
}

/** Removes the item's id. A different item at each retry must not change the message, and with it the status. */
export function withoutItem(message: string): string {
  return message.replace(/^(Work API \w+) of \S+: /, "$1: ");
}

function isShown({ failures, verdict }: Failing): boolean {
  return failures >= FAILURES_TO_SHOW || verdict.reason === FINAL;
}
