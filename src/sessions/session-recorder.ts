import { ANNOTATION_SLEEPS_UNTIL } from "../api/names.ts";
import { END_REASONS, type EndReason } from "../api/reasons.ts";
import { SECOND_MS } from "../core/clock.ts";
import { isLater } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import type { Pod } from "../kube/resource.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { type End, LATE_CAUSES } from "../pods/pod-state.ts";
import type { Start } from "../pods/starts.ts";
import { type Claim, isReacknowledged } from "../protocol/claim.ts";
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
import { isStartFailure, programsBeatMs } from "../protocol/first-heartbeat.ts";
import type { Outcome } from "../protocol/outcome.ts";
import { endedView } from "../protocol/session-view.ts";
import type { SleepReport } from "../sleep/sleep-report.ts";
import { notYet } from "./item-observer.ts";

/** Exit code and times of an end that was not observed. */
export const NOT_SEEN = { exitCode: null, startedAtMs: null, finishedAtMs: null } as const;

/**
 * Records the progress of a session in its claim, in metrics, in Events and in the holds of its Environment. It decides
 * nothing.
 */
export class SessionRecorder {
  readonly #context: SessionContext;
  readonly #sleeps: SleepReport;
  readonly #onServed: () => void;
  /** How long containers of this Environment take to start. */
  readonly starts = new StartTimes();

  /** @param onServed called when a session has served for which claims of its template were held back. */
  constructor(context: SessionContext, sleeps: SleepReport, onServed: () => void) {
    this.#context = context;
    this.#sleeps = sleeps;
    this.#onServed = onServed;
  }

  /** Records a new view of an item, from a walk for a decision, from a sweep, or from a poll that returned it. */
  saw(claim: Claim, shown: ItemView): void {
    const { clock, metrics, labels, timing } = this.#context;
    const nowMs = clock.monotonic();
    noteHeard(claim, { nowMs, looksFail: claim.failing?.has("look") === true }, timing);
    // A slow sweep must not overwrite a newer view from a walk for a decision.
    if (claim.observed.item && shown.askedMs < claim.observed.item.askedMs) return;
    const view = isBeforeOurs(claim, shown, timing) ? notYet(shown.askedMs) : shown;
    noteItem(claim, view);
    if (claim.observed.firstBeatAtMs === null && claim.record.journal.lease === "Worker")
      noteFirstBeat(claim, programsBeatMs(claim, view));
    if (view.state === "active" && claim.lease.blindFence) noteBeatAfterFence(claim, view.latestHeartbeatAt);
    // A heartbeat that appears after the session was ended or fenced may be ours: it says nothing about the container.
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
    // A stop or a release is no loss: no other client holds the lease.
    const counts = claim.record.journal.lease === "Worker" && claim.observed.end === null;
    if (claim.observed.lostSinceMs === null && counts && (again || view.state === "queued"))
      metrics.leasesLost.inc(labels);
    if (isOver(view) || again) noteLost(claim, nowMs);
    else if (view.state !== "unknown") noteLost(claim, null);
  }

  /** The container has been running since `startedAtMs` of its node's clock; null if its status does not say. */
  started(claim: Claim, startedAtMs: number | null, pod: Pod | undefined): void {
    awaitAnswer(claim, this.#context.clock.monotonic());
    if (claim.observed.startedAtMs !== null || startedAtMs === null || !claim.record.journal.opened) return;
    noteStarted(claim, startedAtMs);
    if (pod && wasReported(claim, pod)) return;
    const { metrics, labels, clock } = this.#context;
    if (claim.record.touchedMs !== null) this.starts.note(clock.monotonic() - claim.record.touchedMs);
    metrics.sessionsStarted.inc(labels);
    const woken = this.#sleeps.started(claim.record.journal.sessionId, pod);
    const queuedAt = Date.parse(claim.record.journal.queuedAt);
    // Measure by this process's clock: the node's has whole seconds. It cannot time an opening by an earlier process.
    if (claim.record.openedMs !== null && claim.record.openedAtMs !== null) {
      const sinceOpened = (clock.monotonic() - claim.record.openedMs) / SECOND_MS;
      metrics.openedToStarted.observe(labels, sinceOpened);
      if (!Number.isNaN(queuedAt)) {
        const seconds = Math.max(0, clock.now() - queuedAt) / SECOND_MS;
        metrics.queuedToStarted.observe(labels, seconds);
        if (woken === "same-pod") metrics.wokenToStarted.observe(labels, seconds);
      }
    }
    this.#context.announce(
      "SessionStarted",
      `session ${claim.record.journal.sessionId} runs (work item ${claim.record.journal.workId})`,
      pod,
    );
  }

  /** lease: Operator: the program sends no heartbeats, so it counts as serving once it has run long enough. */
  ran(claim: Claim, ranMs: number): void {
    if (claim.record.journal.lease !== "Operator" || claim.observed.firstBeatSeen) return;
    if (ranMs >= this.#context.timing.servesAfterMs) this.#served(claim);
  }

  #served(claim: Claim): void {
    noteServed(claim);
    this.#reportServed(claim);
  }

  #reportServed(claim: Claim): void {
    if (this.#context.holds.starts.succeeded(this.#startOf(claim))) this.#onServed();
  }

  /** If an earlier process opened the claim, the Secret's age counts: a start must not look newer than it is. */
  #startOf({ name, templateHash, turn, record, recordedMs, failing }: Claim): Start {
    const { openedMs, openedAtMs, journal } = record;
    const sinceMs = openedAtMs === null ? (recordedMs ?? openedMs) : openedMs;
    const triedMs = failing?.get("open")?.sinceMs;
    return {
      ...{ hash: templateHash, claim: name, session: journal.sessionId, wakes: turn > 1 },
      openedMs: sinceMs ?? triedMs ?? this.#context.clock.monotonic(),
    };
  }

  /** The Secret now holds the key. */
  opened(claim: Claim): void {
    const { metrics, labels, clock } = this.#context;
    const queuedAt = Date.parse(claim.record.journal.queuedAt);
    if (!Number.isNaN(queuedAt))
      metrics.queuedToOpened.observe(labels, Math.max(0, clock.now() - queuedAt) / SECOND_MS);
  }

  /** The container or the Pod has ended. */
  ended(claim: Claim, end: End): void {
    if (claim.observed.end !== null) {
      // The kubelet reports why it ended a Pod only after the container's end.
      const isNews = LATE_CAUSES.has(end.cause) && !LATE_CAUSES.has(claim.observed.end.cause);
      if (!isNews) return;
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
    // A program that exits with 0 because its Pod is deleted has another cause: it has not finished its work.
    if (end.cause === "Completed") this.ran(claim, Number.POSITIVE_INFINITY);
    else this.ran(claim, ranMs);
    noteServedOrNot(claim);
  }

  /** The claim has ended: reports its outcome in metrics and an Event, unless that is null. */
  settled(claim: Claim, because: string, outcome: Outcome | null): void {
    const context = this.#context;
    const { workId, sessionId, use, podUid: uid } = claim.record.journal;
    const ids = { workId, sessionId, pod: claim.name, because };
    context.logger.info({ ...ids, ...outcome }, outcome ? "session ended" : "a claim ended without a session");
    if (!outcome) return;
    context.onSessionEnded?.(endedView(claim, outcome, context.clock));
    context.metrics.sessionsEnded.inc({ ...context.labels, reason: outcome.reason });
    const message = outcome.message === "" ? descriptionOf(outcome.reason) : outcome.message;
    // The Event names the Pod even if it is gone: `kubectl get events` still shows it.
    const subject =
      use === "session" ? { metadata: { namespace: context.namespace, name: claim.name, uid } } : undefined;
    const released = context.environment().spec.sessions?.onPodFailure === "Release" && because === "queued";
    const again = released ? "; the work item is in the queue again" : "";
    context.announce(outcome.reason, `session ${sessionId}: ${message}${again} (work item ${workId})`, subject);
  }

  /** The session sleeps in its Pod until its next work item. */
  asleep({ record: { journal } }: Claim, pod: Pod): void {
    const until = (pod.metadata.annotations?.[ANNOTATION_SLEEPS_UNTIL] ?? "").replace(/\.\d+Z$/, "Z");
    const message = `session ${journal.sessionId} sleeps, and its files are kept for its next work item until ${until}`;
    this.#context.announce("SessionAsleep", message, pod);
  }

  /** Reports what the session's start says about its template. A retry of the settling does not report again. */
  judge(claim: Claim, outcome: Outcome | null): void {
    if (claim.observed.judged) return;
    noteJudged(claim);
    const { metrics, labels, clock, holds } = this.#context;
    const isOurBeat = claim.lease.neverBeaten || claim.lease.blindFence !== null;
    const beaten = claim.record.journal.lease === "Worker" && claim.observed.item?.latestHeartbeatAt && !isOurBeat;
    if ((claim.record.journal.opened || claim.record.ending?.why === "StartFailed") && isStartFailure(claim)) {
      metrics.startFailures.inc(labels);
      const isRefused = !claim.record.journal.opened || claim.failing?.get("deliver")?.isFinal === true;
      holds.starts.failed(this.#startOf(claim), outcome?.message ?? "", clock.monotonic(), isRefused);
    } else if (claim.observed.firstBeatSeen) {
      // It was reported when the session served.
    } else if (beaten) {
      this.#reportServed(claim);
    } else {
      this.#context.holds.starts.released(claim.templateHash, claim.name);
    }
  }
}

/** Whether a lagging list shows the item from before our acknowledgement. */
function isBeforeOurs(claim: Claim, view: ItemView, { listLagMs }: Pick<Timing, "listLagMs">): boolean {
  const { ackedMs, acknowledgedAt } = claim.record;
  if (ackedMs === null || acknowledgedAt === null || view.askedMs >= ackedMs + listLagMs) return false;
  const isOlder = view.acknowledgedAt !== null && isLater(acknowledgedAt, view.acknowledgedAt);
  return view.state === "queued" || view.state === "absent" || isOlder;
}

/** The description of a reason as part of a sentence, for an outcome without a message. */
function descriptionOf(reason: EndReason): string {
  const { description } = END_REASONS[reason];
  return description.charAt(0).toLowerCase() + description.slice(1).replace(/\.$/, "");
}

/**
 * Whether an earlier process sent the line. It has reported the start, unless it ended right then: a start is reported
 * at most once.
 */
function wasReported({ record: { openedAtMs, deliverySentMs } }: Claim, pod: Pod): boolean {
  return openedAtMs === null && deliverySentMs === null && parkingOf(pod) !== "Key";
}

/** Starts that the median is taken of. */
const REMEMBERED = 16;
/** A Pod is touched again once its container takes this many times the median: the kubelet likely missed the touch. */
const PATIENCE = 2.5;
/** Upper bound for slow nodes: without a touch, the kubelet checks the Pod after 10 to 15 s. */
const LONGEST_MS = 4_000;

/**
 * How long recent containers took from the last touch of their Pod to their start. A touch that the kubelet missed must
 * be repeated. But a slow kubelet has not missed it, and more touches would only burden it and the API server.
 */
export class StartTimes {
  readonly #sinceTouchMs: number[] = [];

  /** Records a start. @param sinceTouchMs the time since the last touch of the Pod */
  note(sinceTouchMs: number): void {
    this.#sinceTouchMs.push(sinceTouchMs);
    if (this.#sinceTouchMs.length > REMEMBERED) this.#sinceTouchMs.shift();
  }

  /** How long to wait for a start before the Pod is touched again; 0 if no start was recorded. */
  get patienceMs(): number {
    const sorted = this.#sinceTouchMs.toSorted((one, other) => one - other);
    const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
    return Math.min(LONGEST_MS, median * PATIENCE);
  }
}
