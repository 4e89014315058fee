/** The rules of the roles in deploy/. */
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import { readManifests } from "../../testbed/cluster/manifests.ts";

/** A rule of a Role. */
export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/**
 * The rules of a shipped Role or ClusterRole.
 * @param name without the namespace that the name of a ClusterRole ends with
 */
export async function shippedRules(name: string): Promise<readonly Rule[]> {
  const role = (await readManifests(DEPLOY_DIR)).find(
    ({ kind, metadata }) => /^(Cluster)?Role$/.test(kind ?? "") && metadata?.name?.split(".")[0] === name,
  );
  if (!role) throw new Error(`deploy/ has no role ${name}`);
  return role["rules"] as Rule[];
}
