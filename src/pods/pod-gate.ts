/** How a warm Pod's session container is held back until its session comes, and what the container gets then. */
import type { Environment, PodTemplate, SessionsSpec } from "../api/environment.ts";
import { ANNOTATION_ASSIGNED_AT, ANNOTATION_CREDENTIAL, ANNOTATION_PRELOAD, LABEL_PHASE } from "../api/names.ts";
import type { Container, EnvVar, Pod, PodSpec } from "../kube/resource.ts";
import { programFrame, type SessionVariables, shellFrame, waitingCommand } from "./frame.ts";
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
    readonly container: string;
    readonly sleeps: boolean;
  },
): Pick<PodSpec, "containers"> & Partial<PodSpec> {
  const { sessions } = environment.spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  const gated = (container: Container) => {
    const session = withVariables(container, environment);
    return made.sleeps ? keeperOf(session) : waitsForInput(session, sessions.preload);
  };
  const containers = (template.spec.containers as Container[]).map((container) =>
    container.name === made.container ? gated(container) : container,
  );
  if (!made.sleeps) return { containers };
  return { containers, volumes: [...listOf<Record<string, unknown>>(template.spec.volumes), keeperVolume()] };
}

/** The annotations that say how the Pod waits, and what its program is given. */
export function gateAnnotations({ preload, credential }: SessionsSpec): Record<string, string> {
  return { ...(preload && { [ANNOTATION_PRELOAD]: "true" }), [ANNOTATION_CREDENTIAL]: credential };
}

/** The session container with the variables that are the same for all sessions. */
function withVariables(container: Container, environment: Environment): Container {
  const own = container.env ?? [];
  const baseUrl: EnvVar[] = own.some(({ name }) => name === "ANTHROPIC_BASE_URL")
    ? []
    : [{ name: "ANTHROPIC_BASE_URL", value: environment.spec.api.baseUrl }];
  const environmentId = { name: "ANTHROPIC_ENVIRONMENT_ID", value: environment.spec.environmentId };
  // The kubelet's default for :latest is Always, and a new Pod would wait for the registry.
  return { imagePullPolicy: "IfNotPresent", ...container, env: [...baseUrl, environmentId, ...own] };
}

/** With `stdinOnce: false`, standard input stays open when an attached client disconnects. */
function waitsForInput(container: Container, preload: boolean): Container {
  const input = { stdin: true, stdinOnce: false };
  if (preload) return { ...container, ...input };
  const { args, ...rest } = container;
  const argv = [...listOf<string>(container["command"]), ...listOf<string>(args)];
  return { ...rest, ...input, command: waitingCommand(argv) };
}

function listOf<T>(value: unknown): T[] {
  return Array.isArray(value) ? (value as T[]) : [];
}

/** Whether the Pod's program waits, or waited, itself. It is read from the Pod, since the spec may have changed. */
export function isPreloaded({ metadata: { annotations } }: Pick<Pod, "metadata">): boolean {
  return annotations?.[ANNOTATION_PRELOAD] === "true";
}

/**
 * When a Pod was assigned to its session, in ms since the epoch; null: it was not. The time of an earlier turn stays on
 * a sleeping Pod.
 */
export function assignedAtMs(pod: Pick<Pod, "metadata">): number | null {
  const { annotations, labels } = pod.metadata;
  const ms = Date.parse(annotations?.[ANNOTATION_ASSIGNED_AT] ?? "");
  const isEarlier = labels?.[LABEL_PHASE] === "sleeping";
  return isEarlier || Number.isNaN(ms) ? null : ms;
}

/**
 * The credential that a Pod's session container takes. It is read from the Pod, not the spec: a warm Pod of an
 * earlier spec still serves.
 */
export function credentialOf({ metadata: { annotations } }: Pod): Credential {
  return annotations?.[ANNOTATION_CREDENTIAL] === "EnvironmentKey" ? "EnvironmentKey" : "WorkSecret";
}

/** What a session's program needs to serve its item. `credential` is plain text. */
export interface SessionIdentity {
  readonly workId: string;
  readonly sessionId: string;
  readonly credential: string;
}

/** Why an item can't be given to a Pod. */
export const TOO_LONG = "the ids and the credential of a work item do not fit in the line that starts a session";

/** Whether these values fit in a session's line. */
export function fitsInLine(preload: boolean, { workId, sessionId, credential }: SessionIdentity): boolean {
  const variables = {
    ANTHROPIC_WORK_ID: workId,
    ANTHROPIC_SESSION_ID: sessionId,
    [CREDENTIAL_VARIABLES.EnvironmentKey]: credential,
  };
  return (preload ? programFrame(variables) : shellFrame(variables)) !== null;
}

/** The line that starts the session in a waiting Pod; null: its values don't fit in one. */
export function frameFor(pod: Pod, identity: SessionIdentity): string | null {
  const { workId, sessionId, credential } = identity;
  const ids: SessionVariables = { ANTHROPIC_WORK_ID: workId, ANTHROPIC_SESSION_ID: sessionId };
  const variables = { ...ids, [CREDENTIAL_VARIABLES[credentialOf(pod)]]: credential };
  return isPreloaded(pod) ? programFrame(variables) : shellFrame(variables);
}
