import type { Delivery, PodStreams, StartShown } from "../attach/pod-streams.ts";
import { errorText } from "../core/errors.ts";
import { isForbidden } from "../kube/errors.ts";
import type { Pod } from "../kube/resource.ts";
import { frameFor } from "../pods/pod-gate.ts";
import { sessionContainerName } from "../pods/pod-state.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteDelivered, noteDeliverySent, noteUnstarted } from "../protocol/claim-record.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { ofClaim } from "../protocol/points.ts";
import { credentialOfOpened } from "./secret-acts.ts";

/** The operations on an Environment's connections that a delivery needs. */
export type Deliverer = Pick<PodStreams, "deliver" | "hasStarted">;

/**
 * Writes the session's line to its waiting container. Without a marker, the line may still be read: then the item and
 * the container's log decide.
 * @throws KubeApiError if the Pod can't be attached to: no line was sent
 */
export async function deliverSession(
  context: ClaimContext,
  streams: Deliverer,
  claim: Claim,
  pod: Pod,
): Promise<Delivery> {
  const { workId, sessionId } = claim.record.journal;
  const credential = await credentialOfOpened(context, claim);
  const frame = frameFor(pod, sessionContainerName(pod), { workId, sessionId, credential });
  if (frame === null) throw new Error("the ids and the credential of the work item do not fit in a line");
  const sent = () => noteDeliverySent(claim, context.clock.monotonic());
  const delivery = await context.points.run(
    "session.deliver",
    ofClaim(claim),
    () => streams.deliver(pod, frame, sent),
    (result) => ({ outcome: result === "started" ? "ok" : "unanswered" }),
  );
  if (delivery === "started") delivered(context, claim, "marker");
  return delivery;
}

/**
 * Reads whether the container's program has started. If the log can't show that, the line is sent again: a program that
 * runs ignores it. If an earlier process opened the claim and no marker follows, the program does run.
 */
export async function findStart(context: ClaimContext, streams: Deliverer, claim: Claim, pod: Pod): Promise<void> {
  const shown = await readLog(context, streams, claim, pod);
  const { openedAtMs, deliverySentMs, journal } = claim.record;
  // The heartbeats of a worker show its start.
  const isSilent =
    shown === "unclear" && openedAtMs === null && deliverySentMs !== null && journal.lease === "Operator";
  if (shown === "started") delivered(context, claim, "log");
  else if (isSilent) delivered(context, claim, "silence");
  else noteUnstarted(claim, context.clock.monotonic(), shown === "waiting" ? "unsent" : "unclear");
}

async function readLog(context: ClaimContext, streams: Deliverer, claim: Claim, pod: Pod): Promise<StartShown> {
  const { points, logger } = context;
  const read = () => streams.hasStarted(pod);
  try {
    return await points.run("session.read-log", ofClaim(claim), read, (shown) => ({ started: shown === "started" }));
  } catch (error) {
    if (!isForbidden(error)) throw error;
    logger.warn({ pod: claim.name, error: errorText(error) }, "no permission to read the container's log");
    return "unclear";
  }
}

/** The container has read its line. */
export function delivered({ points }: ClaimContext, claim: Claim, by: "marker" | "log" | "item" | "silence"): void {
  noteDelivered(claim, claim.record.openedAtMs === null && (by === "item" || by === "silence"));
  points.note("session.delivered", ofClaim(claim), { by });
}
