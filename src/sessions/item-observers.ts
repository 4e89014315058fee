import type { WorkApiError } from "../work/errors.ts";
import type { Claim } from "./claim.ts";
import type { SessionContext } from "./context.ts";
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
    const { clock, timing, work } = this.#context;
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
    });
    this.#byApi.set(api, made);
    return made;
  }
}
