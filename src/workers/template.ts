import type { Environment, PodTemplate } from "../api/environment.ts";
import type { Isolation } from "../api/isolation.ts";
import {
  ANNOTATION_BUSY_PROBE,
  ANNOTATION_DEFAULT_CONTAINER,
  ANNOTATION_NEEDS,
  ANNOTATION_SESSION_CONTAINER,
  API_VERSION,
  generalLabels,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_ROLE,
  LABEL_TEMPLATE_HASH,
  toLabelValue,
} from "../api/names.ts";
import { WORKER_GRACE_SECONDS, sessionContainerName as workerContainerName } from "../api/pod-template.ts";
import { withSafeDefaults } from "../api/safe-defaults.ts";
import { hashOf } from "../core/json.ts";
import type { Container, Deployment, EnvVar, Pod, PodTemplate as RenderedTemplate } from "../kube/resource.ts";
import { needWords } from "../policy/pod-policy.ts";

/** Increase this when what is rendered around a template changes in a way that workers must follow. */
export const RENDERING = 5;

/** Deployment names are part of Pod names, which end at 63 characters. */
const NAME_LENGTH = 63;

/** Everything that the workers of an Environment are made from. */
export interface WorkerTemplate {
  /** Includes the Environment's uid: a recreated Environment gets its own Deployments. */
  readonly hash: string;
  /** The container that the worker runs in. */
  readonly container: string;
  /** What the template needs beyond what every template may have, in terms of the policy. */
  readonly needs: readonly string[];
  /** The template as written in the spec. */
  readonly written: PodTemplate;
  readonly isolation: Isolation | undefined;
  /** Workers do not park, so each pulls its image once. */
  readonly pullsAlways: false;
  readonly pullsAgain: false;
  /** The field to fix. */
  readonly field: "spec.workers.template";
  readonly deploymentName: string;
  /** A single Pod of the template, for a dry run. */
  render(name: string): Pod;
  /** The Deployment with this number of workers. */
  deployment(replicas: number): Deployment;
}

/** The workers of an Environment according to its current spec. */
export function workerTemplate(environment: Environment): WorkerTemplate {
  const { workers, api, environmentId } = environment.spec;
  if (!workers) throw new TypeError("not an Environment with spec.workers");
  const { template, busyProbe, isolation } = workers;
  const { name, namespace, uid } = environment.metadata;
  const { baseUrl, keySecretRef } = api;
  const hash = hashOf({ RENDERING, template, busyProbe, environmentId, baseUrl, keySecretRef, uid });
  const container = workerContainerName(template);
  const labels = {
    [LABEL_MANAGED_BY]: "berth",
    [LABEL_ENVIRONMENT]: toLabelValue(name),
    [LABEL_ROLE]: "worker",
    [LABEL_TEMPLATE_HASH]: hash,
  };
  const rendered = renderTemplate(
    environment,
    withSafeDefaults(template, container, WORKER_GRACE_SECONDS),
    container,
    labels,
  );
  const deploymentName = nameOf(name, hash);
  const needs = needWords(template);
  return {
    hash,
    container,
    needs,
    written: template,
    isolation,
    pullsAlways: false,
    pullsAgain: false,
    field: "spec.workers.template",
    deploymentName,
    render: (podName) => ({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { ...rendered.metadata, name: podName, namespace },
      spec: rendered.spec,
    }),
    deployment: (replicas) => ({
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: {
        name: deploymentName,
        namespace,
        labels: { ...generalLabels("worker"), ...labels },
        annotations: { [ANNOTATION_NEEDS]: JSON.stringify(needs) },
        ownerReferences: [
          { apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true },
        ],
      },
      spec: {
        replicas,
        // The template of a Deployment never changes, so there is nothing to roll back to.
        revisionHistoryLimit: 0,
        selector: { matchLabels: selectorOf(labels) },
        template: rendered,
      },
    }),
  };
}

function nameOf(environmentName: string, hash: string): string {
  const base = `berth-${environmentName.replaceAll(".", "-")}`.slice(0, NAME_LENGTH - hash.length - 1);
  return `${base.replace(/-+$/, "")}-${hash}`;
}

function selectorOf(labels: Readonly<Record<string, string>>): Record<string, string> {
  const { [LABEL_MANAGED_BY]: _managedBy, ...selecting } = labels;
  return selecting;
}

function renderTemplate(
  environment: Environment,
  template: PodTemplate,
  worker: string,
  labels: Readonly<Record<string, string>>,
): RenderedTemplate {
  const httpGet = environment.spec.workers?.busyProbe?.httpGet;
  return {
    ...template,
    metadata: {
      ...template.metadata,
      labels: { ...generalLabels("worker"), ...template.metadata?.labels, ...labels },
      annotations: {
        [ANNOTATION_DEFAULT_CONTAINER]: worker,
        ...template.metadata?.annotations,
        [ANNOTATION_SESSION_CONTAINER]: worker,
        ...(httpGet ? { [ANNOTATION_BUSY_PROBE]: `${httpGet.port}${httpGet.path}` } : {}),
      },
    },
    spec: {
      ...template.spec,
      containers: template.spec.containers.map((container) =>
        container.name === worker ? asWorker(container as Container, environment) : (container as Container),
      ),
    },
  } as RenderedTemplate;
}

/**
 * The worker's container with the variables that its program needs to poll. The template's variables come after the
 * defaults, so that they can refer to them. The key comes last, and the template can't override it.
 */
function asWorker(container: Container, environment: Environment): Container {
  const own = container.env ?? [];
  const set = new Set(own.map(({ name }) => name));
  const { api, environmentId } = environment.spec;
  const defaults: EnvVar[] = [
    { name: "ANTHROPIC_BASE_URL", value: api.baseUrl },
    // Unique for each poller; the Pod's name identifies it.
    { name: "ANTHROPIC_WORKER_ID", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
  ];
  return {
    imagePullPolicy: "IfNotPresent",
    ...container,
    env: [
      ...defaults.filter(({ name }) => !set.has(name)),
      { name: "ANTHROPIC_ENVIRONMENT_ID", value: environmentId },
      ...own,
      {
        name: "ANTHROPIC_ENVIRONMENT_KEY",
        valueFrom: { secretKeyRef: { name: api.keySecretRef.name, key: api.keySecretRef.key } },
      },
    ],
  };
}
