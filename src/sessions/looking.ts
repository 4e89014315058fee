import { type ItemView, isLater } from "./claim.ts";
import { type Facts, LOOK, outOfOurHands, type Step, waitUntil } from "./facts.ts";
import { type HeldLease, leaseEndMs } from "./lease.ts";

/** Of the pause between looks: 5 s up to about 5 min. */
const MAX_DOUBLINGS = 6;

/**
 * What was seen longer ago is looked at anew before anything is done to the item: a call that keeps being refused may
 * rest on a view that is wrong by now. Longer than the slowest walk through the list.
 */
const VIEW_MAX_AGE_MS = 300_000;

/**
 * A look that decided nothing: the next one not before a pause, which doubles while looks cannot be brought to their end:
 * a list that is longer than a walk will not be shorter in five seconds, and every page is a read of the organization's.
 */
export function lookAgain({ claim, nowMs, timing }: Facts): Step {
  const pauseMs = timing.settleLookMs * 2 ** Math.min(MAX_DOUBLINGS, Math.max(0, claim.unknowns - 1));
  const again = (claim.item?.askedMs ?? 0) + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/** Waits for a lease to lapse, until `lapsedMs` if that is known, and looks less and less often. */
export function untilLapsed({ claim, nowMs, timing }: Facts, item: ItemView, lapsedMs: number | null): Step {
  const agoMs = item.askedMs - (claim.endedMs ?? claim.lateAckUntilMs);
  const pauseMs = Math.min(VIEW_MAX_AGE_MS, Math.max(timing.settleLookMs, agoMs));
  const again = lapsedMs !== null && lapsedMs > nowMs ? lapsedMs : item.askedMs + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/** The item as it was seen since the container's end and since our beat, and still is ours; or what must come first. */
export function seenSince(facts: Facts): ItemView | Step {
  const { claim, nowMs, timing } = facts;
  const { item, memory } = claim;
  if (memory.is === "refused" && nowMs < memory.atMs + timing.settleLookMs) {
    return { do: "wait", untilMs: memory.atMs + timing.settleLookMs };
  }
  // What was seen before the end says nothing of what the worker's own stop did; before our beat, nothing of the beat.
  const since = Math.max(claim.endedMs ?? Number.NEGATIVE_INFINITY, memory.is === "fenced" ? memory.beatSentMs : 0);
  if (!item || item.askedMs < since) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  const because = outOfOurHands(claim, item);
  if (because !== null) return { do: "settled", because };
  return item.askedMs < nowMs - VIEW_MAX_AGE_MS ? LOOK : item;
}

/**
 * What must come before a view of an item that we beat is believed: a list that is behind may show it as it was before our
 * beat, which may have taken it from another client. Null: it shows our beat, or is too new not to.
 */
export function untilBeatShows({ claim: { memory }, nowMs, timing }: Facts, item: ItemView): Step | null {
  if (memory.is !== "fenced") return null;
  const shownMs = memory.beatSentMs + timing.requestBoundMs + timing.listLagMs;
  if (item.askedMs >= shownMs || isSinceBeat(item, memory.value)) return null;
  return nowMs < shownMs ? waitUntil(shownMs) : LOOK;
}

function isSinceBeat({ latestHeartbeatAt }: ItemView, value: string | undefined): boolean {
  if (latestHeartbeatAt === null || value === undefined) return false;
  return latestHeartbeatAt === value || !isLater(value, latestHeartbeatAt);
}

/** The lease that our beat bought surely runs until a stop that is sent now has landed. */
export function isFenced({ claim: { memory }, nowMs, timing }: Facts): boolean {
  if (memory.is !== "fenced") return false;
  return nowMs <= memory.beatSentMs + memory.ttlMs - timing.requestBoundMs - timing.marginMs;
}

/** Waits for the beat that is due: it buys time again, or shows that the lease is lost. The keeper says so when it does. */
export function untilBeaten({ nowMs, timing }: Facts, lease: HeldLease, patienceMs = Number.POSITIVE_INFINITY): Step {
  return waitUntil(patienceMs, Math.max(leaseEndMs(lease), nowMs + timing.retryBaseMs));
}
