import type { Clock } from "../core/clock.ts";
import type { Notifier } from "../core/notifier.ts";
import { type Claim, isUnderWay } from "../protocol/claim.ts";
import { FEWEST_UNDER_WAY } from "../protocol/claim-priority.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";

/**
 * The initial limit of claims under way in one Environment. A claim sends four requests to the API server one after the
 * other, and an item may be acknowledged only for 2.5 s after its poll. Of hundreds of claims at once, most would be
 * late and create and delete Secrets for nothing. With too few, the API server waits for its disk. Both were measured:
 * docs/performance/pickup.md, throughput.md.
 */
export const FIRST_UNDER_WAY = 64;
/** More claims than this wait for one another on any API server. */
export const MOST_UNDER_WAY = 128;

/** A claim that took at most this long raises the limit by one. */
const QUICK_MS = 1_000;
/** A claim that took longer lowers the limit by one: about half of this time passes before its acknowledgement. */
const SLOW_MS = 2_000;

export interface ClaimLimiterOptions {
  readonly clock: Clock;
  readonly claims: ClaimTable;
  /** Notified when a claim made progress, was dropped, or only waits for a time to pass. */
  readonly changed: Notifier;
  /**
   * A claim that takes longer no longer counts: it waits for a Pod or an API. So a server that is slower than this for
   * every claim gets more requests than it can handle, as it would without a limit.
   */
  readonly longestMs: number;
  /** Called when the limit is reached: items may wait in the queue that no poll reads for now. */
  readonly onFull: () => void;
}

/**
 * Limits the number of claims under way in one Environment, from the journal to the first touch of the Pod, or to the
 * stop of an item without a secret. Items that wait for their session's previous Pod don't count: they send no requests
 * to the API server. Environments don't share the limit.
 *
 * The limit begins at FIRST_UNDER_WAY and follows how long recent claims took: it rises and falls by one, between
 * FEWEST_UNDER_WAY and MOST_UNDER_WAY.
 */
export class ClaimLimiter {
  readonly #options: ClaimLimiterOptions;
  /** The claims under way, oldest first, with the times at which they began. */
  readonly #begun = new Map<Claim, number>();
  #limit = FIRST_UNDER_WAY;

  constructor(options: ClaimLimiterOptions) {
    this.#options = options;
  }

  begun(claim: Claim): void {
    this.#begun.set(claim, this.#options.clock.monotonic());
  }

  /** Resolves when another claim may begin, or the signal aborts. */
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
      if (claim.record.journal.use === "session") this.#adjustLimit(tookMs);
    }
    return this.#begun.size >= this.#limit;
  }

  /**
   * The claim's end is only noticed before the next poll: while a poll waits for work, `tookMs` is up to a second too
   * long.
   */
  #adjustLimit(tookMs: number): void {
    if (tookMs <= QUICK_MS) this.#limit = Math.min(MOST_UNDER_WAY, this.#limit + 1);
    else if (tookMs > SLOW_MS) this.#limit = Math.max(FEWEST_UNDER_WAY, this.#limit - 1);
  }

  /**
   * A claim without an answered acknowledgement only waits for time to pass once it is handed over, so it isn't busy.
   */
  #isBusy(claim: Claim): boolean {
    const isWorkedOn = claim.record.claiming || claim.record.acknowledgedAt !== null;
    const isGoingOn = claim.record.journal.use !== "session" || isUnderWay(claim);
    return isWorkedOn && isGoingOn && this.#options.claims.get(claim.name) === claim;
  }
}
