import { type Caller, partyOf } from "./caller.ts";
import type { WorkItem } from "./item.ts";
import { beatIntervalMs, DEFAULT_RECLAIM_MS, NO_HEARTBEAT } from "./switches.ts";
import type { Finding } from "./violations.ts";

/**
 * Knows which worker ids are certainly different clients. A client that restarts comes back under a new id, so two ids
 * are certainly different only if their lives overlap: each sent a request after the other's first request.
 */
export class Sides {
  readonly #lives = new Map<string, { first: number; last: number }>();
  #order = 0;

  heard(workerId: string | undefined): void {
    if (workerId === undefined) return;
    this.#order += 1;
    const life = this.#lives.get(workerId);
    if (life) life.last = this.#order;
    else this.#lives.set(workerId, { first: this.#order, last: this.#order });
  }

  distinct(a: string | undefined, b: string | undefined): boolean {
    if (a === undefined || b === undefined || a === b) return false;
    const [one, other] = [this.#lives.get(a), this.#lives.get(b)];
    return one !== undefined && other !== undefined && one.last > other.first && other.last > one.first;
  }
}

/**
 * The worker id behind a request: the poller that the sessions token was issued to, or else the id that the request
 * carries.
 */
export function sideOf(item: WorkItem, caller: Caller): string | undefined {
  const { credential } = caller;
  return credential.kind === "sessions-token" ? item.offers[credential.offer - 1]?.workerId : caller.workerId;
}

function held(caller: Caller, finding: Finding): Finding {
  return caller.excuse === undefined ? finding : { ...finding, excuse: caller.excuse };
}

/** Judges an acknowledgement that is handled at `at`. */
export function judgeAck(item: WorkItem, caller: Caller, at: number, sides: Sides): Finding | undefined {
  const offers = item.offers.filter(
    (offer) => offer.generation === item.generation && !sides.distinct(offer.workerId, caller.workerId),
  );
  const own = offers.findLast((offer) => offer.workerId === caller.workerId) ?? offers.at(-1);
  if (!own && item.offers.some((offer) => !sides.distinct(offer.workerId, caller.workerId))) {
    return held(caller, { kind: "ack-outside-window", details: "the item was queued again after it was offered" });
  }
  if (!own) return { kind: "ack-without-offer", details: "no poll of this client returned the item" };
  if (item.state !== "queued") return undefined;
  const since = item.offers.find(
    (offer) => offer.number > own.number && !offer.duplicate && sides.distinct(offer.workerId, caller.workerId),
  );
  if (since) {
    const details = `reclaimed by ${since.workerId} ${Math.round(at - since.at)} ms earlier`;
    return held(caller, { kind: "ack-outside-window", details });
  }
  const windowMs = Math.min(own.reclaimMs, DEFAULT_RECLAIM_MS);
  const ageMs = at - own.at;
  if (ageMs <= windowMs) return undefined;
  const details = `${Math.round(ageMs)} ms after the poll's reply; other clients may reclaim it after ${windowMs} ms`;
  return held(caller, { kind: "ack-outside-window", details });
}

function everAcked(item: WorkItem, side: string | undefined, sides: Sides): boolean {
  return item.acks.some((ack) => !sides.distinct(ack.workerId, side));
}

/** Whether the caller already knows that the item is stopped, so a heartbeat now would be a violation. */
export function knowsStopped(item: WorkItem, caller: Caller): boolean {
  return item.state === "stopped" && item.knowsStopped.has(partyOf(caller));
}

/** Judges a heartbeat by its content and its time, whether or not the server accepts it. */
export function judgeBeat(
  item: WorkItem,
  caller: Caller,
  expected: string | undefined,
  sides: Sides,
): Finding | undefined {
  const party = partyOf(caller);
  if (knowsStopped(item, caller)) {
    return held(caller, { kind: "beat-after-stop", details: `${party} knows that the item is stopped` });
  }
  if (item.state === "stopped" || item.state === "stopping") return undefined;
  if (expected === undefined) {
    return { kind: "unconditional-beat", details: "expected_last_heartbeat is missing: nothing fences this heartbeat" };
  }
  if (expected !== NO_HEARTBEAT) {
    if (isKnownHeartbeat(item, expected)) return undefined;
    return { kind: "wrong-echo", details: "expected_last_heartbeat was never a last_heartbeat of this item" };
  }
  const side = sideOf(item, caller);
  if (item.state === "queued") {
    if (everAcked(item, side, sides)) return undefined;
    return { kind: "beat-on-queued", details: "first heartbeat for an item that this client never acknowledged" };
  }
  if (caller.credential.kind !== "sessions-token") return undefined;
  if (!everAcked(item, side, sides)) {
    return { kind: "start-without-ack", details: `the worker started, but ${side} never acknowledged the item` };
  }
  const first = item.firstTokenBeatAnswered;
  if (item.state === "active" && first !== undefined && isSameStarter(item, first, caller, sides)) {
    return { kind: "second-start", details: `${party} opened a lease that ${first} had already opened` };
  }
  return undefined;
}

function isSameStarter(item: WorkItem, first: string, caller: Caller, sides: Sides): boolean {
  if (first === partyOf(caller)) return true;
  const starter = item.offers.find((offer) => first === `token of offer ${offer.number}`)?.workerId;
  const side = sideOf(item, caller);
  return starter !== undefined && side !== undefined && !sides.distinct(starter, side);
}

function isKnownHeartbeat(item: WorkItem, echo: string): boolean {
  // Date.parse drops the microseconds, so the three digits after the milliseconds are added separately.
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(\d{3})(?:Z|\+00:00)$/.exec(echo);
  return match !== null && item.heartbeats.has(Date.parse(`${match[1]}Z`) * 1000 + Number(match[2]));
}

/** Judges a heartbeat that is accepted at `at`: does it take the lease from a holder that is certainly alive? */
export function judgeHolder(item: WorkItem, caller: Caller, at: number): Finding | undefined {
  const { beat } = item;
  const party = partyOf(caller);
  if (!beat || beat.party === party) return undefined;
  const quietMs = at - beat.at;
  if (quietMs >= beatIntervalMs(item.ttlMs)) return undefined;
  return {
    kind: "two-holders",
    details: `${party} sent a heartbeat ${Math.round(quietMs)} ms after ${beat.party}, whose next heartbeat was not due yet`,
  };
}

/** Judges a stop that takes effect now. Stops with the API key come from a user and are never wrong. */
export function judgeStop(item: WorkItem, caller: Caller, force: boolean, sides: Sides): Finding | undefined {
  if (caller.credential.kind === "api-key") return undefined;
  switch (item.state) {
    case "stopped":
    case "stopping":
      return undefined;
    case "queued":
      return judgeStopOfQueued(item, caller, sides);
    case "starting":
      return judgeStopOfStarting(item, caller, sides);
    case "active":
      return judgeStopOfActive(item, caller, force, sides);
  }
}

function judgeStopOfQueued(item: WorkItem, caller: Caller, sides: Sides): Finding | undefined {
  const offer = item.lastOffer;
  const inHand = offer?.generation === item.generation && !sides.distinct(offer.workerId, caller.workerId);
  if (item.runsNothing && inHand) return undefined;
  return held(caller, { kind: "stop-queued", details: "the item is queued: any client can get it next" });
}

function judgeStopOfStarting(item: WorkItem, caller: Caller, sides: Sides): Finding | undefined {
  if (item.runsNothing) return undefined;
  if (caller.credential.kind !== "sessions-token") {
    const details = "no client holds the item's lease: send a heartbeat with NO_HEARTBEAT first";
    return held(caller, { kind: "stop-unfenced", details });
  }
  const details = "the worker's first heartbeat was not answered yet";
  return everAcked(item, sideOf(item, caller), sides)
    ? { kind: "stop-without-lease", details, excuse: "stock-worker" }
    : held(caller, { kind: "stop-without-lease", details: "another client acknowledged the item" });
}

function judgeStopOfActive(item: WorkItem, caller: Caller, force: boolean, sides: Sides): Finding | undefined {
  const { beat } = item;
  if (!beat || item.runsNothing || beat.party === partyOf(caller)) return undefined;
  const side = sideOf(item, caller);
  const isToken = caller.credential.kind === "sessions-token";
  // A stop is correct if it comes from the holder's own operator or worker: both count as the same side.
  if (isToken && side !== undefined && beat.side !== undefined && !sides.distinct(side, beat.side)) return undefined;
  const byOwnWorker = beat.kind === "sessions-token" && !sides.distinct(side, beat.side);
  if (!isToken && !force && byOwnWorker) return undefined;
  return held(caller, { kind: "stop-without-lease", details: `the last accepted heartbeat was from ${beat.party}` });
}
