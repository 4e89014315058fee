import type { CallOptions } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { SECRETS, type Secret } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import { keepCredential, noteOpeningSent, noteVersion, takeCredential } from "../protocol/claim-record.ts";
import { type ClaimContext, STEP_BOUND } from "../protocol/context.ts";
import { openedCredential, openingPatch, readJournal, storedCredential } from "../protocol/journal.ts";
import { ofClaim } from "../protocol/points.ts";

/**
 * Adds the credential to the Secret under the key that the container waits for, and makes the acknowledgement durable in
 * the same patch. With a waiting shell or program, the key only records the opening (`keeps`: the line needs the
 * credential). The patch's resourceVersion makes sure that no other client has changed the Secret, so the slot is still ours.
 */
export async function openSecret(
  context: ClaimContext,
  claim: Claim,
  acknowledgedAt: string,
  keeps: boolean,
): Promise<void> {
  const ref = { namespace: context.namespace, name: claim.slot };
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
    if (keeps) keepCredential(claim, credential);
  } catch (error) {
    if (isConflict(error) || isNotFound(error)) throw new StaleClaimError();
    throw error;
  }
}

/** The credential from the Secret; null: an earlier patch, whose answer was lost, has already opened the claim. */
async function rereadCredential(context: ClaimContext, claim: Claim): Promise<string | null> {
  const secret = await readClaimed(context, claim);
  noteVersion(claim, secret.metadata.resourceVersion);
  return readJournal(secret)?.opened ? null : storedCredential(secret);
}

/** The credential of an opened claim, as plain text, for its line. */
export async function credentialOfOpened(context: ClaimContext, claim: Claim): Promise<string> {
  const kept = claim.record.credential;
  if (kept !== null) return plain(kept);
  const credential = openedCredential(await readClaimed(context, claim, STEP_BOUND));
  if (credential === null) throw new StaleClaimError();
  keepCredential(claim, credential);
  return plain(credential);
}

/** @throws StaleClaimError if the claim's Secret is gone, or is another one */
async function readClaimed({ kube, namespace, points }: ClaimContext, claim: Claim, bound: CallOptions = {}) {
  const read = () => kube.get(SECRETS, { namespace, name: claim.slot }, bound);
  const told = (secret: Secret) => ({ opened: readJournal(secret)?.opened ?? false });
  const secret = await points.run("session.read-credential", ofClaim(claim), read, told).catch((error) => {
    throw isNotFound(error) ? new StaleClaimError() : error;
  });
  if (secret.metadata.uid !== claim.record.secretUid) throw new StaleClaimError();
  return secret;
}

function plain(base64: string): string {
  return Buffer.from(base64, "base64").toString("utf8");
}

/** The Secret is not the one that this claim wrote: another client holds the slot, or held it. */
export class StaleClaimError extends Error {
  constructor() {
    super("another client changed or replaced the claim's Secret");
    this.name = "StaleClaimError";
  }
}

/**
 * Deletes a claim's Secret, if it has not changed since it was last seen. A missing Secret is no error.
 * @param because the reason, for a trace
 * @throws StaleClaimError if another client changed the Secret
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
      kube.delete(SECRETS, { namespace, name: claim.slot }, asSeen, STEP_BOUND),
    );
  } catch (error) {
    if (isNotFound(error)) return;
    if (isConflict(error)) throw new StaleClaimError();
    throw error;
  }
}
