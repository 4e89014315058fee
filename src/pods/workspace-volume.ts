import type { WorkspaceSpec } from "../api/environment.ts";
import {
  ANNOTATION_ABOUT,
  ANNOTATION_LAST_USED,
  ANNOTATION_SESSION_ID,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_SESSION_ID,
  toLabelValue,
} from "../api/names.ts";
import { hashOf } from "../core/json.ts";
import type { PersistentVolumeClaim } from "../kube/resource.ts";

/** Which Environment a volume is of. */
export interface VolumeOwner {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** Names of volumes have no more, so that a volume plug-in may put something before or after them. */
const NAME_LENGTH = 63;
const HASH_LENGTH = 12;

const ABOUT = "The workspace of a session: Berth deletes it when no work item of the session came for long enough.";

/**
 * The name of a session's volume: the same at each work item. With the Environment's uid in it, so that one that is made anew
 * under its old name finds no volume that is on its way out.
 */
export function volumeName({ name, uid }: Pick<VolumeOwner, "name" | "uid">, sessionId: string): string {
  const base = `berth-${name.replaceAll(".", "-")}`.slice(0, NAME_LENGTH - HASH_LENGTH - 1);
  return `${base.replace(/-+$/, "")}-${hashOf([uid, sessionId])}`;
}

/** The labels by which an Environment's volumes are listed. */
export function volumeSelector(environmentName: string): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ENVIRONMENT}=${toLabelValue(environmentName)}`;
}

/** A session's volume as it is made: in use from the start, and gone with its Environment. */
export function renderVolume(
  owner: VolumeOwner,
  sessionId: string,
  template: NonNullable<WorkspaceSpec["claimTemplate"]>,
): PersistentVolumeClaim {
  const { namespace, name, uid } = owner;
  const { accessModes, resources, storageClassName } = template;
  return {
    metadata: {
      name: volumeName(owner, sessionId),
      namespace,
      labels: {
        [LABEL_MANAGED_BY]: "berth",
        [LABEL_ENVIRONMENT]: toLabelValue(name),
        [LABEL_SESSION_ID]: toLabelValue(sessionId),
      },
      annotations: { [ANNOTATION_SESSION_ID]: sessionId, [ANNOTATION_ABOUT]: ABOUT },
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true, blockOwnerDeletion: true }],
    },
    spec: {
      accessModes: [...accessModes],
      resources: { requests: { ...resources.requests } },
      ...(storageClassName === undefined ? {} : { storageClassName }),
    },
  };
}

/** A session's volume as it was read. */
export interface Volume {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly sessionId: string;
  /** Since when no Pod uses it, by its annotation; null: one does, or is about to. */
  readonly lastUsedMs: number | null;
  readonly going: boolean;
}

/** Reads a volume; null for one that is not of a session of this Environment, whatever its labels say. */
export function readVolume(claim: PersistentVolumeClaim, owner: VolumeOwner): Volume | null {
  const { name = "", uid = "", resourceVersion = "", annotations, ownerReferences, deletionTimestamp } = claim.metadata;
  const sessionId = annotations?.[ANNOTATION_SESSION_ID];
  const isOurs = ownerReferences?.some(({ controller, uid: of }) => controller && of === owner.uid) ?? false;
  if (sessionId === undefined || !isOurs || name !== volumeName(owner, sessionId)) return null;
  const at = Date.parse(annotations?.[ANNOTATION_LAST_USED] ?? "");
  return {
    ...{ name, uid, resourceVersion, sessionId },
    lastUsedMs: Number.isNaN(at) ? null : at,
    going: deletionTimestamp !== undefined,
  };
}

/** What is to be done with the volumes of an Environment. */
export interface VolumePlan {
  /** In use, and marked as if it were not: the mark and the use met. Counted from it, the volume would go too soon. */
  readonly take: readonly Volume[];
  /** Used no more, and not marked so yet. */
  readonly leave: readonly Volume[];
  /** Kept long enough. */
  readonly expire: readonly Volume[];
  /** When the next one will have been (as `nowMs`); null: none. */
  readonly nextAtMs: number | null;
}

/**
 * Which volumes are left and which go. One whose mark lies in the future (a clock that was set) counts from now on, not for
 * ever.
 */
export function planVolumes(
  volumes: Iterable<Volume>,
  inUse: (sessionId: string) => boolean,
  nowMs: number,
  retainMs: number,
): VolumePlan {
  const take: Volume[] = [];
  const leave: Volume[] = [];
  const expire: Volume[] = [];
  let nextAtMs: number | null = null;
  for (const volume of volumes) {
    const { lastUsedMs, going, sessionId } = volume;
    if (going) continue;
    if (inUse(sessionId)) {
      if (lastUsedMs !== null) take.push(volume);
    } else if (lastUsedMs === null || lastUsedMs > nowMs + CLOCKS_APART_MS) leave.push(volume);
    else if (lastUsedMs + retainMs <= nowMs) expire.push(volume);
    else nextAtMs = Math.min(nextAtMs ?? Number.POSITIVE_INFINITY, lastUsedMs + retainMs);
  }
  return { take, leave, expire, nextAtMs };
}

/** The marks are made by the same clock that they are read by: the API server's. */
const CLOCKS_APART_MS = 60_000;
