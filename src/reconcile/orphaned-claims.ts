import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Journal } from "../protocol/journal.ts";
import { ENVIRONMENTS } from "../sessions/environment-hold.ts";
import type { EnvironmentState } from "./environment-state.ts";

type Orphaned = Pick<EnvironmentState, "uid" | "environment" | "points">;

/**
 * Deletes the Secrets of claims of an Environment that is gone, if it is: someone removed the finalizer by hand. Never throws.
 * Returns false where it has to be tried again.
 */
export async function deleteOrphanedClaims(
  of: Orphaned,
  options: { readonly kube: KubeClient; readonly logger: Logger },
): Promise<boolean> {
  const { namespace, name } = of.environment.metadata;
  try {
    await of.points.run("cleanup.read-environment", {}, () => options.kube.get(ENVIRONMENTS, { namespace, name }));
    return true;
  } catch (error) {
    return isNotFound(error) ? deleteClaimsOf(of, options) : false;
  }
}

/** The same without a look at the Environment: it was given up. */
export async function deleteClaimsOf(
  { uid, environment, points }: Orphaned,
  { kube, logger }: { readonly kube: KubeClient; readonly logger: Logger },
): Promise<boolean> {
  const { namespace, name } = environment.metadata;
  const isIts = (journal: Journal | null) => journal?.environmentUid === uid;
  try {
    await deleteClaimSecrets(kube, { namespace, name }, points, isIts);
    return true;
  } catch (error) {
    logger.warn({ namespace, name, error: errorText(error) }, "claim Secrets of a deleted Environment are left");
    return false;
  }
}
