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

/** The Environment that a volume belongs to. */
export interface VolumeOwner {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** Shorter than the limit for volume names, so that a volume plug-in can add a prefix or suffix. */
const NAME_LENGTH = 63;
const HASH_LENGTH = 12;

const ABOUT = "The workspace of a session: Berth deletes it when no work item of the session came for long enough.";

/**
 * The name of a session's volume: the same for each work item. It includes the Environment's uid, so that an
 * Environment recreated under its old name does not find a volume that is being deleted.
 */
export function volumeName({ name, uid }: Pick<VolumeOwner, "name" | "uid">, sessionId: string): string {
  const base = `berth-${name.replaceAll(".", "-")}`.slice(0, NAME_LENGTH - HASH_LENGTH - 1);
  return `${base.replace(/-+$/, "")}-${hashOf([uid, sessionId])}`;
}

/** The label selector of an Environment's volumes. */
export function volumeSelector(environmentName: string): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ENVIRONMENT}=${toLabelValue(environmentName)}`;
}

/** A new volume of a session: in use from the start, and deleted with its Environment. */
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

/** A session's volume as read. */
export interface Volume {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly sessionId: string;
  /** When the last Pod stopped using it, by its annotation; null: a Pod uses it or is about to. */
  readonly lastUsedMs: number | null;
  readonly going: boolean;
}

/** Reads a volume; null if it does not belong to a session of this Environment, whatever its labels say. */
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

/** What to do with the volumes of an Environment. */
export interface VolumePlan {
  /**
   * In use but marked as unused, since mark and use raced. Without a new mark the volume would be deleted too early.
   */
  readonly take: readonly Volume[];
  /** Unused and not marked yet. */
  readonly leave: readonly Volume[];
  /** Kept long enough. */
  readonly expire: readonly Volume[];
  /** When the next volume expires (same clock as `nowMs`); null: none. */
  readonly nextAtMs: number | null;
}

/**
 * Decides which volumes to mark and which to delete. A mark in the future (the clock was changed) is replaced by the
 * current time, so that the volume is not kept forever.
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

/** The same clock, the API server's, writes and reads the marks. */
const CLOCKS_APART_MS = 60_000;
