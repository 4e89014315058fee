import { type Clock, sleep } from "../core/clock.ts";
import type { Notifier } from "../core/notifier.ts";
import type { Claim } from "./claim.ts";
import { isUnderWay } from "./claims-first.ts";

/**
 * Claims of one Environment under way at a time. Each is four requests to the API server one after the other, and an item
 * may be acknowledged for 2.5 s from its poll: of hundreds begun at once most would be late, their Secrets made and deleted
 * for nothing (measured: docs/performance/throughput.md). So many keep an API server with two cores busy; with a faster one,
 * or a slower Work API, they are through so soon that polls, one at a time, are what bounds them.
 */
export const MOST_UNDER_WAY = 16;

/** Bounds how many claims are under way, from the answer of their poll to the first touch of their Pod. */
export class ClaimRoom {
  readonly #clock: Clock;
  readonly #changed: Notifier;
  /** One that takes longer waits for something else than its turn: it keeps nobody out. */
  readonly #longestMs: number;
  /** The oldest first; with when they began. */
  readonly #begun = new Map<Claim, number>();

  /** @param options.changed told when a claim got on, or came to nothing */
  constructor(options: { clock: Clock; changed: Notifier; longestMs: number }) {
    this.#clock = options.clock;
    this.#changed = options.changed;
    this.#longestMs = options.longestMs;
  }

  begun(claim: Claim): void {
    this.#begun.set(claim, this.#clock.monotonic());
  }

  letGo(claim: Claim): void {
    this.#begun.delete(claim);
  }

  /** Until another claim may be begun, or the signal aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#isFull) {
      const [oldestMs = 0] = this.#begun.values();
      const over = new AbortController();
      const bound = AbortSignal.any([signal, over.signal]);
      let isAged = false;
      const aged = sleep(this.#clock, oldestMs + this.#longestMs - this.#clock.monotonic(), bound).then(() => {
        isAged = true;
      });
      // One timer for many changes.
      while (!isAged && this.#isFull) await Promise.race([this.#changed.wait(bound), aged]);
      over.abort();
    }
  }

  get #isFull(): boolean {
    const agedMs = this.#clock.monotonic() - this.#longestMs;
    for (const [claim, begunMs] of this.#begun) {
      if (begunMs <= agedMs || !isUnderWay(claim)) this.#begun.delete(claim);
    }
    return this.#begun.size >= MOST_UNDER_WAY;
  }
}
