import { randomBytes } from "node:crypto";
import type { Environment, PodTemplate } from "../api/environment.ts";
import {
  ANNOTATION_ABOUT,
  ANNOTATION_API,
  ANNOTATION_DEFAULT_CONTAINER,
  ANNOTATION_LEASE,
  ANNOTATION_NEEDS,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_SESSION_ID,
  ANNOTATION_WORKSPACE,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_PHASE,
  LABEL_ROLE,
  LABEL_SESSION_ID,
  LABEL_TEMPLATE_HASH,
  toLabelValue,
} from "../api/names.ts";
import { needWords } from "../api/pod-policy.ts";
import { sessionContainerName as gatedContainerName } from "../api/pod-template.ts";
import { withSafeDefaults } from "../api/safe-defaults.ts";
import { hashOf } from "../core/json.ts";
import type { Pod, PodSpec } from "../kube/resource.ts";
import { GATE_CONTAINER, gatedSpec } from "./pod-gate.ts";
import { isPerSession, type OwnVolume, withWorkspace } from "./workspace-pods.ts";

/**
 * Pods are made with the longest deadline there is and only ever get it lowered: setting one for the first time on a
 * waiting Pod moves it between quota scopes (Terminating, NotTerminating), which a quota can refuse.
 */
export const NO_DEADLINE_SECONDS = 2_147_483_647;

/** Raised when what is rendered around a template changes in a way that parked Pods must follow. */
export const RENDERING = 3;

/** Pod names must be valid host names: at most 63 characters, of which the random end takes 9. */
const NAME_LENGTH = 63;
const RANDOM_LENGTH = 8;
/** Kubernetes' own alphabet for random names: no vowels, so no words. */
const NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789";

/** For people who find a waiting Pod and wonder, by the way it waits. */
const ABOUT = {
  Key: "A warm sandbox: its session container waits in CreateContainerConfigError until a session is assigned to it. This is no fault.",
  Init: `A warm sandbox: its init container ${GATE_CONTAINER} waits until a session is assigned to it. This is no fault.`,
} as const;

/** Everything that a session Pod of an Environment is made from, except its name. */
export interface SessionTemplate {
  readonly hash: string;
  /** The name of the gated container. */
  readonly container: string;
  readonly graceSeconds: number;
  /** What it asks for beyond what every template may have, in words of the policy. */
  readonly needs: readonly string[];
  /** As the spec has it. */
  readonly written: PodTemplate;
  /** An `imagePullPolicy: Always` in the session container makes kubelet ask the registry at every look (kubernetes#103643). */
  readonly pullsAlways: boolean;
  /** Whether that would be so too if admission forced the policy. */
  readonly pullsAgain: boolean;
  /** With `workspace: PerSession` each Pod is one session's; a dry run is nobody's. */
  render(name: string, own?: OwnVolume): Pod;
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
  const container = gatedContainerName(sessions.template);
  const template = withSafeDefaults(sessions.template, container);
  const graceSeconds = Number(template.spec.terminationGracePeriodSeconds);
  const { parking, credential, secretDelivery, lease } = sessions;
  const hash = hashOf({
    RENDERING,
    template: sessions.template,
    environmentId,
    baseUrl: api.baseUrl,
    credential,
    parking,
    secretDelivery,
    lease,
    // Left out where there is none, so that Pods of an earlier version need not be replaced.
    ...(isPerSession(environment) ? { mountPath: sessions.workspace.mountPath } : {}),
  });
  // A registry is asked again and again only where kubelet looks at a waiting container again and again.
  const pullsAgain = parking === "Key";
  const pullsAlways = template.spec.containers.some(
    ({ name, imagePullPolicy }) => pullsAgain && name === container && imagePullPolicy === "Always",
  );
  const needs = needWords(sessions.template);
  return {
    hash,
    container,
    graceSeconds,
    needs,
    written: sessions.template,
    pullsAgain,
    pullsAlways,
    render: (name, own = { sessionId: name, claim: name }) => {
      const made = { name, hash, container, needs };
      if (!isPerSession(environment)) return renderPod(environment, template, made);
      const mounted = withWorkspace(template, container, sessions.workspace.mountPath, own.claim);
      return bound(renderPod(environment, mounted, made), own);
    },
  };
}

function renderPod(
  environment: Environment,
  template: PodTemplate,
  made: { name: string; hash: string; container: string; needs: readonly string[] },
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
        [ANNOTATION_ABOUT]: ABOUT[environment.spec.sessions?.parking ?? "Key"],
        ...template.metadata?.annotations,
        [ANNOTATION_SESSION_CONTAINER]: made.container,
        [ANNOTATION_LEASE]: environment.spec.sessions?.lease ?? "Worker",
        [ANNOTATION_API]: environment.spec.api.baseUrl,
        [ANNOTATION_NEEDS]: JSON.stringify(made.needs),
      },
      // Every Pod's controller is the Environment: kubectl drain refuses Pods without one.
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true }],
      ...(finalizers ? { finalizers } : {}),
    },
    spec: {
      ...(template.spec as PodSpec),
      restartPolicy: "Never",
      activeDeadlineSeconds: NO_DEADLINE_SECONDS,
      ...gatedSpec(environment, template, { secretName: made.name, container: made.container }),
    },
  };
}

/** A Pod that has its session from the start. */
function bound(pod: Pod, { sessionId, claim }: OwnVolume): Pod {
  const { labels, annotations } = pod.metadata;
  const metadata = {
    ...pod.metadata,
    labels: { ...labels, [LABEL_SESSION_ID]: toLabelValue(sessionId) },
    annotations: { ...annotations, [ANNOTATION_SESSION_ID]: sessionId, [ANNOTATION_WORKSPACE]: claim },
  };
  return { ...pod, metadata };
}

/** The third and last thing, after labels and annotations, that controllers take over from a template's metadata. */
function finalizersOf({ metadata }: PodTemplate): string[] | undefined {
  const finalizers = metadata?.["finalizers"];
  return Array.isArray(finalizers) ? finalizers.map(String) : undefined;
}
