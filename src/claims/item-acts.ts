import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { desiredTtlSeconds } from "../core/timing.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteLease, remember } from "../protocol/claim-lease.ts";
import { type ItemView, replaceItem } from "../protocol/claim-observed.ts";
import { noteAcknowledged } from "../protocol/claim-record.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { type HeldLease, type Lease, leaseOf } from "../protocol/lease.ts";
import { beatTold, ofClaim, type SessionPoint } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";
import type { Answer } from "../work/client.ts";
import type { HeartbeatOutcome } from "../work/types.ts";

/** Keeps in mind that our acknowledgement took effect, or that it can't be told whose it was. */
export function own(context: ClaimContext, claim: Claim, { acknowledgedAt, late }: Step & { do: "own" }): void {
  const { points, metrics, labels, clock, logger } = context;
  points.note(late ? "session.doubt" : "session.own", ofClaim(claim), { acknowledgedAt });
  const ackedMs = claim.observed.item?.askedMs ?? clock.monotonic();
  noteAcknowledged(claim, acknowledgedAt, { ackedMs, isLate: late ?? false });
  remember(claim, { is: "none" });
  // What is beaten already is most likely another client's.
  const isBeaten = late && claim.observed.item?.state === "active";
  if (!isBeaten) metrics.acks.inc({ ...labels, result: late ? "late-effect" : "found" });
  if (!late) return;
  logger.warn(
    { workId: claim.record.journal.workId, acknowledgedAt },
    "a work item was acknowledged late: it is not opened",
  );
}

/** Takes the lease with a heartbeat of our own, against the value last seen. What comes out is in `claim.memory`. */
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
 * lease: Operator: takes the lease, to keep it. What comes out is in `claim.lease`. A refusal loses it to somebody else
 * where the container runs already; before that the item is looked at again.
 */
export async function takeLease(context: ClaimContext, claim: Claim, expected: string): Promise<void> {
  remember(claim, { is: "none" });
  replaceItem(claim, null);
  const answer = await beat(context, claim, "session.take", expected, desiredTtlSeconds(context.timing));
  const taken =
    answer.value.kind === "refused" ? null : leaseOf(answer.value.beat, answer.sentAtMs, answer.sentAtWallMs);
  if (taken) noteLease(claim, taken);
  else if (claim.record.journal.opened)
    noteLease(claim, lostToOthers(context, "its value moved while nobody of ours beat it"));
  else refused(context, claim);
}

/** Shorter than a lease for work, long enough for any server to take it for one; it gives what it gives. */
const SHORTEST_TTL_SECONDS = 10;

/**
 * A last beat of a lease that is let go: who is to run the item next need not wait for the whole of it. A courtesy, sent
 * once: without it the lease lapses as it is. Never throws.
 */
export async function shortenLease(context: ClaimContext, claim: Claim, { echo, ttlMs }: HeldLease): Promise<void> {
  try {
    const answer = await beat(context, claim, "session.shorten", echo, SHORTEST_TTL_SECONDS);
    if (answer.value.kind !== "beat") return;
    const { state, lease_extended: extended, ttl_seconds: ttlSeconds } = answer.value.beat;
    const surely = state === "active" && extended ? { beatSentWallMs: answer.sentAtWallMs } : {};
    remember(claim, { is: "fenced", beatSentMs: answer.sentAtMs, ...surely, ttlMs: ttlSeconds * SECOND_MS });
  } catch (error) {
    // It may have landed, for as long as the server gave before.
    remember(claim, { is: "fenced", beatSentMs: context.clock.monotonic(), ttlMs });
    context.logger.info(
      { workId: claim.record.journal.workId, error: errorText(error) },
      "a lease could not be shortened",
    );
  }
}

/** A lease that is somebody else's: nothing of ours keeps it alive. */
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
  const { api, workId } = claim.record.journal;
  const desired = ttlSeconds === undefined ? {} : { desiredTtlSeconds: ttlSeconds };
  const send = (value: string) => {
    context.guard();
    const request = () =>
      context.judged("heartbeat", claim.record.journal, () =>
        context.work(api).heartbeat(workId, { expected: value, ...desired }),
      );
    return context.points.run(point, ofClaim(claim, { expected: value }), request, beatTold);
  };
  const first = await send(expected);
  if (first.value.kind !== "refused") return first;
  // The list and the heartbeat may write one instant in two ways; the echo must be the server's own, byte for byte.
  const current = first.value.current?.last_heartbeat;
  if (!current || current === expected || Date.parse(current) !== Date.parse(expected)) return first;
  return await send(current);
}

function refused(context: ClaimContext, claim: Claim): false {
  remember(claim, { is: "refused", atMs: context.clock.monotonic() });
  return false;
}

/** Stops the item. A forced one is over at once; 409 says that it was already. */
export async function stopItem(context: ClaimContext, claim: Claim, force: boolean): Promise<void> {
  context.guard();
  const sentMs = context.clock.monotonic();
  const { api, workId } = claim.record.journal;
  await context.points.run("session.stop", ofClaim(claim, { force }), () =>
    context.judged("stop", claim.record.journal, () => context.work(api).stop(workId, { force })),
  );
  const seen: ItemView = claim.observed.item ?? {
    state: "stopped",
    acknowledgedAt: claim.record.acknowledgedAt,
    latestHeartbeatAt: null,
    startedAt: null,
    askedMs: sentMs,
  };
  replaceItem(claim, { ...seen, state: force ? "stopped" : "stopping", askedMs: Math.max(seen.askedMs, sentMs) });
}
