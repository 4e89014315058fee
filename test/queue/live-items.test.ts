import { describe, expect, test } from "vitest";
import { countLiveItems, listQueuedSessions } from "../../src/queue/live-items.ts";
import { LIST_MAX_PAGES, type WorkApiClient } from "../../src/work/client.ts";
import type { WorkState } from "../../src/work/types.ts";

type Page = readonly (readonly [id: string | null, state: WorkState | "odd"])[];

/** A client whose list returns these pages in order; `next` gives the cursor after each. */
function listing(
  pages: readonly Page[],
  next = (index: number) => (index + 1 < pages.length ? String(index + 1) : null),
) {
  const asked: (string | undefined)[] = [];
  const list = async ({ page }: { page?: string }) => {
    asked.push(page);
    const index = Number(page ?? 0);
    const all = (pages[index % pages.length] ?? []).map(([id, state]) => ({
      id,
      state,
      data: { id: `${id}-session` },
    }));
    const items = all.filter(({ state }) => state !== "odd");
    const odd = all.filter(({ state }) => state === "odd");
    const unreadable = odd.map(({ id }) => ({ id, state: id === "over" ? "stopped" : null, why: "it is odd" }));
    return { value: { items, unreadable, nextPage: next(index) } };
  };
  return { work: { list } as unknown as WorkApiClient, asked };
}

describe("counting live items", () => {
  test("counts starting, active and stopping items on all pages", async () => {
    const { work, asked } = listing([
      [
        ["a", "queued"],
        ["b", "starting"],
      ],
      [
        ["c", "active"],
        ["d", "stopping"],
        ["e", "stopped"],
      ],
    ]);
    expect(await countLiveItems(work)).toEqual({
      count: 3,
      isComplete: true,
      pages: 2,
      unreadable: null,
    });
    expect(asked).toEqual([undefined, "1"]);
  });

  test("counts unreadable items that may be live, and reports one", async () => {
    const { work } = listing([
      [
        ["a", "active"],
        ["b", "odd"],
        [null, "odd"],
        ["over", "odd"],
      ],
    ]);
    expect(await countLiveItems(work)).toMatchObject({
      ...{ count: 3, isComplete: true },
      unreadable: { kind: "bad-item", message: expect.stringContaining("item b") },
    });
  });

  test("counts an item shown twice once, in its latest state", async () => {
    const { work } = listing([
      [["a", "active"]],
      [
        ["a", "stopped"],
        ["b", "active"],
      ],
      [["b", "active"]],
    ]);
    expect((await countLiveItems(work)).count).toBe(1);
  });

  test("reports a list that continues after the last allowed page", async () => {
    const { work } = listing([[["a", "active"]]], (index) => String(index + 1));
    expect(await countLiveItems(work)).toEqual({
      count: 1,
      isComplete: false,
      pages: LIST_MAX_PAGES,
      unreadable: null,
    });
  });

  test("stops at a repeated cursor, and reports the list as incomplete", async () => {
    const { work } = listing([[["a", "active"]]], () => "0");
    expect(await countLiveItems(work)).toEqual({
      count: 1,
      isComplete: false,
      pages: 2,
      unreadable: null,
    });
  });

  test("fails when a page fails", async () => {
    const work = { list: () => Promise.reject(new Error("500")) } as unknown as WorkApiClient;
    await expect(countLiveItems(work)).rejects.toThrow("500");
  });
});

describe("listing the sessions whose items wait", () => {
  const queued = (pages: readonly Page[]) => listQueuedSessions(listing(pages).work);
  const sessions = (...ids: string[]) => new Set(ids.map((id) => `${id}-session`));

  test("names those of queued items on all pages, in their latest state", async () => {
    const pages: Page[] = [
      [
        ["a", "queued"],
        ["b", "queued"],
        ["c", "active"],
      ],
      [
        ["b", "starting"],
        ["d", "queued"],
      ],
    ];
    expect(await queued(pages)).toEqual({ sessions: sessions("a", "d"), isComplete: true, pages: 2 });
  });

  test("is not complete with too many pages, or an unreadable item that may wait", async () => {
    const full: Page[] = Array.from({ length: LIST_MAX_PAGES + 1 }, () => [["a", "queued"]]);
    expect(await queued(full)).toEqual({ sessions: sessions("a"), isComplete: false, pages: LIST_MAX_PAGES });
    expect(await queued([[["over", "odd"]]])).toMatchObject({ isComplete: true });
    expect(await queued([[["a", "odd"]]])).toMatchObject({ sessions: new Set(), isComplete: false });
  });
});
