import { randomBytes } from "node:crypto";
import type { Environment, PodTemplate } from "../api/environment.ts";
import type { Isolation } from "../api/isolation.ts";
import {
  ANNOTATION_ABOUT,
  ANNOTATION_DEFAULT_CONTAINER,
  ANNOTATION_LEASE,
  ANNOTATION_NEEDS,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_SESSION_ID,
  ANNOTATION_WORKSPACE,
  API_VERSION,
  generalLabels,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_PHASE,
  LABEL_ROLE,
  LABEL_SESSION_ID,
  LABEL_TEMPLATE_HASH,
  toLabelValue,
} from "../api/names.ts";
import { sessionContainerName as gatedContainerName } from "../api/pod-template.ts";
import { withSafeDefaults } from "../api/safe-defaults.ts";
import { hashOf } from "../core/json.ts";
import type { Pod, PodSpec } from "../kube/resource.ts";
import { needWords } from "../policy/pod-policy.ts";
import { chooseParking, chooseSleep, type Parking, type ParkingChoice, type SleepChoice } from "./parking.ts";
import { gateAnnotations, gatedSpec } from "./pod-gate.ts";
import { turnAnnotations } from "./turns.ts";
import { isPerSession, mountProblem, type OwnVolume, withWorkspace, workspaceInPod } from "./workspace-pods.ts";

/**
 * Pods start with the longest possible deadline, and it only ever decreases. Setting a first deadline on a waiting Pod
 * would move it between quota scopes (Terminating, NotTerminating), which a quota can refuse.
 */
export const NO_DEADLINE_SECONDS = 2_147_483_647;

/** Increase this when what is rendered around a template changes in a way that parked Pods must follow. */
export const RENDERING = 6;

/** The same for what is rendered for turns only. */
const TURNS_RENDERING = 2;

/** A Pod name must be a valid host name: at most 63 characters, of which the random suffix takes 9. */
const NAME_LENGTH = 63;
const RANDOM_LENGTH = 8;
/** Kubernetes' alphabet for random names: without vowels, it forms no words. */
const NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789";

/** Explains a waiting Pod to people who find it, by the way it is parked. */
const ABOUT: Record<Parking, string> = {
  Shell: "A warm sandbox: its session container waits in a shell until a session is assigned to it.",
  Program: "A warm sandbox: its program waits until a session is assigned to it.",
  Key: "A warm sandbox: its session container waits in CreateContainerConfigError until a session is assigned to it. This is no fault.",
};

const ABOUT_TURNS =
  "A sandbox whose session may sleep: its regular container only keeps it, and each work item runs in an ephemeral container, whose name begins with berth-turn.";

/** Everything that a session Pod of an Environment is made from, except its name. */
export interface SessionTemplate {
  readonly hash: string;
  /** The name of the gated container. */
  readonly container: string;
  readonly graceSeconds: number;
  readonly parking: ParkingChoice;
  /** Whether sessions sleep between work items; null: the spec doesn't ask for it. */
  readonly sleep: SleepChoice | null;
  /** What the template needs beyond what every template may have, in terms of the policy. */
  readonly needs: readonly string[];
  /** The template as written in the spec. */
  readonly written: PodTemplate;
  readonly isolation: Isolation | undefined;
  /** Why the template's mounts don't fit the workspace, with the fix; null: they fit. */
  readonly mountProblem: string | null;
  /**
   * Whether `imagePullPolicy: Always` in the session container makes the kubelet contact the registry at each sync
   * (kubernetes#103643).
   */
  readonly pullsAlways: boolean;
  /** Whether the same would happen if admission forced that policy. */
  readonly pullsAgain: boolean;
  /** With `workspace: PerSession` each Pod mounts a volume; a dry run passes none. */
  render(name: string, own?: OwnVolume): Pod;
}

/** A name of the form `berth-<environment>-<random>`, which no later Pod gets. */
export function newPodName(environmentName: string, random: (bytes: number) => Uint8Array = randomBytes): string {
  const suffix = Array.from(random(RANDOM_LENGTH), (byte) => NAME_ALPHABET[byte % NAME_ALPHABET.length]).join("");
  // Dots are valid in an Environment's name but not in a host name's label.
  const base = `berth-${environmentName.replaceAll(".", "-")}`.slice(0, NAME_LENGTH - RANDOM_LENGTH - 1);
  return `${base.replace(/-+$/, "")}-${suffix}`;
}

/**
 * The session Pods of an Environment according to its current spec.
 * @param shellRefused why `parking: Shell` failed, see `chooseParking`
 * @param sleepRefused why turns failed, see `chooseSleep`
 */
export function sessionTemplate(
  environment: Environment,
  shellRefused: string | null = null,
  sleepRefused: string | null = null,
): SessionTemplate {
  const { sessions, api, environmentId } = environment.spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  const container = gatedContainerName(sessions.template);
  const template = withSafeDefaults(sessions.template, container);
  const graceSeconds = Number(template.spec.terminationGracePeriodSeconds);
  const { credential, lease } = sessions;
  const parking = chooseParking(environment, shellRefused);
  const sleep = chooseSleep(environment, parking, sleepRefused);
  const sleeps = sleep?.enabled ?? false;
  const hash = hashOf({
    RENDERING,
    template: sessions.template,
    environmentId,
    baseUrl: api.baseUrl,
    credential,
    parking: parking.mode,
    lease,
    ...(sleeps ? { turns: TURNS_RENDERING } : {}),
    ...workspaceInPod(sessions.workspace),
  });
  // Only with a key does the kubelet keep retrying the waiting container, and so contact the registry.
  const pullsAgain = parking.mode === "Key";
  const pullsAlways = template.spec.containers.some(
    ({ name, imagePullPolicy }) => pullsAgain && name === container && imagePullPolicy === "Always",
  );
  const needs = needWords(sessions.template);
  return {
    hash,
    container,
    graceSeconds,
    parking,
    sleep,
    needs,
    written: sessions.template,
    isolation: sessions.isolation,
    mountProblem: mountProblem(sessions),
    pullsAgain,
    pullsAlways,
    render: (name, own = { sessionId: null, claim: name }) => {
      const made = { name, hash, container, needs, parking: parking.mode, sleeps };
      const mounted = withWorkspace(template, container, sessions.workspace, own.claim);
      const pod = renderPod(environment, mounted, made);
      return isPerSession(environment) ? withVolume(pod, own) : pod;
    },
  };
}

function renderPod(
  environment: Environment,
  template: PodTemplate,
  made: { name: string; hash: string; container: string; needs: readonly string[]; parking: Parking; sleeps: boolean },
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
        ...generalLabels("session"),
        ...template.metadata?.labels,
        [LABEL_MANAGED_BY]: "berth",
        [LABEL_ENVIRONMENT]: toLabelValue(name),
        [LABEL_ROLE]: "session",
        [LABEL_PHASE]: "warm",
        [LABEL_TEMPLATE_HASH]: made.hash,
      },
      annotations: {
        [ANNOTATION_SAFE_TO_EVICT]: "true",
        [ANNOTATION_DEFAULT_CONTAINER]: made.container,
        [ANNOTATION_ABOUT]: made.sleeps ? ABOUT_TURNS : ABOUT[made.parking],
        ...template.metadata?.annotations,
        [ANNOTATION_SESSION_CONTAINER]: made.container,
        ...gateAnnotations(made.parking, environment.spec.sessions?.credential ?? "WorkSecret"),
        ...(made.sleeps ? turnAnnotations(made.parking) : {}),
        [ANNOTATION_LEASE]: environment.spec.sessions?.lease ?? "Worker",
        [ANNOTATION_NEEDS]: JSON.stringify(made.needs),
      },
      // The Environment controls every Pod: kubectl drain refuses Pods without a controller.
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true }],
      ...(finalizers ? { finalizers } : {}),
    },
    spec: {
      ...(template.spec as PodSpec),
      restartPolicy: "Never",
      activeDeadlineSeconds: NO_DEADLINE_SECONDS,
      ...gatedSpec(environment, template, { ...made, secretName: made.name }),
    },
  };
}

/** Names the Pod's volume, and binds the Pod to its session from the start if it is made for one. */
function withVolume(pod: Pod, { sessionId, claim }: OwnVolume): Pod {
  const { labels, annotations } = pod.metadata;
  if (sessionId === null) {
    return { ...pod, metadata: { ...pod.metadata, annotations: { ...annotations, [ANNOTATION_WORKSPACE]: claim } } };
  }
  const metadata = {
    ...pod.metadata,
    labels: { ...labels, [LABEL_SESSION_ID]: toLabelValue(sessionId) },
    annotations: { ...annotations, [ANNOTATION_SESSION_ID]: sessionId, [ANNOTATION_WORKSPACE]: claim },
  };
  return { ...pod, metadata };
}

/** Controllers copy finalizers from a template's metadata, as they copy labels and annotations. */
function finalizersOf({ metadata }: PodTemplate): string[] | undefined {
  const finalizers = metadata?.["finalizers"];
  return Array.isArray(finalizers) ? finalizers.map(String) : undefined;
}
