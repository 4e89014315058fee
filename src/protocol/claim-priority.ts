import type { Clock } from "../core/clock.ts";
import { type Claim, isUnderWay } from "./claim.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { Step } from "./step.ts";

/**
 * How long one step of a session waits for claims; shorter than the time an item may wait for its earlier Pod's record.
 */
const LONGEST_STEP_HOLD_MS = 1_000;

/**
 * Gives claims priority over work that is less urgent, such as creating a Pod to replace a claimed one, or deleting a
 * finished one. Such work competes with claims for the API server and the nodes. It is held back while claims are under
 * way, but never longer than a bound, so nothing starves.
 */
export class ClaimPriority {
  readonly #clock: Clock;
  readonly #claims: ClaimTable;
  /** Since when (monotonic) the work of this caller has been held back. */
  #sinceMs: number | null = null;

  constructor({ clock, claims }: { clock: Clock; claims: ClaimTable }) {
    this.#clock = clock;
    this.#claims = claims;
  }

  /** Whether a claim is under way. */
  get isRush(): boolean {
    return this.#claims.some(isUnderWay);
  }

  /**
   * How long the work should wait, in milliseconds; 0: do it now. Call again when a claim makes progress.
   * @param mostMs the longest that all of the work may wait, counted from the first time it was held back
   */
  holdMs(mostMs: number): number {
    const nowMs = this.#clock.monotonic();
    this.#sinceMs = this.isRush ? (this.#sinceMs ?? nowMs) : null;
    if (this.#sinceMs === null) return 0;
    const leftMs = this.#sinceMs + mostMs - nowMs;
    if (leftMs > 0) return leftMs;
    // Later work gets a new bound.
    this.#sinceMs = null;
    return 0;
  }

  /** No work is waiting. Later work gets a new bound. */
  nothingWaits(): void {
    this.#sinceMs = null;
  }
}

/**
 * Until when (monotonic) a less urgent step of a session waits for claims under way; null: it doesn't wait. Less urgent
 * are the cleanup after a session, and a repeated touch: a node that gets many sessions at a time starts each of them
 * later, whether or not its Pod was touched again.
 */
export function leavesWayUntil(step: Step, { observed: { endedMs }, record: { touchedMs } }: Claim): number | null {
  const sinceMs = step.do === "settled" ? endedMs : step.do === "touch" ? touchedMs : null;
  return sinceMs === null ? null : sinceMs + LONGEST_STEP_HOLD_MS;
}

/** This many claims under way keep an API server with two cores busy, however slow it is. */
export const FEWEST_UNDER_WAY = 16;
