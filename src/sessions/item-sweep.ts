import { Backoff, jitter } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import type { Notifier } from "../core/notifier.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteLookFailed } from "../protocol/claim-observed.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { ItemObserver } from "./item-observer.ts";
import type { SessionLoop } from "./session-loop.ts";

const JITTER = 0.1;

export interface ItemSweepOptions {
  readonly context: SessionContext;
  readonly claims: ClaimTable;
  readonly observer: ItemObserver;
  readonly sessions: SessionLoop;
}

/**
 * Reads the items of all running sessions in one walk through the list: soon while a first heartbeat is awaited, slowly
 * otherwise. It never sends one request per session, because all reads of an organization share one budget.
 */
export class ItemSweep {
  readonly #options: ItemSweepOptions;
  readonly #context: SessionContext;

  constructor(options: ItemSweepOptions) {
    this.#options = options;
    this.#context = options.context;
  }

  /** Runs until the signal aborts. Never throws. @param mayAsk whether requests to the Work API are permitted */
  async run(signal: AbortSignal, mayAsk: () => boolean, changed: Notifier): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    let lastMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const running = mayAsk() ? this.#running() : [];
      if (running.length === 0) {
        await changed.wait(signal);
        continue;
      }
      const paceMs = this.#paceMs(running);
      const dueMs = lastMs + jitter(paceMs, JITTER, random);
      if (clock.monotonic() < dueMs) {
        // A session that starts in the meantime may shorten the pace, so wake up early enough for it.
        await sleep(
          clock,
          Math.min(this.#firstBeatPaceMs(this.#context.holds.starts.holdsBack), dueMs - clock.monotonic()),
          signal,
        );
        continue;
      }
      lastMs = clock.monotonic();
      await this.#sweep(running, backoff, signal);
    }
  }

  #paceMs(running: readonly Claim[]): number {
    const awaited = running.filter(({ observed: { firstBeatSeen } }) => !firstBeatSeen);
    if (awaited.length === 0) return this.#context.timing.observeMs;
    return this.#firstBeatPaceMs(awaited.some(({ name }) => this.#context.holds.starts.isAwaited(name)));
  }

  /** The pace while a first heartbeat is awaited. It is faster while claims are held back until a session serves. */
  #firstBeatPaceMs(isUrgent: boolean): number {
    const { observeFirstBeatMs, observeUnprovenMs } = this.#context.timing;
    return isUrgent ? Math.min(observeFirstBeatMs, observeUnprovenMs) : observeFirstBeatMs;
  }

  /** Runs on every change of any claim, so it allocates nothing if the operator holds all leases. */
  #running(): Claim[] {
    const running: Claim[] = [];
    for (const claim of this.#options.claims) {
      const { journal, claiming, ending } = claim.record;
      const { startedAtMs, end } = claim.observed;
      // With lease: Operator, the answers to our own heartbeats already say what a list would show.
      if (journal.lease !== "Worker" || startedAtMs === null || end !== null || claiming) continue;
      // Its item is being settled, or is settled.
      if (ending?.why === "NoFirstBeat") continue;
      running.push(claim);
    }
    return running;
  }

  async #sweep(running: readonly Claim[], backoff: Backoff, signal: AbortSignal): Promise<void> {
    const attempt = this.#context.holds.health.attempt("list");
    try {
      await this.#read(running);
      attempt.answered();
      backoff.reset();
    } catch (error) {
      if (signal.aborted) return;
      for (const claim of running) noteLookFailed(claim);
      await sleep(this.#context.clock, attempt.failed(error, backoff), signal);
    }
  }

  async #read(claims: readonly Claim[]): Promise<void> {
    const workIds = claims.map(({ record: { journal } }) => journal.workId);
    const views = await this.#context.points.run("sweep.list", {}, () => this.#options.observer.sweep(workIds));
    for (const claim of claims) {
      const view = views.get(claim.record.journal.workId);
      if (!view || this.#options.claims.get(claim.name) !== claim) continue;
      this.#options.sessions.saw(claim, view);
      this.#options.sessions.poke(claim.name);
    }
  }
}
