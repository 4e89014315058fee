import { LIST_MAX_PAGES, type WorkApiClient } from "../work/client.ts";
import type { WorkApiError } from "../work/errors.ts";
import { badItemError } from "../work/replies.ts";
import type { WorkPage, WorkState } from "../work/types.ts";

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
 * Reads the pages of the list. It assumes nothing about order, page size, or how long stopped items stay. Each page
 * waits for the request budget.
 * @returns whether every page was read, and their number
 * @throws WorkApiError when a page can't be read
 */
export async function readPages(
  work: WorkApiClient,
  signal: AbortSignal | undefined,
  use: (page: WorkPage) => void,
): Promise<{ isComplete: boolean; pages: number }> {
  const seenPages = new Set<string>();
  let page: string | undefined;
  let pages = 0;
  while (pages < LIST_MAX_PAGES) {
    const { value } = await work.list({ signal, ...(page === undefined ? {} : { page }) });
    pages += 1;
    use(value);
    const next = value.nextPage;
    if (next === null) return { isComplete: true, pages };
    // A repeated cursor would loop forever.
    if (seenPages.has(next)) break;
    seenPages.add(next);
    page = next;
  }
  return { isComplete: false, pages };
}

/**
 * Counts the running sessions in the list. An item shown twice counts once, in its latest state; an item with an
 * unreadable state counts as running.
 * @throws WorkApiError when a page can't be read, which leaves the count unknown.
 */
export async function countLiveItems(work: WorkApiClient, signal?: AbortSignal): Promise<LiveItems> {
  const states = new Map<string, WorkState | null>();
  let nameless = 0;
  let unreadable: WorkApiError | null = null;
  const { isComplete, pages } = await readPages(work, signal, (page) => {
    for (const { id, state } of page.items) states.set(id, state);
    for (const { id, state, why } of page.unreadable) {
      unreadable ??= badItemError("list", { id: id ?? "without an id", why });
      if (id !== null) states.set(id, state);
      else if (isLive(state)) nameless += 1;
    }
  });
  const live = [...states.values()].filter(isLive).length;
  return { count: live + nameless, isComplete, pages, unreadable };
}

/** The sessions whose items wait in the queue. */
export interface QueuedSessions {
  readonly sessions: ReadonlySet<string>;
  /** Whether no other session's item waits. */
  readonly isComplete: boolean;
  readonly pages: number;
}

/**
 * Reads from the list which sessions have an item in the queue. An item shown twice counts in its latest state.
 * @throws WorkApiError when a page can't be read
 */
export async function listQueuedSessions(work: WorkApiClient, signal?: AbortSignal): Promise<QueuedSessions> {
  /** By item: its session; null: it is not in the queue. */
  const queued = new Map<string, string | null>();
  let isReadable = true;
  const { isComplete, pages } = await readPages(work, signal, (page) => {
    for (const { id, state, data } of page.items) queued.set(id, state === "queued" ? data.id : null);
    if (page.unreadable.some(({ state }) => state === null || state === "queued")) isReadable = false;
  });
  const sessions = new Set([...queued.values()].filter((sessionId) => sessionId !== null));
  return { sessions, isComplete: isComplete && isReadable, pages };
}

/** An unreadable state counts as running: one worker too many does less harm than one too few. */
function isLive(state: WorkState | null): boolean {
  return state === null || LIVE.has(state);
}
