import { describe, expect, test } from "vitest";
import { RequestRate, SeenDeliveries } from "../../src/webhook/deliveries.ts";
import { parseEvent } from "../../src/webhook/event.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const MINUTE_MS = 60_000;

describe("deliveries that were seen", () => {
  test("are new once, until they are too old to be taken anyway", async () => {
    const clock = new VirtualClock();
    const seen = new SeenDeliveries(clock);
    expect(seen.isNew("a")).toBe(true);
    await clock.advance(9 * MINUTE_MS);
    expect(seen.isNew("a")).toBe(false);
    await clock.advance(2 * MINUTE_MS);
    expect(seen.isNew("b")).toBe(true);
    expect(seen.size).toBe(1);
  });

  test("take bounded memory: the oldest are forgotten first", () => {
    const seen = new SeenDeliveries(new VirtualClock());
    for (let at = 0; at < 50_000; at += 1) seen.isNew(`msg_${at}`);
    expect(seen.size).toBeLessThanOrEqual(20_000);
    expect(seen.isNew("msg_49999")).toBe(false);
    expect(seen.isNew("msg_0")).toBe(true);
  });
});

test("a rate lets a burst through, and then so many a second", async () => {
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

  test("of a session that began to run names it and its workspace", () => {
    const data = { type: "session.status_run_started", id: "sesn_1", organization_id: "o", workspace_id: "wrkspc_1" };
    expect(parseEvent(event(data))).toEqual({ type: "run-started", sessionId: "sesn_1", workspaceId: "wrkspc_1" });
    expect(parseEvent(event({ ...data, workspace_id: undefined }))).toMatchObject({ workspaceId: null });
  });

  test("of a type that nobody knows yet is another one, and no error", () => {
    expect(parseEvent(event({ type: "session.sang", id: 7 }))).toEqual({ type: "other" });
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["without data", "{}"],
    ["data that is no object", '{"data": null}'],
    ["a type that is no text", '{"data": {"type": 1}}'],
    ["a session without an id", '{"data": {"type": "session.status_run_started"}}'],
    [
      "a session with an endless id",
      JSON.stringify({ data: { type: "session.status_run_started", id: "s".repeat(300) } }),
    ],
  ])("with %s is none", (_what, body) => {
    expect(parseEvent(body)).toBeUndefined();
  });
});
