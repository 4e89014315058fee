import { instantOf } from "./claim.ts";

/**
 * Whether a 200 to an acknowledgement of ours shows somebody else's: one that is older than our request (M), by what other
 * acknowledgements showed of the clock that stamps them. Date headers are no measure: where another machine writes them,
 * some milliseconds ahead, each of ours would look like somebody else's, and its item be left to nobody. The item may have
 * been acknowledged before it came back to the queue, though, and a server may keep that first time: what our poll showed
 * of the queued item is nobody's who came since.
 * @param shown acknowledged_at as the answer has it
 * @param before the same as the poll showed it; null: never acknowledged
 * @param oldestMs our request cannot have been earlier, by the clock that stamps acknowledgements
 */
export function isSomebodyElses(shown: string, before: string | null, oldestMs: number): boolean {
  const instant = instantOf(shown);
  return shown !== before && instant !== null && instant.beforeMs <= oldestMs;
}
