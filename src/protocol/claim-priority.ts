import type { Clock } from "../core/clock.ts";
import { type Claim, isUnderWay } from "./claim.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { Step } from "./step.ts";

/** How long one step of a session waits for claims: less than an item may wait for the record of its earlier Pod. */
const LONGEST_STEP_HOLD_MS = 1_000;

/**
 * Lets claims go first. Work that nobody waits for (a new Pod in the place of one that was taken, the deletion of one that
 * is over) would compete with them for the API server and the nodes. It is held back while claims are under way, but never
 * longer than a bound: nothing starves.
 */
export class ClaimPriority {
  readonly #clock: Clock;
  readonly #claims: ClaimTable;
  /** Since when the work of this one has been held back (monotonic). */
  #sinceMs: number | null = null;

  constructor({ clock, claims }: { clock: Clock; claims: ClaimTable }) {
    this.#clock = clock;
    this.#claims = claims;
  }

  /** A claim is under way. */
  get isRush(): boolean {
    return this.#claims.some(isUnderWay);
  }

  /**
   * For how long the work should wait, in milliseconds; 0: do it now. Ask again when a claim gets on.
   * @param mostMs the longest that all of it may wait, from the first time that it was held back
   */
  holdMs(mostMs: number): number {
    const nowMs = this.#clock.monotonic();
    this.#sinceMs = this.isRush ? (this.#sinceMs ?? nowMs) : null;
    if (this.#sinceMs === null) return 0;
    const leftMs = this.#sinceMs + mostMs - nowMs;
    if (leftMs > 0) return leftMs;
    // What comes next waits anew.
    this.#sinceMs = null;
    return 0;
  }

  /** There is no work to hold back any more: the bound of what comes later begins with it. */
  nothingWaits(): void {
    this.#sinceMs = null;
  }
}

/**
 * Until when (monotonic) a step of a session that nobody waits for leaves the way to claims under way; null: it is done at
 * once. That is what is left of a session that is over; and a repeated touch, as a node that is given many sessions at a time
 * starts each of them later, whatever it was told.
 */
export function leavesWayUntil(step: Step, { observed: { endedMs }, record: { touchedMs } }: Claim): number | null {
  const sinceMs = step.do === "settled" ? endedMs : step.do === "touch" ? touchedMs : null;
  return sinceMs === null ? null : sinceMs + LONGEST_STEP_HOLD_MS;
}

/** So many keep an API server with two cores busy, however slow it is. */
export const FEWEST_UNDER_WAY = 16;
