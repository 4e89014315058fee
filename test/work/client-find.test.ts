import { describe, expect, it } from "vitest";
import { LIST_MAX_PAGES, MAX_PAGE_BYTES, PAGE_LIMIT } from "../../src/work/client.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { apiError, QUEUED } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import { type Act, json, raw, silence } from "./strict-server.ts";

function page(next: string | null, ...ids: string[]): Act {
  return json(200, { data: ids.map((id) => ({ ...QUEUED, id })), next_page: next });
}

/** An endless list of stopped items, each page with a cursor to the next. */
const endless: Act = (response, seen, socket) => {
  const at = Number(new URL(seen.url, "http://h").searchParams.get("page") ?? 0);
  page(String(at + 1), `stopped_${at}`)(response, seen, socket);
};

function cursors(setup: Setup): (string | null)[] {
  return setup.server.seen.map(({ url }) => new URL(url, "http://h").searchParams.get("page"));
}

describe("find", () => {
  it("follows the cursors until all items are found", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a", "b"), page("p3", "c"), page("p4", "d"));
    const { found, complete } = await setup.client.find(["d", "a"]);
    expect([...found.keys()].sort()).toEqual(["a", "d"]);
    expect(complete).toBe(false);
    expect(cursors(setup)).toEqual([null, "p2", "p3"]);
    expect(setup.server.last.url).toContain(`limit=${PAGE_LIMIT}`);
  });

  it("is complete when every page was read, so that a missing item is absent", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a"), page(null, "b"));
    const { found, complete } = await setup.client.find(["b", "gone"]);
    expect([...found.keys()]).toEqual(["b"]);
    expect(complete).toBe(true);
  });

  it("proves no absence if it begins in the middle, even at the end of the list", async () => {
    await using setup = await Setup.start();
    setup.server.next(page(null, "b"));
    const { found, complete } = await setup.client.find(["b", "gone"], { from: "p2" });
    expect([...found.keys()]).toEqual(["b"]);
    expect(complete).toBe(false);
  });

  it("continues after empty pages", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2"), page("p3"), page(null, "a"));
    expect((await setup.client.find(["a"])).found.size).toBe(1);
  });

  it("knows nothing about the items that it did not find within its pages", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = endless;
    const { found, complete } = await setup.client.find(["a", "stopped_3"]);
    expect([...found.keys()]).toEqual(["stopped_3"]);
    expect(complete).toBe(false);
    expect(setup.server.seen).toHaveLength(LIST_MAX_PAGES);
  });

  it("requests a page that is too large again with half as many items, and later pages too", async () => {
    await using setup = await Setup.start();
    const large = raw(200, `"${"x".repeat(MAX_PAGE_BYTES)}"`);
    setup.server.next(page("p2", "a"), large, large, page("p3", "b"), page(null, "c"));
    expect(await setup.client.find(["gone"])).toMatchObject({ complete: true, pages: 3 });
    expect(cursors(setup)).toEqual([null, "p2", "p2", "p2", "p3"]);
    const limits = setup.server.seen.map(({ url }) => new URL(url, "http://h").searchParams.get("limit"));
    expect(limits).toEqual(["1000", "1000", "500", "250", "250"]);
  });

  it("fails if a page with few items is still too large", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = raw(200, `"${"x".repeat(MAX_PAGE_BYTES)}"`);
    expect(await failure(setup.client.find(["gone"]))).toMatchObject({ kind: "protocol", call: "list" });
    expect(setup.server.seen).toHaveLength(4);
  });

  it("stops at a repeated cursor, and is then not complete", async () => {
    await using setup = await Setup.start();
    setup.server.next(page("p2", "a"), page("p1", "b"), page("p2", "c"));
    const { complete } = await setup.client.find(["gone"]);
    expect(complete).toBe(false);
    expect(setup.server.seen).toHaveLength(3);
  });

  it("returns the last state of an item that moved between pages", async () => {
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

  it("finds the others when one item is malformed", async () => {
    await using setup = await Setup.start();
    const data = [
      { ...QUEUED, id: "odd", state: "expired" },
      { ...QUEUED, id: "a" },
    ];
    setup.server.next(json(200, { data, next_page: null }));
    const { found, unreadable, complete } = await setup.client.find(["a", "gone"]);
    expect([[...found.keys()], unreadable.size, complete]).toEqual([["a"], 0, true]);
  });

  it("reports a malformed item that it searched for as neither found nor absent", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, { data: [{ ...QUEUED, id: "a", state: "expired" }], next_page: "p2" }));
    const { found, unreadable } = await setup.client.find(["a"]);
    expect([found.size, setup.server.seen.length]).toEqual([0, 1]);
    expect(unreadable.get("a")).toMatchObject({ kind: "bad-item", message: expect.stringMatching(/item a .*state/) });
  });

  it("reports nothing as absent when an item has no id", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, { data: [{ ...QUEUED, id: 5 }], next_page: null }));
    expect(await setup.client.find(["gone"])).toMatchObject({ complete: false, nameless: { kind: "bad-item" } });
  });

  it("is dated by its first page", async () => {
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

  it("has the protocol's timeout for every page if it is for a decision", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock, protocolTimeoutMs: 1_500 });
    setup.server.next(page("p2", "a"), silence);
    const call = failure(setup.client.find(["b"], { urgent: true }));
    await setup.server.sawRequests(2);
    await clock.advance(1_500);
    expect((await call).kind).toBe("timeout");
  });
});
