import { SECOND_MS } from "../core/clock.ts";
import type { ClaimLease } from "./claim-lease.ts";
import type { ClaimObserved, ItemView } from "./claim-observed.ts";
import type { ClaimRecord } from "./claim-record.ts";
import type { FailingByStep } from "./tracked-steps.ts";

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
