import type { Volume } from "./workspace-volume.ts";

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
  /** Without a session, and without the Pod that they were made for. */
  readonly discard: readonly Volume[];
  /** When the next volume expires (same clock as `nowMs`); null: none. */
  readonly nextAtMs: number | null;
}

/** What is known about the use of the volumes. */
export interface VolumeUse {
  /** Whether a Pod uses this volume of a session, or is about to. */
  readonly inUse: (volume: Volume) => boolean;
  /** Whether an item of the session of this unused volume may wait in the queue. */
  readonly mayWait: (volume: Volume) => boolean;
  /** The Pod of a volume without a session. `never-seen`: its creation may still be in flight. */
  readonly podOf: (volume: Volume) => "there" | "gone" | "never-seen";
  /** How long the creation of a Pod may be in flight after that of its volume. */
  readonly creationMs: number;
  readonly retainMs: number;
}

/** How much longer than retainSeconds a volume is kept at most while an item of its session waits, in milliseconds. */
export const WAITING_KEPT_MS = 24 * 3_600_000;

/**
 * Decides which volumes to mark and which to delete. A mark in the future (the clock was changed) is replaced by the
 * current time, so that the volume is not kept forever.
 */
export function planVolumes(volumes: Iterable<Volume>, nowMs: number, use: VolumeUse): VolumePlan {
  const take: Volume[] = [];
  const leave: Volume[] = [];
  const expire: Volume[] = [];
  const discard: Volume[] = [];
  let nextAtMs: number | null = null;
  const again = (atMs: number) => {
    nextAtMs = Math.min(nextAtMs ?? Number.POSITIVE_INFINITY, atMs);
  };
  for (const volume of volumes) {
    const { lastUsedMs, going, sessionId, createdMs } = volume;
    if (going) continue;
    if (sessionId === null) {
      const pod = use.podOf(volume);
      const dueMs = createdMs + use.creationMs;
      if (pod === "gone" || (pod === "never-seen" && dueMs <= nowMs)) discard.push(volume);
      else if (pod === "never-seen") again(dueMs);
    } else if (use.inUse(volume)) {
      if (lastUsedMs !== null) take.push(volume);
    } else if (lastUsedMs === null || lastUsedMs > nowMs + CLOCKS_APART_MS) leave.push(volume);
    else if (nowMs < lastUsedMs + use.retainMs) again(lastUsedMs + use.retainMs);
    else if (nowMs < lastUsedMs + use.retainMs + WAITING_KEPT_MS && use.mayWait(volume))
      again(lastUsedMs + use.retainMs + WAITING_KEPT_MS);
    else expire.push(volume);
  }
  return { take, leave, expire, discard, nextAtMs };
}

/** The same clock, the API server's, writes and reads the marks. */
const CLOCKS_APART_MS = 60_000;
