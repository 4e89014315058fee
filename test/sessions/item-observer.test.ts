import { describe, expect, test } from "vitest";
import { json } from "../../simulator/http.ts";
import { seededRandom } from "../../simulator/ids.ts";
import { ItemObserver } from "../../src/sessions/item-observer.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FAIR, Link } from "./loops/network.ts";
import { BASE_URL, WorkApi } from "./loops/work-api.ts";

/** Pages that one walk may read, and what one page shows. */
const WALK = 20;
const PAGE = 100;
const LONG = 30;

/** An environment whose list has this many pages, the oldest item first. */
function listOf(pages: number) {
  const clock = new VirtualClock();
  const api = new WorkApi(clock, { switches: { listOrder: "oldest" } });
  const { id: environmentId, key } = api.world.createEnvironment({});
  const ids = Array.from({ length: pages * PAGE }, () => api.world.enqueue(environmentId, {}).id);
  const link = new Link(clock, seededRandom(1), () => FAIR);
  const work = new WorkApiClient({
    baseUrl: BASE_URL,
    environmentId,
    key: () => key,
    workerId: "observer",
    http: api.sender(link, clock),
    clock,
    requestTimeoutMs: 10_000,
  });
  const observer = new ItemObserver({
    work: () => work,
    clock,
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
  return { api, ids, look, first: ids[0] ?? "", last: ids.at(-1) ?? "" };
}

describe("a list that is longer than one walk", () => {
  test("an item that is always last is found by the next look, which goes on where the last one stopped", async () => {
    const { look, last } = listOf(LONG);
    expect(await look(last)).toEqual({ state: "unknown", pages: WALK + 1 });
    expect(await look(last)).toEqual({ state: "queued", pages: LONG - WALK - 1 });
  });

  test("no look reads more than two walks, whatever is asked for beside", async () => {
    const { look, first, last } = listOf(LONG * 3);
    await look(last);
    expect(await look(first)).toEqual({ state: "queued", pages: 1 });
    for (let looks = 0; looks < 5; looks += 1) expect((await look(last)).pages).toBeLessThanOrEqual(2 * WALK + 2);
  });

  test("an item that is nowhere stays unknown: walks that were put together prove no absence", async () => {
    const { look } = listOf(LONG);
    for (let looks = 0; looks < 8; looks += 1) expect((await look("work_gone")).state).toBe("unknown");
  });

  test("an item that moved before the place where walks go on is found after the list was read to its end", async () => {
    const { api, look, last, first } = listOf(LONG);
    await look(last);
    expect((await look(first)).state).toBe("queued");
    api.answer = (call) => (call === "list" ? json(200, { data: [], next_page: null }) : undefined);
    expect((await look(last)).state).toBe("unknown");
    api.answer = () => undefined;
    expect((await look(last)).state).toBe("unknown");
    expect((await look(last)).state).toBe("queued");
  });

  test("a place that the server has forgotten is given up, and the next look begins at the front", async () => {
    const { api, look, last } = listOf(LONG);
    await look(last);
    api.answer = (call) =>
      call === "list"
        ? json(400, { type: "error", error: { type: "invalid_request_error", message: "no" } })
        : undefined;
    expect(await look(last)).toEqual({ state: "unknown", pages: 1 });
    api.answer = () => undefined;
    expect(await look(last)).toEqual({ state: "unknown", pages: WALK + 1 });
    expect((await look(last)).state).toBe("queued");
  });
});

describe("a list that one walk reads to its end", () => {
  test("two walks in a row that do not show an item say that it is absent", async () => {
    const { look } = listOf(2);
    expect((await look("work_gone")).state).toBe("unknown");
    expect((await look("work_gone")).state).toBe("absent");
  });
});
