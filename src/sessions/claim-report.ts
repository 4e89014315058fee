import type { Report } from "../claims/ports.ts";
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
  /** Called when something changed that capacity or status depends on. */
  readonly onChange: () => void;
}

/** Acts on what the claim loop reports: sets the pool's demand, paces the statistics, and detects claims that stall. */
export class ClaimReport implements Report {
  readonly #options: Options;
  readonly #context: SessionContext;
  /** Since when (monotonic) work has waited without a known reason; null if it does not. */
  #stalledSinceMs: number | null = null;

  constructor(options: Options) {
    this.#options = options;
    this.#context = options.context;
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
    this.#context.holds.succeeded("claim");
  }

  dropped(): void {
    this.#options.onChange();
  }

  /** Acts on newly read statistics of the queue. */
  noteStats(): void {
    const { stats } = this.#options.queue;
    this.setDemand();
    if (stats?.depth === 0 && stats.pending === 0) this.#context.holds.nothingWaits();
    this.#watchStall();
  }

  /** Sets the pool's demand. While only a probe can be claimed, it needs one Pod. */
  setDemand(): void {
    const { gate, pool, queue } = this.#options;
    pool.setDemand(gate.isAllowed ? Math.min(queue.depth, this.#context.holds.mostDemand) : 0);
  }

  /** Detects a stall of any cause: work waits, a Pod is free, claims are permitted, and none is made. */
  #watchStall(): void {
    const { clock, timing, environment, holds } = this.#context;
    const { gate, pool, queue } = this.#options;
    const isOpen = gate.mayAsk && gate.isAllowed && !environment().spec.paused;
    const isHeld = clock.monotonic() < holds.claimsFromMs || holds.starts.isOpen;
    if (!isOpen || isHeld || queue.depth === 0 || !pool.hasClaimable) this.progress();
    else this.#stalledSinceMs ??= clock.monotonic();
    if (this.#stalledSinceMs === null || clock.monotonic() < this.#stalledSinceMs + timing.stallMs) return;
    const { effect } = STEPS.claim;
    holds.failed("claim", { error: new Error(effect), message: effect });
  }
}
