import { SECOND_MS } from "../core/clock.ts";
import type { End } from "../pods/pod-state.ts";
import type { WorkItem, WorkState } from "../work/types.ts";
import type { Journal } from "./journal.ts";
import type { Lease } from "./lease.ts";
import type { Ending } from "./step.ts";
import type { FailingByStep } from "./tracked-steps.ts";

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

/** A work item as the list call last showed it. Times are this process's monotonic clock. */
export interface ItemView {
  /**
   * `unknown`: the list could not be read to its end, or is older than what we know. `absent`: whole lists in a row, some
   * seconds apart, did not have it.
   */
  readonly state: WorkState | "absent" | "unknown";
  readonly acknowledgedAt: string | null;
  readonly latestHeartbeatAt: string | null;
  readonly startedAt: string | null;
  /** When the list was asked for: it shows what was true then, or up to the list's lag before. */
  readonly askedMs: number;
  /** Of `unknown`: the list was read to its end, so a later one will tell. */
  readonly isWhole?: true;
}

/** What this process wrote for a claim, asked for and decided: its Secret, its acknowledgement, its opening, its Pod. */
export interface ClaimRecord {
  journal: Journal;
  /** The Secret's resourceVersion and uid: every patch and delete carries them. */
  secretVersion: string;
  secretUid: string;
  /** Someone deleted the Secret of a live claim: the item is settled, and nothing is opened any more. */
  gone: boolean;
  /** Base64, from the journal until the opening; null when it must be read from the Secret. Never shown. */
  credential: string | null;
  /** The claim loop works on it: no other loop may. */
  claiming: boolean;
  /** `acknowledged_at` as the poll showed it, before this claim; null: there was none, or an earlier process polled. */
  acknowledgedBefore: string | null;
  /** The `acknowledged_at` under which the item is ours; durable once the claim is opened. */
  acknowledgedAt: string | null;
  /** By then our acknowledgement had taken effect; null: not known. */
  ackedMs: number | null;
  /** The item was acknowledged after its window, by us or by another client. It is released, never opened. */
  lateAck: boolean;
  /** An opening was sent: until it is confirmed, the container may be about to start. */
  openingSent: boolean;
  /** When this process gave the Secret its key, or found that an earlier one had. */
  openedMs: number | null;
  /** When this process gave the Secret its key, on the wall clock; null: an earlier process did, or nothing tells when. */
  openedAtMs: number | null;
  touches: number;
  touchedMs: number | null;
  /** The Pod's activeDeadlineSeconds: the first touch sets it, and later ones repeat it. */
  deadlineSeconds: number | null;
  /** Set when Berth decided to end the session. */
  ending: { readonly why: Ending; readonly message: string } | null;
}

/** What this process knows of the item's lease, from its own requests. */
export interface ClaimLease {
  memory: Memory;
  /** lease: Operator: the lease that the operator took; null before, after a restart, and once it let the lease go. */
  own: Lease | null;
  /**
   * A fence of a container that had sent no heartbeat got no answer: the heartbeat that the item shows since may be ours.
   * `seen`: the one it shows, null: none. `left`: how many of ours may still show. Any further change is the program's.
   */
  blindFence: { readonly seen: string | null; readonly left: number } | null;
  /** The container ended, and the item never had a heartbeat: its program did not get to serve. */
  neverBeaten: boolean;
  /** When this process asked the program to stop. */
  gracefulStopMs: number | null;
  /** Since when an address that the spec no longer names refuses the claim's requests; null: it does not. */
  awayMs: number | null;
}

/** What this process saw of a claim's item and Pod. */
export interface ClaimObserved {
  item: ItemView | null;
  /** When a look at its running container's item was last answered; null: none is awaited yet. */
  heardMs: number | null;
  /** A look at the item failed since the last that was answered. */
  lookFailed: boolean;
  /** How long the Work API was silent while the container ran, and when it next answered; null: it never was silent. */
  silentMs: number;
  silenceEndMs: number | null;
  /** Looks in a row that could not be completed. */
  unknowns: number;
  /** When this process last saw that the container had not started; null: it always saw it run. */
  waitedMs: number | null;
  /** When the container started, by the node's wall clock. */
  startedAtMs: number | null;
  /** The first heartbeat, by the wall clock of whoever reports it; lease: Operator: our own that took the lease. */
  firstBeatAtMs: number | null;
  /** The item was seen active; lease: Operator: its container ran long enough to serve. */
  firstBeatSeen: boolean;
  /** lease: Operator: its program failed before it can have served. */
  neverServed: boolean;
  /** The breaker was told what this claim's start says of its template. */
  judged: boolean;
  stoppingSinceMs: number | null;
  lostSinceMs: number | null;
  /** The API server has no Pod of its uid, and never will: the claim takes no room. */
  podGone: boolean;
  /** Set when its container or its Pod has ended; not for a Pod that was deleted before its Secret was opened. */
  end: End | null;
  endedMs: number | null;
}

/**
 * One claimed slot: the Pod and the Secret of one name. Times are the monotonic clock unless they say otherwise; null: not
 * yet. Each part has one writer: the module of its name beside this file.
 */
export interface Claim {
  readonly name: string;
  /** Hash of the Pod's template. */
  readonly templateHash: string;
  /** The end of the time in which an acknowledgement of ours can still take effect. */
  readonly lateAckUntilMs: number;
  /** Left by an earlier process, which sent nothing for it after this; null for a claim of our own. */
  readonly othersUntilMs: number | null;
  /** When an earlier process created its Secret, by the API server's clock; null for a claim of our own. */
  readonly recordedMs: number | null;
  readonly record: ClaimRecord;
  readonly lease: ClaimLease;
  readonly observed: ClaimObserved;
  /** Its steps that failed and have not succeeded since; null: there are none. Written by FailingSteps. */
  failing: FailingByStep | null;
}

/**
 * Acknowledged again since it was ours: the item went back to the queue in between and is another client's now. Only a later
 * time says so: an earlier one is from a list that is behind. Texts of one instant may differ, since several calls write it.
 */
export function isReacknowledged(claim: Readonly<Claim>, item: ItemView): boolean {
  if (claim.record.acknowledgedAt === null || item.acknowledgedAt === null) return false;
  return isLater(item.acknowledgedAt, claim.record.acknowledgedAt);
}

/** Whether a text stands for a later instant than another. One that cannot be read differs from every other text. */
export function isLater(one: string, other: string): boolean {
  const [a, b] = [instantOf(one), instantOf(other)];
  return a && b ? a.fromMs >= b.beforeMs : one !== other;
}

/** Whether two texts can stand for one instant. One that cannot be read is the same as its own text alone. */
export function isSameInstant(one: string, other: string | null): boolean {
  if (one === other || other === null) return one === other;
  const [a, b] = [instantOf(one), instantOf(other)];
  return a !== null && b !== null && a.fromMs < b.beforeMs && b.fromMs < a.beforeMs;
}

const FRACTION = /\.(\d+)/;

/** The span of time that an RFC 3339 text can stand for: it may be cut to whole seconds, or to any fraction. */
export function instantOf(text: string): { readonly fromMs: number; readonly beforeMs: number } | null {
  const fromMs = Date.parse(text);
  if (Number.isNaN(fromMs)) return null;
  const digits = FRACTION.exec(text)?.[1]?.length ?? 0;
  return { fromMs, beforeMs: fromMs + Math.max(1, SECOND_MS / 10 ** digits) };
}

/**
 * Between its journal and the first touch of its Pod. Of a session that an earlier process opened no touch is known here: it
 * runs, most often for long.
 */
export function isUnderWay({ record: { journal, openingSent, touches, lateAck }, observed: { end } }: Claim): boolean {
  if (journal.use !== "session" || end !== null || lateAck) return false;
  return !journal.opened || (openingSent && touches === 0);
}

/** A work item as an answer showed it that was asked for at `askedMs` (monotonic). */
export function viewOf(item: WorkItem, askedMs: number): ItemView {
  return {
    state: item.state,
    acknowledgedAt: item.acknowledged_at,
    latestHeartbeatAt: item.latest_heartbeat_at,
    startedAt: item.started_at,
    askedMs,
  };
}
