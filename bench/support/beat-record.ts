import { quantiles } from "../report/distribution.ts";

/** The heartbeats that the Work API accepted since a mark. Times are milliseconds since the epoch. */
export interface Beats {
  readonly count: number;
  /** The number of items with a heartbeat since the mark. */
  readonly items: number;
  /**
   * The first heartbeats since the mark, ascending, and those of them from another holder than the previous heartbeat.
   */
  readonly firsts: readonly number[];
  readonly moved: readonly number[];
  /** The times between two heartbeats of an item, both since the mark. */
  readonly intervals: ReturnType<typeof quantiles>;
  /** The number of intervals longer than the requested one. */
  readonly tooLong: number;
}

interface Known {
  lastAt: number;
  /** The holder that sent the last heartbeat before the mark. */
  holderBefore: string;
  holder: string;
  firstAt: number | null;
}

/** Records the heartbeats that a Work API received for its items. */
export class BeatRecord {
  readonly #known = new Map<string, Known>();
  #intervals: number[] = [];
  #count = 0;

  constructor(workIds: readonly string[]) {
    for (const id of workIds) this.#known.set(id, { lastAt: 0, holderBefore: "", holder: "", firstAt: null });
  }

  /** Forgets everything except the last holder of each item. */
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
