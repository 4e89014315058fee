import type { Report } from "../claims/ports.ts";
import type { Breaker } from "../pods/breaker.ts";
import type { ParkedPool } from "../pool/pool.ts";
import type { SessionContext } from "../protocol/context.ts";
import { STEPS } from "../protocol/tracked-steps.ts";
import type { QueueWatch } from "../queue/queue-watch.ts";
import type { ClaimGate } from "./claim-gate.ts";

interface Options {
  readonly context: SessionContext;
  readonly gate: ClaimGate;
  readonly pool: ParkedPool;
  readonly queue: QueueWatch;
  readonly breaker: Breaker;
  readonly offers: Breaker;
  /** Called when something changed that capacity or status depends on. */
  readonly onChange: () => void;
}

/** Acts on what the claim loop reports: sets the pool's demand, paces the statistics, and detects claims that stall. */
export class ClaimReport implements Report {
  readonly #options: Options;
  readonly #context: SessionContext;
  /** Since when (monotonic) work has waited without a known reason; null if it does not. */
  #stalledSinceMs: number | null = null;
  #credentialMissing: string | null | undefined;

  constructor(options: Options) {
    this.#options = options;
    this.#context = options.context;
  }

  /** The first of consecutive items without a secret; null if the last item had one; undefined if there was none. */
  get credentialMissing(): string | null | undefined {
    return this.#credentialMissing;
  }

  work(): void {
    const { pool, queue } = this.#options;
    queue.polled();
    this.setDemand();
    if (!pool.hasClaimable) queue.nudge();
  }

  returned(): void {
    this.#options.queue.returned();
    this.setDemand();
  }

  /** While polls pause, only the statistics show waiting items. Read them often, so that Pods are created in time. */
  full(): void {
    const { queue } = this.#options;
    if (this.#context.clock.monotonic() - queue.readMs >= this.#context.timing.statsBusyMs) queue.nudge();
  }

  progress(): void {
    this.#stalledSinceMs = null;
    this.#context.failing.succeeded("claim");
  }

  dropped(): void {
    this.#options.onChange();
  }

  credential(isMissing: boolean, workId: string): void {
    const { gate, offers, onChange } = this.#options;
    const nowMs = this.#context.clock.monotonic();
    const offer = { hash: gate.credential, claim: workId, session: workId, wakes: false, openedMs: nowMs };
    if (isMissing) {
      offers.claimed(offer.hash, workId);
      offers.failed(offer, "", nowMs);
    } else offers.succeeded(offer);
    this.setDemand();
    // Name the first item: naming the last one would change the condition with every item.
    this.#credentialMissing = isMissing ? (this.#credentialMissing ?? workId) : null;
    onChange();
  }

  /** Resets the count of items without a secret if `spec.sessions.credential` changed. */
  watchCredential(): void {
    const { gate, offers } = this.#options;
    const changed = offers.watch(gate.credential, this.#context.clock.monotonic());
    if (changed.length > 0) this.#credentialMissing = undefined;
  }

  /** Acts on newly read statistics of the queue. */
  noteStats(): void {
    const { stats } = this.#options.queue;
    this.setDemand();
    if (stats?.depth === 0 && stats.pending === 0) this.#context.failing.nothingWaits();
    this.#watchStall();
  }

  /** Sets the pool's demand. While a breaker is open, only a probe can be claimed, and it needs one Pod. */
  setDemand(): void {
    const { gate, pool, queue, breaker, offers } = this.#options;
    const claimable = gate.isAllowed ? queue.depth : 0;
    pool.setDemand(breaker.isOpen || offers.isOpen ? Math.min(1, claimable) : claimable);
  }

  /** Detects a stall of any cause: work waits, a Pod is free, claims are permitted, and none is made. */
  #watchStall(): void {
    const { clock, timing, environment, failing } = this.#context;
    const { gate, pool, queue, breaker, offers } = this.#options;
    const isOpen = gate.mayAsk && gate.isAllowed && !environment().spec.paused;
    const isHeld = failing.holdsClaims || breaker.isOpen || !offers.admits(gate.credential, clock.monotonic());
    if (!isOpen || isHeld || queue.depth === 0 || !pool.hasClaimable) this.progress();
    else this.#stalledSinceMs ??= clock.monotonic();
    if (this.#stalledSinceMs === null || clock.monotonic() < this.#stalledSinceMs + timing.stallMs) return;
    const { effect } = STEPS.claim;
    failing.failed("claim", { error: new Error(effect), message: effect });
  }
}
