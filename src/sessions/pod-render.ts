import { randomBytes } from "node:crypto";
import type { Environment, PodTemplate } from "../api/environment.ts";
import { toLabelValue } from "../api/label-value.ts";
import {
  ANNOTATION_ABOUT,
  ANNOTATION_DEFAULT_CONTAINER,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_CONTAINER,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_PHASE,
  LABEL_ROLE,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import { sessionContainerName as gatedContainerName } from "../api/pod-template.ts";
import { hashOf } from "../core/hash.ts";
import type { Container, EnvVar, Pod } from "../kube/resource.ts";
import { KEY_SESSION_ID, KEY_WORK_ID, KEY_WORK_SECRET } from "./journal.ts";

/**
 * Pods are made with the longest deadline there is and only ever get it lowered: setting one for the first time on a
 * waiting Pod moves it between quota scopes (Terminating, NotTerminating), which a quota can refuse.
 */
export const NO_DEADLINE_SECONDS = 2_147_483_647;

/** A stock worker's teardown can take 90 s (tool drain, memory sync, flush: 30 s each). */
const DEFAULT_GRACE_SECONDS = 120;

/** Raised when what is rendered around a template changes in a way that parked Pods must follow. */
const RENDERING = 1;

/** Pod names must be valid host names: at most 63 characters, of which the random end takes 9. */
const NAME_LENGTH = 63;
const RANDOM_LENGTH = 8;
/** Kubernetes' own alphabet for random names: no vowels, so no words. */
const NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789";

/** Everything that a session Pod of an Environment is made from, except its name. */
export interface SessionTemplate {
  readonly hash: string;
  /** The name of the gated container. */
  readonly container: string;
  readonly graceSeconds: number;
  /** An `imagePullPolicy: Always` in the session container makes kubelet ask the registry at every look (kubernetes#103643). */
  readonly pullsAlways: boolean;
  render(name: string): Pod;
}

/** A name of the form `berth-<environment>-<random>`; never used again after its Pod. */
export function newPodName(environmentName: string, random: (bytes: number) => Uint8Array = randomBytes): string {
  const suffix = Array.from(random(RANDOM_LENGTH), (byte) => NAME_ALPHABET[byte % NAME_ALPHABET.length]).join("");
  // Dots are valid in an Environment's name and not in a host name's label.
  const base = `berth-${environmentName.replaceAll(".", "-")}`.slice(0, NAME_LENGTH - RANDOM_LENGTH - 1);
  return `${base.replace(/-+$/, "")}-${suffix}`;
}

/** The session Pods of an Environment as its spec wants them now. */
export function sessionTemplate(environment: Environment): SessionTemplate {
  const { sessions, api, environmentId } = environment.spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  const template = sessions.template;
  const container = gatedContainerName(template);
  const graceSeconds = template.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS;
  const hash = hashOf({ RENDERING, template, environmentId, baseUrl: api.baseUrl, credential: sessions.credential });
  const pullsAlways = template.spec.containers.some(
    ({ name, imagePullPolicy }) => name === container && imagePullPolicy === "Always",
  );
  return {
    hash,
    container,
    graceSeconds: Number(graceSeconds),
    pullsAlways,
    render: (name) => renderPod(environment, template, { name, hash, container, graceSeconds: Number(graceSeconds) }),
  };
}

function renderPod(
  environment: Environment,
  template: PodTemplate,
  made: { name: string; hash: string; container: string; graceSeconds: number },
): Pod {
  const { name, namespace, uid } = environment.metadata;
  const finalizers = finalizersOf(template);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: made.name,
      namespace,
      labels: {
        ...template.metadata?.labels,
        [LABEL_MANAGED_BY]: "berth",
        [LABEL_ENVIRONMENT]: toLabelValue(name),
        [LABEL_ROLE]: "session",
        [LABEL_PHASE]: "parked",
        [LABEL_TEMPLATE_HASH]: made.hash,
      },
      annotations: {
        [ANNOTATION_SAFE_TO_EVICT]: "true",
        [ANNOTATION_DEFAULT_CONTAINER]: made.container,
        [ANNOTATION_ABOUT]:
          "A warm sandbox: its session container waits in CreateContainerConfigError until a session is assigned to it. This is no fault.",
        ...template.metadata?.annotations,
        [ANNOTATION_SESSION_CONTAINER]: made.container,
      },
      // Every Pod's controller is the Environment: kubectl drain refuses Pods without one.
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true }],
      ...(finalizers ? { finalizers } : {}),
    },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      ...template.spec,
      restartPolicy: "Never",
      activeDeadlineSeconds: NO_DEADLINE_SECONDS,
      terminationGracePeriodSeconds: made.graceSeconds,
      containers: template.spec.containers.map((container) =>
        container.name === made.container
          ? gate(container as Container, made.name, environment)
          : (container as Container),
      ),
    },
  };
}

/** The third and last thing, after labels and annotations, that controllers take over from a template's metadata. */
function finalizersOf({ metadata }: PodTemplate): string[] | undefined {
  const finalizers = metadata?.["finalizers"];
  return Array.isArray(finalizers) ? finalizers.map(String) : undefined;
}

/**
 * The session container with what its program needs to know. The variable that it waits for comes last: kubelet resolves
 * them in order, so every other reference of the user's has been found by the time the Pod counts as parked.
 */
function gate(container: Container, secretName: string, environment: Environment): Container {
  const own = container.env ?? [];
  const set = new Set(own.map(({ name }) => name));
  const fromSecret = (name: string, key: string): EnvVar => ({
    name,
    valueFrom: { secretKeyRef: { name: secretName, key } },
  });
  const baseUrl: EnvVar[] = set.has("ANTHROPIC_BASE_URL")
    ? []
    : [{ name: "ANTHROPIC_BASE_URL", value: environment.spec.api.baseUrl }];
  return {
    // kubelet's default for :latest is Always, which asks the registry at every look at a parked Pod.
    imagePullPolicy: "IfNotPresent",
    ...container,
    env: [
      ...baseUrl,
      { name: "ANTHROPIC_ENVIRONMENT_ID", value: environment.spec.environmentId },
      ...own,
      fromSecret("ANTHROPIC_WORK_ID", KEY_WORK_ID),
      fromSecret("ANTHROPIC_SESSION_ID", KEY_SESSION_ID),
      fromSecret("ANTHROPIC_WORK_SECRET", KEY_WORK_SECRET),
    ],
  };
}
