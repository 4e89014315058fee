import type { Environment, PodTemplate } from "../api/environment.ts";
import { ANNOTATION_SESSION_ID, ANNOTATION_WORKSPACE, WORKSPACE_VOLUME } from "../api/names.ts";
import type { Container, Pod } from "../kube/resource.ts";
import { fsGroupFor } from "./pod-gate.ts";

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

function mountsOf(container: { readonly [field: string]: unknown }): unknown[] {
  const mounts = container["volumeMounts"];
  return Array.isArray(mounts) ? mounts : [];
}
