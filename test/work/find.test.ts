import { describe, expect, it } from "vitest";
import { FIND_MAX_PAGES, FIND_PAGE_LIMIT } from "../../src/work/client.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { apiError, QUEUED } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import { type Act, json, silence } from "./strict-server.ts";

function page(next: string | null, ...ids: string[]): Act {
  return json(200, { data: ids.map((id) => ({ ...QUEUED, id })), next_page: next });
}

/** Stopped items without end, each page with a cursor to a next one. */
const endless: Act = (response, seen, socket) => {
  const at = Number(new URL(seen.url, "http://h").searchParams.get("page") ?? 0);
  page(String(at + 1), `stopped_${at}`)(response, seen, socket);
};

function cursors(setup: Setup): (string | null)[] {
  return setup.server.seen.map(({ url }) => new URL(url, "http://h").searchParams.get("page"));
}

describe("a look-up", () => {
  it("walks the pages by their cursors until all items are found", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a", "b"), page("p3", "c"), page("p4", "d"));
    const { found, complete } = await setup.client.find(["d", "a"]);
    expect([...found.keys()].sort()).toEqual(["a", "d"]);
    expect(complete).toBe(false);
    expect(cursors(setup)).toEqual([null, "p2", "p3"]);
    expect(setup.server.last.url).toContain(`limit=${FIND_PAGE_LIMIT}`);
  });

  it("is complete when every page was read, so that a missing item is absent", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a"), page(null, "b"));
    const { found, complete } = await setup.client.find(["b", "gone"]);
    expect([...found.keys()]).toEqual(["b"]);
    expect(complete).toBe(true);
  });

  it("that begins in the middle proves no absence, though it comes to the end", async () => {
    await using setup = await Setup.start();
    setup.server.next(page(null, "b"));
    const { found, complete } = await setup.client.find(["b", "gone"], { from: "p2" });
    expect([...found.keys()]).toEqual(["b"]);
    expect(complete).toBe(false);
  });

  it("goes on through empty pages", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2"), page("p3"), page(null, "a"));
    expect((await setup.client.find(["a"])).found.size).toBe(1);
  });

  it("that runs out of pages knows nothing about what it did not find", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = endless;
    const { found, complete } = await setup.client.find(["a", "stopped_3"]);
    expect([...found.keys()]).toEqual(["stopped_3"]);
    expect(complete).toBe(false);
    expect(setup.server.seen).toHaveLength(FIND_MAX_PAGES);
  });

  it("reads as many pages as it may", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = endless;
    await setup.client.find(["a"], { maxPages: 3 });
    expect(setup.server.seen).toHaveLength(3);
  });

  it("does not walk in a circle, and does not call that complete", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a"), page("p1", "b"), page("p2", "c"));
    const { complete } = await setup.client.find(["gone"], { maxPages: 50 });
    expect(complete).toBe(false);
    expect(setup.server.seen).toHaveLength(3);
  });

  it("takes an item that moved between pages as it was seen last", async () => {
    await using setup = await Setup.start();
    const item = (state: string) => ({ ...QUEUED, id: "a", state });
    setup.server.next(
      json(200, { data: [item("starting")], next_page: "p2" }),
      json(200, { data: [item("active")], next_page: null }),
    );
    const { found } = await setup.client.find(["a", "b"]);
    expect(found.get("a")?.state).toBe("active");
  });

  it("fails as a whole when one page fails", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a"), json(500, apiError("e", "m")));
    expect(await failure(setup.client.find(["a", "b"]))).toMatchObject({ kind: "server", call: "list" });
  });

  it("finds the others where one item is not as it should be", async () => {
    await using setup = await Setup.start();
    const data = [
      { ...QUEUED, id: "odd", state: "expired" },
      { ...QUEUED, id: "a" },
    ];
    setup.server.next(json(200, { data, next_page: null }));
    const { found, unreadable, complete } = await setup.client.find(["a", "gone"]);
    expect([[...found.keys()], unreadable.size, complete]).toEqual([["a"], 0, true]);
  });

  it("tells of one that is asked for and not as it should be: it is neither found nor absent", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, { data: [{ ...QUEUED, id: "a", state: "expired" }], next_page: "p2" }));
    const { found, unreadable } = await setup.client.find(["a"]);
    expect([found.size, setup.server.seen.length]).toEqual([0, 1]);
    expect(unreadable.get("a")).toMatchObject({ kind: "bad-item", message: expect.stringMatching(/item a .*state/) });
  });

  it("says of nothing that it is absent where an item has no id", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, { data: [{ ...QUEUED, id: 5 }], next_page: null }));
    expect(await setup.client.find(["gone"])).toMatchObject({ complete: false, nameless: { kind: "bad-item" } });
  });

  it("is as old as its first page", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock });
    const dated =
      (second: number, next: string | null): Act =>
      (response) => {
        clock.pause(1_000);
        response.writeHead(200, { date: `Wed, 01 Apr 2026 10:00:0${second} GMT` });
        response.end(JSON.stringify({ data: [], next_page: next }));
      };
    setup.server.next(dated(1, "p2"), dated(2, null));
    const sentAtMs = clock.monotonic();
    const result = await setup.client.find(["a"]);
    expect(result).toMatchObject({ sentAtMs, serverDateMs: Date.UTC(2026, 3, 1, 10, 0, 1), complete: true });
  });

  it("for a decision has the protocol's bound on every page", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock, protocolTimeoutMs: 1_500 });
    setup.server.next(page("p2", "a"), silence);
    const call = failure(setup.client.find(["b"], { urgent: true }));
    await setup.server.sawRequests(2);
    await clock.advance(1_500);
    expect((await call).kind).toBe("timeout");
  });
});
