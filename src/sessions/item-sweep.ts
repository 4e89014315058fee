import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import type { Notifier } from "../core/notifier.ts";
import { jitter } from "../core/random.ts";
import type { ApiHealth } from "./api-health.ts";
import type { Breaker } from "./breaker.ts";
import type { Claim } from "./claim.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";
import type { ItemObserver } from "./item-observer.ts";
import type { SessionLoop } from "./session-loop.ts";

const JITTER = 0.1;

/**
 * Looks at the items of running sessions with one walk for all of them: soon while a first beat is awaited, else at a
 * slow pace. Never one request per session: reads are the whole organization's.
 */
export class ItemSweep {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #observer: ItemObserver;
  readonly #health: ApiHealth;
  readonly #sessions: SessionLoop;
  readonly #breaker: Breaker;

  constructor(options: {
    context: SessionContext;
    claims: ClaimTable;
    observer: ItemObserver;
    health: ApiHealth;
    sessions: SessionLoop;
    breaker: Breaker;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#observer = options.observer;
    this.#health = options.health;
    this.#sessions = options.sessions;
    this.#breaker = options.breaker;
  }

  /** Runs until the signal aborts. Never throws. */
  async run(signal: AbortSignal, mayAsk: (signal: AbortSignal) => Promise<void>, changed: Notifier): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    let lastMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      await mayAsk(signal);
      const running = this.#running();
      if (running.length === 0) {
        await changed.wait(signal);
        continue;
      }
      const paceMs = this.#paceMs(running);
      const dueMs = lastMs + jitter(paceMs, JITTER, random);
      if (clock.monotonic() < dueMs) {
        // A session that starts meanwhile may shorten the pace.
        await sleep(clock, Math.min(this.#firstBeatPaceMs(), dueMs - clock.monotonic()), signal);
        continue;
      }
      lastMs = clock.monotonic();
      await this.#sweep(running, backoff, signal);
    }
  }

  #paceMs(running: readonly Claim[]): number {
    const awaited = running.some(({ firstBeatSeen }) => !firstBeatSeen);
    return awaited ? this.#firstBeatPaceMs() : this.#context.timing.observeMs;
  }

  #firstBeatPaceMs(): number {
    const { observeFirstBeatMs, observeUnprovenMs } = this.#context.timing;
    return this.#breaker.hasServed ? observeFirstBeatMs : Math.min(observeFirstBeatMs, observeUnprovenMs);
  }

  #running(): Claim[] {
    // lease: Operator: the answers to our beats say all that a look would.
    return [...this.#claims].filter(
      ({ journal, startedAtMs, end, claiming }) =>
        journal.lease === "Worker" && startedAtMs !== null && end === null && !claiming,
    );
  }

  async #sweep(running: readonly Claim[], backoff: Backoff, signal: AbortSignal): Promise<void> {
    const attempt = this.#health.attempt("list");
    try {
      const views = await this.#observer.sweep(running.map(({ journal }) => journal.workId));
      attempt.answered();
      backoff.reset();
      for (const claim of running) {
        const view = views.get(claim.journal.workId);
        if (!view || this.#claims.get(claim.name) !== claim) continue;
        this.#sessions.saw(claim, view);
        this.#sessions.poke(claim.name);
      }
    } catch (error) {
      if (signal.aborted) return;
      await sleep(this.#context.clock, attempt.failed(error, backoff), signal);
    }
  }
}
