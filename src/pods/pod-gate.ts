/**
 * How a parked Pod's session container is held back, and how it gets its credential. There are two ways to park:
 *
 * - `Key`: the container reads a variable from a key of the claim's Secret that is still missing. The kubelet keeps it
 *   in CreateContainerConfigError, and starts it a tenth of a second after the key exists and the Pod is touched.
 * - `Init`: an init container from the session container's image waits for a file of the claim's Secret. A file alone
 *   gates nothing (the kubelet starts the container without it and writes it a moment later), so file delivery needs
 *   this.
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

/** Like Kubernetes' own tokens, below a path that exists or can be created in any image. */
const MOUNT_PATH = "/var/run/secrets/berth.dev";

/** Where a session's program finds its work secret under `secretDelivery: File`. */
export const WORK_SECRET_FILE = `${MOUNT_PATH}/work-secret`;

/** Owner and group may read; a worker refuses a file that others can read or write. */
const FILE_MODE = 0o440;

/**
 * The file's group if the template names none: otherwise only root could read it. The number is "nonroot" in images
 * that have this group; any other would work.
 */
const DEFAULT_FS_GROUP = 65_532;

export { GATE_CONTAINER };

/**
 * Pause between the gate's checks, in seconds. A quarter of a second is small next to the second that the kubelet takes
 * to write the file, and four `sleep`s a second cost a few thousandths of a core.
 */
const LOOK_SECONDS = "0.25";

/**
 * Without the trap, a shell that is the container's first process ignores SIGTERM, and deleting a parked Pod would take
 * its whole grace period. Some `sleep`s accept only whole seconds; without any `sleep`, the gate must exit instead of
 * spinning.
 */
const GATE_SCRIPT = `trap 'exit 143' TERM; until [ -e "$1" ]; do sleep ${LOOK_SECONDS} 2>/dev/null || sleep 1 || exit 1; done`;

/** Resources that the gate can request without asking the node for more than the session needs. */
const GATE_RESOURCES = new Set(["cpu", "memory", "ephemeral-storage"]);

/** What a Pod's program authenticates with. */
export type Credential = SessionsSpec["credential"];

/** The parts of a Pod's spec that hold its session container back; they override the template's. */
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
    // Last: the template's init containers have ended by the time it runs, and its sidecars run beside it.
    initContainers: [...listOf<Container>(template.spec.initContainers), ...gate],
    volumes: [...listOf<Record<string, unknown>>(template.spec.volumes), claimVolume(made.secretName, byFile)],
    ...(byFile ? { securityContext: fsGroupFor(template, session) } : {}),
  };
}

/**
 * The session container with the variables of its program. The gating variable comes last: the kubelet resolves
 * variables in order, so all other references are valid by the time the Pod counts as parked.
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
        // The claim adds this key when it opens the Secret: it holds the container back even if the gate ends too
        // early.
        fromSecret("BERTH_ACKNOWLEDGED_AT", KEY_ACKNOWLEDGED_AT),
      ]
    : [fromSecret(CREDENTIAL_VARIABLES[credential], KEY_WORK_SECRET)];
  return {
    // The kubelet's default for :latest is Always, which contacts the registry at each sync of a parked Pod.
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
 * A copy of the session container that only waits. It has the same image, user, environment and mounts, so a fault in
 * any of them keeps the Pod from being parked, and no session is lost.
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
    // Shows the shell's error message when a command is missing.
    terminationMessagePolicy: "FallbackToLogsOnError",
  };
}

/** The kubelet writes all files of a volume atomically, so the gate waits for the file that is delivered. */
function fileOf(byFile: boolean): string {
  return byFile ? KEY_WORK_SECRET : KEY_ACKNOWLEDGED_AT;
}

/** Optional, since the Secret exists only after the claim. One key only, since the Pod needs no other. */
function claimVolume(secretName: string, byFile: boolean): Record<string, unknown> {
  const key = fileOf(byFile);
  const items = [{ key, path: key, mode: FILE_MODE }];
  return { name: CLAIM_VOLUME, secret: { secretName, optional: true, defaultMode: FILE_MODE, items } };
}

/**
 * The same requests and limits as the session container. A Pod's effective request is the larger of its init
 * containers' and containers' requests, so it does not grow. The Pod keeps its quality of service, and quotas and limit
 * ranges that demand these fields accept it. Devices are left out: the gate uses none.
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
 * The Pod's security context with an fsGroup. The kubelet gives that group the files of volumes, and gives every
 * container the group. The template's values win. For a volume that outlives the Pod, the kubelet changes ownership
 * only if the top folder differs.
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

/** Whether an init container parks this Pod. */
export function isGatedByInit(pod: Pod): boolean {
  return listOf<Container>(pod.spec.initContainers).some(({ name }) => name === GATE_CONTAINER);
}

/**
 * The credential that a Pod's session container takes. It is read from the Pod, not the spec: a Pod parked before the
 * spec changed still serves.
 */
export function credentialOf(pod: Pod, container: string | undefined): Credential {
  const session = pod.spec.containers.find(({ name }) => name === container);
  const variable = CREDENTIAL_VARIABLES.EnvironmentKey;
  return session?.env?.some(({ name }) => name === variable) ? "EnvironmentKey" : "WorkSecret";
}
