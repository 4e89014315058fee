import type { Clock } from "../core/clock.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { WorkItem } from "../work/types.ts";
import type { ItemView } from "./claim.ts";

/**
 * Pages of one walk for a decision; a walk that runs out says "unknown", never "absent". More where more items are asked
 * for: after a restart all of an Environment's are looked for at once.
 */
const MAX_PAGES = 20;
const ITEMS_PER_MORE_PAGE = 50;

interface Waiter {
  readonly resolve: (view: ItemView) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Looks items up with the list call, which costs reads of the whole organization's budget: all that ask at the same time
 * share one walk through the pages. An item counts as absent only when two whole walks in a row did not show it, since
 * pages can shift while they are read.
 */
export class ItemObserver {
  readonly #work: () => WorkApiClient;
  readonly #clock: Clock;
  readonly #onAnswer: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  #waiting = new Map<string, Waiter[]>();
  readonly #isTracked: (workId: string) => boolean;
  readonly #signal: AbortSignal;
  /** Whole walks in a row that did not show an item, and when (monotonic) the last of them ended. */
  readonly #missing = new Map<string, { readonly walks: number; readonly endedMs: number }>();
  #walking = false;

  constructor(options: {
    work: () => WorkApiClient;
    clock: Clock;
    /** Whether anybody still wants to know of this item. */
    isTracked: (workId: string) => boolean;
    /** Ends walks under way. */
    signal: AbortSignal;
    onAnswer?: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  }) {
    this.#work = options.work;
    this.#clock = options.clock;
    this.#isTracked = options.isTracked;
    this.#signal = options.signal;
    this.#onAnswer = options.onAnswer ?? (() => {});
  }

  /** The item as a list shows it that was asked for after this call. Throws WorkApiError. */
  look(workId: string): Promise<ItemView> {
    return new Promise((resolve, reject) => {
      const waiters = this.#waiting.get(workId) ?? [];
      waiters.push({ resolve, reject });
      this.#waiting.set(workId, waiters);
      if (!this.#walking) void this.#walk();
    });
  }

  /** One walk for many items, at the slow pace of observation. Throws WorkApiError. */
  async sweep(workIds: readonly string[]): Promise<Map<string, ItemView>> {
    return this.#find(workIds, false);
  }

  async #walk(): Promise<void> {
    this.#walking = true;
    // Those who ask in this turn of the event loop share the walk.
    await Promise.resolve();
    while (this.#waiting.size > 0) {
      const asked = this.#waiting;
      this.#waiting = new Map();
      try {
        const views = await this.#find([...asked.keys()], true);
        for (const [workId, waiters] of asked) {
          const view = views.get(workId);
          for (const waiter of waiters) view ? waiter.resolve(view) : waiter.reject(new Error("no view"));
        }
      } catch (error) {
        for (const waiters of asked.values()) for (const waiter of waiters) waiter.reject(error);
      }
    }
    this.#walking = false;
  }

  async #find(workIds: readonly string[], urgent: boolean): Promise<Map<string, ItemView>> {
    const askedMs = this.#clock.monotonic();
    const maxPages = MAX_PAGES + Math.ceil(workIds.length / ITEMS_PER_MORE_PAGE);
    const result = await this.#work().find(workIds, { maxPages, urgent, signal: this.#signal });
    this.#onAnswer(result);
    for (const id of this.#missing.keys()) if (!this.#isTracked(id)) this.#missing.delete(id);
    return new Map(workIds.map((id) => [id, this.#view(id, result.found.get(id), result.complete, askedMs)]));
  }

  #view(workId: string, item: WorkItem | undefined, complete: boolean, askedMs: number): ItemView {
    if (item) {
      this.#missing.delete(workId);
      return viewOf(item, askedMs);
    }
    const before = this.#missing.get(workId);
    // Two walks at the same time can miss an item for the same reason: they count as one.
    const isNext = before === undefined || askedMs >= before.endedMs;
    const walks = complete ? (before?.walks ?? 0) + (isNext ? 1 : 0) : 0;
    if (walks === 0) this.#missing.delete(workId);
    else if (isNext) this.#missing.set(workId, { walks, endedMs: this.#clock.monotonic() });
    return { ...NOTHING_SEEN, state: walks >= 2 ? "absent" : "unknown", askedMs };
  }
}

const NOTHING_SEEN = { acknowledgedAt: null, latestHeartbeatAt: null, startedAt: null };

/** A work item as an answer showed it that was asked for at `askedMs` (monotonic). */
export function viewOf(item: WorkItem, askedMs: number): ItemView {
  return {
    state: item.state,
    acknowledgedAt: item.acknowledged_at,
    latestHeartbeatAt: item.latest_heartbeat_at,
    startedAt: item.started_at,
    askedMs,
  };
}
