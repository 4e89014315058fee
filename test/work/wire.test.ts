import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { PathError, pathSegment, queryText } from "../../src/work/paths.ts";
import {
  parseHeartbeat,
  parsePage,
  parsePolled,
  parseRefusal,
  parseStats,
  parseWorkItem,
  ShapeError,
  timestampMs,
} from "../../src/work/wire.ts";
import { BEAT, POLLED, QUEUED, REFUSED_BEAT, STATS } from "./samples.ts";

describe("a work item", () => {
  it("drops unknown fields, and keeps the known ones byte for byte", () => {
    const beat = "2026-04-01T10:00:02.000001000+00:00";
    const item = parseWorkItem({ ...QUEUED, latest_heartbeat_at: beat, metadata: { a: "b" }, invented: { x: 1 } });
    expect(item).not.toHaveProperty("invented");
    expect(item.latest_heartbeat_at).toBe(beat);
    expect(item.metadata).toEqual({ a: "b" });
  });

  it("may lack the fields that are not set yet", () => {
    const { acknowledged_at: _, latest_heartbeat_at: __, metadata: ___, secret: ____, ...bare } = QUEUED;
    expect(parseWorkItem(bare)).toMatchObject({ acknowledged_at: null, latest_heartbeat_at: null, metadata: {} });
    expect(parseWorkItem({ ...QUEUED, acknowledged_at: "" }).acknowledged_at).toBeNull();
  });

  it.each([
    ["health checks, with or without their own type", { id: "hc_1", type: "healthcheck" }, "healthcheck"],
    ["data without a type", { id: "x" }, "unknown"],
    ["unknown types with any content", { type: "training", plan: [1] }, "training"],
  ])("accepts %s", (_, data, type) => {
    expect(parseWorkItem({ ...QUEUED, data }).data.type).toBe(type);
  });

  it.each([
    ["id", { id: "" }],
    ["id", { id: 5 }],
    ["id", { id: undefined }],
    ["environment_id", { environment_id: null }],
    ["state", { state: "paused" }],
    ["state", { state: 1 }],
    ["data", { data: null }],
    ["data", { data: [] }],
    ["id", { data: { type: "session" } }],
    ["type", { data: { type: 5, id: "x" } }],
    ["created_at", { created_at: null }],
    ["created_at", { created_at: "yesterday" }],
    ["acknowledged_at", { acknowledged_at: "not yet" }],
    ["acknowledged_at", { acknowledged_at: 1743501601 }],
    ["latest_heartbeat_at", { latest_heartbeat_at: 5 }],
    ["secret", { secret: 5 }],
  ])("with an invalid %s is refused", (field, change) => {
    const parse = () => parseWorkItem({ ...QUEUED, ...change });
    expect(parse).toThrow(ShapeError);
    expect(parse).toThrow(field);
  });

  it.each([
    [{ a: 5, b: "c" }, { b: "c" }],
    [[], {}],
    ["x", {}],
  ])("with metadata %j is accepted with its text entries, because nothing depends on metadata", (metadata, kept) => {
    expect(parseWorkItem({ ...QUEUED, metadata }).metadata).toEqual(kept);
  });

  it("with a metadata key named __proto__ does not change the prototype", () => {
    const item = parseWorkItem({ ...QUEUED, metadata: JSON.parse('{"__proto__": "x", "a": "b"}') });
    expect(Object.keys(item.metadata)).toEqual(["__proto__", "a"]);
    expect(Object.getPrototypeOf(item.metadata)).toBe(Object.prototype);
  });
});

describe("any other JSON", () => {
  const parsers = { parseWorkItem, parsePolled, parsePage, parseStats, parseHeartbeat };
  it.each(Object.entries(parsers))("is refused by %s with a ShapeError", (_, parse) => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        if (value === null && parse === parsePolled) return;
        expect(() => parse(value)).toThrow(ShapeError);
      }),
    );
  });

  it("in place of one field is never accepted silently", () => {
    const samples = [
      [parseWorkItem, POLLED],
      [parseStats, STATS],
      [parseHeartbeat, BEAT],
    ] as const;
    for (const [parse, sample] of samples) {
      fc.assert(
        fc.property(fc.constantFrom(...Object.keys(sample)), fc.jsonValue(), (field, value) => {
          let parsed: unknown;
          try {
            parsed = parse({ ...sample, [field]: value });
          } catch (error) {
            expect(error).toBeInstanceOf(ShapeError);
            return;
          }
          const { type: _, ...known } = sample as Record<string, unknown>;
          for (const key of Object.keys(known)) {
            if (key === field || key === "secret") continue;
            expect((parsed as Record<string, unknown>)[key]).toEqual(known[key]);
          }
        }),
      );
    }
  });
});

describe("a heartbeat's answer", () => {
  it.each([
    ["last_heartbeat", { last_heartbeat: null }],
    ["lease_extended", { lease_extended: "true" }],
    ["lease_extended", { lease_extended: undefined }],
    ["state", { state: "" }],
    ["ttl_seconds", { ttl_seconds: "90" }],
    ["ttl_seconds", { ttl_seconds: -1 }],
    ["ttl_seconds", { ttl_seconds: null }],
  ])("with an invalid %s is refused", (field, change) => {
    expect(() => parseHeartbeat({ ...BEAT, ...change })).toThrow(field);
  });
});

describe("a refused heartbeat's body", () => {
  const current = REFUSED_BEAT.error.details.current_state;
  const body = (change: object) => ({ error: { details: { current_state: { ...current, ...change } } } });

  it("may have no heartbeat and no TTL", () => {
    expect(parseRefusal(body({ state: "starting", last_heartbeat: null, ttl_seconds: undefined }))).toEqual({
      state: "starting",
      last_heartbeat: null,
      ttl_seconds: null,
    });
    expect(parseRefusal(body({ last_heartbeat: "" }))?.last_heartbeat).toBeNull();
  });

  it("with any other content is null and throws nothing", () => {
    expect(parseRefusal(body({ last_heartbeat: 5 }))).toBeNull();
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        for (const body of [value, { error: value }, { error: { details: { current_state: value } } }]) {
          expect(parseRefusal(body)).toBeNull();
        }
      }),
    );
  });
});

describe("statistics", () => {
  it.each([
    ["depth", { depth: "3" }],
    ["depth", { depth: -1 }],
    ["depth", { depth: undefined }],
    ["pending", { pending: 1.5 }],
    ["pending", { pending: null }],
    ["oldest_queued_at", { oldest_queued_at: 5 }],
    ["workers_polling", { workers_polling: "2" }],
  ])("with an invalid %s are refused, never read as zero", (field, change) => {
    expect(() => parseStats({ ...STATS, ...change })).toThrow(field);
  });
});

it("parses times to the millisecond", () => {
  expect(timestampMs("2026-04-01T10:00:00.123456Z")).toBe(Date.UTC(2026, 3, 1, 10, 0, 0, 123));
  expect(timestampMs("2026-04-01T12:00:00+02:00")).toBe(Date.UTC(2026, 3, 1, 10));
  expect(timestampMs(null)).toBeNull();
});

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

test("a page with wanted items leaves out the others, and still reports items without an id", () => {
  const other = { ...POLLED, id: "other", state: "expired" };
  const odd = { ...POLLED, id: "odd", data: null };
  const page = parsePage({ data: [other, POLLED, odd, { id: 5 }] }, new Set([POLLED.id, "odd"]));
  expect(page.items.map(({ id }) => id)).toEqual([POLLED.id]);
  expect(page.unreadable.map(({ id }) => id)).toEqual(["odd", null]);
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
