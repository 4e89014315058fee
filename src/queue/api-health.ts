import type { ConditionReason } from "../api/condition-reasons.ts";
import type { Backoff, Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Timing } from "../core/timing.ts";
import { askedPauseMs, isRefusal, retryDelayMs, WorkApiError, type WorkErrorKind } from "../work/errors.ts";

/** A reason of the conditions Authenticated and QueueReachable, with its message. */
export interface Verdict {
  readonly reason: ConditionReason;
  readonly message: string;
}

/** The calls whose answers are judged, in the order in which a person would ask: without polls nothing is served. */
const JUDGED = ["poll", "stats", "list", "ack", "heartbeat", "stop"] as const;
export type JudgedCall = (typeof JUDGED)[number];

/**
 * Sends a request to the Work API at `api` and judges its outcome. Returns what the request does, and throws what it throws.
 * @param workId the item that it is about
 */
export type Judged = <T>(
  call: JudgedCall,
  at: { readonly api: string; readonly workId?: string },
  request: () => Promise<T>,
) => Promise<T>;

/** Calls about one item: a 403 may be about that item alone, so the key is blamed only when another item meets it, too. */
const OF_ITEMS: ReadonlySet<Told> = new Set(["ack", "heartbeat", "stop"]);

/** Sessions that run need these: a key that may not do them is reported, and polls go on. */
const OF_RUNNING: ReadonlySet<Told> = new Set(["heartbeat", "stop"]);

/** Calls about the queue as a whole: what one may do, so may the other. */
const OF_QUEUE: readonly JudgedCall[] = ["poll", "stats"];

/** An item that cannot be served or understood: the calls that show it are answered. */
const ITEM = "item";
const TOLD = [...JUDGED, ITEM] as const;
type Told = (typeof TOLD)[number];

/** So many failures in a row make the queue unreachable: one lost request is no news to a person. */
const FAILURES_TO_SHOW = 2;

/** A call that has not been repeated so long after it was due is not made any more, and its failure says nothing now. */
const OVERDUE_MS = 60_000;

const REASON_OF: Partial<Record<WorkErrorKind, ConditionReason>> = {
  "not-found": "EnvironmentNotFound",
  "rate-limited": "RateLimited",
  "bad-request": "BadReply",
  protocol: "BadReply",
  "bad-item": "BadReply",
  "inner-address": "OriginNotAllowed",
};

/** The reason of a condition that an error of the Work API stands for. */
export function reasonOfKind(kind: WorkErrorKind): ConditionReason {
  return kind === "auth" ? "KeyRejected" : (REASON_OF[kind] ?? "Unreachable");
}

/** What one answer is enough for: no network fails in this way. */
const FINAL: ReadonlySet<ConditionReason> = new Set<ConditionReason>(["EnvironmentNotFound", "OriginNotAllowed"]);

/** The client says what happened; of these, a condition says the mend, too. */
const MEND_OF: Partial<Record<WorkErrorKind, string>> = {
  "rate-limited": "; give all Environments of one organization the same spec.api.budgetGroup",
};

/** One request under way. What comes of it is held against the key that it was sent with. */
export interface Attempt {
  /** It was answered as it should be. */
  answered(): void;
  /** It failed. Returns how long to wait before the next of its kind, in milliseconds. Without a backoff the caller has its own. */
  failed(error: unknown, backoff?: Backoff): number;
}

/** A call that fails, since its last answer. */
interface Failing {
  failures: number;
  verdict: Verdict;
  /** The last text, while it is another than the one shown. */
  other: string;
  /** When the call is due again. */
  dueMs: number;
  /** Requests that had begun when it failed: of those, more that fail are the same failure. */
  begun: number;
}

/**
 * What the answers of the Work API say about the key and about the queue. Each call is judged for itself: statistics
 * that come are no comfort while every poll fails. A rejected key stops polling until its Secret changes, and is tried
 * once in a long while; everything else is tried again with backoff.
 */
export class ApiHealth {
  #key: Verdict = { reason: "KeyUnchecked", message: "the key was not used yet" };
  #rejected = false;
  /** When (monotonic). */
  #rejectedMs = 0;
  /** Requests are numbered as they begin: so many have, and of this one the key was rejected last. */
  #begun = 0;
  #rejectedOf = 0;
  #keys = 0;
  #reached = false;
  #shown = "";
  readonly #failing = new Map<Told, Failing>();
  readonly #onChange: () => void;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #timing: Pick<Timing, "notFoundPauseMs" | "rejectedKeyRetryMs" | "retryMaxMs">;
  /** Calls that refused the key: for how many items in a row, the last of them, and when they are due again (monotonic). */
  readonly #refusals = new Map<JudgedCall, { times: number; workId: string | undefined; dueMs: number }>();

  constructor(options: {
    onChange: () => void;
    random: Random;
    clock: Clock;
    timing: Pick<Timing, "notFoundPauseMs" | "rejectedKeyRetryMs" | "retryMaxMs">;
  }) {
    this.#onChange = options.onChange;
    this.#random = options.random;
    this.#clock = options.clock;
    this.#timing = options.timing;
    this.#shown = this.#reasons();
  }

  get key(): Verdict {
    return this.#key;
  }

  get queue(): Verdict {
    for (const call of TOLD) {
      const failing = this.#failing.get(call);
      if (failing && isShown(failing)) return failing.verdict;
    }
    return this.#reached
      ? { reason: "Reachable", message: "the Work API answers" }
      : { reason: "QueueUnchecked", message: "no request was sent yet" };
  }

  /** True from a 401 or 403 until `keyChanged` or `retryKey`. */
  get keyRejected(): boolean {
    return this.#rejected;
  }

  /**
   * Lets a rejected key be used once more when it was rejected long enough ago: a platform that refused good keys for a
   * while is not waited for by a person. What was said of the key stands until an answer says otherwise. Returns whether
   * its time had come.
   */
  retryKey(): boolean {
    const due = this.#rejected && this.#clock.monotonic() >= this.#rejectedMs + this.#timing.rejectedKeyRetryMs;
    if (!due) return false;
    this.#rejected = false;
    const dueMs = this.#clock.monotonic() + this.#timing.retryMaxMs;
    for (const refusal of this.#refusals.values()) refusal.dueMs = dueMs;
    return true;
  }

  /** A request of this kind is about to be sent. */
  attempt(call: JudgedCall, workId?: string): Attempt {
    const key = this.#keys;
    this.#begun += 1;
    const at = this.#begun;
    return {
      answered: () => this.#answered(call, key, at),
      failed: (error, backoff) => this.#failed(call, { key, at, workId }, error, backoff),
    };
  }

  /** Sends a request for a claim and judges it. What the API refuses of one item says that the API answers. */
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

  /** An item is not as it should be. It is told as long as it is seen again, and for a minute more. */
  unreadable(error: WorkApiError): void {
    const verdict = { reason: reasonOfKind(error.kind), message: error.message };
    this.#count(ITEM, verdict, this.#clock.monotonic(), Number.POSITIVE_INFINITY);
    this.#tell();
  }

  /** Another key than the one that was rejected, or one that somebody wants to see tried again. */
  keyChanged(): void {
    this.#keys += 1;
    this.#refusals.clear();
    this.#rejected = false;
    this.#key = { reason: "KeyUnchecked", message: "the key was not used yet" };
    this.#tell();
  }

  #answered(call: JudgedCall, key: number, at: number): void {
    this.#failing.delete(call);
    for (const each of OF_QUEUE.includes(call) ? OF_QUEUE : [call]) this.#refusals.delete(each);
    const nowMs = this.#clock.monotonic();
    // Nothing is asked for a claim while the key is taken for rejected.
    for (const calls of this.#rejected ? [this.#failing] : [this.#failing, this.#refusals]) {
      for (const [other, { dueMs }] of calls) if (nowMs > dueMs + OVERDUE_MS) calls.delete(other as JudgedCall);
    }
    this.#reached = true;
    // A long poll that began while the key was still good says nothing of it once a later call was refused.
    if (key === this.#keys && at > this.#rejectedOf) {
      // A call that works with the key says nothing of one that is refused with it.
      if (!this.#isRefused) {
        this.#rejected = false;
        this.#key = { reason: "KeyAccepted", message: "the Work API accepts the key" };
      }
    }
    this.#tell();
  }

  #failed(
    call: JudgedCall,
    { key, at, workId }: { key: number; at: number; workId: string | undefined },
    error: unknown,
    backoff?: Backoff,
  ): number {
    const askedMs = askedPauseMs(error, this.#random) ?? 0;
    const waitMs = backoff ? retryDelayMs(error, backoff, this.#random) : Math.max(this.#timing.retryMaxMs, askedMs);
    const kind = error instanceof WorkApiError ? error.kind : "network";
    const message = `${withoutItem(errorText(error))}${MEND_OF[kind] ?? ""}`;
    if (kind === "auth") {
      // The verdict on a key that was replaced while its request was under way is none on the new one.
      if (key !== this.#keys) return waitMs;
      const before = this.#refusals.get(call);
      const isSameItem = before !== undefined && OF_ITEMS.has(call) && before.workId === workId;
      const times = (before?.times ?? 0) + (isSameItem ? 0 : 1);
      this.#refusals.set(call, { times, workId, dueMs: this.#clock.monotonic() + waitMs });
      if (OF_ITEMS.has(call) && times < FAILURES_TO_SHOW) return waitMs;
      if (!OF_RUNNING.has(call)) this.#rejected = true;
      this.#rejectedMs = this.#clock.monotonic();
      this.#rejectedOf = at;
      // Another call says the same in other words: that is no news.
      if (this.#key.reason !== "KeyRejected") this.#key = { reason: "KeyRejected", message };
      this.#failing.delete(call);
      this.#tell();
      return waitMs;
    }
    const pauseMs = kind === "not-found" ? Math.max(waitMs, this.#timing.notFoundPauseMs) : waitMs;
    this.#count(call, { reason: reasonOfKind(kind), message }, this.#clock.monotonic() + pauseMs, at);
    this.#tell();
    return pauseMs;
  }

  get #isRefused(): boolean {
    return [...this.#refusals].some(([call, { times }]) => !OF_ITEMS.has(call) || times >= FAILURES_TO_SHOW);
  }

  #count(call: Told, verdict: Verdict, dueMs: number, at: number): void {
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
    // A network that fails in two ways in turn must not change the message, and with it the status, at every try.
    if (verdict.message !== before.verdict.message && verdict.message === before.other) before.verdict = verdict;
    before.other = verdict.message;
  }

  #tell(): void {
    const reasons = this.#reasons();
    if (reasons === this.#shown) return;
    this.#shown = reasons;
    this.#onChange();
  }

  #reasons(): string {
    return `${this.#key.reason} ${this.queue.reason}`;
  }
}

/** Another item at each try must not change what is said, and with it the status. */
export function withoutItem(message: string): string {
  return message.replace(/^(Work API \w+) of \S+: /, "$1: ");
}

function isShown({ failures, verdict }: Failing): boolean {
  return failures >= FAILURES_TO_SHOW || FINAL.has(verdict.reason);
}
