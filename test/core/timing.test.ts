import { expect, test } from "vitest";
import { DEFAULT_TIMING, scaleTiming } from "../../src/core/timing.ts";

test("the window of an acknowledgement lets the request land before others are offered the item", () => {
  const { othersReclaimMs, requestBoundMs, marginMs } = DEFAULT_TIMING;
  const lastSentMs = othersReclaimMs - requestBoundMs - marginMs;
  expect(lastSentMs).toBeGreaterThan(requestBoundMs);
  expect(lastSentMs + requestBoundMs).toBeLessThanOrEqual(othersReclaimMs - marginMs);
});

test("our own polls leave a slow neighbor its offer for longer than the default", () => {
  expect(DEFAULT_TIMING.ownReclaimMs).toBeGreaterThan(DEFAULT_TIMING.othersReclaimMs);
});

test("a value counts as unchanged only after a heartbeat interval and two requests of its holder", () => {
  expect(DEFAULT_TIMING.quietMarginMs).toBeGreaterThanOrEqual(2 * DEFAULT_TIMING.requestBoundMs + 1);
  expect(DEFAULT_TIMING.beatIntervalMs + DEFAULT_TIMING.quietMarginMs).toBeLessThan(DEFAULT_TIMING.assumedTtlMs);
});

test("the API accepts the duration of a long poll", () => {
  expect(DEFAULT_TIMING.pollBlockMs).toBeGreaterThanOrEqual(1);
  expect(DEFAULT_TIMING.pollBlockMs).toBeLessThanOrEqual(999);
});

test("scaling shortens waits, but not the server's window or the bounds of requests", () => {
  const scaled = scaleTiming(DEFAULT_TIMING, 10);
  expect(scaled).toMatchObject({
    beatIntervalMs: 3_000,
    assumedTtlMs: 9_000,
    settleLookMs: 500,
    othersReclaimMs: DEFAULT_TIMING.othersReclaimMs,
    ownReclaimMs: DEFAULT_TIMING.ownReclaimMs,
    requestBoundMs: DEFAULT_TIMING.requestBoundMs,
    marginMs: DEFAULT_TIMING.marginMs,
    touchAgainMs: DEFAULT_TIMING.touchAgainMs,
  });
  expect(scaleTiming(DEFAULT_TIMING, 1)).toEqual(DEFAULT_TIMING);
});
