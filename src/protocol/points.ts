import type { PointDetails, PointSubject } from "../core/points.ts";
import type { Claim } from "./claim.ts";

/**
 * The named points of an Environment in `sessions` mode (src/core/points.ts), by phase, each with a description. A
 * request is reported before and after it is sent, a decision once. The names of a claim's steps are those of step.ts.
 * A claim's points carry its work id and its Pod; descriptions list the details, if there are any.
 */
export const SESSION_POINTS = {
  // Start: recovery of claims of an earlier process
  "recover.list": "reads the claim Secrets at the start",
  "recover.list-late": "reads them again when no request of an earlier process can still arrive",
  "recover.take-up":
    "decision: a Secret that was found is a claim from here on. Details: use, lease, opened, acknowledgedAt",

  // 1. Prepare
  "prepare.create-pod":
    "creates a Pod that gets parked. Asks: volume, sessionId (null: any), if it mounts a session volume",
  "prepare.read-pod": "reads a Pod whose creation got no answer and that the cache does not show",
  "prepare.read-events": "reads the Events of a Pod that does not get ready",

  // The Environment's finalizer
  "environment.read": "reads the Environment before its finalizers are changed",
  "environment.hold": "adds the finalizer",
  "environment.release": "takes the finalizer away",

  // 2.-4. Claim
  "claim.poll": "takes an item from the queue. Details: workId (null: none came), state, type",
  "claim.offer":
    "decision: what becomes of an item that a poll brought. Details: result, as the label of berth_claims_total",
  "claim.journal": "creates the Secret that takes the slot. Asks: use, turn (0: the Pod has none)",
  "claim.read-journal": "reads the Secret that has the slot. Details: ours",
  "claim.read-pod": "reads the Pod live, before the acknowledgement. Details: parked",
  "claim.ack":
    "acknowledges. Details: acknowledgedAt. Refused also if the answer shows another client's acknowledgement",
  "claim.drop": "deletes the Secret of a claim that is not acknowledged",

  // Items that are not sessions
  "refuse.ack": "acknowledges an item that is no session",
  "refuse.stop": "stops it",
  "refuse.list": "reads the list for items that are only partially rejected",
  "refuse.stop-left": "stops one that was found",

  // Steps of a claim, from here to `session.mark`
  "session.look": "reads the item with the list call. Details: state, acknowledgedAt, latestHeartbeatAt",
  "session.own": "decision: our acknowledgement took effect. Details: acknowledgedAt",
  "session.doubt":
    "decision: the item was acknowledged after its window, by us or by another client. Details: acknowledgedAt",
  "session.take":
    "heartbeat that takes or keeps the lease. Asks: expected. Details: accepted, state, value (current one where refused), ttlSeconds",
  "session.lose": "decision: another client holds the lease. Details: why",
  "session.let-go": "decision: no more heartbeats, so the lease expires",
  "session.shorten": "last heartbeat, so that the lease expires sooner. As session.take",
  "session.beat": "heartbeat that keeps the lease. As session.take",
  "session.read-credential": "reads the Secret for its credential. Details: opened",
  "session.open": "gives the Secret the key that the container waits for. Asks: acknowledgedAt",
  "session.touch": "marks the Pod as assigned, so that the kubelet syncs it. Asks: touches",
  "session.deliver": "writes the session's line to its waiting container. Unanswered: the container did not confirm it",
  "session.read-log": "reads the container's log to see whether its program started. Details: started",
  "session.delivered": "decision: the container has read its line. Details: by (marker, log, item, silence)",
  "session.snapshot": "decision: the item's last heartbeat is remembered. Details: value",
  "session.fence": "heartbeat before a stop, which may only end our own lease. As session.take",
  "session.stop": "stops the item. Asks: force",
  "session.read-pod": "reads the Pod live, for a step or before its deletion",
  "session.delete-pod": "deletes the Pod. Asks: uid",
  "session.count-release": "writes that an item is released, before its claim's Secret is deleted",
  "session.drop": "deletes the Secret of a claim that is not ours. Asks: because",
  "session.settled": "deletes the Secret of a claim whose item another client holds. Asks: because",
  "session.mark": "marks the Pod as finished",
  "session.reread": "reads the Secret after a conflict. Details: ours",
  "session.forget": "decision: the claim has ended. Details: why",

  // Turns of Pods whose sessions sleep
  "session.sleep": "marks the Pod as sleeping, before the claim's Secret is deleted. Asks: turn (the last that ended)",
  "turn.read-pod": "reads a Pod live that needs its next turn",
  "turn.add": "adds the turn as an ephemeral container. Asks: turn",

  // Removal of free and sleeping Pods
  "removal.lock": "creates the Secret that takes the slot of a free or sleeping Pod. Asks: turn (0: the first)",
  "removal.read-lock": "reads the Secret that has the slot",
  "removal.read-pod": "reads the Pod live",
  "removal.delete-pod": "deletes it. Asks: uid",
  "removal.unlock": "deletes the Secret",

  // Finished Pods, and Pods that a settled claim left behind
  "retention.read-secret": "reads whether a Pod that seems left behind has a claim",
  "retention.read-pod": "reads the Pod live",
  "retention.delete-pod": "deletes it. Asks: uid",

  // The disruption budget
  "budget.read": "reads the PodDisruptionBudget",
  "budget.create": "creates it",
  "budget.patch": "changes how many Pods it protects",
  "budget.delete": "deletes it",

  // Session volumes. `pod` is the name of the volume, which is that of its first Pod
  "workspace.list": "reads an Environment's volumes",
  "workspace.adopt": "writes to a volume without a session, so that an earlier request can no longer give it one",
  "workspace.read":
    "reads a volume: before a Pod is made for its session, when its Pod is parked, or after another client wrote to it",
  "workspace.create": "creates one for a Pod, before the Pod",
  "workspace.assign": "gives it its session, before the acknowledgement of the session's first item. Asks: sessionId",
  "workspace.take":
    "marks a session's volume as in use: before a Pod is made for it, and before an acknowledgement. Asks: sessionId",
  "workspace.leave": "marks it as used no more. Asks: sessionId, lastUsed",
  "workspace.delete":
    "deletes one that was kept long enough, or lost its Pod before it had a session. Asks: uid, sessionId (null: none)",

  // Observation
  "queue.stats": "reads the queue's statistics",
  "queue.list": "reads whose items wait, before a sleeping Pod or a volume is deleted, or to find the item of one",
  "sweep.list": "reads the items of running sessions with one walk",

  // Cleanup of Secrets that no loop settles
  "cleanup.read-environment": "reads whether an Environment that the cache no longer shows was deleted",
  "cleanup.list": "reads the claim Secrets of an Environment that is given up, or gone",
  "cleanup.drop": "deletes one of them",
} as const satisfies Record<string, string>;

export type SessionPoint = keyof typeof SESSION_POINTS;

/** The subject of a claim's points. */
export function ofClaim(
  { name, record: { journal } }: Pick<Claim, "name" | "record">,
  asks?: PointDetails,
): PointSubject {
  return { workId: journal.workId, pod: name, ...(asks && { asks }) };
}
