import type { WorkApiClient } from "../work/client.ts";
import type { WorkApiError } from "../work/errors.ts";
import { badItemError } from "../work/replies.ts";
import type { WorkState } from "../work/types.ts";

/** Items that somebody serves: acknowledged and not over. */
const LIVE: ReadonlySet<WorkState> = new Set(["starting", "active", "stopping"]);

/** A page asks for so many items; the server may give fewer. */
const PAGE_LIMIT = 100;

/** What a walk through the list said. */
export interface LiveItems {
  readonly count: number;
  /** Every page was read; else there are at least so many. */
  readonly isComplete: boolean;
  readonly pages: number;
  /** An item that is not as it should be; null: there is none. */
  readonly unreadable: WorkApiError | null;
}

/**
 * Counts the sessions that run, by a walk through the pages of the list. Nothing is assumed about order, page size, or how long
 * stopped items stay; an item shown twice counts once, as last seen, and one whose state cannot be read counts. It waits for the budget at every page.
 * @throws WorkApiError when a page cannot be had: then nothing is known.
 */
export async function countLiveItems(
  work: WorkApiClient,
  o: { readonly maxPages: number; readonly signal?: AbortSignal },
): Promise<LiveItems> {
  const states = new Map<string, WorkState | null>();
  let nameless = 0;
  let unreadable: WorkApiError | null = null;
  const seenPages = new Set<string>();
  let page: string | undefined;
  let isComplete = false;
  let pages = 0;
  while (pages < o.maxPages) {
    const { value } = await work.list({ limit: PAGE_LIMIT, signal: o.signal, ...(page === undefined ? {} : { page }) });
    pages += 1;
    for (const { id, state } of value.items) states.set(id, state);
    for (const { id, state, why } of value.unreadable) {
      unreadable ??= badItemError("list", { id: id ?? "without an id", why });
      if (id !== null) states.set(id, state);
      else if (isLive(state)) nameless += 1;
    }
    const next = value.nextPage;
    isComplete = next === null;
    // A cursor that comes back would walk in a circle.
    if (next === null || seenPages.has(next)) break;
    seenPages.add(next);
    page = next;
  }
  const live = [...states.values()].filter(isLive).length;
  return { count: live + nameless, isComplete, pages, unreadable };
}

/** Where the state cannot be read: a worker too many does less harm than one too few. */
function isLive(state: WorkState | null): boolean {
  return state === null || LIVE.has(state);
}
