import type { PointEvent } from "../../../src/core/points.ts";
import type { Timing } from "../../../src/core/timing.ts";
import type { LeaseKind } from "../../../src/protocol/journal.ts";
import { NO_HEARTBEAT } from "../../../src/work/types.ts";
import { callOf } from "./projection.ts";

/** What one operator knows about its claim of the item. Times are milliseconds of its own monotonic clock. */
interface Known {
  /** The operator has read the Pod as parked since the journal, and since the last acknowledgement. */
  isParked: boolean;
  lookedMs: number | null;
  snapshot: { readonly value: string; readonly seenMs: number } | null;
  /** Until when an accepted heartbeat certainly keeps the lease on the server. */
  leasedUntilMs: number;
  /** The item was seen as stopping. */
  isStopping: boolean;
  /**
   * Whether the item was last known to be held by no client; null after a sweep, whose entry does not name the items it
   * listed.
   */
  isOver: boolean | null;
  /** parking: Shell: the item was read since the last delivery without a marker. */
  isLooked: boolean;
  /** parking: Shell: the operator knows that the opening is recorded in the Secret. */
  isOpened: boolean;
  /** parking: Shell: it knows that the program started. */
  isStarted: boolean;
}

const SECOND_MS = 1_000;

/** What shows that a program started. */
const SHOWS_START: ReadonlySet<unknown> = new Set(["marker", "log", "item"]);

/** States in which no client holds the item, as read, and as the reason of a settlement. */
const OVER: ReadonlySet<unknown> = new Set(["queued", "stopped", "absent"]);

/** The difference between two clocks of one process, or between two sums of fractions. */
const ROUNDING_MS = 2;

/**
 * Checks against the trace's clock the rules that the model has as untimed guards (nothing in flight, value unchanged,
 * inside the window). It does not require margins that only cover the clock difference of two machines.
 */
export class Knowledge {
  readonly #timing: Timing;
  readonly #lease: LeaseKind;
  readonly #waitsForEnds: boolean;
  /** Pods whose container has ended. */
  readonly #over = new Set<string>();
  /**
   * When the last poll that returned the item was sent, by Environment. It uses the wall clock, the only one that
   * survives a restart.
   */
  readonly #polled = new Map<string, number>();
  /** The same for the poll that led to the journal of each Pod. */
  readonly #claimed = new Map<string, number>();
  /** The operator whose claim of a Pod is not finished yet. */
  readonly #claiming = new Map<string, string>();
  readonly #known = new Map<string, Known>();
  readonly #sent = new Map<string, PointEvent>();

  /** @param waitsForEnds whether a claim that is opened may be given up only after its container has ended */
  constructor(timing: Timing, { lease, waitsForEnds }: { lease: LeaseKind; waitsForEnds: boolean }) {
    this.#timing = timing;
    this.#lease = lease;
    this.#waitsForEnds = waitsForEnds;
  }

  /** The container of a Pod has ended. */
  over({ environment, pod }: { readonly environment: string; readonly pod: string }): void {
    this.#over.add(`${environment} ${pod}`);
  }

  /** Records one entry about the item. Returns the rule that the entry breaks; null if none. */
  take(event: PointEvent): string | null {
    if (event.point === "claim.poll") {
      if (event.phase === "before") this.#sent.set(callOf(event), event);
      else {
        const { atMs, monotonicMs } = this.#sent.get(callOf(event)) ?? event;
        this.#polled.set(event.environment, atMs);
        // An offer of an item that is already claimed tells as much as a read.
        this.#seenByAll(event.environment, { isOver: true, lookedMs: monotonicMs });
      }
      return null;
    }
    if (event.point === "claim.offer") {
      for (const [pod, operator] of this.#claiming) if (operator === event.operator) this.#claiming.delete(pod);
      return null;
    }
    if (event.point === "sweep.list") {
      if (event.phase === "after" && event.outcome === "ok") {
        this.#seenByAll(event.environment, { isOver: null, isLooked: true });
      }
      return null;
    }
    if (event.phase === "before") {
      this.#sent.set(callOf(event), event);
      return this.#mayBeSent(event, this.#of(event));
    }
    if (event.phase === "note") return this.#note(event, this.#of(event));
    this.#learn(event, this.#sent.get(callOf(event)) ?? event, this.#of(event));
    return null;
  }

  /** Records news about the item for every claim of an Environment. */
  #seenByAll(environment: string, seen: Pick<Known, "isOver"> & Partial<Known>): void {
    for (const [key, known] of this.#known) if (key.startsWith(`${environment} `)) Object.assign(known, seen);
  }

  #of({ environment, operator, pod }: PointEvent): Known {
    const key = `${environment} ${operator} ${pod}`;
    const known = this.#known.get(key) ?? {
      isParked: false,
      lookedMs: null,
      snapshot: null,
      leasedUntilMs: Number.NEGATIVE_INFINITY,
      isStopping: false,
      isOver: false,
      isLooked: false,
      isOpened: false,
      isStarted: false,
    };
    this.#known.set(key, known);
    return known;
  }

  #mayBeSent(event: PointEvent, known: Known): string | null {
    switch (event.point) {
      case "claim.journal":
        return this.#mayJournal(event);
      case "claim.ack":
        return this.#mayAcknowledge(event, known);
      case "session.drop":
        return this.#mayDrop(event, known);
      case "session.fence":
      case "session.take":
        return this.#mayBeat(event, known);
      case "session.deliver":
        return this.#mayDeliver(event, known);
      case "session.stop":
        if (event.asks["force"] !== true) return null;
        return this.#mayGiveUp(event, known) ?? this.#mayStop(event, known);
      case "session.settled":
        return this.#mayGiveUp(event, known) ?? this.#maySettle(event, known);
      default:
        return null;
    }
  }

  #mayJournal(event: PointEvent): string | null {
    const polledMs = this.#polled.get(event.environment);
    if (polledMs === undefined) return "journaled an item that no poll brought";
    // A journal repeated before the claim finished belongs to the same claim.
    if (this.#claiming.get(podOf(event)) !== event.operator) this.#claimed.set(podOf(event), polledMs);
    this.#claiming.set(podOf(event), event.operator);
    return null;
  }

  #polledMs(event: PointEvent): number {
    return this.#claimed.get(podOf(event)) ?? 0;
  }

  #mayAcknowledge(event: PointEvent, known: Known): string | null {
    const { atMs } = event;
    const { othersReclaimMs, requestBoundMs } = this.#timing;
    if (!known.isParked) return "acknowledged without having read the Pod parked just before";
    const deadlineMs = this.#polledMs(event) + othersReclaimMs - requestBoundMs;
    return atMs > deadlineMs ? `acknowledged ${atMs - deadlineMs} ms after it could land inside the window` : null;
  }

  /**
   * An operator may drop an item only after its own acknowledgement can no longer take effect, and only by a later
   * read.
   */
  #mayDrop(event: PointEvent, { lookedMs }: Known): string | null {
    const { atMs, monotonicMs } = event;
    if (lookedMs === null) return "dropped an item that the operator had not read";
    const lookedAtMs = atMs - (monotonicMs - lookedMs);
    const earlyMs = this.#polledMs(event) + this.#timing.othersReclaimMs - lookedAtMs;
    return earlyMs > ROUNDING_MS
      ? `looked ${Math.ceil(earlyMs)} ms before an acknowledgement could no more be under way`
      : null;
  }

  #mayBeat({ asks, monotonicMs }: PointEvent, known: Known): string | null {
    const { expected } = asks;
    if (expected === NO_HEARTBEAT || typeof expected !== "string" || known.isStopping) return null;
    const { snapshot } = known;
    if (!snapshot || !isSameInstant(snapshot.value, expected))
      return `sent a heartbeat with ${expected}, which it had not remembered`;
    const stoodMs = monotonicMs - snapshot.seenMs;
    const neededMs = this.#timing.beatIntervalMs + this.#timing.quietMarginMs;
    return stoodMs < neededMs
      ? `sent a heartbeat with a value that was unchanged for ${stoodMs} of ${neededMs} ms`
      : null;
  }

  #mayStop({ monotonicMs }: PointEvent, known: Known): string | null {
    if (known.isStopping) return null;
    const deadlineMs = known.leasedUntilMs - this.#timing.requestBoundMs;
    if (known.leasedUntilMs === Number.NEGATIVE_INFINITY) return "stopped without a lease and without a fence";
    return monotonicMs > deadlineMs
      ? `stopped ${monotonicMs - deadlineMs} ms after it could land inside the lease`
      : null;
  }

  #mayDeliver({ monotonicMs }: PointEvent, { isOpened, isLooked, leasedUntilMs }: Known): string | null {
    if (!isOpened) return "sent a line before it knew that the opening is recorded";
    if (!isLooked) return "sent a line without having read the item";
    if (this.#lease === "Worker") return null;
    return monotonicMs > leasedUntilMs ? `sent a line ${monotonicMs - leasedUntilMs} ms after its lease` : null;
  }

  #maySettle({ asks }: PointEvent, { isOver }: Known): string | null {
    // Other reasons are a lost lease, or an item that another client acknowledged.
    return OVER.has(asks["because"]) && isOver === false ? "settled what was last seen live" : null;
  }

  #mayGiveUp(event: PointEvent, { isOpened, isStarted }: Known): string | null {
    const mayStart = this.#waitsForEnds && isOpened && !isStarted && !this.#over.has(podOf(event));
    return mayStart ? "gave up an item whose container may still start" : null;
  }

  #note(event: PointEvent, known: Known): string | null {
    if (event.point === "recover.take-up") known.isOpened = event.details["opened"] === true;
    if (event.point === "session.delivered") known.isStarted = SHOWS_START.has(event.details["by"]);
    if (event.point === "session.let-go") return this.#mayGiveUp(event, known);
    if (event.point === "session.snapshot") {
      // The value is as old as the read it came from. A value learned in another way is current.
      const seenMs = known.lookedMs ?? event.monotonicMs;
      const value = String(event.details["value"]);
      known.snapshot = { value, seenMs };
      return null;
    }
    return event.point === "session.own" ? this.#mayDrop(event, known) : null;
  }

  #learn({ point, outcome, details }: PointEvent, sent: PointEvent, known: Known): void {
    switch (point) {
      case "claim.read-pod":
        known.isParked = outcome === "ok" && details["parked"] === true;
        break;
      case "claim.ack":
        known.isParked = false;
        known.isLooked = outcome === "ok";
        break;
      case "session.open":
      case "session.reread":
        if (outcome === "ok") known.isOpened = true;
        break;
      case "session.read-credential":
        if (details["opened"] === true) known.isOpened = true;
        break;
      case "session.deliver":
        if (outcome === "unanswered") known.isLooked = false;
        break;
      case "session.look":
        if (outcome !== "ok" || details["state"] === "unknown") break;
        known.lookedMs = sent.monotonicMs;
        known.isStopping = details["state"] === "stopping";
        known.isOver = OVER.has(details["state"]);
        known.isLooked = true;
        break;
      case "session.stop":
        if (outcome === "ok" && sent.asks["force"] === true) known.isOver = true;
        break;
      case "session.fence":
      case "session.take":
      case "session.beat":
        if (outcome === "ok" && details["accepted"] === true && details["state"] === "active") {
          known.leasedUntilMs = sent.monotonicMs + Number(details["ttlSeconds"]) * SECOND_MS;
          known.isLooked = true;
        }
        if (details["state"] === "stopping") known.isStopping = true;
        known.isOver = details["state"] === "stopped";
        break;
      default:
    }
  }
}

function isSameInstant(one: string, other: string): boolean {
  return one === other || Date.parse(one) === Date.parse(other);
}

function podOf({ environment, pod }: PointEvent): string {
  return `${environment} ${pod}`;
}
