/**
 * How a parked Pod's session container is held back until its session comes, for each way to park (parking.ts), and
 * what the container gets then.
 */
import type { Environment, PodTemplate, SessionsSpec } from "../api/environment.ts";
import {
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_CREDENTIAL,
  ANNOTATION_PARKING,
  KEY_SESSION_ID,
  KEY_WORK_ID,
  KEY_WORK_SECRET,
  LABEL_PHASE,
} from "../api/names.ts";
import type { Container, EnvVar, Pod, PodSpec } from "../kube/resource.ts";
import { programFrame, type SessionVariables, shellFrame, waitingCommand } from "./frame.ts";
import type { Parking } from "./parking.ts";
import { keeperOf, keeperVolume } from "./turns.ts";

/** The credential with which a Pod's program authenticates. */
export type Credential = SessionsSpec["credential"];

const CREDENTIAL_VARIABLES: Record<Credential, string> = {
  WorkSecret: "ANTHROPIC_WORK_SECRET",
  EnvironmentKey: "ANTHROPIC_ENVIRONMENT_KEY",
};

/** The parts of a Pod's spec that hold its session container back; they override the template's. */
export function gatedSpec(
  environment: Environment,
  template: PodTemplate,
  made: {
    readonly secretName: string;
    readonly container: string;
    readonly parking: Parking;
    readonly sleeps: boolean;
  },
): Pick<PodSpec, "containers"> & Partial<PodSpec> {
  const { sessions } = environment.spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  const gated = (container: Container) => {
    const session = withVariables(container, environment);
    if (made.parking === "Key") return waitsForKey(session, made.secretName, sessions.credential);
    return made.sleeps ? keeperOf(session) : waitsForInput(session, made.parking);
  };
  const containers = (template.spec.containers as Container[]).map((container) =>
    container.name === made.container ? gated(container) : container,
  );
  if (!made.sleeps) return { containers };
  return { containers, volumes: [...listOf<Record<string, unknown>>(template.spec.volumes), keeperVolume()] };
}

/** The annotations by which the operator recognizes a Pod that waits for a line on standard input. */
export function gateAnnotations(parking: Parking, credential: Credential): Record<string, string> {
  return parking === "Key" ? {} : { [ANNOTATION_PARKING]: parking, [ANNOTATION_CREDENTIAL]: credential };
}

/** The session container with the variables that are the same for all sessions. */
function withVariables(container: Container, environment: Environment): Container {
  const own = container.env ?? [];
  const baseUrl: EnvVar[] = own.some(({ name }) => name === "ANTHROPIC_BASE_URL")
    ? []
    : [{ name: "ANTHROPIC_BASE_URL", value: environment.spec.api.baseUrl }];
  const environmentId = { name: "ANTHROPIC_ENVIRONMENT_ID", value: environment.spec.environmentId };
  // The kubelet's default for :latest is Always, which contacts the registry at each sync of a Pod that waits for a key.
  return { imagePullPolicy: "IfNotPresent", ...container, env: [...baseUrl, environmentId, ...own] };
}

/**
 * The gating variable comes last: the kubelet resolves variables in order, so all other references are valid by the
 * time the Pod counts as parked.
 */
function waitsForKey(container: Container, secretName: string, credential: Credential): Container {
  const fromSecret = (name: string, key: string): EnvVar => ({
    name,
    valueFrom: { secretKeyRef: { name: secretName, key } },
  });
  const given = [
    fromSecret("ANTHROPIC_WORK_ID", KEY_WORK_ID),
    fromSecret("ANTHROPIC_SESSION_ID", KEY_SESSION_ID),
    fromSecret(CREDENTIAL_VARIABLES[credential], KEY_WORK_SECRET),
  ];
  return { ...container, env: [...(container.env ?? []), ...given] };
}

/** With `stdinOnce: false`, standard input stays open when an attached client disconnects. */
function waitsForInput(container: Container, parking: "Shell" | "Program"): Container {
  const input = { stdin: true, stdinOnce: false };
  if (parking === "Program") return { ...container, ...input };
  const { args, ...rest } = container;
  const argv = [...listOf<string>(container["command"]), ...listOf<string>(args)];
  return { ...rest, ...input, command: waitingCommand(argv) };
}

function listOf<T>(value: unknown): T[] {
  return Array.isArray(value) ? (value as T[]) : [];
}

/** How a Pod waits, or waited, for its session. It is read from the Pod, since the spec may have changed. */
export function parkingOf({ metadata: { annotations } }: Pick<Pod, "metadata">): Parking {
  const parking = annotations?.[ANNOTATION_PARKING];
  return parking === "Shell" || parking === "Program" ? parking : "Key";
}

/**
 * When a Pod that waits for a line was assigned to its session, in ms since the epoch; null: it was not, or it waits
 * for a key. The time of an earlier turn stays on a sleeping Pod.
 */
export function assignedAtMs(pod: Pick<Pod, "metadata">): number | null {
  const { annotations, labels } = pod.metadata;
  const ms = Date.parse(annotations?.[ANNOTATION_ASSIGNED_AT] ?? "");
  const isEarlier = labels?.[LABEL_PHASE] === "sleeping";
  return parkingOf(pod) === "Key" || isEarlier || Number.isNaN(ms) ? null : ms;
}

/**
 * The credential that a Pod's session container takes. It is read from the Pod, not the spec: a Pod parked before the
 * spec changed still serves.
 */
export function credentialOf(pod: Pod, container: string | undefined): Credential {
  if (parkingOf(pod) !== "Key") {
    return pod.metadata.annotations?.[ANNOTATION_CREDENTIAL] === "EnvironmentKey" ? "EnvironmentKey" : "WorkSecret";
  }
  const session = pod.spec.containers.find(({ name }) => name === container);
  const variable = CREDENTIAL_VARIABLES.EnvironmentKey;
  return session?.env?.some(({ name }) => name === variable) ? "EnvironmentKey" : "WorkSecret";
}

/** What a session's program needs to serve its item. `credential` is plain text. */
export interface SessionIdentity {
  readonly workId: string;
  readonly sessionId: string;
  readonly credential: string;
}

/** Why an item can't be given to a Pod that waits for a line. */
export const TOO_LONG = "the ids and the credential of a work item do not fit in the line that starts a session";

/** Whether these values fit in a session's line. */
export function fitsInLine(parking: Parking, { workId, sessionId, credential }: SessionIdentity): boolean {
  const variables = {
    ANTHROPIC_WORK_ID: workId,
    ANTHROPIC_SESSION_ID: sessionId,
    [CREDENTIAL_VARIABLES.EnvironmentKey]: credential,
  };
  return (parking === "Program" ? programFrame(variables) : shellFrame(variables)) !== null;
}

/** The line that starts the session in a waiting Pod; null: its values don't fit in one. */
export function frameFor(pod: Pod, container: string | undefined, identity: SessionIdentity): string | null {
  const { workId, sessionId, credential } = identity;
  const ids: SessionVariables = { ANTHROPIC_WORK_ID: workId, ANTHROPIC_SESSION_ID: sessionId };
  const variables = { ...ids, [CREDENTIAL_VARIABLES[credentialOf(pod, container)]]: credential };
  return parkingOf(pod) === "Program" ? programFrame(variables) : shellFrame(variables);
}
