import { beatTold } from "../claims/item-acts.ts";
import { backoffCeiling } from "../core/backoff.ts";
import { aborted, SECOND_MS, type Timer } from "../core/clock.ts";
import { DueHeap } from "../core/due-heap.ts";
import { errorText } from "../core/errors.ts";
import { desiredTtlSeconds } from "../core/heartbeat-ttl.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteLease } from "../protocol/claim-lease.ts";
import type { SessionContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import {
  afterBeat,
  type BeatResult,
  beatIntervalMs,
  type HeldLease,
  type Lease,
  leaseEndMs,
} from "../protocol/lease.ts";
import { ofClaim } from "../protocol/points.ts";
import { WorkApiError } from "../work/errors.ts";

/** The outcome of a heartbeat; the values of the metric's label. */
export type BeatOutcome = "beaten" | "adopted" | "stopping" | "stopped" | "refused" | "unanswered" | "failed";

/**
 * Heartbeats of one Environment that are in flight or wait for room (`Budget.beats`). The limit suits 5,000 leases
 * whose heartbeats all reach their time bound (5,000 / 30 s x 1.5 s).
 */
const MAX_IN_FLIGHT = 256;

/**
 * A heartbeat is sent early by up to this part of the interval, at random. So leases that were taken together drift
 * apart, and no heartbeat is later than a holder's may be.
 */
const EARLY = 0.15;

/** A heartbeat is sent early by at least this part, so that it arrives within the interval even if it has to wait. */
const LEAST_EARLY = 0.03;

/** The first heartbeats of leases that were taken together (after a restart) spread over this part of the interval. */
const FIRST_EARLY = 0.5;

/** A lease and the state of its heartbeats. */
interface Kept {
  readonly claim: Claim;
  /** Consecutive failures. */
  failures: number;
  /** The heartbeat in flight. */
  beating: Promise<void> | null;
  paused: boolean;
  /** Send the next heartbeat as soon as the one in flight is answered. */
  hurried: boolean;
}

/**
 * Sends the heartbeats of all claims of an Environment whose lease the operator holds (`lease: Operator`). One timer
 * serves thousands of leases. Each heartbeat has a time bound, and the number in flight is limited. The results are in
 * `claim.lease`, and the session loop decides what follows. The keeper runs beside that loop, so that a slow step of a
 * claim never loses its lease.
 *
 * At most one heartbeat of a claim is in flight. None is sent after `forget`, or between `pause` and `resume`.
 */
export class LeaseKeeper {
  readonly #context: SessionContext;
  readonly #onChange: (claim: Claim) => void;
  readonly #kept = new Map<string, Kept>();
  readonly #due = new DueHeap<Kept>();
  readonly #underWay = new Set<Promise<void>>();
  #timer: Timer | null = null;
  #timerMs = Number.POSITIVE_INFINITY;
  #ended = false;

  /** @param onChange called when the session loop must decide: a lease is lost, stopping, or renewed for a stop. */
  constructor(context: SessionContext, onChange: (claim: Claim) => void) {
    this.#context = context;
    this.#onChange = onChange;
  }

  /** The number of leases that it keeps. */
  get size(): number {
    return this.#kept.size;
  }

  /** Sends heartbeats for this claim from now on. Call it when `claim.lease` was just taken. */
  keep(claim: Claim): void {
    if (this.#ended || claim.lease.own?.is !== "held") return;
    const kept = { claim, failures: 0, beating: null, paused: false, hurried: false };
    const before = this.#kept.get(claim.name);
    if (before) this.#due.remove(before);
    this.#kept.set(claim.name, kept);
    this.#gauge();
    this.#beatAt(kept, this.#nextBeatMs(claim.lease.own, FIRST_EARLY));
  }

  /** Sends no more heartbeats for this claim. */
  forget(claim: Claim): void {
    const kept = this.#kept.get(claim.name);
    if (kept?.claim !== claim) return;
    this.#kept.delete(claim.name);
    this.#due.remove(kept);
    this.#gauge();
    this.#arm();
  }

  /** Sends none until `resume`, and resolves when none is in flight: a heartbeat must not overtake a stop. */
  async pause(claim: Claim): Promise<void> {
    const kept = this.#kept.get(claim.name);
    if (!kept) return;
    kept.paused = true;
    this.#due.remove(kept);
    await kept.beating;
  }

  /**
   * Ends a pause and sends a heartbeat: at once, or when the next one is due, so that the retry of a stop that may have
   * taken effect comes first.
   */
  resume(claim: Claim, atOnce = true): void {
    const kept = this.#kept.get(claim.name);
    if (!kept) return;
    kept.paused = false;
    const { own } = claim.lease;
    if (atOnce || own?.is !== "held") this.#hurry(kept);
    else this.#beatAt(kept, this.#nextBeatMs(own, EARLY));
  }

  /** Resends failed heartbeats at once: their cause may be fixed, for example by a new key. */
  retry(): void {
    for (const kept of this.#kept.values()) if (kept.failures > 0) this.#hurry(kept);
  }

  /** Runs until the signal aborts, then awaits heartbeats in flight, so that the next process reads the final value. */
  async run(signal: AbortSignal): Promise<void> {
    await aborted(signal);
    this.#ended = true;
    this.#timer?.cancel();
    await Promise.allSettled(this.#underWay);
  }

  #hurry(kept: Kept): void {
    if (kept.beating) kept.hurried = true;
    else this.#beatAt(kept, this.#context.clock.monotonic());
  }

  #beatAt(kept: Kept, atMs: number): void {
    if (kept.paused || this.#kept.get(kept.claim.name) !== kept) return;
    this.#due.set(kept, atMs);
    this.#arm();
  }

  #arm(): void {
    const nextMs = this.#underWay.size < MAX_IN_FLIGHT && !this.#ended ? this.#due.nextMs : undefined;
    if (nextMs === undefined) {
      this.#timer?.cancel();
      this.#timer = null;
      return;
    }
    if (this.#timer && this.#timerMs <= nextMs) return;
    this.#timer?.cancel();
    this.#timerMs = nextMs;
    const { clock } = this.#context;
    this.#timer = clock.setTimer(
      () => {
        this.#timer = null;
        this.#sendDue();
      },
      Math.max(0, nextMs - clock.monotonic()),
    );
  }

  #sendDue(): void {
    const nowMs = this.#context.clock.monotonic();
    while (this.#underWay.size < MAX_IN_FLIGHT) {
      const due = this.#due.take(nowMs);
      if (!due) break;
      const kept = due.key;
      const beating = this.#beat(kept, due.atMs).finally(() => {
        this.#underWay.delete(beating);
        this.#arm();
      });
      kept.beating = beating;
      this.#underWay.add(beating);
    }
    this.#arm();
  }

  /** Waits for room first: only then its time bound begins, and the checks whether to send it run. */
  #beat(kept: Kept, dueMs: number): Promise<void> {
    const { beats } = this.#context.work();
    return beats.run(() => this.#beatNow(kept, dueMs));
  }

  async #beatNow(kept: Kept, dueMs: number): Promise<void> {
    const { claim } = kept;
    const { own: lease } = claim.lease;
    if (this.#ended || kept.paused || this.#kept.get(claim.name) !== kept) {
      kept.beating = null;
      return;
    }
    if (lease?.is !== "held") return this.forget(claim);
    const { clock, metrics, labels } = this.#context;
    const nowMs = clock.monotonic();
    // If the lease has ended, this process slept. Another client may hold the item now and must not lose it to us.
    const result: BeatResult = nowMs >= leaseEndMs(lease) ? { is: "failed" } : await this.#send(claim, lease);
    if (result.is === "answered") {
      metrics.heartbeatLateness.observe(labels, Math.max(0, result.sentMs - dueMs) / SECOND_MS);
    }
    kept.beating = null;
    if (this.#kept.get(claim.name) !== kept || claim.lease.own?.is !== "held") return;
    this.#learn(kept, claim.lease.own, result);
  }

  async #send(claim: Claim, { echo }: HeldLease): Promise<BeatResult> {
    const { guard, work, points, clock, timing, logger, holds } = this.#context;
    const { workId } = claim.record.journal;
    const sentMs = clock.monotonic();
    try {
      guard();
      const parameters = { expected: echo, desiredTtlSeconds: desiredTtlSeconds(timing) };
      const request = () => holds.health.judge("heartbeat", workId, () => work().heartbeat(workId, parameters));
      const answer = await points.run("session.beat", ofClaim(claim, { expected: echo }), request, beatTold);
      holds.succeeded("beat", claim);
      return answer.value.kind === "refused"
        ? { is: "refused", current: answer.value.current }
        : { is: "answered", beat: answer.value.beat, sentMs: answer.sentAtMs, sentWallMs: answer.sentAtWallMs };
    } catch (error) {
      logger.debug({ workId, error: errorText(error) }, "a heartbeat was not answered");
      if (isStepFailure(error)) holds.failed("beat", { error }, claim);
      if (!(error instanceof WorkApiError)) return { is: "failed" };
      if (error.maybeApplied) return { is: "unanswered", sentMs };
      return { is: "failed", retryAfterMs: error.retryAfterMs ?? 0 };
    }
  }

  #learn(kept: Kept, before: HeldLease, result: BeatResult): void {
    const { claim } = kept;
    const { clock, timing, metrics, labels, logger } = this.#context;
    const now = { nowMs: clock.monotonic(), wallMs: clock.now() };
    const lease = afterBeat(before, result, now, timing);
    noteLease(claim, lease);
    const outcome = outcomeOf(before, lease, result);
    metrics.heartbeats.inc({ ...labels, result: outcome });
    const good = result.is === "answered" || outcome === "adopted";
    kept.failures = good ? 0 : kept.failures + 1;
    if (lease.is !== "held") {
      this.forget(claim);
      if (lease.is === "lost") {
        metrics.leasesLost.inc(labels);
        logger.warn({ workId: claim.record.journal.workId, pod: claim.name, why: lease.message }, "lease lost");
      }
      this.#onChange(claim);
      return;
    }
    const soon = kept.hurried || outcome === "adopted";
    kept.hurried = false;
    this.#beatAt(kept, soon ? now.nowMs : good ? this.#nextBeatMs(lease, EARLY) : this.#retryMs(kept, lease, result));
    // A session that ends waits for a heartbeat that leaves enough time for its stop.
    if (lease.state !== before.state || (good && (claim.observed.end !== null || claim.record.ending !== null)))
      this.#onChange(claim);
  }

  #nextBeatMs(lease: HeldLease, early: number): number {
    const { timing, random } = this.#context;
    return lease.sentMs + beatIntervalMs(lease, timing) * (1 - LEAST_EARLY - (early - LEAST_EARLY) * random());
  }

  /**
   * When to try again: with backoff, and no sooner than the server asked. But one retry always comes in time to save
   * the lease. After that, the next time is the end of the lease, which is then lost.
   */
  #retryMs(kept: Kept, lease: HeldLease, result: BeatResult): number {
    const { timing, random, clock } = this.#context;
    const nowMs = clock.monotonic();
    const maxMs = beatIntervalMs(lease, timing) / 2;
    const ceilingMs = backoffCeiling({ baseMs: timing.retryBaseMs, maxMs }, kept.failures - 1);
    const askedMs = result.is === "failed" ? (result.retryAfterMs ?? 0) : 0;
    const atMs = nowMs + Math.max(askedMs, ceilingMs * (0.5 + 0.5 * random()));
    const endMs = leaseEndMs(lease);
    const lastMs = endMs - timing.requestBoundMs - timing.marginMs;
    return Math.min(atMs, nowMs < lastMs ? lastMs : endMs);
  }

  #gauge(): void {
    this.#context.metrics.leasesHeld.set(this.#context.labels, this.#kept.size);
  }
}

function outcomeOf(before: HeldLease, after: Lease, result: BeatResult): BeatOutcome {
  if (result.is === "unanswered" || result.is === "failed") return result.is;
  if (after.is === "over") return "stopped";
  if (after.is === "lost") return "refused";
  if (result.is === "refused") return after.echo === before.echo ? "stopping" : "adopted";
  return after.state === "stopping" ? "stopping" : "beaten";
}
