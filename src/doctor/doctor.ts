import type { Environment } from "../api/environment.ts";
import type { PodPolicy } from "../api/pod-policy.ts";
import type { KubeClient } from "../kube/client.ts";
import type { KubeObject } from "../kube/resource.ts";
import type { WorkAccess } from "../queue/reading-client.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { type CheckResult, type DoctorReport, reportOf, resultsOf } from "./checks.ts";
import { checkApiServer, checkCrd, checkCrdSchema } from "./cluster-checks.ts";
import {
  aboutEnvironment,
  checkConditions,
  checkDryRun,
  checkKey,
  checkNetworkPolicy,
  checkSpec,
  type SeenNetworkFacts,
} from "./environment-checks.ts";
import { type Look, look, unseen } from "./look.ts";
import { checkClaims, checkPodSecurity } from "./namespace-checks.ts";
import { checkClusterDns, checkInstalled, checkLeases, checkReplicas, checkVersion } from "./operator-checks.ts";
import { findOperators, type InstalledOperator, operatorOf, type ReadSettings } from "./operators.ts";
import { checkPods, podsOf } from "./pod-checks.ts";
import { checkRights } from "./rights-checks.ts";
import { checkWorkApi } from "./work-api-check.ts";
import { checkWorkApiReach, type Reach, reachOnce } from "./work-api-reach.ts";

/** What is looked at, and how. */
export interface DoctorOptions {
  readonly kube: KubeClient;
  /** Address of the API server, for the report. */
  readonly server: string;
  /** Version of this build. */
  readonly version: string;
  /** Namespaces whose Environments are looked at; empty: all, or `currentNamespace` where that is not allowed. */
  readonly namespaces: readonly string[];
  readonly currentNamespace: string;
  /** Where the operator is looked for; undefined: everywhere. */
  readonly operatorNamespace: string | undefined;
  readonly defaultOperatorNamespace: string;
  readonly readSettings: ReadSettings;
  /** What is taken for an operator's settings where none is found. */
  readonly assumed: { readonly podPolicy: PodPolicy; readonly work: WorkAccess };
  /** Whether the Work API is asked with the key. */
  readonly checkKey: boolean;
  /** Told what is looked at next. */
  readonly say: (what: string) => void;
}

/**
 * Looks at a cluster, its operators and its Environments, and says of each thing whether it is as it should be and what to
 * do. It changes nothing: dry runs and access reviews are the only requests that are no reads. What whoever runs it may not
 * see is said not to be checked; nothing is asked with more rights than that check alone needs.
 */
export async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const { kube, server, version, say } = options;
  say("looks at the API server");
  const reached = await checkApiServer(kube);
  if (reached.status === "fail") return reportOf(version, server, [reached]);
  const cluster = [reached, await checkCrd(kube), await checkCrdSchema(kube, version)];
  say("looks at the operator");
  const where = { namespace: options.operatorNamespace, fallback: options.defaultOperatorNamespace };
  const found = await findOperators(kube, where, options.readSettings);
  const operators = found.is === "seen" ? found.value : [];
  const ofOperators = await Promise.all(operators.map((operator) => examineOperator(options, operator)));
  const ofEnvironments = await examineNamespaces(options, operators);
  return reportOf(version, server, [...cluster, ...checkInstalled(found), ...ofOperators.flat(), ...ofEnvironments]);
}

async function examineOperator({ kube, version }: DoctorOptions, operator: InstalledOperator): Promise<CheckResult[]> {
  const looks = [checkLeases(kube, operator), checkRights(kube, operator), checkClusterDns(kube, operator)];
  return [checkReplicas(operator), checkVersion(operator, version), ...(await Promise.all(looks))];
}

async function examineNamespaces(
  options: DoctorOptions,
  operators: readonly InstalledOperator[],
): Promise<CheckResult[]> {
  const { kube, say } = options;
  const reach = reachOnce();
  const results: CheckResult[] = [];
  for (const { about, namespace, found } of await listEnvironments(options)) {
    if (found.is !== "seen") {
      // Without the CRD there are none, and another check says so.
      if (found.is !== "absent") results.push(unseen(resultsOf("spec", about), found, "list environments.berth.dev"));
      continue;
    }
    if (found.value.length === 0)
      results.push(resultsOf("spec", about).warn("there is no Environment", NO_ENVIRONMENT));
    const byNamespace = Map.groupBy(found.value, ({ metadata }) => metadata.namespace);
    // Also without an Environment: records of claims may have outlived theirs.
    if (namespace !== undefined && byNamespace.size === 0) byNamespace.set(namespace, []);
    // One after the other: a cluster may have many, and whoever looks is in no hurry.
    for (const [name, environments] of byNamespace) {
      results.push(await checkPodSecurity(kube, name), await checkClaims(kube, name, environments));
      for (const raw of environments) {
        say(`looks at ${aboutEnvironment(raw)}`);
        results.push(...(await examineEnvironment(options, raw, operatorOf(operators, name), reach)));
      }
    }
  }
  return results;
}

/** One list of Environments: of one namespace, or of all where that is undefined. */
interface Listed {
  readonly about: string;
  readonly namespace: string | undefined;
  readonly found: Look<readonly (Environment & KubeObject)[]>;
}

async function listEnvironments({ kube, namespaces, currentNamespace }: DoctorOptions): Promise<Listed[]> {
  const list = async (namespace?: string): Promise<Listed> => ({
    about: namespace === undefined ? "cluster" : `namespace ${namespace}`,
    namespace,
    found: await look(async () => (await kube.listAll(ENVIRONMENTS, { namespace })).items),
  });
  if (namespaces.length > 0) return await Promise.all(namespaces.map(list));
  const all = await list();
  return all.found.is === "forbidden" ? [await list(currentNamespace)] : [all];
}

const NO_ENVIRONMENT = "Create one (examples/environments), or name the right namespace with -n.";

async function examineEnvironment(
  options: DoctorOptions,
  raw: Environment & KubeObject,
  operator: InstalledOperator | undefined,
  reach: Reach,
): Promise<CheckResult[]> {
  const { kube, assumed } = options;
  const { environment, result } = checkSpec(raw);
  if (!environment) return [result];
  const settings = operator?.settings;
  const pods = await podsOf(kube, environment);
  const facts: SeenNetworkFacts | null =
    operator && settings
      ? { apiCidrs: settings.apiCidrs, operatorNamespace: operator.namespace, dns: settings.clusterDns }
      : null;
  const { key, result: keyResult } = await checkKey(kube, environment);
  const work = settings ? { ...assumed.work, ...settings } : assumed.work;
  return [
    result,
    ...checkConditions(environment),
    keyResult,
    await checkWorkApiReach(environment, work, reach),
    ...(options.checkKey ? [await checkWorkApi(environment, key, work)] : []),
    await checkDryRun(kube, environment, settings?.podPolicy ?? assumed.podPolicy),
    await checkNetworkPolicy(kube, environment, facts, pods.is === "seen" ? pods.value : null),
    checkPods(environment, pods, kube.now()),
  ];
}
