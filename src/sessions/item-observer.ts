import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Timing } from "../core/timing.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteAway } from "../protocol/claim-lease.ts";
import { type ItemView, viewOf } from "../protocol/claim-observed.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { WorkApiClient } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import type { WorkItem } from "../work/types.ts";

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

export interface ItemObserverOptions {
  readonly work: () => WorkApiClient;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "listLagMs" | "lookPageRestMs" | "lookRestMaxMs">;
  /** Whether anybody still wants to know of this item. */
  readonly isTracked: (workId: string) => boolean;
  /** Ends walks under way. */
  readonly signal: AbortSignal;
  readonly onAnswer?: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  /** An item that was asked for is shown, and not as it should be. */
  readonly onUnreadable?: (error: WorkApiError) => void;
  /** Runs a walk for decisions, and judges whether the Work API answers. */
  readonly judged?: <T>(walk: () => Promise<T>) => Promise<T>;
}

/**
 * Looks items up with the list call, which costs reads of the whole organization's budget: all that ask at the same time
 * share one walk through the pages. The more pages a walk had, the longer those wait who ask meanwhile: where many sessions
 * end in a second, walks would else follow one another without a pause. An item counts as absent only when two whole walks,
 * some seconds apart and without one between them that showed it, did not show it: pages can shift while they are read, and
 * a list may be behind. What a walk did not come to, the next one goes on
 * with: that finds items, and proves nothing of those that it does not find.
 */
export class ItemObserver {
  readonly #options: ItemObserverOptions;
  readonly #onAnswer: (answer: { sentAtMs: number; serverDateMs: number | null }) => void;
  readonly #onUnreadable: (error: WorkApiError) => void;
  readonly #judged: <T>(walk: () => Promise<T>) => Promise<T>;
  #waiting = new Map<string, Waiter[]>();
  /** By item, when (monotonic) the first of the whole walks in a row began and ended that did not show it. */
  readonly #missing = new Map<string, { readonly askedMs: number; readonly endedMs: number }>();
  /** By item, the page at which walks go on that ran out before they found it. */
  readonly #goOnAt = new Map<string, string>();
  #walking = false;
  /** Pages that walks for decisions read since the last rest. */
  #pages = 0;

  constructor(options: ItemObserverOptions) {
    this.#options = options;
    this.#onAnswer = options.onAnswer ?? (() => {});
    this.#onUnreadable = options.onUnreadable ?? (() => {});
    this.#judged = options.judged ?? ((walk) => walk());
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
        const views = await this.#judged(() => this.#find([...asked.keys()], true));
        for (const [workId, waiters] of asked) {
          const view = views.get(workId);
          for (const waiter of waiters) view ? waiter.resolve(view) : waiter.reject(new Error("no view"));
        }
      } catch (error) {
        for (const waiters of asked.values()) for (const waiter of waiters) waiter.reject(error);
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
    for (const map of [this.#missing, this.#goOnAt]) {
      for (const id of map.keys()) if (!this.#options.isTracked(id)) map.delete(id);
    }
    // What was not found in the front pages is looked for further on: else an item that is always last is never seen.
    const further = this.#furthest(workIds);
    const fresh = workIds.some((id) => !this.#goOnAt.has(id));
    const views = fresh ? await this.#walkFrom(undefined, workIds, urgent) : new Map<string, ItemView>();
    const left = further.ids.filter((id) => this.#goOnAt.has(id));
    const more = left.length > 0 ? await this.#walkOn(further.at, left, urgent) : new Map<string, ItemView>();
    const askedMs = this.#options.clock.monotonic();
    return new Map(workIds.map((id) => [id, more.get(id) ?? views.get(id) ?? unknown(askedMs)]));
  }

  /** The items that walks go on for at one page. Those that go on elsewhere get their turn at a later look. */
  #furthest(workIds: readonly string[]): { readonly at: string; readonly ids: readonly string[] } {
    const asked = new Set(workIds);
    const [, at = ""] = [...this.#goOnAt].find(([id]) => asked.has(id)) ?? [];
    return { at, ids: workIds.filter((id) => this.#goOnAt.get(id) === at) };
  }

  async #walkFrom(
    from: string | undefined,
    workIds: readonly string[],
    urgent: boolean,
  ): Promise<Map<string, ItemView>> {
    const askedMs = this.#options.clock.monotonic();
    const maxPages = MAX_PAGES + Math.ceil(workIds.length / ITEMS_PER_MORE_PAGE);
    const result = await this.#options.work().find(workIds, { maxPages, urgent, signal: this.#options.signal, from });
    if (urgent) this.#pages += result.pages;
    this.#onAnswer(result);
    for (const error of result.unreadable.values()) this.#onUnreadable(error);
    if (result.nameless) this.#onUnreadable(result.nameless);
    for (const id of workIds) {
      const isFurther = from === undefined && this.#goOnAt.has(id);
      const isShown = result.found.has(id) || result.unreadable.has(id);
      if (isShown || result.complete || (!isFurther && result.next === null)) this.#goOnAt.delete(id);
      else if (!isFurther && result.next !== null) this.#goOn(id, result.next);
    }
    // What is shown is not absent, whatever it is.
    const isWhole = (id: string) => result.complete && !result.unreadable.has(id);
    return new Map(workIds.map((id) => [id, this.#view(id, result.found.get(id), isWhole(id), askedMs)]));
  }

  /** A page that the server knows no more is no failure: the next walk begins at the front. */
  async #walkOn(at: string, workIds: readonly string[], urgent: boolean): Promise<Map<string, ItemView>> {
    try {
      return await this.#walkFrom(at, workIds, urgent);
    } catch (error) {
      for (const id of workIds) this.#goOnAt.delete(id);
      if (!(error instanceof WorkApiError) || error.kind !== "bad-request") throw error;
      return new Map();
    }
  }

  /** At the end of the order, so that items that go on elsewhere come before it. */
  #goOn(workId: string, at: string): void {
    this.#goOnAt.delete(workId);
    this.#goOnAt.set(workId, at);
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
    // Walks that are close together can miss an item for the same reason.
    const isApart = askedMs >= Math.max(first.endedMs, first.askedMs + this.#options.timing.listLagMs);
    return isApart ? { ...NOTHING_SEEN, state: "absent", askedMs } : notYet(askedMs);
  }
}

/** Of a list that was read to its end, and is too early to tell. */
export function notYet(askedMs: number): ItemView {
  return { ...NOTHING_SEEN, state: "unknown", askedMs, isWhole: true };
}

function unknown(askedMs: number): ItemView {
  return { ...NOTHING_SEEN, state: "unknown", askedMs };
}

const NOTHING_SEEN = { acknowledgedAt: null, latestHeartbeatAt: null, startedAt: null };

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
  #apiOf({ record: { journal } }: Claim): string {
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
  noteAway(claim, nowMs);
  const isOver = claim.observed.end !== null || !claim.record.journal.opened;
  return isOver && nowMs >= Math.max(claim.lease.awayMs ?? nowMs, claim.observed.endedMs ?? 0) + AWAY_PATIENCE_MS;
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
