import type { Environment } from "../api/environment.ts";
import {
  ANNOTATION_DEADLINE,
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_ENDED_TURN,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_ID,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  LABEL_PHASE,
  LABEL_SESSION_ID,
  toLabelValue,
} from "../api/names.ts";
import { sleepSecondsOf } from "../api/sleep-needs.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { Pod } from "../kube/resource.ts";

/** How much later than the operator the keeper ends a sleeping Pod. */
export const KEEPER_SLACK_MS = 600_000;

/** How long sessions sleep according to the current spec, in milliseconds; 0: they don't. */
export function sleepMsOf({ spec: { sessions } }: Pick<Environment, "spec">): number {
  return sessions ? sleepSecondsOf(sessions) * SECOND_MS : 0;
}

/**
 * The merge patch that marks a Pod as sleeping, from now on for the current sleepSeconds. It names the resourceVersion,
 * so a late one can't undo the assignment of the next turn.
 * @param pod as last read
 * @param nowMs by the API server's clock
 */
export function sleepPatch(
  { metadata }: Pod,
  { sessionId, endedTurn }: { readonly sessionId: string; readonly endedTurn: number },
  environment: Pick<Environment, "spec">,
  nowMs: number,
) {
  const own = environment.spec.sessions?.template.metadata?.annotations ?? {};
  const untilMs = nowMs + sleepMsOf(environment);
  const annotations: Record<string, string | null> = {
    [ANNOTATION_SESSION_ID]: sessionId,
    [ANNOTATION_ENDED_TURN]: String(endedTurn),
    [ANNOTATION_SLEEPS_SINCE]: new Date(nowMs).toISOString(),
    [ANNOTATION_SLEEPS_UNTIL]: new Date(untilMs).toISOString(),
    // The sleep lasts up to twice as long if the session's next item waits.
    [ANNOTATION_DEADLINE]: String(Math.ceil((untilMs + sleepMsOf(environment) + KEEPER_SLACK_MS) / SECOND_MS)),
  };
  // Annotations about disruptions in the user's template win.
  if (own[ANNOTATION_SAFE_TO_EVICT] === undefined) annotations[ANNOTATION_SAFE_TO_EVICT] = "true";
  if (own[ANNOTATION_DO_NOT_DISRUPT] === undefined) annotations[ANNOTATION_DO_NOT_DISRUPT] = null;
  const labels = { [LABEL_PHASE]: "sleeping", [LABEL_SESSION_ID]: toLabelValue(sessionId) };
  return { metadata: { uid: metadata.uid, resourceVersion: metadata.resourceVersion, labels, annotations } };
}
