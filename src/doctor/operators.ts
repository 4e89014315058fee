import type { ClusterDns } from "../api/cluster-dns.ts";
import { LABEL_ROLE } from "../api/names.ts";
import type { PodPolicy } from "../api/pod-policy.ts";
import type { KubeClient } from "../kube/client.ts";
import { DEPLOYMENTS, type Deployment } from "../kube/resource.ts";
import { type Look, look } from "./look.ts";

/** What an operator was started with, as far as checks ask for it. */
export interface OperatorSettings {
  /** Empty: all. */
  readonly namespaces: readonly string[];
  readonly podPolicy: PodPolicy;
  readonly apiCidrs: readonly string[];
  readonly clusterDns: ClusterDns;
  readonly originAllowed: (baseUrl: string) => boolean;
  /** Whether the origin may be at an inner address. */
  readonly mayBeInner: (origin: string) => boolean;
  readonly leases: { readonly elected: boolean; readonly namespace: string | undefined; readonly shards: number };
}

/** Reads flags and variables of `berth run`; throws for those of another version. */
export type ReadSettings = (
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
) => OperatorSettings;

/** An operator that is installed. */
export interface InstalledOperator {
  readonly namespace: string;
  readonly deployment: Deployment;
  readonly image: string;
  readonly serviceAccount: string;
  /** Null: this build does not know one of its flags. */
  readonly settings: OperatorSettings | null;
}

/** As the chart labels it. Its `app.kubernetes.io/name` is whatever `nameOverride` or the alias of a dependency says. */
const SELECTOR = "app.kubernetes.io/component=operator";
/** Its container, in the chart. */
const CONTAINER = "berth";
const ENV_PREFIX = "BERTH_";

/**
 * Every operator of the cluster that is installed as a Deployment; where only some namespaces may be read, those of one.
 * @param namespace where to look; undefined: everywhere, or in `fallback` where that is not allowed
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

/** The operator that serves a namespace, as far as is known. */
export function operatorOf(operators: readonly InstalledOperator[], namespace: string): InstalledOperator | undefined {
  const isServed = ({ settings }: InstalledOperator) =>
    settings !== null && (settings.namespaces.length === 0 || settings.namespaces.includes(namespace));
  return operators.find(isServed);
}

/** Others call their operators `operator`, too; this label is Berth's, and NetworkPolicies rest on it. */
function isBerth({ spec }: Deployment): boolean {
  return spec.template.metadata?.labels?.[LABEL_ROLE] === "operator";
}

function installed(deployment: Deployment, readSettings: ReadSettings): InstalledOperator {
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
