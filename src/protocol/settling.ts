import { NO_HEARTBEAT } from "../work/types.ts";
import { isLater, isSameInstant } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isFenced, isReleased, lookAgain, seenSince, untilBeatShows, untilLapsed } from "./facts.ts";
import { LOOK, STOP, type Step, waitUntil } from "./step.ts";

/** Brings the item of a claim to its end whose lease nobody of ours keeps: the container has ended, or will not be started. */
export function settleItem(facts: Facts): Step {
  return isReleased(facts) ? release(facts) : fenceAndStop(facts);
}

/** onPodFailure: Stop. Fence, then stop: the API's stop has no precondition, so the lease must be in our hands. */
export function fenceAndStop(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const {
    lease: { memory },
  } = claim;
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const held = isFenced(facts);
  // Our beat is not in the list yet.
  if (item.state === "starting") return held ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
  if (held) return untilBeatShows(facts, item) ?? renewal(facts, item) ?? STOP;
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot" || isLater(value, memory.value)) return { do: "snapshot", value };
  // An older one is from a list that is behind. What a heartbeat proved while the session ran does not count any more.
  if (memory.beatenSinceMs !== undefined) return { do: "snapshot", value: memory.value };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  if (nowMs >= quietUntil) return { do: "fence", expected: memory.value };
  // A list that is behind does not show yet that the worker stopped its item before it ended.
  const endShowsMs = (claim.observed.endedMs ?? Number.NEGATIVE_INFINITY) + timing.listLagMs;
  if (item.askedMs >= endShowsMs) return waitUntil(quietUntil);
  return nowMs < endShowsMs ? waitUntil(quietUntil, endShowsMs) : LOOK;
}

/**
 * The stop keeps failing: the lease is renewed, or the item would be in the queue again and its session run a second time.
 * Our own value need not stand still, since the heartbeat is refused where anyone else has sent one.
 */
function renewal({ claim, nowMs }: Facts, { latestHeartbeatAt }: ItemView): Step | null {
  const {
    lease: { memory },
    failing,
  } = claim;
  if (memory.is !== "fenced" || memory.value === undefined || !failing?.has("stop")) return null;
  const isOurs = isSameInstant(memory.value, latestHeartbeatAt);
  return isOurs && nowMs >= memory.beatSentMs + memory.ttlMs / 2 ? { do: "fence", expected: memory.value } : null;
}

/**
 * onPodFailure: Release. The lease lapses by itself, and the item goes back to the queue; one that was never beaten is
 * beaten once, else it could stay `starting` for ever. Told to stop meanwhile, it is stopped: nobody would run it any more.
 */
function release(facts: Facts): Step {
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const others = facts.claim.record.lateAck ? othersTurn(facts, item) : null;
  if (others) return others;
  if (item.state === "starting") {
    return isFenced(facts) ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
  }
  const {
    lease: { memory },
  } = facts.claim;
  const { requestBoundMs } = facts.timing;
  return untilLapsed(facts, item, memory.is === "fenced" ? memory.beatSentMs + memory.ttlMs + requestBoundMs : null);
}

/**
 * An item that was acknowledged after our window, by a late request of ours or by another client. Another client has as long
 * for its first heartbeat as a container of ours, and a heartbeat that moves is that client's. Null: no other client is seen to
 * have it.
 */
function othersTurn({ claim, nowMs, timing, limits }: Facts, item: ItemView): Step | null {
  const {
    lease: { memory },
  } = claim;
  if (memory.is === "fenced") return null;
  if (item.state === "starting") {
    const patienceMs = claim.lateAckUntilMs + timing.lateAckMs + limits.firstBeatTimeoutMs;
    if (item.askedMs >= patienceMs) return null;
    return nowMs < patienceMs ? waitUntil(patienceMs) : LOOK;
  }
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot") return { do: "snapshot", value };
  return isLater(value, memory.value) ? { do: "settled", because: "another client has its lease" } : null;
}
