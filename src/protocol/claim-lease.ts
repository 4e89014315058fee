import type { Lease } from "./lease.ts";

/**
 * What is known of a claim in this process only, named as in the protocol's model. A restart begins at `none`, and
 * everything needed to go on is in the Secret, the Pod and the work item.
 */
export type Memory =
  /** Nothing more than the Secret, the Pod and the item say. */
  | { readonly is: "none" }
  /** The Secret stands, no acknowledgement was sent. Only the claim loop sees this. */
  | { readonly is: "journaled" }
  /** An acknowledgement was sent and not answered. */
  | { readonly is: "unanswered" }
  /**
   * The item's last heartbeat as read at `sinceMs`. `beatenSinceMs`: it was seen to move, and so was beaten after this.
   */
  | { readonly is: "snapshot"; readonly value: string; readonly sinceMs: number; readonly beatenSinceMs?: number }
  /**
   * Our own beat was accepted: the lease is in our hands until `beatSentMs` + `ttlMs`. `beatSentWallMs` is
   * on the wall clock. Without it the lease ends by then at the latest, and may have ended before: no stop may rest on it.
   */
  | {
      readonly is: "fenced";
      readonly beatSentMs: number;
      readonly beatSentWallMs?: number;
      readonly ttlMs: number;
      /** Our heartbeat's value as the server wrote it: a newer list shows it. Missing where its answer was lost. */
      readonly value?: string;
    }
  /** Our beat was refused: look again, but not at once. */
  | { readonly is: "refused"; readonly atMs: number };

/** What this process knows of the item's lease, from its own requests. */
export interface ClaimLease {
  readonly memory: Memory;
  /** lease: Operator: the lease that the operator took; null before, after a restart, and once it let the lease go. */
  readonly own: Lease | null;
  /**
   * A fence of a container that had sent no heartbeat got no answer: the heartbeat that the item shows since may be ours.
   * `seen`: the one it shows, null: none. `left`: how many of ours may still show. Any further change is the program's.
   */
  readonly blindFence: { readonly seen: string | null; readonly left: number } | null;
  /** The container ended, and the item never had a heartbeat: its program did not get to serve. */
  readonly neverBeaten: boolean;
  /** When this process asked the program to stop. */
  readonly gracefulStopMs: number | null;
  /** Since when an address that the spec no longer names refuses the claim's requests; null: it does not. */
  readonly awayMs: number | null;
}

type Writable = { -readonly [Field in keyof ClaimLease]: ClaimLease[Field] };
type Leased = { readonly lease: ClaimLease };

export function newLease(memory: Memory = { is: "none" }): ClaimLease {
  return { memory, own: null, blindFence: null, neverBeaten: false, gracefulStopMs: null, awayMs: null };
}

export function remember({ lease }: Leased, memory: Memory): void {
  (lease as Writable).memory = memory;
}

/** lease: Operator: the lease as it is after a heartbeat, a refusal or the passing of time; null: the operator let it go. */
export function noteLease({ lease }: Leased, own: Lease | null): void {
  (lease as Writable).own = own;
}

/** What `fenceSent` changed: `undoFence` and `noteFenced` need it. */
export type BeforeFence = Pick<ClaimLease, "blindFence" | "neverBeaten">;

/**
 * A fence is sent now. Its answer may be lost, so the claim says beforehand what the fence may have done.
 * @param fenced `unbeaten`: the container ended, and every heartbeat of the item was ours; `silent`: the same while it runs
 */
export function fenceSent({ lease }: Leased, fenced: { unbeaten: boolean; silent: boolean }): BeforeFence {
  const { blindFence, neverBeaten } = lease;
  if (fenced.unbeaten) (lease as Writable).neverBeaten = true;
  if (fenced.silent) {
    (lease as Writable).blindFence = { seen: blindFence?.seen ?? null, left: (blindFence?.left ?? 0) + 1 };
  }
  return { blindFence, neverBeaten };
}

/** The fence had no effect: its request was not processed. */
export function undoFence({ lease }: Leased, { blindFence }: BeforeFence): void {
  (lease as Writable).blindFence = blindFence;
}

/** The fence was answered. A refusal may be about an earlier fence without an answer, which may have landed. */
export function noteFenced({ lease }: Leased, held: boolean, { blindFence, neverBeaten }: BeforeFence): void {
  (lease as Writable).blindFence = held ? null : blindFence;
  // Refused at once: the list was behind, and the program did send a heartbeat.
  if (!held) (lease as Writable).neverBeaten = neverBeaten;
}

/** The item shows another heartbeat after a blind fence. A fence sends one; any further one is the program's. */
export function noteBeatAfterFence({ lease }: Leased, latestHeartbeatAt: string | null): void {
  const { blindFence } = lease;
  if (!blindFence || blindFence.seen === latestHeartbeatAt) return;
  (lease as Writable).blindFence = blindFence.left > 0 ? { seen: latestHeartbeatAt, left: blindFence.left - 1 } : null;
}

/** The program was asked to stop. */
export function noteAskedToStop({ lease }: Leased, nowMs: number): void {
  (lease as Writable).gracefulStopMs = nowMs;
  if (lease.own?.is === "held") (lease as Writable).own = { ...lease.own, state: "stopping" };
}

/** Whether an address that the spec no longer names answers the claim's requests; `nowMs`: when it did not. */
export function noteAway({ lease }: Leased, nowMs: number | null): void {
  const writable: Writable = lease;
  if (nowMs === null) writable.awayMs = null;
  else writable.awayMs ??= nowMs;
}
