import type { Environment, PodTemplate } from "../api/environment.ts";
import { ANNOTATION_SESSION_ID, ANNOTATION_WORKSPACE, WORKSPACE_VOLUME } from "../api/names.ts";
import type { Container, Pod } from "../kube/resource.ts";
import { fsGroupFor } from "./pod-gate.ts";

/** The session that a Pod is made for, and its volume. */
export interface OwnVolume {
  readonly sessionId: string;
  /** The PersistentVolumeClaim. */
  readonly claim: string;
}

/** Whether each session has a volume of its own, so that each Pod is made for one session. */
export function isPerSession({ spec }: Pick<Environment, "spec">): boolean {
  return spec.sessions?.workspace.type === "PerSession";
}

/** The session that a Pod was made for; null: for whichever comes first. */
export function sessionBoundTo({ metadata: { annotations } }: Pod): string | null {
  if (annotations?.[ANNOTATION_WORKSPACE] === undefined) return null;
  return annotations[ANNOTATION_SESSION_ID] ?? "";
}

/** Whether a Pod may serve an item of this session: it has its volume, or there is none. */
export function isFor(pod: Pod, environment: Pick<Environment, "spec">, sessionId: string): boolean {
  const bound = sessionBoundTo(pod);
  return isPerSession(environment) ? bound === sessionId : bound === null;
}

/**
 * Whether a Pod may still write to its session's volume: until all of its containers are over, sidecars too, or it is gone. Of
 * a node that does not answer nobody knows, so its Pods do: until somebody deletes them, as with a StatefulSet.
 */
export function usesVolume({ status }: Pod): boolean {
  return status?.phase !== "Succeeded" && status?.phase !== "Failed";
}

/** The template with the session's volume in its session container, which may write there. */
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
