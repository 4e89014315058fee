import { describe, expect, test } from "vitest";
import { RequestRate, SeenDeliveries } from "../../src/webhook/deliveries.ts";
import { parseEvent } from "../../src/webhook/event.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const MINUTE_MS = 60_000;

describe("SeenDeliveries", () => {
  test("reports a delivery as new once, until it is too old to be accepted anyway", async () => {
    const clock = new VirtualClock();
    const seen = new SeenDeliveries(clock);
    expect(seen.isNew("a")).toBe(true);
    await clock.advance(9 * MINUTE_MS);
    expect(seen.isNew("a")).toBe(false);
    await clock.advance(2 * MINUTE_MS);
    expect(seen.isNew("b")).toBe(true);
    expect(seen.size).toBe(1);
  });

  test("bounds its memory by forgetting the oldest first", () => {
    const seen = new SeenDeliveries(new VirtualClock());
    for (let at = 0; at < 50_000; at += 1) seen.isNew(`msg_${at}`);
    expect(seen.size).toBeLessThanOrEqual(20_000);
    expect(seen.isNew("msg_49999")).toBe(false);
    expect(seen.isNew("msg_0")).toBe(true);
  });
});

test("a rate allows a burst, and then a number of requests per second", async () => {
  const clock = new VirtualClock();
  const rate = new RequestRate({ clock, perSecond: 10, burst: 5 });
  const taken = () => Array.from({ length: 20 }, () => rate.take()).filter(Boolean).length;
  expect(taken()).toBe(5);
  expect(taken()).toBe(0);
  await clock.advance(300);
  expect(taken()).toBe(3);
  await clock.advance(MINUTE_MS);
  expect(taken()).toBe(5);
});

describe("an event", () => {
  const event = (data: unknown) => JSON.stringify({ type: "event", id: "event_1", created_at: "2026-01-01", data });

  test("of a started session has its id and workspace", () => {
    const data = { type: "session.status_run_started", id: "sesn_1", organization_id: "o", workspace_id: "wrkspc_1" };
    expect(parseEvent(event(data))).toEqual({ type: "run-started", sessionId: "sesn_1", workspaceId: "wrkspc_1" });
    expect(parseEvent(event({ ...data, workspace_id: undefined }))).toMatchObject({ workspaceId: null });
  });

  test("of an unknown type is `other` and not an error", () => {
    expect(parseEvent(event({ type: "session.sang", id: 7 }))).toEqual({ type: "other" });
  });

  test.each([
    ["invalid JSON", "{"],
    ["no object", "[]"],
    ["without data", "{}"],
    ["data that is not an object", '{"data": null}'],
    ["a type that is not text", '{"data": {"type": 1}}'],
    ["a session without an id", '{"data": {"type": "session.status_run_started"}}'],
    [
      "a session with an endless id",
      JSON.stringify({ data: { type: "session.status_run_started", id: "s".repeat(300) } }),
    ],
  ])("with %s is rejected", (_what, body) => {
    expect(parseEvent(body)).toBeUndefined();
  });
});
