import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { desiredTtlSeconds } from "../core/heartbeat-ttl.ts";
import type { PointDetails, PointOutcome } from "../core/points.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteLease, remember } from "../protocol/claim-lease.ts";
import { type ItemView, replaceItem } from "../protocol/claim-observed.ts";
import { noteAcknowledged } from "../protocol/claim-record.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { type HeldLease, type Lease, leaseOf } from "../protocol/lease.ts";
import { ofClaim, type SessionPoint } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";
import type { Answer } from "../work/client.ts";
import type { HeartbeatOutcome } from "../work/types.ts";

/** Records that our acknowledgement took effect, or (`late`) that an acknowledgement did that may not be ours. */
export function own(context: ClaimContext, claim: Claim, { acknowledgedAt, late }: Step & { do: "own" }): void {
  const { points, metrics, labels, clock, logger } = context;
  points.note(late ? "session.doubt" : "session.own", ofClaim(claim), { acknowledgedAt });
  const ackedMs = claim.observed.item?.askedMs ?? clock.monotonic();
  noteAcknowledged(claim, acknowledgedAt, { ackedMs, isLate: late ?? false });
  remember(claim, { is: "none" });
  // An item that already gets heartbeats is most likely another client's.
  const isBeaten = late && claim.observed.item?.state === "active";
  if (!isBeaten) metrics.acks.inc({ ...labels, result: late ? "late-effect" : "found" });
  if (!late) return;
  logger.warn(
    { workId: claim.record.journal.workId, acknowledgedAt },
    "a work item was acknowledged too late, so Berth does not start it",
  );
}

/** Takes the lease with our own heartbeat, against the value last seen. The result is in the claim's memory. */
export async function fence(context: ClaimContext, claim: Claim, expected: string): Promise<boolean> {
  remember(claim, { is: "none" });
  const answer = await beat(context, claim, "session.fence", expected);
  if (answer.value.kind === "refused") return refused(context, claim);
  const { beat: beaten } = answer.value;
  if (beaten.state !== "active" || !beaten.lease_extended) return refused(context, claim);
  remember(claim, {
    is: "fenced",
    beatSentMs: answer.sentAtMs,
    beatSentWallMs: answer.sentAtWallMs,
    ttlMs: beaten.ttl_seconds * SECOND_MS,
    value: beaten.last_heartbeat,
  });
  return true;
}

/**
 * lease: Operator: takes the lease and keeps it. The result is in `claim.lease.own`. After a refusal, the lease is lost
 * if the claim was opened; otherwise the item is read again.
 */
export async function takeLease(context: ClaimContext, claim: Claim, expected: string): Promise<void> {
  remember(claim, { is: "none" });
  replaceItem(claim, null);
  const answer = await beat(context, claim, "session.take", expected, desiredTtlSeconds(context.timing));
  const taken =
    answer.value.kind === "refused" ? null : leaseOf(answer.value.beat, answer.sentAtMs, answer.sentAtWallMs);
  if (taken) noteLease(claim, taken);
  else if (claim.record.journal.opened)
    noteLease(claim, lostToOthers(context, "another client sent a heartbeat for it"));
  else refused(context, claim);
}

/** Shorter than a usual lease, and long enough for any server to accept. The server decides on the actual TTL. */
const SHORTEST_TTL_SECONDS = 10;

/**
 * Sends a last heartbeat before the operator lets a lease lapse, so that the next client needn't wait for the whole
 * TTL. It is optional and sent only once: without it, the lease lapses later. Never throws.
 */
export async function shortenLease(context: ClaimContext, claim: Claim, { echo, ttlMs }: HeldLease): Promise<void> {
  try {
    const answer = await beat(context, claim, "session.shorten", echo, SHORTEST_TTL_SECONDS);
    if (answer.value.kind !== "beat") return;
    const { state, lease_extended: extended, ttl_seconds: ttlSeconds } = answer.value.beat;
    const surely = state === "active" && extended ? { beatSentWallMs: answer.sentAtWallMs } : {};
    remember(claim, { is: "fenced", beatSentMs: answer.sentAtMs, ...surely, ttlMs: ttlSeconds * SECOND_MS });
  } catch (error) {
    // The heartbeat may have landed and extended the lease by the previous TTL.
    remember(claim, { is: "fenced", beatSentMs: context.clock.monotonic(), ttlMs });
    context.logger.info({ workId: claim.record.journal.workId, error: errorText(error) }, "cannot shorten a lease");
  }
}

/** A lease that another client holds: none of our heartbeats keeps it alive. */
export function lostToOthers(context: ClaimContext, message: string): Lease {
  return { is: "lost", by: "refusal", message, lapsedMs: context.clock.monotonic() };
}

async function beat(
  context: ClaimContext,
  claim: Claim,
  point: SessionPoint,
  expected: string,
  ttlSeconds?: number,
): Promise<Answer<HeartbeatOutcome>> {
  const { workId } = claim.record.journal;
  const desired = ttlSeconds === undefined ? {} : { desiredTtlSeconds: ttlSeconds };
  const send = (value: string) => {
    context.guard();
    const request = () =>
      context.holds.health.judge("heartbeat", workId, () =>
        context.work().heartbeat(workId, { expected: value, ...desired }),
      );
    return context.points.run(point, ofClaim(claim, { expected: value }), request, beatTold);
  };
  const first = await send(expected);
  if (first.value.kind !== "refused") return first;
  // The list and the heartbeat may format one instant differently, and the echo must match the server's value byte for
  // byte.
  const current = first.value.current?.last_heartbeat;
  if (!current || current === expected || Date.parse(current) !== Date.parse(expected)) return first;
  return await send(current);
}

function refused(context: ClaimContext, claim: Claim): false {
  remember(claim, { is: "refused", atMs: context.clock.monotonic() });
  return false;
}

/** Stops the item. With `force` it is stopped immediately; a 409 means that it already was. */
export async function stopItem(context: ClaimContext, claim: Claim, force: boolean): Promise<void> {
  context.guard();
  const sentMs = context.clock.monotonic();
  const { workId } = claim.record.journal;
  const { value } = await context.points.run("session.stop", ofClaim(claim, { force }), () =>
    context.holds.health.judge("stop", workId, () => context.work().stop(workId, { force })),
  );
  const seen: ItemView = claim.observed.item ?? {
    state: "stopped",
    acknowledgedAt: claim.record.acknowledgedAt,
    latestHeartbeatAt: null,
    startedAt: null,
    askedMs: sentMs,
  };
  const told = force && value.alreadyStopped ? { wasStopped: true as const } : {};
  const state = force ? "stopped" : "stopping";
  replaceItem(claim, { ...seen, ...told, state, askedMs: Math.max(seen.askedMs, sentMs) });
}

/** The outcome and details of a heartbeat's answer. */
export function beatTold({ value }: Answer<HeartbeatOutcome>): PointDetails & { readonly outcome: PointOutcome } {
  if (value.kind === "refused") {
    const { state = null, last_heartbeat = null } = value.current ?? {};
    return { outcome: "refused", accepted: false, state, value: last_heartbeat };
  }
  const { state, lease_extended: accepted, last_heartbeat, ttl_seconds: ttlSeconds } = value.beat;
  return { outcome: "ok", accepted, state, value: last_heartbeat, ttlSeconds };
}
