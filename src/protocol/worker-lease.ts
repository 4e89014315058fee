import { isLater } from "../core/text.ts";
import { NO_HEARTBEAT } from "../work/types.ts";
import { isReacknowledged } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import {
  assignAtMs,
  type Facts,
  isOver,
  type LeaseKind,
  lookAgain,
  overdueEnding,
  ranFor,
  stopPatienceMs,
} from "./facts.ts";
import { firstBeatInMs } from "./first-heartbeat.ts";
import { fenceAndStop, settleItem } from "./settling.ts";
import { starting } from "./starting.ts";
import { deletePod, type Ending, LOOK, type Step, waitUntil } from "./step.ts";

/** lease: Worker: the program in the container sends the heartbeats. */
export const WORKER_LEASE: LeaseKind = {
  open,
  watch: (facts) => (facts.pod.is === "running" ? running(facts, facts.pod.startedAtMs) : starting(facts)),
  whileDeleting: (_, goneByMs) => ({ do: "wait", untilMs: goneByMs }),
  settle: settleItem,
};

// --- 5. Open, lease: Worker ---------------------------------------------------------------------------------------

/** lease: Worker. An `active` item gets heartbeats although its container never started: it is settled, not opened. */
function open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step {
  const { claim, pod, nowMs, timing } = facts;
  const { item } = claim.observed;
  const untouched = claim.lease.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);
  if (!untouched) return settleItem(facts);
  if (pod.is !== "parked") return waitUntil(patienceMs);
  return item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "open", acknowledgedAt };
}

// --- 6. Watch, lease: Worker --------------------------------------------------------------------------------------

/** The next step while a container runs and sends its own heartbeats. */
function running(facts: Facts, startedAtMs: number): Step {
  const { claim, nowMs, timing, limits } = facts;
  const item = claim.observed.item;
  const touchAt = assignAtMs(facts);
  const until = (...times: number[]): Step => waitUntil(touchAt, ...times);
  // The kubelet read the Secret without a touch, or the Pod was woken: it still needs its session's labels and deadline.
  if (nowMs >= touchAt) return { do: "touch" };
  if (claim.record.ending?.why === "NoFirstBeat") {
    const step = settleItem(facts);
    return step.do === "settled" ? deletePod("NoFirstBeat", claim.record.ending.message) : step;
  }
  // The heartbeat that the item shows may be our own fence: if it doesn't change, the program sends none.
  if (claim.lease.blindFence && item?.state === "active") return fenceAndStop(facts);
  const ranMs = ranFor(facts, startedAtMs);
  const overdueMs = limits.maxDurationMs - ranMs;
  const endsInMs = Math.min(overdueMs, limits.drainDeadlineMs - nowMs);
  const aheadMs = timing.beatIntervalMs + timing.observeFirstBeatMs;
  if (!item || item.state === "unknown") {
    // The sweep reads items at its own pace, and its next view may come too late to tell the session to stop.
    return endsInMs <= aheadMs ? lookAgain(facts) : until(nowMs + timing.observeFirstBeatMs);
  }

  if (isOver(item) || isReacknowledged(claim, item)) {
    // The worker's next heartbeat shows it, and the worker exits.
    const since = claim.observed.lostSinceMs ?? nowMs;
    const patience = since + timing.assumedTtlMs + timing.beatIntervalMs;
    if (nowMs < patience) return until(patience);
    if (item.askedMs < patience) return LOOK;
    const stopped = item.state === "stopped";
    return deletePod(
      stopped ? "StoppedByUser" : "LeaseLost",
      `the work item is ${isOver(item) ? item.state : "acknowledged by another client"} and the container did not exit`,
    );
  }
  if (item.state === "stopping") {
    const patience = (claim.observed.stoppingSinceMs ?? nowMs) + limits.graceMs;
    if (nowMs < patience) return until(patience);
    const why = claim.record.ending?.why ?? "StoppedByUser";
    return deletePod(
      why,
      claim.record.ending?.message ??
        "the work item was told to stop, and the container did not exit within its grace period",
    );
  }
  if (item.state === "starting") {
    const leftMs = Math.min(firstBeatInMs(facts, ranMs), endsInMs);
    if (leftMs > 0) return until(nowMs + leftMs);
    // The worker may have sent a heartbeat since the item was read: a fence would be refused, and cost the time in
    // which the session can be told to stop. This read also shows whether the Work API is silent.
    if (item.askedMs < nowMs + leftMs) return LOOK;
    // Fence, stop, then delete: a stock worker that gets SIGTERM before its first heartbeat posts its own stop.
    return { do: "fence", expected: NO_HEARTBEAT };
  }
  if (endsInMs > aheadMs) return until(nowMs + endsInMs - aheadMs);
  return nearItsEnd(facts, item, endsInMs, overdueEnding(overdueMs <= 0));
}

/**
 * The session's time has ended, or will end soon. The item may be told to stop only while our container surely holds
 * the lease: it runs, and its heartbeat changed between two reads, the first of them recent. So reads begin one
 * heartbeat interval before the end and are repeated: the newest heartbeat counts. A program that sends none loses its
 * lease.
 */
function nearItsEnd(facts: Facts, item: ItemView, leftMs: number, ending: [Ending, string]): Step {
  const { claim, nowMs, timing, limits } = facts;
  const { memory } = claim.lease;
  const endsMs = nowMs + leftMs;
  const patience =
    claim.lease.gracefulStopMs === null
      ? endsMs + stopPatienceMs(limits.graceMs, timing)
      : claim.lease.gracefulStopMs + limits.graceMs;
  if (nowMs >= patience) return deletePod(...ending);
  if (claim.lease.gracefulStopMs !== null) return { do: "wait", untilMs: patience };
  const shown = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot") return { do: "snapshot", value: shown };
  // The list of the first read may have been stale.
  const heldUntil = (beatenSinceMs: number) => beatenSinceMs - timing.listLagMs + timing.beatIntervalMs;
  if (item.askedMs > memory.sinceMs) {
    // An older value is from a staler list: if it were remembered, the newer value would seem to be a change.
    const isNew = isLater(shown, memory.value);
    const [value, beatenSinceMs] = isNew ? [shown, memory.sinceMs] : [memory.value, memory.beatenSinceMs];
    const proves = beatenSinceMs !== undefined && nowMs < heldUntil(beatenSinceMs);
    return proves ? { do: "snapshot", value, beatenSinceMs } : { do: "snapshot", value };
  }
  const { beatenSinceMs } = memory;
  if (beatenSinceMs !== undefined && nowMs < heldUntil(beatenSinceMs)) {
    if (leftMs <= 0) return { do: "stop", force: false };
    if (endsMs < heldUntil(beatenSinceMs)) return waitUntil(endsMs);
  }
  const again = memory.sinceMs + timing.observeFirstBeatMs;
  return nowMs >= again ? LOOK : waitUntil(again, patience);
}
