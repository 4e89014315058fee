import type { Clock } from "../core/clock.ts";
import type { Notifier } from "../core/notifier.ts";
import { type Claim, isUnderWay } from "../protocol/claim.ts";
import { FEWEST_UNDER_WAY } from "../protocol/claim-priority.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";

/**
 * Claims of one Environment under way at a time, at first. Each is four requests to the API server one after the other, and
 * an item may be acknowledged for 2.5 s from its poll: of hundreds begun at once most would be late, their Secrets made and
 * deleted for nothing. Too few leave the API server waiting for its disk. Both measured: docs/performance/pickup.md,
 * throughput.md.
 */
export const FIRST_UNDER_WAY = 64;
/** More than these wait for one another, on any API server. */
export const MOST_UNDER_WAY = 128;

/** A claim that took no longer says that there may be one more at a time. */
const QUICK_MS = 1_000;
/** One that took longer says that there should be one less: about half of it goes by before its item is acknowledged. */
const SLOW_MS = 2_000;

export interface ClaimLimiterOptions {
  readonly clock: Clock;
  readonly claims: ClaimTable;
  /** Told when a claim got on, was let go, or waits for time alone. */
  readonly changed: Notifier;
  /**
   * A claim that takes longer keeps nobody out: it waits for a Pod or an API. So a server that takes longer for each claim is
   * given more than it can do, as it was without any bound.
   */
  readonly longestMs: number;
  /** Items may wait that no poll shows for now. */
  readonly onFull: () => void;
}

/**
 * Bounds how many claims of one Environment are under way, from their journal to the first touch of their Pod, or until an
 * item without a secret is stopped. Items that
 * wait for their session's Pod of before are not counted: they ask nothing of the API server. Environments do not share it.
 * The bound follows what claims took of late: additive, both ways, between FEWEST_UNDER_WAY and MOST_UNDER_WAY; it
 * begins with FIRST_UNDER_WAY.
 */
export class ClaimLimiter {
  readonly #options: ClaimLimiterOptions;
  /** The oldest first; with when they began. */
  readonly #begun = new Map<Claim, number>();
  #most = FIRST_UNDER_WAY;

  constructor(options: ClaimLimiterOptions) {
    this.#options = options;
  }

  begun(claim: Claim): void {
    this.#begun.set(claim, this.#options.clock.monotonic());
  }

  /** Until another claim may be begun, or the signal aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    if (this.#isFull) this.#options.onFull();
    while (!signal.aborted && this.#isFull) {
      const [oldestMs = 0] = this.#begun.values();
      await this.#options.changed.waitAtMost(
        this.#options.clock,
        oldestMs + this.#options.longestMs - this.#options.clock.monotonic(),
        signal,
      );
    }
  }

  get #isFull(): boolean {
    const nowMs = this.#options.clock.monotonic();
    for (const [claim, begunMs] of this.#begun) {
      const tookMs = nowMs - begunMs;
      if (tookMs < this.#options.longestMs && this.#isBusy(claim)) continue;
      this.#begun.delete(claim);
      if (claim.record.journal.use === "session") this.#learn(tookMs);
    }
    return this.#begun.size >= this.#most;
  }

  /** Noticed at the next poll's turn: of a claim that ends while a poll waits for work, up to a second too much. */
  #learn(tookMs: number): void {
    if (tookMs <= QUICK_MS) this.#most = Math.min(MOST_UNDER_WAY, this.#most + 1);
    else if (tookMs > SLOW_MS) this.#most = Math.max(FEWEST_UNDER_WAY, this.#most - 1);
  }

  /** One that was handed over without an answer to its acknowledgement waits for nothing but time; others were let go. */
  #isBusy(claim: Claim): boolean {
    const isWorkedOn = claim.record.claiming || claim.record.acknowledgedAt !== null;
    const isGoingOn = claim.record.journal.use === "refusal" || isUnderWay(claim);
    return isWorkedOn && isGoingOn && this.#options.claims.get(claim.name) === claim;
  }
}
