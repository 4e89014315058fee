import { END_REASONS, type EndReason } from "../api/reasons.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { Pod } from "../kube/resource.ts";
import type { Breaker, Start } from "../pods/breaker.ts";
import type { End } from "../pods/pod-state.ts";
import { type Claim, isLater, isReacknowledged } from "../protocol/claim.ts";
import { noteBeatAfterFence } from "../protocol/claim-lease.ts";
import {
  awaitAnswer,
  type ItemView,
  noteEnd,
  noteFirstBeat,
  noteHeard,
  noteItem,
  noteJudged,
  noteLost,
  noteServed,
  noteServedOrNot,
  noteStarted,
  noteStopping,
} from "../protocol/claim-observed.ts";
import type { SessionContext } from "../protocol/context.ts";
import { isOver } from "../protocol/facts.ts";
import { isStartFailure, programsBeatMs, TOLD_LATE } from "../protocol/first-heartbeat.ts";
import type { Outcome } from "../protocol/outcome.ts";
import { endedView } from "../protocol/session-view.ts";
import { notYet } from "./item-observer.ts";

/** Times of an end that nobody saw. */
export const NOT_SEEN = { exitCode: null, startedAtMs: null, finishedAtMs: null } as const;

/**
 * What is noted of a session as it goes on: in its claim, in metrics and Events, and for the breaker. It decides nothing.
 */
export class SessionRecorder {
  readonly #context: SessionContext;
  readonly #breaker: Breaker;
  readonly #onServed: () => void;
  /** Of this Environment's containers. */
  readonly starts = new StartTimes();

  /** @param onServed called when a template is known to serve, where claims were held back until then. */
  constructor(context: SessionContext, breaker: Breaker, onServed: () => void) {
    this.#context = context;
    this.#breaker = breaker;
    this.#onServed = onServed;
  }

  /** A new view of an item, from a walk for a decision, from a sweep, or from a poll that was offered it. */
  saw(claim: Claim, shown: ItemView): void {
    const { clock, metrics, labels, timing } = this.#context;
    const nowMs = clock.monotonic();
    noteHeard(claim, { nowMs, looksFail: claim.failing?.has("look") === true }, timing);
    // A slow sweep must not undo what a look for a decision has shown since.
    if (claim.observed.item && shown.askedMs < claim.observed.item.askedMs) return;
    const view = isBeforeOurs(claim, shown, timing) ? notYet(shown.askedMs) : shown;
    noteItem(claim, view);
    if (claim.observed.firstBeatAtMs === null && claim.record.journal.lease === "Worker")
      noteFirstBeat(claim, programsBeatMs(claim, view));
    if (view.state === "active" && claim.lease.blindFence) noteBeatAfterFence(claim, view.latestHeartbeatAt);
    // A beat that shows after the container's end, or after ours, may be the fence: it says nothing of the container.
    const isOurs = claim.record.ending !== null || claim.lease.blindFence !== null;
    const byWorker = claim.record.journal.lease === "Worker" && claim.observed.end === null && !isOurs;
    if (view.state === "active" && byWorker && !claim.observed.firstBeatSeen) {
      const beatAt = Date.parse(view.startedAt ?? view.latestHeartbeatAt ?? "");
      if (claim.observed.startedAtMs !== null && !Number.isNaN(beatAt)) {
        metrics.startedToFirstBeat.observe(labels, Math.max(0, beatAt - claim.observed.startedAtMs) / SECOND_MS);
      }
      this.#served(claim);
    }
    if (view.state === "stopping") noteStopping(claim, nowMs);
    const again = isReacknowledged(claim, view);
    // A stop is no loss: nobody else has the lease then. Nor is a lease that was let go.
    const counts = claim.record.journal.lease === "Worker" && claim.observed.end === null;
    if (claim.observed.lostSinceMs === null && counts && (again || view.state === "queued"))
      metrics.leasesLost.inc(labels);
    if (isOver(view) || again) noteLost(claim, nowMs);
    else if (view.state !== "unknown") noteLost(claim, null);
  }

  /** The container runs, since `startedAtMs` by its node's clock. */
  started(claim: Claim, startedAtMs: number | null, pod: Pod | undefined): void {
    awaitAnswer(claim, this.#context.clock.monotonic());
    if (claim.observed.startedAtMs !== null || startedAtMs === null || !claim.record.journal.opened) return;
    noteStarted(claim, startedAtMs);
    const { metrics, labels, clock } = this.#context;
    if (claim.record.touchedMs !== null) this.starts.note(clock.monotonic() - claim.record.touchedMs);
    metrics.sessionsStarted.inc(labels);
    // The node's clock has whole seconds: what this process saw itself is finer.
    const queuedAt = Date.parse(claim.record.journal.queuedAt);
    // Of another process's opening nobody knows when it was.
    if (claim.record.openedMs !== null && claim.record.openedAtMs !== null) {
      const sinceOpened = (clock.monotonic() - claim.record.openedMs) / SECOND_MS;
      metrics.openedToStarted.observe(labels, sinceOpened);
      if (!Number.isNaN(queuedAt))
        metrics.queuedToStarted.observe(labels, Math.max(0, clock.now() - queuedAt) / SECOND_MS);
    }
    this.#context.announce(
      "SessionStarted",
      `session ${claim.record.journal.sessionId} runs (work item ${claim.record.journal.workId})`,
      pod,
    );
  }

  /** lease: Operator: no beat of the program's says that it serves. It does, if it runs for a while or ends well. */
  ran(claim: Claim, ranMs: number): void {
    if (claim.record.journal.lease !== "Operator" || claim.observed.firstBeatSeen) return;
    if (ranMs >= this.#context.timing.servesAfterMs) this.#served(claim);
  }

  #served(claim: Claim): void {
    noteServed(claim);
    this.#tellServed(claim);
  }

  #tellServed(claim: Claim): void {
    if (this.#breaker.succeeded(this.#startOf(claim))) this.#onServed();
  }

  /** Of one that an earlier process opened only the beginning is known: it must not look newer than it is. */
  #startOf({ name, templateHash, record: { openedMs, openedAtMs }, recordedMs, failing }: Claim): Start {
    const sinceMs = openedAtMs === null ? (recordedMs ?? openedMs) : openedMs;
    const triedMs = failing?.get("open")?.sinceMs;
    return { hash: templateHash, claim: name, openedMs: sinceMs ?? triedMs ?? this.#context.clock.monotonic() };
  }

  /** The key is in the Secret. */
  opened(claim: Claim): void {
    const { metrics, labels, clock } = this.#context;
    metrics.opens.inc({ ...labels, result: "opened" });
    const queuedAt = Date.parse(claim.record.journal.queuedAt);
    if (!Number.isNaN(queuedAt))
      metrics.queuedToOpened.observe(labels, Math.max(0, clock.now() - queuedAt) / SECOND_MS);
  }

  /** Its container, or its Pod, is over. */
  ended(claim: Claim, end: End): void {
    if (claim.observed.end !== null) {
      // kubelet says why it ended a Pod only when all is over, after the container's end.
      const said = TOLD_LATE.has(end.cause) && !TOLD_LATE.has(claim.observed.end.cause);
      if (!said) return;
      noteEnd(
        claim,
        { ...claim.observed.end, cause: end.cause, message: end.message },
        this.#context.clock.monotonic(),
      );
      return;
    }
    noteEnd(claim, end, this.#context.clock.monotonic());
    if (end.startedAtMs !== null && end.finishedAtMs !== null && claim.record.journal.opened) {
      this.#context.metrics.sessionSeconds.observe(
        this.#context.labels,
        Math.max(0, end.finishedAtMs - end.startedAtMs) / SECOND_MS,
      );
    }
    if (claim.record.journal.lease !== "Operator" || !claim.record.journal.opened) return;
    const ranMs = end.startedAtMs === null || end.finishedAtMs === null ? 0 : end.finishedAtMs - end.startedAtMs;
    // A program that leaves with 0 because its Pod is deleted has not finished its work.
    if (end.cause === "Completed") this.ran(claim, Number.POSITIVE_INFINITY);
    else this.ran(claim, ranMs);
    noteServedOrNot(claim);
  }

  /** The claim is over: tells how, unless that is null. */
  settled(claim: Claim, because: string, outcome: Outcome | null): void {
    const context = this.#context;
    context.metrics.settles.inc({ ...context.labels, result: "settled" });
    const { workId, sessionId, use, podUid: uid } = claim.record.journal;
    const ids = { workId, sessionId, pod: claim.name, because };
    context.logger.info({ ...ids, ...outcome }, outcome ? "session ended" : "claim ended without its session");
    if (!outcome) return;
    context.onSessionEnded?.(endedView(claim, outcome, context.clock));
    context.metrics.sessionsEnded.inc({ ...context.labels, reason: outcome.reason });
    const words = outcome.message === "" ? descriptionOf(outcome.reason) : outcome.message;
    // Also a Pod that is gone has a last word: `kubectl get events` shows it.
    const about = use === "session" ? { metadata: { namespace: context.namespace, name: claim.name, uid } } : undefined;
    const released = context.environment().spec.sessions?.onPodFailure === "Release" && because === "queued";
    const again = released ? "; the work item is in the queue again" : "";
    context.announce(outcome.reason, `session ${sessionId}: ${words}${again} (work item ${workId})`, about);
  }

  /** What this session's end says about the template that its Pod was made from: once, however often its mark is tried. */
  judge(claim: Claim, outcome: Outcome | null): void {
    if (claim.observed.judged) return;
    noteJudged(claim);
    const { metrics, labels, clock } = this.#context;
    const isOurBeat = claim.lease.neverBeaten || claim.lease.blindFence !== null;
    const beaten = claim.record.journal.lease === "Worker" && claim.observed.item?.latestHeartbeatAt && !isOurBeat;
    if ((claim.record.journal.opened || claim.record.ending?.why === "StartFailed") && isStartFailure(claim)) {
      metrics.startFailures.inc(labels);
      this.#breaker.failed(this.#startOf(claim), outcome?.message ?? "", clock.monotonic());
    } else if (claim.observed.firstBeatSeen) {
      // It was told when it was seen.
    } else if (beaten) {
      this.#tellServed(claim);
    } else {
      this.#breaker.released(claim.templateHash, claim.name);
    }
  }
}

/** A list that is behind shows the item as it was before our acknowledgement. */
function isBeforeOurs(claim: Claim, view: ItemView, { listLagMs }: Pick<Timing, "listLagMs">): boolean {
  const { ackedMs, acknowledgedAt } = claim.record;
  if (ackedMs === null || acknowledgedAt === null || view.askedMs >= ackedMs + listLagMs) return false;
  const isOlder = view.acknowledgedAt !== null && isLater(acknowledgedAt, view.acknowledgedAt);
  return view.state === "queued" || view.state === "absent" || isOlder;
}

/** For an end that nobody put into words: the list's, as a part of a sentence. */
function descriptionOf(reason: EndReason): string {
  const { description } = END_REASONS[reason];
  return description.charAt(0).toLowerCase() + description.slice(1).replace(/\.$/, "");
}

/** So many starts are remembered. */
const REMEMBERED = 16;
/** A container that takes longer than so many times the usual is touched again: it is late for another cause. */
const PATIENCE = 2.5;
/** However slow the node: without a touch kubelet looks after 10 to 15 s. */
const LONGEST_MS = 4_000;

/**
 * How long containers take from a touch of their Pod to their start, of late. A touch that kubelet misses is repeated; one
 * that it has not got to is not missed, and more of them would only keep it, and the API server, from what they have to do.
 */
export class StartTimes {
  readonly #sinceTouchMs: number[] = [];

  /** A container was seen to run so long after the last touch of its Pod, in milliseconds. */
  note(sinceTouchMs: number): void {
    this.#sinceTouchMs.push(sinceTouchMs);
    if (this.#sinceTouchMs.length > REMEMBERED) this.#sinceTouchMs.shift();
  }

  /** How long to wait for a start before the Pod is touched again; 0: nothing is known. */
  get patienceMs(): number {
    const sorted = this.#sinceTouchMs.toSorted((one, other) => one - other);
    const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
    return Math.min(LONGEST_MS, median * PATIENCE);
  }
}
