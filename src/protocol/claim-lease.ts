import type { Lease } from "./lease.ts";

/**
 * What only this process knows about a claim, named as in the protocol's model. A restart begins at `none`: the Secret,
 * the Pod and the work item hold everything that is needed to continue.
 */
export type Memory =
  /** This process knows only what the Secret, the Pod and the item say. */
  | { readonly is: "none" }
  /** The Secret exists, and no acknowledgement was sent. Only the claim loop sees this. */
  | { readonly is: "journaled" }
  /** An acknowledgement was sent and got no answer. */
  | { readonly is: "unanswered" }
  /**
   * The item's last heartbeat as read at `sinceMs`. `beatenSinceMs`: the value changed, so a heartbeat came after this.
   */
  | { readonly is: "snapshot"; readonly value: string; readonly sinceMs: number; readonly beatenSinceMs?: number }
  /**
   * Our heartbeat was accepted: the lease is ours until `beatSentMs` + `ttlMs`. `beatSentWallMs` is the same on the
   * wall clock. Without it the lease may have ended earlier, so no stop may rely on it.
   */
  | {
      readonly is: "fenced";
      readonly beatSentMs: number;
      readonly beatSentWallMs?: number;
      readonly ttlMs: number;
      /** Our heartbeat's value as the server wrote it; a newer list shows it. Missing if the answer was lost. */
      readonly value?: string;
    }
  /** Our heartbeat was refused: the item is read again, but not immediately. */
  | { readonly is: "refused"; readonly atMs: number };

/** What this process knows about the item's lease from its own requests. */
export interface ClaimLease {
  readonly memory: Memory;
  /**
   * lease: Operator: the lease that the operator took; null before that, after a restart, and once the operator let it
   * lapse.
   */
  readonly own: Lease | null;
  /**
   * A fence got no answer while the container had sent no heartbeat, so a heartbeat that the item shows may be ours.
   * `seen`: the one it shows; null: none. `left`: the number of ours that may still appear. Further changes are the
   * program's.
   */
  readonly blindFence: { readonly seen: string | null; readonly left: number } | null;
  /** The container ended, and the item never had a heartbeat: the program never served. */
  readonly neverBeaten: boolean;
  /** When this process told the item to stop while its program ran. */
  readonly gracefulStopMs: number | null;
}

type Writable = { -readonly [Field in keyof ClaimLease]: ClaimLease[Field] };
/** The part as this module may change it: everyone else gets it read-only. */
type Leased = { readonly lease: Writable };

export function newLease(memory: Memory = { is: "none" }): ClaimLease {
  return { memory, own: null, blindFence: null, neverBeaten: false, gracefulStopMs: null };
}

export function remember({ lease }: Leased, memory: Memory): void {
  lease.memory = memory;
}

/** lease: Operator: the lease after a heartbeat, a refusal or the passing of time; null: the operator let it lapse. */
export function noteLease({ lease }: Leased, own: Lease | null): void {
  lease.own = own;
}

/** The values before `fenceSent` changed them, for `undoFence` and `noteFenced`. */
export type BeforeFence = Pick<ClaimLease, "blindFence" | "neverBeaten">;

/**
 * A fence is about to be sent. Its answer may be lost, so the claim records beforehand what the fence may change.
 * @param fenced `unbeaten`: the container ended, and every heartbeat of the item was ours; `silent`: the same while it
 * runs
 */
export function fenceSent({ lease }: Leased, fenced: { unbeaten: boolean; silent: boolean }): BeforeFence {
  const { blindFence, neverBeaten } = lease;
  if (fenced.unbeaten) lease.neverBeaten = true;
  if (fenced.silent) {
    lease.blindFence = { seen: blindFence?.seen ?? null, left: (blindFence?.left ?? 0) + 1 };
  }
  return { blindFence, neverBeaten };
}

/** The fence had no effect: its request was not processed. */
export function undoFence({ lease }: Leased, { blindFence }: BeforeFence): void {
  lease.blindFence = blindFence;
}

/** The fence was answered. A refusal may result from an earlier fence that landed without an answer. */
export function noteFenced({ lease }: Leased, held: boolean, { blindFence, neverBeaten }: BeforeFence): void {
  lease.blindFence = held ? null : blindFence;
  // The refusal shows that the list was stale: the program did send a heartbeat.
  if (!held) lease.neverBeaten = neverBeaten;
}

/** The item shows a new heartbeat after an unanswered fence. Each fence sends one; any further one is the program's. */
export function noteBeatAfterFence({ lease }: Leased, latestHeartbeatAt: string | null): void {
  const { blindFence } = lease;
  if (!blindFence || blindFence.seen === latestHeartbeatAt) return;
  lease.blindFence = blindFence.left > 0 ? { seen: latestHeartbeatAt, left: blindFence.left - 1 } : null;
}

/** The item was told to stop while its program runs. */
export function noteAskedToStop({ lease }: Leased, nowMs: number): void {
  lease.gracefulStopMs = nowMs;
  if (lease.own?.is === "held") lease.own = { ...lease.own, state: "stopping" };
}
