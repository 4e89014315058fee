import { errorText } from "../core/errors.ts";
import type { Claim } from "../protocol/claim.ts";
import type { SessionContext } from "../protocol/context.ts";
import { WorkApiError } from "../work/errors.ts";
import { ItemObserver } from "./item-observer.ts";

interface Options {
  readonly isTracked: (workId: string) => boolean;
  readonly signal: AbortSignal;
  readonly onAnswer: (api: string, answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  readonly onUnreadable: (error: WorkApiError) => void;
}

/**
 * An observer for each Work API that claims are at. An item is looked for where it was claimed: any other API shows it as
 * absent, and a session that runs would be ended for that.
 */
export class ItemObservers {
  readonly #context: SessionContext;
  readonly #options: Options;
  readonly #byApi = new Map<string, ItemObserver>();

  constructor(context: SessionContext, options: Options) {
    this.#context = context;
    this.#options = options;
  }

  /** Whether the claim's item is at another Work API than the one that the spec names now. */
  isElsewhere(claim: Claim): boolean {
    return this.#apiOf(claim) !== this.#current;
  }

  of(claim: Claim): ItemObserver {
    return this.#at(this.#apiOf(claim));
  }

  /** Claims by the Work API that they are at. */
  split(claims: readonly Claim[]): Map<ItemObserver, Claim[]> {
    const split = new Map<ItemObserver, Claim[]>();
    for (const claim of claims) split.set(this.of(claim), [...(split.get(this.of(claim)) ?? []), claim]);
    return split;
  }

  get #current(): string {
    return this.#context.work().baseUrl;
  }

  /** A claim of a version that did not say where it is can only be where the spec points. */
  #apiOf({ journal }: Claim): string {
    return journal.api || this.#current;
  }

  #at(api: string): ItemObserver {
    const known = this.#byApi.get(api);
    if (known) return known;
    const { clock, timing, work, judged } = this.#context;
    const { isTracked, signal, onAnswer, onUnreadable } = this.#options;
    const made = new ItemObserver({
      work: () => work(api),
      clock,
      timing,
      isTracked,
      signal,
      // What an earlier address shows says nothing of the queue that the spec names.
      onUnreadable: (error) => api === this.#current && onUnreadable(error),
      onAnswer: (answer) => onAnswer(api, answer),
      judged: (walk) => judged("list", { api }, walk),
    });
    this.#byApi.set(api, made);
    return made;
  }
}

/**
 * So long an address that the spec names no more is asked after a session's end. Its lease has long lapsed then, and an
 * address that is gone permanently must not keep a record, nor a complaint, forever.
 */
const AWAY_PATIENCE_MS = 3_600_000;

/** Whether a claim whose item is `away` is given up: nothing runs for it, and nothing that is asked there is answered. */
export function isGivenUp(claim: Claim, away: string | null, error: unknown, nowMs: number): boolean {
  if (away === null || !(error instanceof WorkApiError)) return false;
  claim.awayMs ??= nowMs;
  const isOver = claim.end !== null || !claim.journal.opened;
  return isOver && nowMs >= Math.max(claim.awayMs, claim.endedMs ?? 0) + AWAY_PATIENCE_MS;
}

/**
 * What a person has to fix before the item of a claim can be settled at an earlier address; undefined: nothing.
 * @param away where its item is, if that is not what `spec.api.baseUrl` names now
 */
export function awayMessage(error: unknown, away: string | null): string | undefined {
  if (away === null || !(error instanceof WorkApiError) || error.kind !== "auth") return undefined;
  const why = error.status === undefined ? "no key may be sent to it" : errorText(error);
  return `sessions that were claimed at ${away}, which spec.api.baseUrl named before, cannot be settled there: ${why}; add it to --allowed-api-origins if it is missing there, or name that address and its key in spec.api until they have ended`;
}
