import { LIST_MAX_PAGES, type WorkApiClient } from "../work/client.ts";
import type { WorkApiError } from "../work/errors.ts";
import { badItemError } from "../work/replies.ts";
import type { WorkState } from "../work/types.ts";

/** States of items that a worker serves: acknowledged and not ended. */
const LIVE: ReadonlySet<WorkState> = new Set(["starting", "active", "stopping"]);

/** The result of reading the list. */
export interface LiveItems {
  readonly count: number;
  /** Whether every page was read; otherwise `count` is a lower bound. */
  readonly isComplete: boolean;
  readonly pages: number;
  /** A malformed item; null: there is none. */
  readonly unreadable: WorkApiError | null;
}

/**
 * Counts the running sessions by reading the pages of the list. It assumes nothing about order, page size, or how long
 * stopped items stay. An item shown twice counts once, in its latest state; an item with an unreadable state counts as
 * running. Each page waits for the request budget.
 * @throws WorkApiError when a page can't be read, which leaves the count unknown.
 */
export async function countLiveItems(work: WorkApiClient, signal?: AbortSignal): Promise<LiveItems> {
  const states = new Map<string, WorkState | null>();
  let nameless = 0;
  let unreadable: WorkApiError | null = null;
  const seenPages = new Set<string>();
  let page: string | undefined;
  let isComplete = false;
  let pages = 0;
  while (pages < LIST_MAX_PAGES) {
    const { value } = await work.list({ signal, ...(page === undefined ? {} : { page }) });
    pages += 1;
    for (const { id, state } of value.items) states.set(id, state);
    for (const { id, state, why } of value.unreadable) {
      unreadable ??= badItemError("list", { id: id ?? "without an id", why });
      if (id !== null) states.set(id, state);
      else if (isLive(state)) nameless += 1;
    }
    const next = value.nextPage;
    isComplete = next === null;
    // A repeated cursor would loop forever.
    if (next === null || seenPages.has(next)) break;
    seenPages.add(next);
    page = next;
  }
  const live = [...states.values()].filter(isLive).length;
  return { count: live + nameless, isComplete, pages, unreadable };
}

/** An unreadable state counts as running: one worker too many does less harm than one too few. */
function isLive(state: WorkState | null): boolean {
  return state === null || LIVE.has(state);
}
