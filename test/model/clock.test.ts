import { describe, expect, test } from "vitest";
import { believesFor, CLOCK_RULES, smallestMargin } from "../../model/clock.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";

describe("a deadline with its margin is safe, and one tick less is not", () => {
  test.each(CLOCK_RULES)("$name, from $from: $words", (rule) => {
    expect([...rule.broken(rule.margin)]).toEqual([]);
    expect(smallestMargin(rule)).toBe(rule.margin);
    if (rule.margin > 0) expect([...rule.broken(rule.margin - 1)].length).toBeGreaterThan(0);
  });
});

describe("the operator's times keep the margins", () => {
  const { othersReclaimMs, requestBoundMs, marginMs, quietMarginMs, beatIntervalMs, assumedTtlMs } = DEFAULT_TIMING;
  const { listLagMs, lateAckMs, ownReclaimMs } = DEFAULT_TIMING;

  test("a value stands still for more than what two requests of its holder can take", () => {
    expect(quietMarginMs).toBeGreaterThan(2 * requestBoundMs + marginMs);
  });

  test("the window for acknowledgements is open long enough to send one and repeat it", () => {
    expect(othersReclaimMs - requestBoundMs - marginMs).toBeGreaterThan(requestBoundMs);
  });

  test("a holder whose beat was seen to move is told to stop while that beat's lease runs", () => {
    expect(beatIntervalMs).toBeLessThan(assumedTtlMs - requestBoundMs - marginMs - listLagMs);
  });

  test("a claim without an answer is given up before our own polls offer its item again", () => {
    expect(othersReclaimMs + lateAckMs + listLagMs).toBeLessThanOrEqual(ownReclaimMs);
  });
});

describe("a stock worker", () => {
  test.each([
    [{ ttlSeconds: 90, beatSeconds: 30, hangs: false }, 90],
    [{ ttlSeconds: 90, beatSeconds: 30, hangs: true }, 120],
    [{ ttlSeconds: 30, beatSeconds: 15, hangs: true }, 30],
  ])("%o believes in its lease for %i s after its last answered beat", (lease, seconds) => {
    expect(believesFor(lease)).toBe(seconds);
  });
});
