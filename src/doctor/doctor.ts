import { findCondition } from "../api/conditions.ts";
import { type Environment, parseEnvironment } from "../api/environment.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import { keptFromSleep, sleepSecondsOf } from "../api/sleep-needs.ts";
import type { KubeClient } from "../kube/client.ts";
import type { KubeObject } from "../kube/resource.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import type { WorkAccess } from "../queue/reading-client.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { checkApiServer, checkCrd, checkCrdSchema } from "./cluster-checks.ts";
import {
  aboutEnvironment,
  checkConditions,
  checkDryRun,
  checkKey,
  checkNetworkPolicy,
  checkParking,
  checkSleep,
  checkSpec,
  RUNNING,
  type SeenNetworkFacts,
} from "./environment-checks.ts";
import { type Look, look, unseen } from "./look.ts";
import { checkClaims, checkPodSecurity } from "./namespace-checks.ts";
import { checkClusterDns, checkInstalled, checkLeases, checkReplicas, checkVersion } from "./operator-checks.ts";
import { findOperators, type InstalledOperator, operatorOf, type ReadSettings } from "./operators.ts";
import { checkPods, podsOf } from "./pod-checks.ts";
import { type DoctorReport, reportOf, withoutRepeats } from "./report.ts";
import { checkRights } from "./rights-checks.ts";
import { checkRuntimeClass } from "./runtime-class-check.ts";
import { checkWorkApi } from "./work-api-check.ts";
import { checkWorkApiReach, type Reach, reachOnce } from "./work-api-reach.ts";

/** The inputs of `berth doctor`. */
export interface DoctorOptions {
  readonly kube: KubeClient;
  /** Address of the API server, for the report. */
  readonly server: string;
  /** Version of this build. */
  readonly version: string;
  /** Namespaces whose Environments are checked. Empty means all, or `currentNamespace` if listing all is forbidden. */
  readonly namespaces: readonly string[];
  /** Names of the Environments to check; empty: all. */
  readonly names: readonly string[];
  readonly currentNamespace: string;
  /** The namespace to search for operators; undefined: all. */
  readonly operatorNamespace: string | undefined;
  readonly defaultOperatorNamespace: string;
  readonly readSettings: ReadSettings;
  /** Used instead of an operator's settings if no operator is found. */
  readonly assumed: {
    readonly podPolicy: PodPolicy;
    readonly runtimeClasses: RuntimeClasses;
    readonly work: WorkAccess;
  };
  /** Whether to send the key to the Work API. */
  readonly checkKey: boolean;
  /** Reports which object is checked next. */
  readonly say: (what: string) => void;
}

/**
 * Checks a cluster, its operators and its Environments, and reports for each what is wrong and how to fix it. Changes
 * nothing: apart from reads, it sends only dry runs and access reviews. A check that the user has no permission for is
 * reported as skipped. Each request needs only the permissions of its own check.
 */
export async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const { kube, server, version, say } = options;
  say("checks the API server");
  const reached = await checkApiServer(kube);
  if (reached.status === "fail") return reportOf(version, server, [reached]);
  const crd = await checkCrd(kube);
  const schema = await (crd.status === "fail" ? needsCrd : checkCrdSchema(kube, version));
  say("checks the operator");
  const where = { namespace: options.operatorNamespace, fallback: options.defaultOperatorNamespace };
  const found = await findOperators(kube, where, options.readSettings);
  const operators = found.is === "seen" ? found.value : [];
  const listed = await listEnvironments(options);
  const sleeping = whereSessionsSleep(listed);
  const examined = await Promise.all(operators.map((operator) => examineOperator(options, operator, sleeping)));
  const installed = checkInstalled(found);
  const ofEnvironments = await examineNamespaces(options, examined, installed.length === 0, listed);
  const ofOperators = examined.flatMap(({ results }) => results);
  return reportOf(version, server, [reached, crd, ...installed, ...ofOperators, schema, ...ofEnvironments]);
}

const needsCrd = resultsOf("crd-schema", "cluster").skip("the CRD");

/** An operator with the results of its checks. */
interface ExaminedOperator {
  readonly operator: InstalledOperator;
  readonly isRunning: boolean;
  readonly results: readonly CheckResult[];
}

async function examineOperator(
  { kube, version }: DoctorOptions,
  operator: InstalledOperator,
  sleeping: readonly string[],
): Promise<ExaminedOperator> {
  const [replicas, lease, rights, dns] = await Promise.all([
    checkReplicas(kube, operator),
    checkLeases(kube, operator),
    checkRights(kube, operator, sleeping),
    checkClusterDns(kube, operator),
  ]);
  // A held Lease also shows an operator that runs outside of its Deployment.
  const isRunning = lease.status === "pass" || (lease.status === "skip" && replicas.status !== "fail");
  const isExplained = replicas.status === "fail" && lease.status === "fail";
  const shown = isExplained ? resultsOf("lease", lease.about).skip(RUNNING) : lease;
  return { operator, isRunning, results: [replicas, shown, rights, checkVersion(operator, version), dns] };
}

async function examineNamespaces(
  options: DoctorOptions,
  examined: readonly ExaminedOperator[],
  isInstalled: boolean,
  listed: readonly Listed[],
): Promise<CheckResult[]> {
  const { kube, say } = options;
  const reach = reachOnce();
  const operators = examined.map(({ operator }) => operator);
  const results: CheckResult[] = [];
  for (const { about, namespace, found } of listed) {
    if (found.is !== "seen") {
      // Without the CRD there are no Environments; the check `crd` reports that.
      if (found.is !== "absent") results.push(unseen(resultsOf("spec", about), found, "list environments.berth.dev"));
      continue;
    }
    const byNamespace = Map.groupBy(found.value, ({ metadata }) => metadata.namespace);
    const isWanted = (raw: Environment & KubeObject) =>
      options.names.length === 0 || options.names.includes(raw.metadata.name);
    results.push(...missing(options.names, found.value, about));
    if (options.names.length > 0) {
      for (const [name, environments] of byNamespace) if (!environments.some(isWanted)) byNamespace.delete(name);
    }
    // Check the namespace even without an Environment, because claim records may have outlived theirs.
    if (namespace !== undefined && byNamespace.size === 0 && options.names.length === 0) byNamespace.set(namespace, []);
    // One at a time: a cluster may have many Environments, and speed matters little here.
    for (const [name, environments] of byNamespace) {
      results.push(await checkPodSecurity(kube, name), await checkClaims(kube, name, environments));
      const operator = operatorOf(operators, name);
      const isRunning = examined.find((each) => each.operator === operator)?.isRunning;
      for (const raw of environments.filter(isWanted)) {
        say(`checks ${aboutEnvironment(raw)}`);
        const isServed = isRunning ?? (isInstalled || hasConditions(raw));
        results.push(...withoutRepeats(await examineEnvironment(options, raw, { operator, isServed }, reach)));
      }
    }
  }
  return results;
}

/** One list of Environments: of one namespace, or of all if it is undefined. */
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

/** The namespaces of Environments whose spec lets sessions sleep in their Pods. */
function whereSessionsSleep(listed: readonly Listed[]): string[] {
  const environments = listed.flatMap(({ found }) => (found.is === "seen" ? found.value : []));
  const sleeping = environments.filter((raw) => {
    const parsed = parseEnvironment(raw);
    const sessions = parsed.ok ? parsed.environment.spec.sessions : undefined;
    return sessions !== undefined && sleepSecondsOf(sessions) > 0 && keptFromSleep(sessions) === null;
  });
  return [...new Set(sleeping.map(({ metadata }) => metadata.namespace))];
}

const NO_ENVIRONMENT = "Create one (examples/environments), or name its namespace with -n.";

/** One result for each wanted Environment that does not exist. */
function missing(names: readonly string[], found: readonly (Environment & KubeObject)[], about: string): CheckResult[] {
  const results = resultsOf("spec", about);
  if (names.length === 0) return found.length === 0 ? [results.warn("there is no Environment", NO_ENVIRONMENT)] : [];
  const known = new Set(found.map(({ metadata }) => metadata.name));
  return names
    .filter((name) => !known.has(name))
    .map((name) => results.fail(`there is no Environment ${name}`, NO_ENVIRONMENT));
}

/** Whether an operator has reported on the current spec. */
function hasConditions({ metadata, status }: Environment & KubeObject): boolean {
  const ready = findCondition(status?.conditions, "Ready");
  return ready !== undefined && ready.observedGeneration >= metadata.generation;
}

/** The operator of an Environment, if it is known, and whether an operator runs. */
interface Serving {
  readonly operator: InstalledOperator | undefined;
  readonly isServed: boolean;
}

async function examineEnvironment(
  options: DoctorOptions,
  raw: Environment & KubeObject,
  { operator, isServed }: Serving,
  reach: Reach,
): Promise<CheckResult[]> {
  const { kube, assumed } = options;
  const settings = operator?.settings;
  const { environment, result } = checkSpec(raw, settings?.runtimeClasses ?? assumed.runtimeClasses);
  if (!environment) return [result];
  const pods = await podsOf(kube, environment);
  const facts: SeenNetworkFacts | null =
    operator && settings
      ? { apiCidrs: settings.apiCidrs, operatorNamespace: operator.namespace, dns: settings.clusterDns }
      : null;
  const { key, result: keyResult } = await checkKey(kube, environment);
  const work = settings ? { ...assumed.work, ...settings } : assumed.work;
  const waits = isServed ? [checkParking(environment), checkSleep(environment)] : [];
  const runtime = await checkRuntimeClass(kube, environment);
  const noReport = resultsOf("conditions", aboutEnvironment(raw)).skip(RUNNING);
  return [
    result,
    keyResult,
    ...(options.checkKey ? [await checkWorkApi(environment, key, work)] : []),
    runtime,
    runtime.reason === "AdmissionRefused"
      ? resultsOf("template", runtime.about).skip("the RuntimeClass")
      : await checkDryRun(kube, environment, settings?.podPolicy ?? assumed.podPolicy),
    ...(isServed ? checkConditions(environment) : [noReport]),
    await checkNetworkPolicy(kube, environment, facts, pods.is === "seen" ? pods.value : null, isServed),
    checkPods(environment, pods, kube.now()),
    await checkWorkApiReach(environment, work, reach),
    ...waits.filter((each) => each !== null),
  ];
}
