import type { WorkspaceSpec } from "../api/environment.ts";
import {
  ANNOTATION_ABOUT,
  ANNOTATION_LAST_USED,
  ANNOTATION_SESSION_ID,
  ANNOTATION_UNASSIGNED,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_SESSION_ID,
  OWN_LABELS,
  toLabelValue,
} from "../api/names.ts";
import type { PersistentVolumeClaim } from "../kube/resource.ts";

/** The Environment that a volume belongs to. */
export interface VolumeOwner {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

const ABOUT =
  "The workspace of a session. Berth deletes it when the session has had no work item for long enough, or when its first Pod is deleted without a session.";

/** The label selector of an Environment's volumes. */
export function volumeSelector(environmentName: string): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ENVIRONMENT}=${toLabelValue(environmentName)}`;
}

/**
 * A new volume, which has no session yet and is deleted with its Environment.
 * @param pod the Pod that it is made for. The volume has the same name, so that a claim's record names both
 */
export function renderVolume(
  owner: VolumeOwner,
  pod: string,
  template: NonNullable<WorkspaceSpec["claimTemplate"]>,
): PersistentVolumeClaim {
  const { namespace, name, uid } = owner;
  const { accessModes, resources, storageClassName } = template;
  return {
    metadata: {
      name: pod,
      namespace,
      labels: { ...OWN_LABELS, [LABEL_ENVIRONMENT]: toLabelValue(name) },
      annotations: { [ANNOTATION_UNASSIGNED]: "true", [ANNOTATION_ABOUT]: ABOUT },
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true }],
    },
    spec: {
      accessModes: [...accessModes],
      resources: { requests: { ...resources.requests } },
      ...(storageClassName === undefined ? {} : { storageClassName }),
    },
  };
}

/**
 * The merge patch that gives a volume its session. It names the resourceVersion, so one that arrives late can't assign
 * a volume that another process has written to.
 */
export function assignPatch({ uid, resourceVersion }: Volume, sessionId: string) {
  const labels = { [LABEL_SESSION_ID]: toLabelValue(sessionId) };
  const annotations = { [ANNOTATION_SESSION_ID]: sessionId, [ANNOTATION_UNASSIGNED]: null };
  return { metadata: { uid, resourceVersion, labels, annotations } };
}

/** A volume as read. */
export interface Volume {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** Null: it has none yet. */
  readonly sessionId: string | null;
  /** By the API server's clock. */
  readonly createdMs: number;
  /** When the last Pod stopped using it, by its annotation; null: a Pod uses it or is about to. */
  readonly lastUsedMs: number | null;
  readonly going: boolean;
}

/**
 * Reads a volume; null if this Environment does not own it, whatever its labels say, or if it names no session and was
 * not made without one: someone may have removed the name.
 */
export function readVolume(claim: PersistentVolumeClaim, owner: Pick<VolumeOwner, "uid">): Volume | null {
  const { name = "", uid = "", resourceVersion = "", annotations, ownerReferences, deletionTimestamp } = claim.metadata;
  const sessionId = annotations?.[ANNOTATION_SESSION_ID] ?? null;
  const isOurs = ownerReferences?.some(({ controller, uid: of }) => controller && of === owner.uid) ?? false;
  if (!isOurs || (sessionId === null && annotations?.[ANNOTATION_UNASSIGNED] === undefined)) return null;
  const at = Date.parse(annotations?.[ANNOTATION_LAST_USED] ?? "");
  return {
    ...{ name, uid, resourceVersion, sessionId },
    createdMs: Date.parse(claim.metadata.creationTimestamp ?? "") || 0,
    lastUsedMs: Number.isNaN(at) ? null : at,
    going: deletionTimestamp !== undefined,
  };
}
