/** Renders the chart, finds objects in the result, and checks them against an API server. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import type { ApiClient, ApiObject } from "../../testbed/cluster/api.ts";
import { parseManifests } from "../../testbed/cluster/manifests.ts";
import { CHART, type HelmResult, helm } from "../../tools/helm.ts";
import type { AlertRule } from "./monitoring.ts";

/** Values of the chart, in the format of a values file. */
export type Values = Readonly<Record<string, unknown>>;

export const RELEASE = "berth";

/** Runs helm with a temporary values file. */
export async function helmWithValues(
  args: readonly string[],
  values?: Values,
  env?: NodeJS.ProcessEnv,
): Promise<HelmResult> {
  if (values === undefined) return await helm(args, env);
  const dir = await mkdtemp(join(tmpdir(), "berth-values-"));
  try {
    const file = join(dir, "values.yaml");
    await writeFile(file, stringify(values));
    return await helm([...args, "--values", file], env);
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** Values with a repository of the image, which the chart requires and has no default for. */
export function withImage(values: Values = {}): Values {
  const { image = {} } = values;
  return { ...values, image: image && { repository: "berth", ...(image as Values) } };
}

/**
 * The objects of a release, including hooks.
 * @throws {Error} with helm's message
 */
export async function render(namespace: string, values: Values = {}): Promise<Rendered> {
  const args = ["template", RELEASE, CHART, "--namespace", namespace];
  const { code, stdout, stderr } = await helmWithValues(args, withImage(values));
  if (code !== 0) throw new Error(stderr);
  return new Rendered(parseManifests(stdout, "the rendered chart"));
}

/**
 * The message with which helm refuses values.
 * @throws {Error} helm accepts them
 */
export async function refusal(values: Values): Promise<string> {
  const { code, stderr } = await helmWithValues(["template", RELEASE, CHART], withImage(values));
  if (code === 0) throw new Error(`helm takes ${JSON.stringify(values)}`);
  return stderr;
}

/** An object of the chart, with the fields that tests read. A field that a kind lacks makes the test fail. */
export interface Manifest extends ApiObject {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: {
    readonly replicas?: number;
    readonly selector: { readonly matchLabels?: Readonly<Record<string, string>> };
    readonly template: { readonly metadata: Manifest["metadata"]; readonly spec: PodShape };
    readonly endpoints?: unknown;
    readonly podMetricsEndpoints?: unknown;
    /** In a PrometheusRule. */
    readonly groups?: readonly { readonly name: string; readonly rules: readonly AlertRule[] }[];
    /** In a ValidatingAdmissionPolicy and its binding. */
    readonly variables?: readonly { readonly name: string; readonly expression: string }[];
    readonly validations?: readonly { readonly expression: string; readonly message: string }[];
    readonly matchConditions?: unknown;
    readonly matchResources?: unknown;
  };
  readonly rules?: readonly {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly verbs: readonly string[];
  }[];
  /** In a ConfigMap. */
  readonly data?: Readonly<Record<string, string>>;
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects: unknown;
}

interface PodShape {
  readonly containers: readonly ContainerShape[];
  readonly volumes: readonly { readonly name: string; readonly [source: string]: unknown }[];
  readonly securityContext: unknown;
  readonly serviceAccountName: string;
  readonly terminationGracePeriodSeconds: number;
  readonly topologySpreadConstraints?: unknown;
}

interface ContainerShape {
  readonly image: string;
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string }[];
  readonly ports: unknown;
  readonly securityContext: unknown;
  readonly volumeMounts: unknown;
  readonly livenessProbe: { readonly httpGet: unknown };
  readonly readinessProbe: { readonly httpGet: unknown };
  readonly resources: { readonly limits: unknown };
}

/** The objects of a rendered chart. */
export class Rendered {
  readonly objects: readonly Manifest[];

  constructor(objects: readonly ApiObject[]) {
    this.objects = objects as readonly Manifest[];
  }

  /** The objects of a kind, without hooks. */
  all(kind: string): readonly Manifest[] {
    return this.objects.filter((object) => object.kind === kind && !isHook(object));
  }

  /** The only object of a kind, or of those whose names contain a text. */
  one(kind: string, part = ""): Manifest {
    return only(
      this.all(kind).filter(({ metadata }) => metadata.name.includes(part)),
      kind,
    );
  }

  get hooks(): readonly Manifest[] {
    return this.objects.filter(isHook);
  }

  get pod(): PodShape {
    return this.one("Deployment").spec.template.spec;
  }

  get container(): ContainerShape {
    return only(this.pod.containers, "container");
  }

  /** The Pod that `helm test` runs. */
  get testPod(): PodShape {
    return only(
      this.hooks.filter(({ kind }) => kind === "Pod"),
      "Pod",
    ).spec as unknown as PodShape;
  }

  /** The Pod of the Job that runs before an uninstall. */
  get uninstallPod(): PodShape {
    return only(
      this.hooks.filter(({ kind }) => kind === "Job"),
      "Job",
    ).spec.template.spec;
  }

  get uninstallContainer(): ContainerShape {
    return only(this.uninstallPod.containers, "container");
  }

  /** `Kind name` or `Kind namespace/name` of every object except hooks, sorted. */
  get names(): string[] {
    return this.objects
      .filter((object) => !isHook(object))
      .map(({ kind, metadata }) => `${kind} ${metadata.namespace ? `${metadata.namespace}/` : ""}${metadata.name}`)
      .sort();
  }
}

function only<T>(found: readonly T[], what: string): T {
  const [first, ...more] = found;
  if (first === undefined || more.length > 0) throw new Error(`${found.length} of ${what}`);
  return first;
}

function isHook({ metadata }: Manifest): boolean {
  return metadata.annotations?.["helm.sh/hook"] !== undefined;
}

/** The plural of each kind; kinds without a namespace are marked. */
const PLURALS: Readonly<Record<string, { readonly plural: string; readonly clusterWide?: true }>> = {
  ClusterRole: { plural: "clusterroles", clusterWide: true },
  ClusterRoleBinding: { plural: "clusterrolebindings", clusterWide: true },
  CustomResourceDefinition: { plural: "customresourcedefinitions", clusterWide: true },
  Deployment: { plural: "deployments" },
  Environment: { plural: "environments" },
  Job: { plural: "jobs" },
  ConfigMap: { plural: "configmaps" },
  Namespace: { plural: "namespaces", clusterWide: true },
  NetworkPolicy: { plural: "networkpolicies" },
  Pod: { plural: "pods" },
  PodDisruptionBudget: { plural: "poddisruptionbudgets" },
  PodMonitor: { plural: "podmonitors" },
  PrometheusRule: { plural: "prometheusrules" },
  Role: { plural: "roles" },
  RoleBinding: { plural: "rolebindings" },
  Secret: { plural: "secrets" },
  Service: { plural: "services" },
  ServiceAccount: { plural: "serviceaccounts" },
  ServiceMonitor: { plural: "servicemonitors" },
  ValidatingAdmissionPolicy: { plural: "validatingadmissionpolicies", clusterWide: true },
  ValidatingAdmissionPolicyBinding: { plural: "validatingadmissionpolicybindings", clusterWide: true },
};

/** The path of an object in the API. */
export function objectPath({ apiVersion = "", kind = "", metadata }: ApiObject): string {
  const found = PLURALS[kind];
  if (!found) throw new Error(`where the API server has a ${kind} is not known: add it`);
  const group = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const namespace = found.clusterWide ? "" : `/namespaces/${metadata?.namespace}`;
  return `${group}${namespace}/${found.plural}/${metadata?.name}`;
}

/** Checks by a dry run whether the API server accepts an object; an unknown field is an error. */
export async function dryRun(api: ApiClient, object: ApiObject): Promise<void> {
  const query = "fieldManager=chart-test&force=true&dryRun=All&fieldValidation=Strict";
  // A Pod's service account must exist, and a dry run never creates it.
  const body =
    object.kind === "Pod"
      ? { ...object, spec: { ...(object["spec"] as object), serviceAccountName: "default" } }
      : object;
  await api.request("PATCH", `${objectPath(object)}?${query}`, {
    body,
    contentType: "application/apply-patch+yaml",
  });
}
