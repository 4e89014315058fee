/**
 * What holds a parked Pod's session container back, and how it gets its credential. Two ways to park:
 *
 * - `Key`: the container takes a variable from a key of the claim's Secret that is not there yet. kubelet leaves it in
 *   CreateContainerConfigError and starts it a tenth of a second after the key came and the Pod was touched.
 * - `Init`: an init container in the session container's own image waits for a file of the claim's Secret. A file alone
 *   gates nothing (kubelet starts a container without it and writes it a moment later), so delivery as a file needs this.
 */
import type { Environment, PodTemplate, SessionsSpec } from "../api/environment.ts";
import {
  CLAIM_VOLUME,
  GATE_CONTAINER,
  KEY_ACKNOWLEDGED_AT,
  KEY_SESSION_ID,
  KEY_WORK_ID,
  KEY_WORK_SECRET,
} from "../api/names.ts";
import type { Container, EnvVar, Pod, PodSpec } from "../kube/resource.ts";

/** As Kubernetes mounts its own tokens: below a path that exists, or can be made, in any image. */
const MOUNT_PATH = "/var/run/secrets/berth.dev";

/** Where a session's program finds its work secret under `secretDelivery: File`. */
export const WORK_SECRET_FILE = `${MOUNT_PATH}/work-secret`;

/** Owner and group may read; a worker refuses a file that others can read or write. */
const FILE_MODE = 0o440;

/**
 * The group of the file where the template names no group at all: without one only root could read it. "nonroot" in the
 * images that have such a group; any other number would do.
 */
const DEFAULT_FS_GROUP = 65_532;

export { GATE_CONTAINER };

/**
 * How long the gate waits between looks, in seconds: a quarter of a second is little beside the second that kubelet takes
 * for the file, and starting `sleep` four times a second costs a few thousandths of a core.
 */
const LOOK_SECONDS = "0.25";

/**
 * Without the trap a shell that is the container's first process does not heed SIGTERM, and deleting a parked Pod would
 * take all its grace. Some `sleep`s take whole seconds only; without any, the gate must end and not spin.
 */
const GATE_SCRIPT = `trap 'exit 143' TERM; until [ -e "$1" ]; do sleep ${LOOK_SECONDS} 2>/dev/null || sleep 1 || exit 1; done`;

/** What can be said of an init container's resources without asking the node for more than the session itself needs. */
const GATE_RESOURCES = new Set(["cpu", "memory", "ephemeral-storage"]);

/** What a Pod's program authenticates with. */
export type Credential = SessionsSpec["credential"];

/** The parts of a Pod's spec that hold its session container back: to be laid over the template's. */
export function gatedSpec(
  environment: Environment,
  template: PodTemplate,
  made: { readonly secretName: string; readonly container: string },
): Pick<PodSpec, "containers"> & Partial<PodSpec> {
  const { sessions } = environment.spec;
  if (!sessions) throw new TypeError("not an Environment with spec.sessions");
  const containers = template.spec.containers.map((container) =>
    container.name === made.container
      ? sessionContainer(container as Container, made.secretName, environment, sessions)
      : (container as Container),
  );
  if (sessions.parking === "Key") return { containers };
  const session = template.spec.containers.find(({ name }) => name === made.container) as Container | undefined;
  const byFile = sessions.secretDelivery === "File";
  const gate = session ? [gateContainer(session, byFile)] : [];
  return {
    containers,
    // Last: by the time it runs, the template's own have ended, or run beside it.
    initContainers: [...listOf<Container>(template.spec.initContainers), ...gate],
    volumes: [...listOf<Record<string, unknown>>(template.spec.volumes), claimVolume(made.secretName, byFile)],
    ...(byFile ? { securityContext: fsGroupFor(template, session) } : {}),
  };
}

/**
 * The session container with what its program needs to know. The variable that it waits for comes last: kubelet resolves
 * them in order, so every other reference of the user's has been found by the time the Pod counts as parked.
 */
function sessionContainer(
  container: Container,
  secretName: string,
  environment: Environment,
  { credential, secretDelivery }: SessionsSpec,
): Container {
  const own = container.env ?? [];
  const fromSecret = (name: string, key: string): EnvVar => ({
    name,
    valueFrom: { secretKeyRef: { name: secretName, key } },
  });
  const baseUrl: EnvVar[] = own.some(({ name }) => name === "ANTHROPIC_BASE_URL")
    ? []
    : [{ name: "ANTHROPIC_BASE_URL", value: environment.spec.api.baseUrl }];
  const byFile = secretDelivery === "File";
  const given: EnvVar[] = byFile
    ? [
        { name: "ANTHROPIC_WORK_SECRET_FILE", value: WORK_SECRET_FILE },
        // A key that comes with the opening: the container is held back by it even if the gate were passed too early.
        fromSecret("BERTH_ACKNOWLEDGED_AT", KEY_ACKNOWLEDGED_AT),
      ]
    : [fromSecret(CREDENTIAL_VARIABLES[credential], KEY_WORK_SECRET)];
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
      ...given,
    ],
    ...(byFile ? { volumeMounts: [...listOf(container["volumeMounts"]), CLAIM_MOUNT] } : {}),
  };
}

const CREDENTIAL_VARIABLES: Record<Credential, string> = {
  WorkSecret: "ANTHROPIC_WORK_SECRET",
  EnvironmentKey: "ANTHROPIC_ENVIRONMENT_KEY",
};

const CLAIM_MOUNT = { name: CLAIM_VOLUME, mountPath: MOUNT_PATH, readOnly: true };

/**
 * A copy of the session container that only waits. It has the same image, user, environment and mounts, so that a fault
 * in any of them keeps the Pod from being parked, where it costs nobody a session.
 */
function gateContainer(session: Container, byFile: boolean): Container {
  const kept = ["image", "securityContext", "env", "envFrom", "volumeDevices", "workingDir"];
  const own = Object.fromEntries(
    kept.flatMap((field) => (session[field] === undefined ? [] : [[field, session[field]]])),
  );
  const mounts = listOf<Record<string, unknown>>(session["volumeMounts"])
    // Such a path may need variables that only a session has.
    .filter(({ subPathExpr }) => subPathExpr === undefined);
  const resources = gateResources(session["resources"]);
  return {
    ...own,
    name: GATE_CONTAINER,
    imagePullPolicy: session.imagePullPolicy ?? "IfNotPresent",
    command: ["/bin/sh", "-c", GATE_SCRIPT, GATE_CONTAINER, `${MOUNT_PATH}/${fileOf(byFile)}`],
    volumeMounts: [...mounts, CLAIM_MOUNT],
    ...(resources ? { resources } : {}),
    // The words of a shell that lacks something.
    terminationMessagePolicy: "FallbackToLogsOnError",
  };
}

/** kubelet writes all files of a volume at one stroke: the one that the gate waits for is the one that is delivered. */
function fileOf(byFile: boolean): string {
  return byFile ? KEY_WORK_SECRET : KEY_ACKNOWLEDGED_AT;
}

/** Optional, since the Secret comes with the claim only; one key of it, since the rest is no business of the Pod's. */
function claimVolume(secretName: string, byFile: boolean): Record<string, unknown> {
  const key = fileOf(byFile);
  const items = [{ key, path: key, mode: FILE_MODE }];
  return { name: CLAIM_VOLUME, secret: { secretName, optional: true, defaultMode: FILE_MODE, items } };
}

/**
 * The same requests and limits: a Pod's effective request is the larger of its init containers' and its containers', so it
 * does not grow, it keeps its quality of service, and a quota or a limit range that asks for them finds them. Devices are
 * left out: nothing here uses them.
 */
function gateResources(resources: unknown): Record<string, unknown> | undefined {
  if (typeof resources !== "object" || resources === null) return undefined;
  const parts = Object.entries(resources).flatMap(([kind, amounts]) => {
    if ((kind !== "requests" && kind !== "limits") || typeof amounts !== "object" || amounts === null) return [];
    return [[kind, Object.fromEntries(Object.entries(amounts).filter(([name]) => GATE_RESOURCES.has(name)))]];
  });
  return parts.length === 0 ? undefined : Object.fromEntries(parts);
}

/**
 * The Pod's security context with a group that may use what is mounted: kubelet gives the files of a volume to `fsGroup`, and
 * every container of the Pod that group. What the template says wins. A volume that outlives the Pod is given to the
 * group only where its top folder is not yet.
 */
export function fsGroupFor(template: PodTemplate, session: Container | undefined): Record<string, unknown> {
  const pod = (template.spec["securityContext"] ?? {}) as Record<string, unknown>;
  if (pod["fsGroup"] !== undefined) return pod;
  const own = (session?.["securityContext"] ?? {}) as Record<string, unknown>;
  const fsGroup = own["runAsGroup"] ?? pod["runAsGroup"] ?? DEFAULT_FS_GROUP;
  return { fsGroupChangePolicy: "OnRootMismatch", ...pod, fsGroup };
}

function listOf<T>(value: unknown): T[] {
  return Array.isArray(value) ? (value as T[]) : [];
}

/** Whether this Pod is parked by an init container. */
export function isGatedByInit(pod: Pod): boolean {
  return listOf<Container>(pod.spec.initContainers).some(({ name }) => name === GATE_CONTAINER);
}

/**
 * What the session container of a Pod takes. The Pod itself is asked, not the spec: one that was parked before the spec
 * changed still serves.
 */
export function credentialOf(pod: Pod, container: string | undefined): Credential {
  const session = pod.spec.containers.find(({ name }) => name === container);
  const variable = CREDENTIAL_VARIABLES.EnvironmentKey;
  return session?.env?.some(({ name }) => name === variable) ? "EnvironmentKey" : "WorkSecret";
}
