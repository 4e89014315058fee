import { NO_HEARTBEAT } from "../work/types.ts";
import { type ItemView, isSameInstant } from "./claim.ts";
import { type Facts, isReleased, STOP, type Step } from "./facts.ts";
import { isFenced, lookAgain, seenSince, untilLapsed } from "./looking.ts";
import { settleLease } from "./operator-steps.ts";

/** Brings the item of a claim to its end whose container is over, or will not be started. */
export function settle(facts: Facts): Step {
  if (facts.claim.lease !== null) return settleLease(facts, facts.claim.lease);
  return isReleased(facts) ? release(facts) : fenceAndStop(facts);
}

/** onPodFailure: Stop. Fence, then stop: the API's stop has no precondition, so the lease must be in our hands. */
export function fenceAndStop(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const { memory } = claim;
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const held = isFenced(facts);
  // Our beat is not in the list yet.
  if (item.state === "starting") return held ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
  if (held) return renewal(facts, item) ?? STOP;
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot" || memory.value !== value) return { do: "snapshot", value };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  return nowMs < quietUntil ? { do: "wait", untilMs: quietUntil } : { do: "fence", expected: value };
}

/**
 * The stop keeps failing: the lease is renewed, or the item would be in the queue again and its session run a second time.
 * Our own value need not stand still, since the heartbeat is refused where anyone else has sent one.
 */
function renewal({ claim, nowMs }: Facts, { latestHeartbeatAt }: ItemView): Step | null {
  const { memory, failing } = claim;
  if (memory.is !== "fenced" || memory.echo === undefined || !failing?.has("stop")) return null;
  const isOurs = isSameInstant(memory.echo, latestHeartbeatAt);
  return isOurs && nowMs >= memory.beatSentMs + memory.ttlMs / 2 ? { do: "fence", expected: memory.echo } : null;
}

/**
 * onPodFailure: Release. The lease lapses by itself, and the item goes back to the queue; one that was never beaten is
 * beaten once, else it could stay `starting` for ever. Told to stop meanwhile, it is stopped: nobody would run it any more.
 */
function release(facts: Facts): Step {
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  if (item.state === "starting") {
    return isFenced(facts) ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
  }
  const { memory } = facts.claim;
  const { requestBoundMs } = facts.timing;
  return untilLapsed(facts, item, memory.is === "fenced" ? memory.beatSentMs + memory.ttlMs + requestBoundMs : null);
}
