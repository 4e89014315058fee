import { backoffCeiling } from "../core/backoff.ts";
import { aborted, SECOND_MS, type Timer } from "../core/clock.ts";
import { DueHeap } from "../core/due-heap.ts";
import { errorText } from "../core/errors.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteLease } from "../protocol/claim-lease.ts";
import type { SessionContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import {
  afterBeat,
  type BeatResult,
  beatIntervalMs,
  desiredTtlSeconds,
  type HeldLease,
  type Lease,
  leaseEndMs,
} from "../protocol/lease.ts";
import { beatTold, ofClaim } from "../protocol/points.ts";
import { WorkApiError } from "../work/errors.ts";

/** How a beat came out; the values of the metric's label. */
export type BeatOutcome = "beaten" | "adopted" | "stopping" | "stopped" | "refused" | "unanswered" | "failed";

/**
 * Beats of one Environment that are sent or wait for room (Budget.beats) at a time: as many as 5,000 leases have under way
 * whose beats all run into their bound (5,000 / 30 s x 1.5 s).
 */
const MOST_AT_A_TIME = 256;

/**
 * A beat comes by so much earlier than it must, at random: leases that were taken together drift apart, and no beat comes
 * later than a holder's may.
 */
const EARLY = 0.15;

/** At the least: what waits for room, for the event loop or on its way still comes within the interval. */
const LEAST_EARLY = 0.03;

/** The first beats of leases that were taken together (a restart) are spread over this part of the interval. */
const FIRST_EARLY = 0.5;

/** A lease that is kept, and its next beat. */
interface Kept {
  readonly claim: Claim;
  /** Failures in a row. */
  failures: number;
  /** The beat under way. */
  beating: Promise<void> | null;
  paused: boolean;
  /** A beat is asked for as soon as the one under way is answered. */
  hurried: boolean;
}

/**
 * Beats for all claims of an Environment whose lease the operator holds (`lease: Operator`): thousands of them on one
 * timer, each beat bounded, and so many at a time. What a beat says is in `claim.lease`; the session loop decides what
 * follows. It beats beside the loop, so that no slow step of a claim costs its lease.
 *
 * Guaranteed: at most one beat of a claim is under way; none is sent after `forget`, nor between `pause` and `resume`.
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

  /** @param onChange called when the session loop has something to decide: the lease is lost, told to stop, or wanted fresh. */
  constructor(context: SessionContext, onChange: (claim: Claim) => void) {
    this.#context = context;
    this.#onChange = onChange;
  }

  /** Leases that are kept. */
  get size(): number {
    return this.#kept.size;
  }

  /** Beats for this claim from now on: `claim.lease` was taken just now. */
  keep(claim: Claim): void {
    if (this.#ended || claim.lease.own?.is !== "held") return;
    const kept = { claim, failures: 0, beating: null, paused: false, hurried: false };
    const before = this.#kept.get(claim.name);
    if (before) this.#due.remove(before);
    this.#kept.set(claim.name, kept);
    this.#gauge();
    this.#beatAt(kept, this.#nextBeatMs(claim.lease.own, FIRST_EARLY));
  }

  /** Never beats for this claim again. */
  forget(claim: Claim): void {
    const kept = this.#kept.get(claim.name);
    if (kept?.claim !== claim) return;
    this.#kept.delete(claim.name);
    this.#due.remove(kept);
    this.#gauge();
    this.#arm();
  }

  /** Resolves when no beat of this claim is under way, and sends none until `resume`: a stop must not be overtaken. */
  async pause(claim: Claim): Promise<void> {
    const kept = this.#kept.get(claim.name);
    if (!kept) return;
    kept.paused = true;
    this.#due.remove(kept);
    await kept.beating;
  }

  /** Ends a pause, with a beat at once. */
  resume(claim: Claim): void {
    const kept = this.#kept.get(claim.name);
    if (!kept) return;
    kept.paused = false;
    this.#hurry(kept);
  }

  /** Whatever kept beats from being taken may be over (another key): those that failed are sent again at once. */
  retry(): void {
    for (const kept of this.#kept.values()) if (kept.failures > 0) this.#hurry(kept);
  }

  /** Until the signal aborts; then waits for beats under way, so that the next process finds the value that stays. */
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
    const nextMs = this.#underWay.size < MOST_AT_A_TIME && !this.#ended ? this.#due.nextMs : undefined;
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
    while (this.#underWay.size < MOST_AT_A_TIME) {
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

  /** Its bound, and the judgement whether it may be sent, begin when there is room for it. */
  #beat(kept: Kept, dueMs: number): Promise<void> {
    const { beats } = this.#context.work(kept.claim.record.journal.api);
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
    // Due long ago: this process slept. Whoever had the item since then must not be beaten out of it.
    const result: BeatResult = nowMs >= leaseEndMs(lease) ? { is: "failed" } : await this.#send(claim, lease);
    if (result.is === "answered") {
      metrics.heartbeatLateness.observe(labels, Math.max(0, result.sentMs - dueMs) / SECOND_MS);
    }
    kept.beating = null;
    if (this.#kept.get(claim.name) !== kept || claim.lease.own?.is !== "held") return;
    this.#learn(kept, claim.lease.own, result);
  }

  async #send(claim: Claim, { echo }: HeldLease): Promise<BeatResult> {
    const { guard, work, points, clock, timing, logger, judged, failing } = this.#context;
    const { api, workId } = claim.record.journal;
    const sentMs = clock.monotonic();
    try {
      guard();
      const asked = { expected: echo, desiredTtlSeconds: desiredTtlSeconds(timing) };
      const request = () => judged("heartbeat", claim.record.journal, () => work(api).heartbeat(workId, asked));
      const answer = await points.run("session.beat", ofClaim(claim, { expected: echo }), request, beatTold);
      failing.succeeded("beat", claim);
      return answer.value.kind === "refused"
        ? { is: "refused", current: answer.value.current }
        : { is: "answered", beat: answer.value.beat, sentMs: answer.sentAtMs, sentWallMs: answer.sentAtWallMs };
    } catch (error) {
      logger.debug({ workId, error: errorText(error) }, "a beat was not answered");
      if (isStepFailure(error)) failing.failed("beat", { error }, claim);
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
    // The end of a session waits for a beat that buys time enough for its stop.
    if (lease.state !== before.state || (good && (claim.observed.end !== null || claim.record.ending !== null)))
      this.#onChange(claim);
  }

  #nextBeatMs(lease: HeldLease, early: number): number {
    const { timing, random } = this.#context;
    return lease.sentMs + beatIntervalMs(lease, timing) * (1 - LEAST_EARLY - (early - LEAST_EARLY) * random());
  }

  /**
   * Soon after a failure, then less and less often, and not before the server asks for it; but once while a beat can still
   * land in time, and when the lease ends: then it is lost.
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
