import { type ConditionReason, type ConditionReasonInfo, REASONS } from "./condition-reasons.ts";
import { isGood } from "./condition-types.ts";
import { END_REASONS, type EndReason, EVENT_REASONS, type EventOnlyReason, type EventType } from "./reasons.ts";

/** Every reason that an Event of ours can have. */
export type EventReason = ConditionReason | EndReason | EventOnlyReason;

/** Type of the Event of a reason: a Warning is something that a person should look at. */
export function eventType(reason: EventReason): EventType {
  // A reason of both kinds (CredentialMissing) is a Warning in both.
  if (Object.hasOwn(END_REASONS, reason)) return END_REASONS[reason as EndReason].failed ? "Warning" : "Normal";
  if (Object.hasOwn(EVENT_REASONS, reason))
    return EVENT_REASONS[reason as EventOnlyReason].warning ? "Warning" : "Normal";
  const info: ConditionReasonInfo = REASONS[reason as ConditionReason];
  return info.event ?? (isGood(info) ? "Normal" : "Warning");
}
