import { describe, expect, test } from "vitest";
import { json } from "../../simulator/http.ts";
import { seededRandom } from "../../simulator/ids.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { ItemObserver } from "../../src/sessions/item-observer.ts";
import { LIST_MAX_PAGES, WorkApiClient } from "../../src/work/client.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FAIR, Link } from "./loops/network.ts";
import { BASE_URL, WorkApi } from "./loops/work-api.ts";

/** Pages that one walk reads, and items on one page: the server may return fewer than requested. */
const WALK = LIST_MAX_PAGES;
const PAGE = 10;
const LONG = 15;

/** An environment whose list has this many pages, oldest item first. */
function listOf(pages: number) {
  const clock = new VirtualClock();
  const api = new WorkApi(clock, { switches: { listOrder: "oldest" } });
  const { id: environmentId, key } = api.world.createEnvironment({});
  const ids = Array.from({ length: pages * PAGE }, () => api.world.enqueue(environmentId, {}).id);
  const sender = api.sender(new Link(clock, seededRandom(1), () => FAIR), clock);
  const work = new WorkApiClient({
    baseUrl: BASE_URL,
    environmentId,
    key: () => key,
    workerId: "observer",
    http: {
      send: (request) => sender.send({ ...request, path: request.path.replace(/limit=\d+/, `limit=${PAGE}`) }),
    },
    clock,
    requestTimeoutMs: 10_000,
  });
  const observer = new ItemObserver({
    work: () => work,
    clock,
    timing: DEFAULT_TIMING,
    isTracked: () => true,
    signal: new AbortController().signal,
  });
  const pagesRead = () => api.requests.get("list") ?? 0;
  const look = async (id: string) => {
    const before = pagesRead();
    let done = false;
    const looking = observer.look(id).finally(() => {
      done = true;
    });
    await clock.advanceUntil(() => done, 10 * 60_000);
    const view = await looking;
    return { state: view.state, pages: pagesRead() - before };
  };
  return { api, clock, observer, ids, pagesRead, look, first: ids[0] ?? "", last: ids.at(-1) ?? "" };
}

describe("a list that is longer than one walk", () => {
  test("the next walk continues where the last one stopped, and finds an item at the end", async () => {
    const { look, last } = listOf(LONG);
    expect(await look(last)).toEqual({ state: "unknown", pages: WALK });
    expect(await look(last)).toEqual({ state: "queued", pages: LONG - WALK });
  });

  test("each look for a malformed item stops at the page that lists it", async () => {
    const { api, look, first } = listOf(2);
    api.answer = (call, { path }) =>
      call === "list" && !path.includes("page=")
        ? json(200, { data: [{ id: first, state: "expired" }], next_page: "further" })
        : undefined;
    for (let time = 0; time < 2; time += 1) expect(await look(first)).toEqual({ state: "unknown", pages: 1 });
  });

  test("no look reads more than two walks of pages", async () => {
    const { look, first, last } = listOf(LONG * 3);
    await look(last);
    expect(await look(first)).toEqual({ state: "queued", pages: 1 });
    for (let looks = 0; looks < 5; looks += 1) expect((await look(last)).pages).toBeLessThanOrEqual(2 * WALK);
  });

  test("an item that is never shown stays unknown: partial walks prove no absence", async () => {
    const { look } = listOf(LONG);
    for (let looks = 0; looks < 8; looks += 1) expect((await look("work_gone")).state).toBe("unknown");
  });

  test("an item that moved before the point of continuation is found after the end of the list", async () => {
    const { api, look, last, first } = listOf(LONG);
    await look(last);
    expect((await look(first)).state).toBe("queued");
    api.answer = (call) => (call === "list" ? json(200, { data: [], next_page: null }) : undefined);
    expect((await look(last)).state).toBe("unknown");
    api.answer = () => undefined;
    expect((await look(last)).state).toBe("unknown");
    expect((await look(last)).state).toBe("queued");
  });

  test("the next look starts at the front when the server rejects the page token", async () => {
    const { api, look, last } = listOf(LONG);
    await look(last);
    api.answer = (call) =>
      call === "list"
        ? json(400, { type: "error", error: { type: "invalid_request_error", message: "no" } })
        : undefined;
    expect(await look(last)).toEqual({ state: "unknown", pages: 1 });
    api.answer = () => undefined;
    expect(await look(last)).toEqual({ state: "unknown", pages: WALK });
    expect((await look(last)).state).toBe("queued");
  });
});

describe("a list that one walk reads completely", () => {
  test("immediate walks without the item do not make it absent: the list may lag", async () => {
    const { look } = listOf(2);
    for (let walk = 0; walk < 5; walk += 1) expect((await look("work_gone")).state).toBe("unknown");
  });

  test("two walks without the item, some seconds apart, make it absent", async () => {
    const { look, clock } = listOf(2);
    expect((await look("work_gone")).state).toBe("unknown");
    await clock.advance(DEFAULT_TIMING.listLagMs);
    expect((await look("work_gone")).state).toBe("absent");
  });

  test("a walk that shows the item in between restarts the count", async () => {
    const { api, look, clock, first } = listOf(2);
    const without = () => {
      api.answer = (call) => (call === "list" ? json(200, { data: [], next_page: null }) : undefined);
    };
    without();
    expect((await look(first)).state).toBe("unknown");
    api.answer = () => undefined;
    expect((await look(first)).state).toBe("queued");
    await clock.advance(DEFAULT_TIMING.listLagMs);
    without();
    expect((await look(first)).state).toBe("unknown");
    await clock.advance(DEFAULT_TIMING.listLagMs);
    expect((await look(first)).state).toBe("absent");
  });

  test("two concurrent walks count as one", async () => {
    const { observer, clock } = listOf(2);
    const states: (string | undefined)[] = [];
    for (let walk = 0; walk < 2; walk += 1) {
      void observer.sweep(["work_gone"]).then((views) => states.push(views.get("work_gone")?.state));
    }
    await clock.advanceUntil(() => states.length === 2, 60_000);
    expect(states).toEqual(["unknown", "unknown"]);
  });

  test("a malformed item is not absent", async () => {
    const { api, clock, look, first } = listOf(2);
    const page = { data: [{ id: first, state: "expired" }], next_page: null };
    api.answer = (call) => (call === "list" ? json(200, page) : undefined);
    for (let time = 0; time < 3; time += 1) {
      expect((await look(first)).state).toBe("unknown");
      await clock.advance(DEFAULT_TIMING.listLagMs);
    }
  });
});

describe("consecutive looks", () => {
  const looks = (observer: ItemObserver, clock: VirtualClock, ids: readonly string[]) => {
    const seen: { id: string; state: string; atMs: number }[] = [];
    for (const id of ids) void observer.look(id).then(({ state }) => seen.push({ id, state, atMs: clock.monotonic() }));
    return seen;
  };

  test("share a walk after the rest of the previous one, so that at most ten pages a second are read", async () => {
    const { observer, clock, ids, pagesRead, look, last } = listOf(10);
    await look(last);
    expect(pagesRead()).toBe(10);
    const askedMs = clock.monotonic();
    const seen = looks(observer, clock, ids.slice(-50));
    await clock.advanceUntil(() => seen.length === 50, 60_000);
    expect(pagesRead()).toBe(20);
    const waitedMs = (seen[0]?.atMs ?? 0) - askedMs;
    expect(waitedMs).toBeGreaterThanOrEqual(8 * DEFAULT_TIMING.lookPageRestMs);
    expect(seen.every(({ state }) => state === "queued")).toBe(true);
  });

  test("do not wait once the rest after a walk has passed", async () => {
    const { observer, clock, look, first, last } = listOf(10);
    await look(last);
    await clock.advance(10 * DEFAULT_TIMING.lookPageRestMs);
    const askedMs = clock.monotonic();
    const seen = looks(observer, clock, [first]);
    await clock.advanceUntil(() => seen.length === 1, 60_000);
    expect((seen[0]?.atMs ?? 0) - askedMs).toBeLessThan(DEFAULT_TIMING.lookPageRestMs);
  });

  test("wait for at most two seconds, even with a long list", async () => {
    const { observer, clock, look, first, last } = listOf(90);
    await look(last);
    const askedMs = clock.monotonic();
    const seen = looks(observer, clock, [first]);
    await clock.advanceUntil(() => seen.length === 1, 60_000);
    expect((seen[0]?.atMs ?? 0) - askedMs).toBeLessThanOrEqual(DEFAULT_TIMING.lookRestMaxMs + 100);
  });
});
