import { type Clock, sleep } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import { type ItemView, viewOf } from "../protocol/claim-observed.ts";
import type { WorkApiClient } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import type { WorkItem } from "../work/types.ts";

interface Waiter {
  readonly resolve: (view: ItemView) => void;
  readonly reject: (error: unknown) => void;
}

export interface ItemObserverOptions {
  readonly work: () => WorkApiClient;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "listLagMs" | "lookPageRestMs" | "lookRestMaxMs">;
  /** Whether a claim for this item still exists. */
  readonly isTracked: (workId: string) => boolean;
  /** Ends walks in progress. */
  readonly signal: AbortSignal;
  readonly onAnswer?: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  /** Called when the list shows a requested item that can't be parsed. */
  readonly onUnreadable?: (error: WorkApiError) => void;
  /** Runs a walk for decisions and judges its outcome. */
  readonly judged?: <T>(walk: () => Promise<T>) => Promise<T>;
}

/**
 * Reads items with the list call, which uses the read budget of the whole organization. So concurrent callers share
 * one walk through the pages. After a walk, the observer pauses in proportion to its pages. Otherwise walks would
 * follow one another without a pause when many sessions end in the same second.
 *
 * A walk that ends before the list does shows that its items are unknown, never that they are absent.
 *
 * An item counts as absent only if two complete walks, some seconds apart, did not show it, and no walk in between did:
 * pages can shift while they are read, and a list may lag. If a walk ends before it finds an item, the next walk
 * continues on that page. A continued walk can find items, but it never proves that one is absent.
 */
export class ItemObserver {
  readonly #options: ItemObserverOptions;
  readonly #onAnswer: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  readonly #onUnreadable: (error: WorkApiError) => void;
  readonly #judged: <T>(walk: () => Promise<T>) => Promise<T>;
  #waiting = new Map<string, Waiter[]>();
  /** By item: when (monotonic) the first of the consecutive complete walks that did not show it began and ended. */
  readonly #missing = new Map<string, { readonly askedMs: number; readonly endedMs: number }>();
  /** By item: the page on which the next walk continues, if the last one ended before it found the item. */
  readonly #continueAt = new Map<string, string>();
  #walking = false;
  /** Pages that walks for decisions read since the last pause. */
  #pages = 0;

  constructor(options: ItemObserverOptions) {
    this.#options = options;
    this.#onAnswer = options.onAnswer ?? (() => {});
    this.#onUnreadable = options.onUnreadable ?? (() => {});
    this.#judged = options.judged ?? ((walk) => walk());
  }

  /** Reads the item in a list that is requested after this call. @throws WorkApiError */
  look(workId: string): Promise<ItemView> {
    return new Promise((resolve, reject) => {
      const waiters = this.#waiting.get(workId) ?? [];
      waiters.push({ resolve, reject });
      this.#waiting.set(workId, waiters);
      if (!this.#walking) void this.#walk();
    });
  }

  /** Reads many items in one walk that is not urgent. @throws WorkApiError */
  async sweep(workIds: readonly string[]): Promise<Map<string, ItemView>> {
    return this.#find(workIds, false);
  }

  async #walk(): Promise<void> {
    this.#walking = true;
    // All calls of this turn of the event loop share the walk.
    await Promise.resolve();
    while (this.#waiting.size > 0) {
      const waiting = this.#waiting;
      this.#waiting = new Map();
      try {
        const views = await this.#judged(() => this.#find([...waiting.keys()], true));
        for (const [workId, waiters] of waiting) {
          const view = views.get(workId);
          for (const waiter of waiters) view ? waiter.resolve(view) : waiter.reject(new Error("no view"));
        }
      } catch (error) {
        for (const waiters of waiting.values()) for (const waiter of waiters) waiter.reject(error);
      }
      await this.#rest();
    }
    this.#walking = false;
  }

  async #rest(): Promise<void> {
    const { lookPageRestMs, lookRestMaxMs } = this.#options.timing;
    const restMs = Math.min(this.#pages * lookPageRestMs, lookRestMaxMs);
    this.#pages = 0;
    if (restMs > 0) await sleep(this.#options.clock, restMs, this.#options.signal);
  }

  async #find(workIds: readonly string[], urgent: boolean): Promise<Map<string, ItemView>> {
    for (const map of [this.#missing, this.#continueAt]) {
      for (const id of map.keys()) if (!this.#options.isTracked(id)) map.delete(id);
    }
    // Continue where earlier walks ended: otherwise an item at the end of a long list is never found.
    const later = this.#continued(workIds);
    const fresh = workIds.some((id) => !this.#continueAt.has(id));
    const views = fresh ? await this.#walkFrom(undefined, workIds, urgent) : new Map<string, ItemView>();
    const left = later.ids.filter((id) => this.#continueAt.has(id));
    const more = left.length > 0 ? await this.#continueWalk(later.at, left, urgent) : new Map<string, ItemView>();
    const askedMs = this.#options.clock.monotonic();
    return new Map(workIds.map((id) => [id, more.get(id) ?? views.get(id) ?? unknown(askedMs)]));
  }

  /** The page to continue on, and its items. Items with another page get their turn in a later walk. */
  #continued(workIds: readonly string[]): { readonly at: string; readonly ids: readonly string[] } {
    const wanted = new Set(workIds);
    const [, at = ""] = [...this.#continueAt].find(([id]) => wanted.has(id)) ?? [];
    return { at, ids: workIds.filter((id) => this.#continueAt.get(id) === at) };
  }

  async #walkFrom(
    from: string | undefined,
    workIds: readonly string[],
    urgent: boolean,
  ): Promise<Map<string, ItemView>> {
    const askedMs = this.#options.clock.monotonic();
    const result = await this.#options.work().find(workIds, { urgent, signal: this.#options.signal, from });
    if (urgent) this.#pages += result.pages;
    this.#onAnswer(result);
    for (const error of result.unreadable.values()) this.#onUnreadable(error);
    if (result.nameless) this.#onUnreadable(result.nameless);
    for (const id of workIds) {
      const isLater = from === undefined && this.#continueAt.has(id);
      const isShown = result.found.has(id) || result.unreadable.has(id);
      if (isShown || result.complete || (!isLater && result.next === null)) this.#continueAt.delete(id);
      else if (!isLater && result.next !== null) this.#setContinue(id, result.next);
    }
    // An item that the list shows is not absent, even if it can't be parsed.
    const isWhole = (id: string) => result.complete && !result.unreadable.has(id);
    return new Map(workIds.map((id) => [id, this.#view(id, result.found.get(id), isWhole(id), askedMs)]));
  }

  /** Continues a walk. If the server no longer knows the page, the next walk begins at the front. */
  async #continueWalk(at: string, workIds: readonly string[], urgent: boolean): Promise<Map<string, ItemView>> {
    try {
      return await this.#walkFrom(at, workIds, urgent);
    } catch (error) {
      for (const id of workIds) this.#continueAt.delete(id);
      if (!(error instanceof WorkApiError) || error.kind !== "bad-request") throw error;
      return new Map();
    }
  }

  /** Moves the item to the end of the map, so that items with other pages get their turn first. */
  #setContinue(workId: string, at: string): void {
    this.#continueAt.delete(workId);
    this.#continueAt.set(workId, at);
  }

  #view(workId: string, item: WorkItem | undefined, complete: boolean, askedMs: number): ItemView {
    if (item) {
      this.#missing.delete(workId);
      return viewOf(item, askedMs);
    }
    if (!complete) {
      this.#missing.delete(workId);
      return unknown(askedMs);
    }
    const first = this.#missing.get(workId) ?? { askedMs, endedMs: this.#options.clock.monotonic() };
    this.#missing.set(workId, first);
    // Two walks in short succession can miss an item for the same reason.
    const isApart = askedMs >= Math.max(first.endedMs, first.askedMs + this.#options.timing.listLagMs);
    return isApart ? { ...NOTHING_SEEN, state: "absent", askedMs } : notYet(askedMs);
  }
}

/** The view from a complete list that does not yet prove anything. */
export function notYet(askedMs: number): ItemView {
  return { ...NOTHING_SEEN, state: "unknown", askedMs, isWhole: true };
}

function unknown(askedMs: number): ItemView {
  return { ...NOTHING_SEEN, state: "unknown", askedMs };
}

const NOTHING_SEEN = { acknowledgedAt: null, latestHeartbeatAt: null, startedAt: null };
