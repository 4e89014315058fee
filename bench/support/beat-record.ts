import { quantiles } from "../report/distribution.ts";

/** The beats that the Work API took since a mark; times in milliseconds since the epoch. */
export interface Beats {
  readonly count: number;
  /** Items that were beaten since the mark. */
  readonly items: number;
  /** First beats since the mark, ascending; and those of them that came from another holder than the beat before. */
  readonly firsts: readonly number[];
  readonly moved: readonly number[];
  /** From one beat of an item to its next, both since the mark. */
  readonly intervals: ReturnType<typeof quantiles>;
  /** Intervals longer than was asked about. */
  readonly tooLong: number;
}

interface Known {
  lastAt: number;
  /** Who beat last before the mark. */
  holderBefore: string;
  holder: string;
  firstAt: number | null;
}

/** What a Work API saw of the beats of its items. */
export class BeatRecord {
  readonly #known = new Map<string, Known>();
  #intervals: number[] = [];
  #count = 0;

  constructor(workIds: readonly string[]) {
    for (const id of workIds) this.#known.set(id, { lastAt: 0, holderBefore: "", holder: "", firstAt: null });
  }

  /** Forgets all but who beat last. */
  mark(): null {
    this.#intervals = [];
    this.#count = 0;
    for (const known of this.#known.values()) {
      known.holderBefore = known.holder;
      known.firstAt = null;
    }
    return null;
  }

  beat(workId: string, holder: string, at: number): void {
    const known = this.#known.get(workId);
    if (!known) return;
    this.#count += 1;
    if (known.firstAt === null) known.firstAt = at;
    else this.#intervals.push(at - known.lastAt);
    known.lastAt = at;
    known.holder = holder;
  }

  summary(intervalMs: number): Beats {
    const beaten = [...this.#known.values()].flatMap((known) =>
      known.firstAt === null ? [] : [{ ...known, firstAt: known.firstAt }],
    );
    const ascending = (some: typeof beaten) => some.map(({ firstAt }) => firstAt).sort((a, b) => a - b);
    return {
      count: this.#count,
      items: beaten.length,
      firsts: ascending(beaten),
      moved: ascending(beaten.filter(({ holder, holderBefore }) => holder !== holderBefore)),
      intervals: quantiles(this.#intervals),
      tooLong: this.#intervals.filter((ms) => ms > intervalMs).length,
    };
  }
}
