import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { deleteClaimSecrets } from "../sessions/claim-secrets.ts";
import { ENVIRONMENTS } from "../sessions/environment-hold.ts";
import type { Journal } from "../sessions/journal.ts";
import type { EnvironmentState } from "./environment-state.ts";

/** Somebody took the finalizer away by hand: what was claimed is nobody's now. Best effort; never throws. */
export async function deleteOrphanedClaims(
  { uid, environment, points }: Pick<EnvironmentState, "uid" | "environment" | "points">,
  { kube, logger }: { readonly kube: KubeClient; readonly logger: Logger },
): Promise<void> {
  const { namespace, name } = environment.metadata;
  try {
    await points.run("cleanup.read-environment", {}, () => kube.get(ENVIRONMENTS, { namespace, name }));
  } catch (error) {
    if (!isNotFound(error)) return;
    const isIts = (journal: Journal | null) => journal?.environmentUid === uid;
    await deleteClaimSecrets(kube, { namespace, name }, points, isIts).catch((failure: unknown) =>
      logger.warn({ namespace, name, error: errorText(failure) }, "claims of an Environment that is gone are left"),
    );
  }
}
