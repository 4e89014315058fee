import { isLater } from "../core/text.ts";
import type { ClaimLease } from "./claim-lease.ts";
import type { ClaimObserved, ItemView } from "./claim-observed.ts";
import type { ClaimRecord } from "./claim-record.ts";
import type { FailingByStep } from "./tracked-steps.ts";

/**
 * One claimed Pod, or one turn of a Pod with turns. Times are on the monotonic clock unless they say
 * otherwise; null: not yet. Each part has one writer: the module of its name next to this file.
 */
export interface Claim {
  /** The name of the Pod, or of no Pod if the item can't be served. */
  readonly name: string;
  /**
   * The turn of the Pod that the claim is for; 0: the Pod has no turns, or was not seen yet and this is the first.
   * Written by ClaimFacts.
   */
  turn: number;
  /** The name of the claim's Secret: that of the Pod, with the turn from the second one on. */
  readonly slot: string;
  /** The hash of the Pod's template. */
  readonly templateHash: string;
  /** Until when our acknowledgement can still take effect. Written by Recovery once the Work API's time is known. */
  lateAckUntilMs: number;
  /** An earlier process left this claim and sent nothing for it after this time; null: this process made the claim. */
  readonly othersUntilMs: number | null;
  /** When an earlier process created its Secret, by the API server's clock; null: this process made the claim. */
  readonly recordedMs: number | null;
  readonly record: ClaimRecord;
  readonly lease: ClaimLease;
  readonly observed: ClaimObserved;
  /** The steps that failed and have not succeeded since; null: there are none. Written by Holds. */
  failing: FailingByStep | null;
}

/**
 * Whether the item was acknowledged again since it was ours: it returned to the queue, and another client holds it now.
 * Only a later time shows that: an earlier one is from a stale list. Texts of the same instant may differ, since
 * several calls format it.
 */
export function isReacknowledged(claim: Readonly<Claim>, item: ItemView): boolean {
  if (claim.record.acknowledgedAt === null || item.acknowledgedAt === null) return false;
  return isLater(item.acknowledgedAt, claim.record.acknowledgedAt);
}

/**
 * Whether the claim is between its journal and the first touch of its Pod. A session that an earlier process opened has
 * no touch here, but doesn't count: most often it has run for long.
 */
export function isUnderWay({ record: { journal, openingSent, touches, lateAck }, observed: { end } }: Claim): boolean {
  if (journal.use !== "session" || end !== null || lateAck) return false;
  return !journal.opened || (openingSent && touches === 0);
}
