import type { Environment, PodTemplate, SessionsSpec, WorkspaceSpec } from "../api/environment.ts";
import { ANNOTATION_SESSION_ID, ANNOTATION_WORKSPACE, WORKSPACE_VOLUME } from "../api/names.ts";
import { sessionContainerName } from "../api/pod-template.ts";
import { ENDED_PHASES } from "../kube/objects.ts";
import type { Container, Pod } from "../kube/resource.ts";
import { placesOf } from "../policy/template-path.ts";
import { mountsOf } from "./turns.ts";

/**
 * The volume's group if the template names none: otherwise only root could write to it. The number is "nonroot" in
 * images that have this group; any other would work.
 */
const DEFAULT_FS_GROUP = 65_532;

/** The volume that a Pod is made with. */
export interface OwnVolume {
  /** The session that the Pod is made for; null: the first session that claims it. */
  readonly sessionId: string | null;
  /** The name of the PersistentVolumeClaim. */
  readonly claim: string;
}

/** Whether each session has its own volume. */
export function isPerSession({ spec }: Pick<Environment, "spec">): boolean {
  return spec.sessions?.workspace.type === "PerSession";
}

/** The name of the PersistentVolumeClaim that a Pod mounts as its workspace; null: none. */
export function workspaceOf({ metadata: { annotations } }: Pod): string | null {
  return annotations?.[ANNOTATION_WORKSPACE] ?? null;
}

/**
 * The session that a Pod with a volume was made for, or serves; null: none. The volume of a Pod without one may still
 * have a session, whose claim was dropped.
 */
export function sessionBoundTo(pod: Pod): string | null {
  return workspaceOf(pod) === null ? null : (pod.metadata.annotations?.[ANNOTATION_SESSION_ID] ?? null);
}

/**
 * Whether a Pod may still write to its session's volume: until all of its containers, including sidecars, have ended,
 * or the Pod is gone. If a node does not answer, its Pods count as using the volume until they are deleted, as with a
 * StatefulSet.
 */
export function usesVolume({ status }: Pod): boolean {
  return !ENDED_PHASES.has(status?.phase ?? "");
}

/** What the rendering of a Pod takes from the workspace; null: nothing. It is part of the template's hash. */
export function workspaceInPod({ type, mountPath, sizeLimit }: WorkspaceSpec): Record<string, unknown> | null {
  if (type === "Ephemeral") return null;
  return type === "PerSession" ? { mountPath } : { workspace: { type, mountPath, sizeLimit } };
}

/**
 * Adds the workspace's volume to the template, mounted and writable in its session container.
 * @param claim the name of the session's PersistentVolumeClaim, with `PerSession`
 */
export function withWorkspace(
  template: PodTemplate,
  container: string,
  { type, mountPath, sizeLimit }: WorkspaceSpec,
  claim: string,
): PodTemplate {
  if (type === "Ephemeral") return template;
  const { spec } = template;
  const source =
    type === "PerSession"
      ? { persistentVolumeClaim: { claimName: claim } }
      : { emptyDir: sizeLimit === undefined ? {} : { sizeLimit } };
  const volume = { name: WORKSPACE_VOLUME, ...source };
  const mount = { name: WORKSPACE_VOLUME, mountPath };
  const session = spec.containers.find(({ name }) => name === container) as Container | undefined;
  return {
    ...template,
    spec: {
      ...spec,
      // Any user may write to an emptyDir.
      ...(type === "PerSession" ? { securityContext: fsGroupFor(template, session) } : {}),
      volumes: [...(spec.volumes ?? []), volume],
      containers: spec.containers.map((each) =>
        each.name === container ? { ...each, volumeMounts: [...mountsOf(each), mount] } : each,
      ),
    },
  };
}

/**
 * The Pod's security context with an fsGroup: the kubelet gives that group the volume, and gives every container the
 * group. The template's values win. The kubelet changes the ownership only if that of the top folder differs.
 */
function fsGroupFor(template: PodTemplate, session: Container | undefined): Record<string, unknown> {
  const pod = (template.spec["securityContext"] ?? {}) as Record<string, unknown>;
  if (pod["fsGroup"] !== undefined) return pod;
  const own = (session?.["securityContext"] ?? {}) as Record<string, unknown>;
  const fsGroup = own["runAsGroup"] ?? pod["runAsGroup"] ?? DEFAULT_FS_GROUP;
  return { fsGroupChangePolicy: "OnRootMismatch", ...pod, fsGroup };
}

/** Why the template's mounts don't fit the workspace, with the field and the fix; null: they fit. */
export function mountProblem({ template, workspace: { type, mountPath } }: SessionsSpec): string | null {
  const field = "spec.sessions.template";
  if (type === "Ephemeral") {
    const names = placesOf(template, "@container.volumeMounts[].name");
    const mount = names.find(({ value }) => value === WORKSPACE_VOLUME);
    if (mount === undefined) return null;
    return `${field}.${mount.field}: there is no volume ${WORKSPACE_VOLUME} with workspace type Ephemeral; set spec.sessions.workspace.type to Pod or PerSession, or remove the mount`;
  }
  const index = template.spec.containers.findIndex(({ name }) => name === sessionContainerName(template));
  const mount = placesOf(template, "@container.volumeMounts[].mountPath").find(
    (place) => place.value === mountPath && place.field.startsWith(`spec.containers[${index}].`),
  );
  if (mount === undefined) return null;
  return `${field}.${mount.field}: Berth mounts the workspace at ${mountPath}; remove this mount, or set spec.sessions.workspace.mountPath to another path`;
}
