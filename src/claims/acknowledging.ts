import { errorText } from "../core/errors.ts";
import type { ServerTime } from "../core/server-time.ts";
import { instantOf, isSameInstant } from "../core/text.ts";
import { isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { readPodState } from "../pods/pod-state.ts";
import { newestTurn, turnContainerId } from "../pods/turns.ts";
import type { Claim } from "../protocol/claim.ts";
import { remember } from "../protocol/claim-lease.ts";
import { replaceItem, viewOf } from "../protocol/claim-observed.ts";
import { noteAcknowledged, notePodVersion } from "../protocol/claim-record.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { ofClaim } from "../protocol/points.ts";
import { isRefusal, WorkApiError } from "../work/errors.ts";
import { type AckWindow, isSomebodyElses, repeatsWithin } from "./ack-window.ts";

/** The result of an acknowledgement. `unanswered`: it may have taken effect. `late`: it was too late to send it. */
export type Acknowledged = "acked" | "unanswered" | "refused" | "late";

/** Between two checks whether the acknowledgement of another claim, which tries again, was answered. */
const PROBE_LOOK_MS = 100;

interface PodRead {
  readonly isParked: boolean;
  /** The read failed, but not because the Pod is gone. */
  readonly isRefused: boolean;
}

/**
 * Step 4 of the protocol: read the Pod live, and acknowledge the item before the server can offer it to another client.
 */
export class Acknowledging {
  readonly #context: ClaimContext;
  readonly #serverTime: ServerTime;
  readonly #gate: { readonly isClosing: boolean };
  /** Acknowledgements in flight. */
  #sending = 0;

  constructor(options: { context: ClaimContext; serverTime: ServerTime; gate: { readonly isClosing: boolean } }) {
    this.#context = options.context;
    this.#serverTime = options.serverTime;
    this.#gate = options.gate;
  }

  /**
   * Reads the Pod live: a cached Pod is never reason enough to acknowledge an item (M). After a failed read, don't try
   * other Pods: their reads would fail too.
   */
  async readPod(claim: Claim): Promise<PodRead> {
    const { kube, points, namespace, timing, holds } = this.#context;
    const isParked = (live: Pod) => {
      const { podUid, container } = claim.record.journal;
      const same = live.metadata.uid === podUid && !live.metadata.deletionTimestamp;
      // The state of a later turn, or of another container, says nothing about the claimed one.
      const isTurn =
        claim.turn === 0 || (newestTurn(live) === claim.turn && turnContainerId(live, claim.turn) === container);
      return same && isTurn && readPodState(live).is === "parked";
    };
    try {
      const read = () => kube.get(PODS, { namespace, name: claim.name }, { timeoutMs: timing.requestBoundMs });
      const told = (live: Pod) => ({ parked: isParked(live) });
      const live = await points.run("claim.read-pod", ofClaim(claim), read, told);
      holds.succeeded("read-pod");
      if (claim.turn > 0) notePodVersion(claim, live.metadata.resourceVersion);
      return { isParked: isParked(live), isRefused: false };
    } catch (error) {
      this.#context.logger.warn(
        { pod: claim.name, error: errorText(error) },
        "the Pod could not be read before the acknowledgement",
      );
      if (isNotFound(error)) {
        holds.succeeded("read-pod");
        return { isParked: false, isRefused: false };
      }
      if (isStepFailure(error)) holds.failed("read-pod", { error, name: claim.name });
      return { isParked: false, isRefused: true };
    }
  }

  /**
   * Sends the acknowledgement, and repeats it inside the window if no answer comes. After a failure, one claim at a time
   * tries again.
   */
  async acknowledge(claim: Claim, window: AckWindow): Promise<Acknowledged> {
    const { metrics, labels, clock, holds } = this.#context;
    const { workId } = claim.record.journal;
    // An earlier claim of the item failed: one request shows whether it still does.
    const isAgain = holds.itemFromMs(workId) !== null;
    const backoff = repeatsWithin(this.#context);
    /** When the first request that may have taken effect was sent; null: none was. */
    let sentMs: number | null = null;
    while (this.#mayAck(window)) {
      const pauseMs = this.#pauseMs();
      if (pauseMs > 0) {
        await window.waits(pauseMs);
        continue;
      }
      // The Pod may be lost by now. Without another request, an item that was not acknowledged stays in the queue.
      if (sentMs !== null && claim.record.journal.use === "session" && !(await this.readPod(claim)).isParked) break;
      // During that read, the window may have closed, or the acknowledgement of another claim may have failed.
      if (!this.#mayAck(window) || this.#pauseMs() > 0) continue;
      const nowMs = clock.monotonic();
      this.#sending += 1;
      const result = await this.#ackOnce(claim, window, sentMs ?? nowMs).finally(() => {
        this.#sending -= 1;
      });
      metrics.acks.inc({ ...labels, result: result.is });
      if (result.is === "acked") {
        holds.succeeded("acknowledge");
        holds.itemSucceeded(workId);
        return "acked";
      }
      // Another client was faster, which says nothing about other items. A second refusal has another cause.
      const isLost = result.is === "refused" && !isAgain && !isBadRequest(result.error);
      if (!isLost && isStepFailure(result.error)) holds.failed("acknowledge", { error: result.error });
      holds.itemFailed(workId);
      if (result.is === "unanswered") sentMs ??= nowMs;
      if (result.is === "refused" || isAgain) return sentMs === null ? "refused" : this.#unanswered(claim);
      await window.waits(Math.max(backoff.next(), result.is === "not-sent" ? result.waitMs : 0));
    }
    if (sentMs !== null) return this.#unanswered(claim);
    metrics.acks.inc({ ...labels, result: "late" });
    return "late";
  }

  /** How long to wait before the next acknowledgement, in milliseconds. */
  #pauseMs(): number {
    const fromMs = this.#context.holds.fromMs("acknowledge");
    if (fromMs === null) return 0;
    const waitMs = fromMs - this.#context.clock.monotonic();
    return this.#sending > 0 ? Math.max(waitMs, PROBE_LOOK_MS) : waitMs;
  }

  #unanswered(claim: Claim): "unanswered" {
    remember(claim, { is: "unanswered" });
    return "unanswered";
  }

  #mayAck(window: AckWindow): boolean {
    return window.isOpen && !this.#gate.isClosing;
  }

  /** @param firstSentMs monotonic: the answer to a repeat may show the effect of the first request */
  async #ackOnce(
    claim: Claim,
    window: AckWindow,
    firstSentMs: number,
  ): Promise<
    | { is: "acked" }
    | { is: "unanswered"; error: unknown }
    | { is: "refused"; error: unknown }
    | { is: "not-sent"; error: unknown; waitMs: number }
  > {
    this.#context.guard();
    const serverTime = this.#serverTime;
    const { workId } = claim.record.journal;
    // Set if no acknowledgement since the poll can have this time: then the server's clock was misjudged.
    let isDoubted = false;
    const isOthers = (at: string | null) =>
      at !== null &&
      !isDoubted &&
      isSomebodyElses(at, claim.record.acknowledgedBefore, {
        polledMs: serverTime.earliestStampAt(window.polledMs),
        sentMs: serverTime.earliestStampAt(firstSentMs),
      });
    try {
      const answer = await this.#context.points.run(
        "claim.ack",
        ofClaim(claim),
        async () => {
          const { work, holds } = this.#context;
          const answer = await holds.health.judge("ack", workId, () => work().ack(workId));
          // The item was queued when it was polled, so a new time is from between then and now.
          const stamped = renewedAt(answer.value.acknowledged_at, claim.record.acknowledgedBefore);
          const within = { fromMs: window.polledMs, untilMs: answer.answeredAtMs };
          isDoubted = stamped !== null && !serverTime.noteStamp(within, stamped);
          return answer;
        },
        ({ value: { acknowledged_at: acknowledgedAt } }) => ({
          acknowledgedAt,
          outcome: isOthers(acknowledgedAt) ? "refused" : "ok",
        }),
      );
      const at = answer.value.acknowledged_at;
      if (isOthers(at)) return { is: "refused", error: new Error("another client acknowledged the work item") };
      noteAcknowledged(claim, at, { ackedMs: answer.answeredAtMs, isLate: false });
      replaceItem(claim, viewOf(answer.value, answer.sentAtMs));
      if (at !== null) return { is: "acked" };
      return { is: "unanswered", error: new Error("the answer shows no acknowledgement") };
    } catch (error) {
      if (isRefusal(error)) return { is: "refused", error };
      if (error instanceof WorkApiError && !error.maybeApplied) {
        return { is: "not-sent", error, waitMs: error.retryAfterMs ?? 0 };
      }
      return { is: "unanswered", error };
    }
  }
}

const isBadRequest = (error: unknown) => error instanceof WorkApiError && error.kind === "bad-request";

/** When the item was acknowledged since its poll; null: the answer doesn't show it. */
function renewedAt(at: string | null, before: string | null): ReturnType<typeof instantOf> {
  return at === null || isSameInstant(at, before) ? null : instantOf(at);
}
