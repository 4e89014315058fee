import type { ClusterDns } from "../api/cluster-dns.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import { LABEL_ROLE } from "../api/names.ts";
import type { KubeClient } from "../kube/client.ts";
import { DEPLOYMENTS, type Deployment } from "../kube/resource.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import { type Look, look } from "./look.ts";

/** The settings of an operator that the checks use. */
export interface OperatorSettings {
  /** Empty means all. */
  readonly namespaces: readonly string[];
  readonly podPolicy: PodPolicy;
  readonly runtimeClasses: RuntimeClasses;
  readonly apiCidrs: readonly string[];
  readonly clusterDns: ClusterDns;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly leases: { readonly elected: boolean; readonly namespace: string | undefined; readonly shards: number };
}

/** Parses flags and environment variables of `berth run`; throws for those of another version. */
export type ReadSettings = (
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
) => OperatorSettings;

/** An installed operator. */
export interface InstalledOperator {
  readonly namespace: string;
  readonly deployment: Deployment;
  readonly image: string;
  readonly serviceAccount: string;
  /** Null if this build does not know one of its flags. */
  readonly settings: OperatorSettings | null;
}

/** The chart's label. `app.kubernetes.io/name` is no use, because `nameOverride` or a dependency's alias changes it. */
const SELECTOR = "app.kubernetes.io/component=operator";
/** The container's name in the chart. */
const CONTAINER = "berth";
const ENV_PREFIX = "BERTH_";

/**
 * Finds every operator that is installed as a Deployment. If listing all namespaces is forbidden, searches only one.
 * @param where the namespace to search; undefined: all, or `fallback` if that is forbidden
 */
export async function findOperators(
  kube: KubeClient,
  where: { readonly namespace: string | undefined; readonly fallback: string },
  readSettings: ReadSettings,
): Promise<Look<readonly InstalledOperator[]>> {
  const list = (namespace: string | undefined) =>
    look(async () => {
      const { items } = await kube.listAll(DEPLOYMENTS, { namespace, labelSelector: SELECTOR });
      return items.filter(isBerth).map((deployment) => installed(deployment, readSettings));
    });
  const found = await list(where.namespace);
  return found.is === "forbidden" && where.namespace === undefined ? list(where.fallback) : found;
}

/** The operator that serves a namespace, if known. */
export function operatorOf(operators: readonly InstalledOperator[], namespace: string): InstalledOperator | undefined {
  const isServed = ({ settings }: InstalledOperator) =>
    settings !== null && (settings.namespaces.length === 0 || settings.namespaces.includes(namespace));
  return operators.find(isServed);
}

/**
 * Other projects also label their operators `operator`. This label is Berth's own, and NetworkPolicies select by it.
 */
function isBerth({ spec }: Deployment): boolean {
  return spec.template.metadata?.labels?.[LABEL_ROLE] === "operator";
}

/** An operator with the settings in its Deployment. */
export function installed(deployment: Deployment, readSettings: ReadSettings): InstalledOperator {
  const pod = deployment.spec.template.spec;
  const container = pod.containers.find(({ name }) => name === CONTAINER) ?? pod.containers[0];
  const { args = [], env = [] } = container ?? {};
  const variables = env.filter(({ name, value }) => name.startsWith(ENV_PREFIX) && value !== undefined);
  return {
    namespace: deployment.metadata.namespace ?? "",
    deployment,
    image: container?.image ?? "",
    serviceAccount: pod.serviceAccountName ?? "default",
    settings: settingsOf(args, Object.fromEntries(variables.map(({ name, value }) => [name, value])), readSettings),
  };
}

function settingsOf(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  readSettings: ReadSettings,
): OperatorSettings | null {
  try {
    return readSettings(args[0] === "run" ? args.slice(1) : args, env);
  } catch {
    return null;
  }
}
