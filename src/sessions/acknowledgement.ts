import { instantOf, isSameInstant } from "./claim.ts";

/**
 * Whether a 200 to an acknowledgement of ours shows somebody else's: one that is older than our request (M), by what other
 * acknowledgements showed of the clock that stamps them. Date headers are no measure: where another machine writes them,
 * some milliseconds ahead, each of ours would look like somebody else's, and its item be left to nobody. The item may have
 * been acknowledged before it came back to the queue, though, and a server may keep that first time: what our poll showed
 * of the queued item, or what is older than our poll, is nobody's who came since.
 * @param shown acknowledged_at as the answer has it
 * @param before the same as the poll showed it; null: never acknowledged
 * @param earliest our poll and our request cannot have been sent earlier, by the clock that stamps acknowledgements
 */
export function isSomebodyElses(
  shown: string,
  before: string | null,
  earliest: { readonly polledMs: number; readonly sentMs: number },
): boolean {
  const instant = instantOf(shown);
  if (instant === null || isSameInstant(shown, before)) return false;
  return instant.beforeMs > earliest.polledMs && instant.beforeMs <= earliest.sentMs;
}
