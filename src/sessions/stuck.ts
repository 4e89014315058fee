import { errorText } from "../core/errors.ts";
import { isConflict, isForbidden, isInvalid } from "../kube/errors.ts";
import { WorkApiError } from "../work/errors.ts";
import type { Claim } from "./claim.ts";
import { refusalWords } from "./refusal-words.ts";

/**
 * So long a claim waits for the right to open its Secret, and until the next try after that (half a minute at most). Rights
 * that are rolled out anew are back by then; and an item that nobody beats goes back to the queue after 90 s, to be claimed
 * in vain again.
 */
const OPEN_PATIENCE_MS = 45_000;

/**
 * What a person has to mend before a claim's step can be taken, in words; null for what passes by itself.
 * @param away where its item is, if that is not what `spec.api.baseUrl` names now
 */
export function stuckBy(error: unknown, away: string | null): string | null {
  if (away === null || !(error instanceof WorkApiError) || error.kind !== "auth") return null;
  const why = error.status === undefined ? "no key may be sent to it" : errorText(error);
  return `sessions that were claimed at ${away}, which spec.api.baseUrl named before, cannot be settled there: ${why}; add it to --allowed-api-origins if it is missing there, or name that address and its key in spec.api until they are over`;
}

/**
 * The Secret of an acknowledged claim could not be given its key. True, once: for too long, it will not be started. Where its
 * container runs all the same, an opening took effect that was not answered, and it is tried on.
 */
export function noteOpenRefusal(claim: Claim, error: unknown, nowMs: number): boolean {
  if (!isForbidden(error) && !isInvalid(error)) return false;
  claim.openRefusedMs ??= nowMs;
  claim.stuck = `containers are not started while the Secrets of claims cannot be changed: give the operator permission to patch Secrets: ${refusalWords(error, claim.name)}`;
  if (nowMs < claim.openRefusedMs + OPEN_PATIENCE_MS || claim.ending !== null) return false;
  claim.ending = { why: "StartFailed", message: claim.stuck };
  return true;
}

/**
 * The Pod of an opened claim could not be touched: its container starts and is watched all the same. A conflict is no
 * refusal: the Pod is another one, and the watch shows it.
 */
export function noteTouchRefusal(claim: Claim, error: unknown): void {
  if (isConflict(error)) return;
  const words =
    isForbidden(error) || isInvalid(error)
      ? `Pods of sessions do not say what they run, nor are they kept from evictions, while they cannot be changed: give the operator permission to patch Pods, or mend what refuses it: ${refusalWords(error, claim.name)}`
      : null;
  claim.touchRefused = { times: (claim.touchRefused?.times ?? 0) + 1, words };
}

/**
 * So long an address that the spec names no more is asked after a session's end. Its lease has long lapsed then, and an
 * address that is gone for good may keep neither a record nor a complaint for ever.
 */
const AWAY_PATIENCE_MS = 3_600_000;

/** Whether a claim whose item is `away` is given up: nothing runs for it, and nothing that is asked there is answered. */
export function isGivenUp(claim: Claim, away: string | null, error: unknown, nowMs: number): boolean {
  if (away === null || !(error instanceof WorkApiError)) return false;
  claim.awayMs ??= nowMs;
  const isOver = claim.end !== null || !claim.journal.opened;
  return isOver && nowMs >= Math.max(claim.awayMs, claim.endedMs ?? 0) + AWAY_PATIENCE_MS;
}

/** The first of what claims are stuck by: one stands for all. */
export function stuckWords(claims: Iterable<Claim>): string | null {
  for (const { stuck, touchRefused } of claims) {
    const words = stuck ?? touchRefused?.words ?? null;
    if (words !== null) return words;
  }
  return null;
}
