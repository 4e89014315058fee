import { errorText } from "../core/errors.ts";
import { WorkApiError } from "../work/errors.ts";
import type { Claim } from "./claim.ts";

/**
 * What a person has to mend before a claim's step can be taken, in words; null for what passes by itself.
 * @param away where its item is, if that is not what `spec.api.baseUrl` names now
 */
export function stuckBy(error: unknown, away: string | null): string | null {
  if (away === null || !(error instanceof WorkApiError) || error.kind !== "auth") return null;
  const why = error.status === undefined ? "no key may be sent to it" : errorText(error);
  return `sessions that were claimed at ${away}, which spec.api.baseUrl named before, cannot be settled there: ${why}; add it to --allowed-api-origins if it is missing there, or name that address and its key in spec.api until they are over`;
}

/** The first of what claims are stuck by: one stands for all. */
export function stuckWords(claims: Iterable<Claim>): string | null {
  for (const { stuck } of claims) if (stuck !== null) return stuck;
  return null;
}
