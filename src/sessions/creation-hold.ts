import { FEWEST_UNDER_WAY } from "../protocol/claims-first.ts";

/** Longer than a burst of a hundred claims takes. */
const LONGEST_HOLD_MS = 5_000;

/** With few of them left: about as long as a Pod takes to be parked, so that a rush that goes on finds some. */
const SHORT_HOLD_MS = 2_000;

/** A burst of so many claims is through before their Pods are replaced. What takes more is no burst, and needs them. */
const BURST = 75;

/** So many free Pods are few: half of those wanted, or, where that is more than can be claimed at a time, what a burst leaves. */
const few = (wanted: number) =>
  wanted / 2 <= FEWEST_UNDER_WAY ? wanted / 2 : Math.max(FEWEST_UNDER_WAY, wanted - BURST);

/** The longest that creations leave the way to claims, in milliseconds, with so many of the wanted Pods parked. */
export function longestHoldMs(parked: number, wanted: number): number {
  return parked >= few(wanted) ? LONGEST_HOLD_MS : SHORT_HOLD_MS;
}
