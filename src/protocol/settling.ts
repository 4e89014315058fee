import { isLater, isSameInstant } from "../core/text.ts";
import { NO_HEARTBEAT } from "../work/types.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isFenced, isReleased, seenSince, untilBeatShows, untilLapsed } from "./facts.ts";
import { settleBeforeFirstHeartbeat } from "./first-heartbeat.ts";
import { LOOK, STOP, type Step, waitUntil } from "./step.ts";

/** The next step to settle the item of a claim without a kept lease: its container has ended, or won't start. */
export function settleItem(facts: Facts): Step {
  return isReleased(facts) ? release(facts) : fenceAndStop(facts);
}

/**
 * onPodFailure: Stop. Fence, then stop: the API's stop has no precondition, so the operator must hold the lease first.
 */
export function fenceAndStop(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const { memory } = claim.lease;
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  if (item.state === "starting") return settleBeforeFirstHeartbeat(facts);
  if (isFenced(facts)) return untilBeatShows(facts, item) ?? renewal(facts, item) ?? STOP;
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot" || isLater(value, memory.value)) return { do: "snapshot", value };
  // An older value is from a stale list. A heartbeat that proved the lease while the session ran no longer counts.
  if (memory.beatenSinceMs !== undefined) return { do: "snapshot", value: memory.value };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  if (nowMs >= quietUntil) return { do: "fence", expected: memory.value };
  // A stale list may not show yet that the worker stopped its item before it exited.
  const endShowsMs = (claim.observed.endedMs ?? Number.NEGATIVE_INFINITY) + timing.listLagMs;
  if (item.askedMs >= endShowsMs) return waitUntil(quietUntil);
  return nowMs < endShowsMs ? waitUntil(quietUntil, endShowsMs) : LOOK;
}

/**
 * The stop keeps failing, so the lease is renewed: otherwise the item would return to the queue and its session would
 * run twice. There is no wait for an unchanged value, since the server refuses the heartbeat if another client has sent
 * one.
 */
function renewal({ claim, nowMs }: Facts, { latestHeartbeatAt }: ItemView): Step | null {
  const { failing } = claim;
  const { memory } = claim.lease;
  if (memory.is !== "fenced" || memory.value === undefined || !failing?.has("stop")) return null;
  const isOurs = isSameInstant(memory.value, latestHeartbeatAt);
  return isOurs && nowMs >= memory.beatSentMs + memory.ttlMs / 2 ? { do: "fence", expected: memory.value } : null;
}

/**
 * onPodFailure: Release. The lease lapses, and the item returns to the queue. An item that never had a heartbeat gets
 * one: otherwise it could stay `starting` forever. An item that was told to stop is stopped, since no client would run
 * it.
 */
function release(facts: Facts): Step {
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const wait = facts.claim.record.lateAck ? waitForOtherClient(facts, item) : null;
  if (wait) return wait;
  if (item.state === "starting") return settleBeforeFirstHeartbeat(facts);
  const { memory } = facts.claim.lease;
  const { requestBoundMs } = facts.timing;
  return untilLapsed(facts, item, memory.is === "fenced" ? memory.beatSentMs + memory.ttlMs + requestBoundMs : null);
}

/**
 * The step for an item that was acknowledged after our window, by our late request or by another client. Another client
 * gets as long for its first heartbeat as our own container would, and a heartbeat that changes is that client's. Null:
 * no other client appears to hold the item.
 */
function waitForOtherClient({ claim, nowMs, timing, limits }: Facts, item: ItemView): Step | null {
  const { memory } = claim.lease;
  if (memory.is === "fenced") return null;
  if (item.state === "starting") {
    const patienceMs = claim.lateAckUntilMs + timing.lateAckMs + limits.firstBeatTimeoutMs;
    if (item.askedMs >= patienceMs) return null;
    return nowMs < patienceMs ? waitUntil(patienceMs) : LOOK;
  }
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot") return { do: "snapshot", value };
  return isLater(value, memory.value) ? { do: "settled", because: "another client holds its lease" } : null;
}
