import { isConflict, isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteOpeningSent, noteVersion, takeCredential } from "../protocol/claim-record.ts";
import { type ClaimContext, STEP_BOUND } from "../protocol/context.ts";
import { openingPatch, readJournal, storedCredential } from "../protocol/journal.ts";
import { ofClaim } from "../protocol/points.ts";

/**
 * Gives the Secret the key that the container waits for, and makes the acknowledgement durable in the same patch.
 * The slot stays ours only while nobody changed the Secret: its resourceVersion says so.
 */
export async function openSecret(context: ClaimContext, claim: Claim, acknowledgedAt: string): Promise<void> {
  const ref = { namespace: context.namespace, name: claim.name };
  const credential = takeCredential(claim) ?? (await rereadCredential(context, claim));
  if (credential === null) return;
  const patch = openingPatch(
    { uid: claim.record.secretUid, resourceVersion: claim.record.secretVersion },
    credential,
    acknowledgedAt,
  );
  noteOpeningSent(claim);
  try {
    const opened = await context.points.run("session.open", ofClaim(claim, { acknowledgedAt }), () =>
      context.kube.patch(SECRETS, ref, patch, { type: "merge" }, STEP_BOUND),
    );
    noteVersion(claim, opened.metadata.resourceVersion);
  } catch (error) {
    if (isConflict(error) || isNotFound(error)) throw new StaleClaimError();
    throw error;
  }
}

/** The credential from the Secret; null when an earlier patch of ours, whose answer was lost, has opened it already. */
async function rereadCredential(context: ClaimContext, claim: Claim): Promise<string | null> {
  const ref = { namespace: context.namespace, name: claim.name };
  const secret = await context.points
    .run(
      "session.read-credential",
      ofClaim(claim),
      () => context.kube.get(SECRETS, ref),
      (read) => ({ opened: readJournal(read)?.opened ?? false }),
    )
    .catch((error) => {
      throw isNotFound(error) ? new StaleClaimError() : error;
    });
  if (secret.metadata.uid !== claim.record.secretUid) throw new StaleClaimError();
  noteVersion(claim, secret.metadata.resourceVersion);
  return readJournal(secret)?.opened ? null : storedCredential(secret);
}

/** The Secret is not the one that this claim wrote: somebody else has the slot, or had it. */
export class StaleClaimError extends Error {
  constructor() {
    super("the claim's Secret was changed or replaced by somebody else");
    this.name = "StaleClaimError";
  }
}

/**
 * Deletes a claim's Secret as it was last seen. Gone already is fine; changed by somebody else is not.
 * @param because in words, for a trace
 */
export async function dropSecret(
  { kube, points, namespace }: ClaimContext,
  claim: Claim,
  point: "claim.drop" | "session.drop" | "session.settled",
  because: string,
): Promise<void> {
  const asSeen = { uid: claim.record.secretUid, resourceVersion: claim.record.secretVersion };
  try {
    await points.run(point, ofClaim(claim, { because }), () =>
      kube.delete(SECRETS, { namespace, name: claim.name }, asSeen, STEP_BOUND),
    );
  } catch (error) {
    if (isNotFound(error)) return;
    if (isConflict(error)) throw new StaleClaimError();
    throw error;
  }
}
