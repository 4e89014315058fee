import { describe, expect, test } from "vitest";
import { believesFor, CLOCK_RULES, smallestMargin } from "../../model/clock.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";

describe("a deadline is safe with its margin, and not with one tick less", () => {
  test.each(CLOCK_RULES)("$name, from $from: $words", (rule) => {
    expect([...rule.broken(rule.margin)]).toEqual([]);
    expect(smallestMargin(rule)).toBe(rule.margin);
    if (rule.margin > 0) expect([...rule.broken(rule.margin - 1)].length).toBeGreaterThan(0);
  });
});

describe("the operator's timing keeps the margins", () => {
  const { othersReclaimMs, requestBoundMs, marginMs, quietMarginMs, beatIntervalMs, assumedTtlMs } = DEFAULT_TIMING;
  const { listLagMs, lateAckMs, ownReclaimMs } = DEFAULT_TIMING;

  test("waits longer for an unchanged value than two requests of its holder can take", () => {
    expect(quietMarginMs).toBeGreaterThan(2 * requestBoundMs + marginMs);
  });

  test("keeps the acknowledgement window open long enough for one request and a repeat", () => {
    expect(othersReclaimMs - requestBoundMs - marginMs).toBeGreaterThan(requestBoundMs);
  });

  test("tells a holder to stop while the lease of its observed heartbeat runs", () => {
    expect(beatIntervalMs).toBeLessThan(assumedTtlMs - requestBoundMs - marginMs - listLagMs);
  });

  test("abandons an unanswered claim before our own polls offer its item again", () => {
    expect(othersReclaimMs + lateAckMs + listLagMs).toBeLessThanOrEqual(ownReclaimMs);
  });
});

describe("a stock worker", () => {
  test.each([
    [{ ttlSeconds: 90, beatSeconds: 30, hangs: false }, 90],
    [{ ttlSeconds: 90, beatSeconds: 30, hangs: true }, 120],
    [{ ttlSeconds: 30, beatSeconds: 15, hangs: true }, 30],
  ])("%o believes in its lease for %i s after its last answered heartbeat", (lease, seconds) => {
    expect(believesFor(lease)).toBe(seconds);
  });
});
