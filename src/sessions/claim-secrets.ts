import type { Points } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import { CLAIM_SECRET_TYPE, claimSelector, type Journal, listedRecord, readJournal } from "../protocol/journal.ts";
import type { SessionPoint } from "../protocol/points.ts";

/**
 * Deletes the claim Secrets of an Environment whose items nobody will settle any more: nothing owns them, so nobody else
 * does. Leases lapse by themselves.
 */
export async function deleteClaimSecrets(
  kube: KubeClient,
  environment: { readonly namespace: string; readonly name: string },
  points: Points<SessionPoint>,
  which: (journal: Journal | null) => boolean = () => true,
): Promise<void> {
  const { namespace } = environment;
  const query = { namespace, labelSelector: claimSelector(environment.name) };
  const secrets = await points.run("cleanup.list", {}, () => kube.listAll(SECRETS, query, { keep: listedRecord }));
  for (const secret of secrets.items) {
    if (secret.type !== CLAIM_SECRET_TYPE || !which(readJournal(secret))) continue;
    const { name = "", uid } = secret.metadata;
    try {
      await points.run("cleanup.drop", { pod: name }, () =>
        kube.delete(SECRETS, { namespace, name }, uid === undefined ? {} : { uid }),
      );
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}
