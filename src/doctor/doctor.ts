import type { Environment } from "../api/environment.ts";
import { parseEnvironment } from "../api/environment.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import { realClock, SECOND_MS, sleep } from "../core/clock.ts";
import type { KubeClient } from "../kube/client.ts";
import { DEPLOYMENTS, type KubeObject } from "../kube/resource.ts";
import type { WorkAccess } from "../queue/reading-client.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { checkApiServer, checkCrd, checkCrdSchema } from "./cluster-checks.ts";
import { aboutEnvironment, checkConditions } from "./environment-checks.ts";
import { type Look, look, unseen } from "./look.ts";
import { checkClusterDns, checkInstalled, checkLeases, checkReplicas, checkVersion } from "./operator-checks.ts";
import { findOperators, type InstalledOperator, installed, operatorOf, type ReadSettings } from "./operators.ts";
import { type DoctorReport, reportOf } from "./report.ts";
import { checkRights } from "./rights-checks.ts";
import { checkRuntimeClass } from "./runtime-class-check.ts";
import { checkWorkApiReach, type Reach, reachOnce } from "./work-api-reach.ts";

/** The cluster that `berth doctor` checks. */
export interface Examined {
  readonly kube: KubeClient;
  /** Address of the API server, for the report. */
  readonly server: string;
  /** Version of this build. */
  readonly version: string;
  readonly readSettings: ReadSettings;
}

/** The inputs of `berth doctor`. */
export interface DoctorOptions extends Examined {
  /** Namespaces whose Environments are checked. Empty means all, or `currentNamespace` if listing all is forbidden. */
  readonly namespaces: readonly string[];
  /** Names of the Environments to check; empty: all. */
  readonly names: readonly string[];
  readonly currentNamespace: string;
  /** The namespace to search for operators; undefined: all. */
  readonly operatorNamespace: string | undefined;
  readonly defaultOperatorNamespace: string;
  /** Used instead of an operator's settings if no operator is found. */
  readonly assumed: { readonly runtimeClasses: RuntimeClasses; readonly work: WorkAccess };
  /** Reports which object is checked next. */
  readonly say: (what: string) => void;
}

/**
 * Checks what an operator can't report about itself, and prints its Environments' conditions, with how to fix each
 * problem. Changes nothing: apart from reads, it sends only access reviews. A check that the user has no permission for
 * is reported as skipped. Each request needs only the permissions of its own check.
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
  const ofOperators = await Promise.all(operators.map((operator) => examineOperator(options, operator)));
  const ofEnvironments = await examineEnvironments(options, operators);
  return reportOf(version, server, [
    ...[reached, crd, ...checkInstalled(found), ...ofOperators.flat()],
    ...[schema, ...ofEnvironments],
  ]);
}

const needsCrd = resultsOf("crd-schema", "cluster").skip("the CRD");

function examineOperator({ kube, version }: DoctorOptions, operator: InstalledOperator): Promise<CheckResult[]> {
  return Promise.all([
    checkReplicas(kube, operator),
    checkLeases(kube, operator),
    checkRights(kube, operator),
    checkVersion(operator, version),
    checkClusterDns(kube, operator),
  ]);
}

/**
 * Checks one operator's Deployment with the permission to read only that, and waits until nothing is wrong: the API
 * server serves Environments, and the current revision has all its replicas.
 */
export async function examineDeployment(
  { kube, server, version, readSettings }: Examined,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  timeoutSeconds: number,
  clock = realClock,
): Promise<DoctorReport> {
  const deadlineMs = clock.monotonic() + timeoutSeconds * SECOND_MS;
  for (;;) {
    const found = await look(() => kube.get(DEPLOYMENTS, { namespace, name }));
    const results = resultsOf("operator", `deployment ${namespace}/${name}`);
    const operator =
      found.is === "seen"
        ? await checkReplicas(kube, installed(found.value, readSettings))
        : results.fail(
            found.is === "failed" ? found.message : `it is ${found.is}`,
            "Install the operator, name its Deployment, or allow this user to get it.",
          );
    const checks = [await checkApiServer(kube), await checkCrd(kube), operator].map((result) =>
      result.status === "warn" ? { ...result, status: "fail" as const } : result,
    );
    const report = reportOf(version, server, checks);
    const needsFix = found.is === "seen" ? found.value.spec.replicas === 0 : found.is !== "failed";
    if (report.ok || needsFix || clock.monotonic() >= deadlineMs) return report;
    await sleep(clock, SECOND_MS);
  }
}

async function examineEnvironments(
  options: DoctorOptions,
  operators: readonly InstalledOperator[],
): Promise<CheckResult[]> {
  const { names, say } = options;
  const reach = reachOnce();
  const results: CheckResult[] = [];
  for (const { about, found } of await listEnvironments(options)) {
    const { skip, fail, warn } = resultsOf("conditions", about);
    if (found.is !== "seen") {
      // Without the CRD there are no Environments; the check `crd` reports that.
      if (found.is !== "absent") results.push(unseen({ skip, fail }, found, "list environments.berth.dev"));
      continue;
    }
    const known = new Set(found.value.map(({ metadata }) => metadata.name));
    const missing = names.filter((name) => !known.has(name));
    results.push(...missing.map((name) => fail(`there is no Environment ${name}`, NO_ENVIRONMENT)));
    if (known.size === 0 && names.length === 0) results.push(warn("there is no Environment", NO_ENVIRONMENT));
    // One at a time: a cluster may have many Environments, and speed matters little here.
    for (const raw of found.value) {
      if (names.length > 0 && !names.includes(raw.metadata.name)) continue;
      say(`checks ${aboutEnvironment(raw)}`);
      results.push(...(await examineEnvironment(options, raw, operatorOf(operators, raw.metadata.namespace), reach)));
    }
  }
  return results;
}

const NO_ENVIRONMENT = "Create one (examples/environments), or name its namespace with -n.";

/** One list of Environments. */
interface Listed {
  readonly about: string;
  readonly found: Look<readonly (Environment & KubeObject)[]>;
}

async function listEnvironments({ kube, namespaces, currentNamespace }: DoctorOptions): Promise<Listed[]> {
  const list = async (namespace?: string): Promise<Listed> => ({
    about: namespace === undefined ? "cluster" : `namespace ${namespace}`,
    found: await look(async () => (await kube.listAll(ENVIRONMENTS, { namespace })).items),
  });
  if (namespaces.length > 0) return await Promise.all(namespaces.map(list));
  const all = await list();
  return all.found.is === "forbidden" ? [await list(currentNamespace)] : [all];
}

async function examineEnvironment(
  { kube, assumed }: DoctorOptions,
  raw: Environment & KubeObject,
  operator: InstalledOperator | undefined,
  reach: Reach,
): Promise<CheckResult[]> {
  const settings = operator?.settings;
  const conditions = checkConditions(raw);
  const parsed = parseEnvironment(raw, settings?.runtimeClasses ?? assumed.runtimeClasses);
  // A condition says what is wrong with the spec.
  if (!parsed.ok) return conditions;
  const work = settings ? { ...assumed.work, ...settings } : assumed.work;
  return [
    ...conditions,
    await checkRuntimeClass(kube, parsed.environment),
    await checkWorkApiReach(parsed.environment, work, reach),
  ];
}
