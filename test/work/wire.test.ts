import fc from "fast-check";
import { describe, expect, it } from "vitest";
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
