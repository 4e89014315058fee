import { toLabelValue } from "../api/label-value.ts";
import { LABEL_WORK_ID } from "../api/names.ts";
import type { Claim } from "./claim.ts";
import type { SessionContext } from "./context.ts";
import { readFinished } from "./finished.ts";

/**
 * onPodFailure: Release lets an item be run again so often, as far as its finished Pods are still kept; then it is stopped.
 * A session that kills its Pod each time would else go round for ever.
 */
export const MOST_RELEASES = 3;

/** Whether the item of this claim may go back to the queue should its Pod die without a word. Counted from the cache. */
export function mayRelease(context: SessionContext, claim: Claim): boolean {
  if (context.environment().spec.sessions?.onPodFailure !== "Release") return false;
  const workId = toLabelValue(claim.journal.workId);
  const died = context.pods
    .list()
    .filter(({ metadata }) => metadata.name !== claim.name && metadata.labels?.[LABEL_WORK_ID] === workId)
    .filter((pod) => readFinished(pod)?.failed);
  return died.length < MOST_RELEASES;
}
