import type { Environment, PodTemplate } from "../api/environment.ts";
import { ANNOTATION_SESSION_ID, ANNOTATION_WORKSPACE, WORKSPACE_VOLUME } from "../api/names.ts";
import type { Container, Pod } from "../kube/resource.ts";

/**
 * The volume's group if the template names none: otherwise only root could write to it. The number is "nonroot" in
 * images that have this group; any other would work.
 */
const DEFAULT_FS_GROUP = 65_532;

/** The session that a Pod is made for, and its volume. */
export interface OwnVolume {
  readonly sessionId: string;
  /** The name of the PersistentVolumeClaim. */
  readonly claim: string;
}

/** Whether each session has its own volume, so that each Pod is made for one session. */
export function isPerSession({ spec }: Pick<Environment, "spec">): boolean {
  return spec.sessions?.workspace.type === "PerSession";
}

/** The session that a Pod was made for; null: any session. */
export function sessionBoundTo({ metadata: { annotations } }: Pod): string | null {
  if (annotations?.[ANNOTATION_WORKSPACE] === undefined) return null;
  return annotations[ANNOTATION_SESSION_ID] ?? "";
}

/** Whether a Pod may serve an item of this session: it mounts the session's volume, or there are no volumes. */
export function isFor(pod: Pod, environment: Pick<Environment, "spec">, sessionId: string): boolean {
  const bound = sessionBoundTo(pod);
  return isPerSession(environment) ? bound === sessionId : bound === null;
}

/**
 * Whether a Pod may still write to its session's volume: until all of its containers, including sidecars, have ended,
 * or the Pod is gone. If a node does not answer, its Pods count as using the volume until they are deleted, as with a
 * StatefulSet.
 */
export function usesVolume({ status }: Pod): boolean {
  return status?.phase !== "Succeeded" && status?.phase !== "Failed";
}

/** Adds the session's volume to the template, mounted and writable in its session container. */
export function withWorkspace(template: PodTemplate, container: string, mountPath: string, claim: string): PodTemplate {
  const { spec } = template;
  const volume = { name: WORKSPACE_VOLUME, persistentVolumeClaim: { claimName: claim } };
  const mount = { name: WORKSPACE_VOLUME, mountPath };
  const session = spec.containers.find(({ name }) => name === container) as Container | undefined;
  return {
    ...template,
    spec: {
      ...spec,
      securityContext: fsGroupFor(template, session),
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

function mountsOf(container: { readonly [field: string]: unknown }): unknown[] {
  const mounts = container["volumeMounts"];
  return Array.isArray(mounts) ? mounts : [];
}
