import type { LookupAddress, LookupOptions } from "node:dns";
import type { Clock } from "../core/clock.ts";

/** Resolves all addresses of a name, as `dns.lookup` does with `all: true`. */
export type Resolve = (
  hostname: string,
  options: LookupOptions & { all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** A resolver that knows a name, or whose name server answers, takes milliseconds; one that waits for nobody takes 5 s and more. */
const SLOW_MS = 1_000;

/**
 * So many lookups of doubtful names at a time. The image has 64 threads (Dockerfile), of which libuv gives half to lookups:
 * what is left is for names that are answered.
 */
export const MAX_DOUBTFUL = 8;

/** So many names are remembered as answered; of more, those that were longest not asked for are doubtful again. */
const MAX_ANSWERED = 10_000;

type Callback = Parameters<Resolve>[2];

/**
 * Lookups of names that anybody may have written. Each holds a thread of the process until the name server answers, and
 * every connection to everybody's Work API needs one: whoever names hosts whose server never answers must not hold them all.
 *
 * Invariants: a name is looked up once at a time, for all who ask. A name is doubtful until it was answered in less than
 * SLOW_MS, and again once it was not; of doubtful ones at most MAX_DOUBTFUL are under way, and the others wait in order.
 */
export class Lookups {
  readonly #clock: Clock;
  readonly #resolve: Resolve;
  /** By name, those who wait for its answer. */
  readonly #asking = new Map<string, Callback[]>();
  /** Names that were answered in time, the longest not asked for first. */
  readonly #answered = new Set<string>();
  /** Doubtful names whose turn has not come. */
  readonly #waiting: (() => void)[] = [];
  #doubtful = 0;

  constructor(clock: Clock, resolve: Resolve) {
    this.#clock = clock;
    this.#resolve = resolve;
  }

  readonly resolve: Resolve = (hostname, options, callback) => {
    const key = JSON.stringify([hostname, options.family, options.hints]);
    const asking = this.#asking.get(key);
    if (asking) return void asking.push(callback);
    this.#asking.set(key, [callback]);
    const isDoubtful = !this.#answered.has(key);
    const begin = () => {
      if (isDoubtful) this.#doubtful += 1;
      const sinceMs = this.#clock.monotonic();
      this.#resolve(hostname, options, (error, addresses) => {
        if (isDoubtful) this.#doubtful -= 1;
        this.#note(key, this.#clock.monotonic() - sinceMs);
        this.#answer(key, error, addresses);
        if (isDoubtful) this.#waiting.shift()?.();
      });
    };
    if (isDoubtful && this.#doubtful >= MAX_DOUBTFUL) this.#waiting.push(begin);
    else begin();
  };

  /** A failure that comes at once holds nobody up either. */
  #note(key: string, tookMs: number): void {
    this.#answered.delete(key);
    if (tookMs >= SLOW_MS) return;
    this.#answered.add(key);
    const [oldest] = this.#answered;
    if (this.#answered.size > MAX_ANSWERED && oldest !== undefined) this.#answered.delete(oldest);
  }

  #answer(key: string, error: NodeJS.ErrnoException | null, addresses: LookupAddress[]): void {
    const asking = this.#asking.get(key) ?? [];
    this.#asking.delete(key);
    for (const callback of asking) callback(error, addresses);
  }
}
