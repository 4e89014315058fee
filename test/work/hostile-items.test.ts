import { describe, expect, it, test } from "vitest";
import { PathError, pathSegment, queryText } from "../../src/work/paths.ts";
import { parseHeartbeat, parsePage, parsePolled, parseRefusal, parseStats, ShapeError } from "../../src/work/wire.ts";
import { BEAT, POLLED, REFUSED_BEAT, STATS } from "./samples.ts";

const LONG_ID = `work_${"x".repeat(1_000)}`;

describe("an id of a polled item", () => {
  test.each(["../../v1/keys", "a%2fb", "a b", 'a"b', "a\\b", "ä日🙂", "-", "h-x", LONG_ID])(
    "%j is accepted unchanged, because paths encode it",
    (id) => {
      expect(parsePolled({ ...POLLED, id, data: { type: "session", id } })).toMatchObject({ id, data: { id } });
      expect(decodeURIComponent(pathSegment(id))).toBe(id);
      expect(pathSegment(id)).not.toMatch(/[/?#\s]/);
    },
  );

  test.each(["a\nb", "a\u0000b", "\u007f", "\u0085", ".", "..", "\ud800", "a\udfff", "x".repeat(1_025)])(
    "%j is refused as an item id and as a session id, and not quoted",
    (id) => {
      for (const polled of [
        { ...POLLED, id },
        { ...POLLED, data: { type: "session", id } },
      ]) {
        const refusal = () => parsePolled(polled);
        expect(refusal).toThrow(ShapeError);
        expect(refusal).toThrow(/is not (an id|a well-formed text)/);
      }
    },
  );

  test("of an unknown type may be anything", () => {
    expect(parsePolled({ ...POLLED, data: { type: "training", id: "a\nb" } })?.data.type).toBe("training");
  });
});

describe("a secret of a polled item", () => {
  test.each(["x", "no base64 at all!", "s".repeat(120_000)])("is passed on unchanged: %#", (secret) => {
    expect(parsePolled({ ...POLLED, secret })?.secret).toBe(secret);
  });

  test.each(["a\u0000b", "s".repeat(120_001)])(
    "that no container can start with is refused and not shown: %#",
    (secret) => {
      const refusal = () => parsePolled({ ...POLLED, secret });
      expect(refusal).toThrow("the work item's secret is not one that a container can be given");
      expect(refusal).not.toThrow(secret);
    },
  );
});

describe("half a surrogate pair", () => {
  it("is refused in values that are echoed or requested again, because no URL can encode it", () => {
    expect(() => parseHeartbeat({ ...BEAT, last_heartbeat: "\ud800" })).toThrow("last_heartbeat");
    expect(() => parsePage({ data: [], next_page: "\ud800" })).toThrow("next_page");
    expect(parsePage({ data: [{ ...POLLED, latest_heartbeat_at: "\udc00" }] }).unreadable).toEqual([
      { id: POLLED.id, state: POLLED.state, why: expect.stringContaining("latest_heartbeat_at") },
    ]);
    const { error } = REFUSED_BEAT;
    const current_state = { ...error.details.current_state, last_heartbeat: "\ud800" };
    expect(parseRefusal({ error: { details: { current_state } } })).toBeNull();
  });

  it("in a query throws a PathError", () => {
    expect(() => queryText({ page: "\ud800" })).toThrow(PathError);
  });
});

describe("a time", () => {
  test.each([
    "5",
    "2026",
    "2026-04-01",
    "2026-04-01T10:00Z",
    "2026-04-01T10:00:00",
    "2026-02-30T10:00:00Z",
    "2026-04-01T24:00:00Z",
    "2026-04-01T10:00:00+99:99",
    "+275760-09-13T00:00:00Z",
    "Wed, 01 Apr 2026 10:00:00 GMT",
    `2026-04-01T10:00:00.${"1".repeat(1_000)}Z`,
  ])("%j is refused, because the API server would reject a status with it", (oldest_queued_at) => {
    expect(() => parseStats({ ...STATS, oldest_queued_at })).toThrow("oldest_queued_at");
  });

  test.each(["2026-04-01T10:00:00Z", "2028-02-29t23:59:59.123456789z", "0001-01-01T00:00:00-23:59"])(
    "%j is accepted",
    (oldest_queued_at) => {
      expect(parseStats({ ...STATS, oldest_queued_at }).oldest_queued_at).toBe(oldest_queued_at);
    },
  );
});

test("limits a lease of years to a day", () => {
  expect(parseHeartbeat({ ...BEAT, ttl_seconds: 1e300 }).ttl_seconds).toBe(86_400);
});

describe("a malformed item in a list", () => {
  test("does not hide the others, and is reported by its id if that can be read", () => {
    const odd = [
      { ...POLLED, id: "odd", state: "expired" },
      { ...POLLED, id: "dull", data: null },
      { id: 5 },
      "x",
      null,
    ];
    const { items, unreadable, nextPage } = parsePage({ data: [odd[0], POLLED, ...odd.slice(1)], next_page: "p2" });
    expect([items.map(({ id }) => id), nextPage]).toEqual([[POLLED.id], "p2"]);
    expect(unreadable.map(({ id }) => id)).toEqual(["odd", "dull", null, null, null]);
    expect(unreadable[0]?.why).toBe(
      "the page's item 0's state is not one of queued, starting, active, stopping, stopped",
    );
  });
});
