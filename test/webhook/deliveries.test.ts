import { describe, expect, test } from "vitest";
import { MAX_PROVEN, RequestRate, SeenDeliveries, SenderRates } from "../../src/webhook/deliveries.ts";
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

function senderRates() {
  const clock = new VirtualClock();
  const rates = new SenderRates({ clock, limit: { perSecond: 1, burst: 5 } });
  /** The number of 20 requests of an address that are admitted now. */
  const taken = (address: string) => Array.from({ length: 20 }, () => rates.take(address)).filter(Boolean).length;
  return { clock, rates, taken };
}

test("addresses without signed deliveries share one rate", () => {
  const { taken } = senderRates();
  expect([taken("10.0.0.1"), taken("10.0.0.2")]).toEqual([5, 0]);
});

test("a flood from them takes nothing from an address with signed deliveries", async () => {
  const { clock, rates, taken } = senderRates();
  rates.prove("10.0.0.1");
  expect([taken("10.0.0.2"), taken("10.0.0.1"), taken("10.0.0.3")]).toEqual([5, 5, 0]);
  await clock.advance(2_000);
  expect([taken("10.0.0.1"), taken("10.0.0.2")]).toEqual([2, 2]);
});

test("an address does not gain by sending more signed deliveries", () => {
  const { rates, taken } = senderRates();
  rates.prove("10.0.0.1");
  expect(taken("10.0.0.1")).toBe(5);
  rates.prove("10.0.0.1");
  expect(taken("10.0.0.1")).toBe(0);
});

test("the number of known addresses is bounded, and those with the oldest deliveries share the rate again", () => {
  const { rates, taken } = senderRates();
  for (let at = 0; at < MAX_PROVEN; at += 1) rates.prove(`10.0.0.${at}`);
  rates.prove("10.0.0.0");
  rates.prove("10.0.1.0");
  expect(taken("10.0.2.0")).toBe(5);
  expect([taken("10.0.0.0"), taken("10.0.0.1"), taken("10.0.1.0")]).toEqual([5, 0, 5]);
});
