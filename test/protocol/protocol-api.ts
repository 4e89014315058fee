/** A simulated Work API with one item, for the property tests of the protocol. */
import { NO_HEARTBEAT, type WorkState } from "../../src/work/types.ts";
import type { Timeline } from "./protocol-timeline.ts";

/** What the Work API's contract leaves open. */
export interface Variant {
  readonly ttlMs: number;
  /** The state of an active item after its lease lapsed. */
  readonly lapse: "queued" | "stopped";
  /** How long until a starting item without a heartbeat is queued again. */
  readonly startExpiryMs: number;
  /** What happens to a stopping item after its lease lapsed. */
  readonly stopLapse: "stays" | "stopped";
  /** The answer to an acknowledgement of an item that has left the queue. */
  readonly secondAck: "refused" | "ok";
  /** Whether acknowledged_at changes when an item is acknowledged again. */
  readonly stamp: "renewed" | "kept";
  /** Whether the item was acknowledged before and requeued. */
  readonly cameBack: boolean;
  /** How a heartbeat of a queued item is refused: as a mismatched value (412), or otherwise. */
  readonly queuedBeat: "412" | "other";
  /** Whether times are cut to whole seconds instead of milliseconds. */
  readonly wholeSeconds: boolean;
}

export type Side = "operator" | "worker" | "rival";

/** A refusal that a retry would not change. */
export class RefusedError extends Error {
  override name = "RefusedError";
}

export interface Beat {
  readonly kind: "beat" | "refused";
  readonly state: WorkState;
  readonly last: string | null;
}

/** The longest interval between two heartbeats of any holder. */
const LONGEST_BEAT_MS = 30_000;

/** When a requeued item was first acknowledged. */
const LONG_AGO_MS = -60_000;

/** When other clients are offered an unacknowledged item: 5 s after the offer, which follows the poll. */
const RECLAIM_MS = 5_100;

/** One work item and the Work API's rules for it. Judges every stop of the operator (S3). */
export class ItemApi {
  readonly #timeline: Timeline;
  readonly variant: Variant;
  /** The server's wall clock minus the timeline's. */
  readonly epochMs: number;
  state: WorkState = "queued";
  acknowledgedAtMs: number | null = null;
  last: string | null = null;
  holder: Side | null = null;
  /** The number of acknowledgements that took effect. */
  generation = 0;
  /** The generation that the operator under test acknowledged, or 0. */
  ours = 0;
  offeredToUsMs: number | null = null;
  readonly violations: string[] = [];
  /** Requests of the operator under test. */
  calls = 0;
  /** The longest time between two heartbeats of the operator under test for one lease. */
  longestGapMs = 0;
  #beatMs = 0;
  #lease = 0;
  #beats = 0;

  constructor(timeline: Timeline, variant: Variant, epochMs: number) {
    this.#timeline = timeline;
    this.variant = variant;
    this.epochMs = epochMs;
    if (variant.cameBack) this.acknowledgedAtMs = LONG_AGO_MS;
  }

  get acknowledgedAt(): string | null {
    if (this.acknowledgedAtMs === null) return null;
    const iso = new Date(Math.floor(this.epochMs + this.acknowledgedAtMs)).toISOString();
    return this.variant.wholeSeconds ? iso.replace(/\.\d+Z$/, "Z") : iso;
  }

  /** True while only the operator under test can have been offered the item. */
  get isOffered(): boolean {
    return this.offeredToUsMs !== null && this.#timeline.nowMs < this.offeredToUsMs + RECLAIM_MS;
  }

  ack(side: Side): { state: WorkState; acknowledgedAt: string | null } {
    if (this.state !== "queued") {
      if (this.variant.secondAck === "refused") throw new RefusedError(`ack of a ${this.state} item`);
      return { state: this.state, acknowledgedAt: this.acknowledgedAt };
    }
    this.generation += 1;
    if (side === "operator") this.ours = this.generation;
    if (this.variant.stamp === "renewed") this.acknowledgedAtMs = null;
    this.acknowledgedAtMs ??= this.#timeline.nowMs;
    this.last = null;
    this.holder = null;
    this.#become("starting", `acknowledged by ${side}`);
    this.#lapseAfter(this.variant.startExpiryMs);
    return { state: this.state, acknowledgedAt: this.acknowledgedAt };
  }

  beat(side: Side, expected: string): Beat {
    if (this.state === "queued" && this.variant.queuedBeat === "412") {
      return { kind: "refused", state: this.state, last: this.last };
    }
    if (this.state === "queued") throw new RefusedError("heartbeat of a queued item");
    if (this.state === "stopped" || this.state === "stopping")
      return { kind: "beat", state: this.state, last: this.last };
    if (expected !== (this.last ?? NO_HEARTBEAT)) return { kind: "refused", state: this.state, last: this.last };
    this.#beats += 1;
    const quietMs = this.#timeline.nowMs - this.#beatMs;
    if (side === "operator" && this.holder === "rival" && quietMs < Math.min(this.variant.ttlMs / 2, LONGEST_BEAT_MS)) {
      this.violations.push(`S2 the operator takes a lease ${quietMs} ms after another client's heartbeat`);
    }
    if (this.holder === side && side === "operator") {
      this.longestGapMs = Math.max(this.longestGapMs, quietMs);
    }
    this.#beatMs = this.#timeline.nowMs;
    // Heartbeats within one millisecond still differ.
    this.last = new Date(Math.floor(this.epochMs + this.#timeline.nowMs) + this.#beats).toISOString();
    this.holder = side;
    if (this.state === "starting") this.#become("active", `first heartbeat by ${side}`);
    this.#lapseAfter(this.variant.ttlMs);
    return { kind: "beat", state: this.state, last: this.last };
  }

  stop(side: Side, force: boolean): void {
    const { state } = this;
    if (side === "operator" && state !== "stopped" && state !== "stopping") {
      // If acknowledgements can't be told apart, only the lease shows who holds an item. Changing heartbeats, on which
      // a graceful stop relies, may then be another client's.
      const isKept = this.variant.stamp === "kept";
      const isOthers = this.ours !== this.generation && !isKept;
      const others = isOthers || (this.holder === "rival" && (force || !isKept));
      if (state === "queued") this.violations.push("S3 a stop hits an item that is queued");
      else if (others) this.violations.push(`S3 a stop hits an item that is ${state} for another client`);
    }
    if (state === "stopped") return;
    if (force || state === "queued") this.#become("stopped", `stopped by ${side}`);
    else this.#become("stopping", `told to stop by ${side}`);
  }

  /** A user's stop. It notifies the client that works on the item. */
  stopByUser(): void {
    if (this.state === "queued") this.#become("stopped", "stopped by a user");
    else if (this.state !== "stopped") this.#become("stopping", "told to stop by a user");
  }

  #become(state: WorkState, why: string): void {
    this.state = state;
    if (state === "queued" || state === "stopped") this.holder = null;
    this.#timeline.say(`item ${state}: ${why}`);
  }

  #lapseAfter(ms: number): void {
    this.#lease += 1;
    const lease = this.#lease;
    if (!Number.isFinite(ms)) return;
    this.#timeline.after(ms, () => {
      if (lease !== this.#lease) return;
      if (this.state === "starting") this.#become("queued", "no first heartbeat");
      else if (this.state === "active") this.#become(this.variant.lapse, "lease lapsed");
      else if (this.state === "stopping" && this.variant.stopLapse === "stopped")
        this.#become("stopped", "lease lapsed");
    });
  }
}
