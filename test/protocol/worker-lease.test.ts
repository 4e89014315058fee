import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { nextStep } from "../../src/protocol/decide.ts";
import { remembered } from "../../src/protocol/facts.ts";
import type { Step } from "../../src/protocol/step.ts";
import { facts, LIMITS, opened, POLLED, RUNNING, view, withFields } from "./claims.ts";

const SECOND = 1_000;
/** When maxDurationSeconds have passed, relative to the poll. */
const OVER = 3_601 * SECOND;
const FROM = OVER - DEFAULT_TIMING.beatIntervalMs - DEFAULT_TIMING.observeFirstBeatMs;
/** The duration of a list request. */
const LOOK_MS = 200;

/**
 * Simulates a worker with a heartbeat every `every` ms near the end of its time. Returns the first step other than
 * lists and waits.
 */
function lastStep(every: number, firstMs: number, graceMs: number): { step: Step; afterMs: number } {
  const seen = (ms: number) =>
    view("active", POLLED + ms, { latestHeartbeatAt: `beat ${Math.floor((ms - firstMs) / every)}` });
  const claim: Claim = opened({ item: seen(FROM - 10 * SECOND), firstBeatSeen: true });
  let afterMs = FROM;
  for (;;) {
    const step = nextStep(facts(claim, RUNNING, afterMs, { podAssigned: true, limits: { ...LIMITS, graceMs } }));
    if (step.do === "look") {
      withFields(claim, { item: seen(afterMs) });
      afterMs += LOOK_MS;
    } else if (step.do === "snapshot") {
      withFields(claim, { memory: remembered(step, claim, POLLED + afterMs) });
    } else if (step.do === "wait" && step.untilMs !== null && step.untilMs > POLLED + afterMs) {
      afterMs = step.untilMs - POLLED;
    } else {
      return { step, afterMs };
    }
  }
}

const BEATS = [1, 4, 15, 29, 30].flatMap((seconds) =>
  Array.from({ length: 24 }, (_, part) => ({ every: seconds * SECOND, first: (part * seconds * SECOND) / 24 })),
);

test.each(BEATS)(
  "a worker with a heartbeat every $every ms, from $first on, is stopped gracefully, however short its grace period is",
  (beats) => {
    const { step, afterMs } = lastStep(beats.every, beats.first, 1 * SECOND);
    expect(step).toEqual({ do: "stop", force: false });
    expect(afterMs).toBeGreaterThanOrEqual(OVER);
    expect(afterMs).toBeLessThan(OVER + 3 * DEFAULT_TIMING.observeFirstBeatMs);
  },
);

test("a worker with frequent heartbeats is stopped immediately", () => {
  for (const { every, first } of BEATS) {
    if (every <= 15 * SECOND) expect(lastStep(every, first, 1 * SECOND).afterMs - OVER).toBeLessThanOrEqual(LOOK_MS);
  }
});

test("a worker without heartbeats is deleted when its next heartbeat would have been visible", () => {
  const { step, afterMs } = lastStep(10 * OVER, 0, 1 * SECOND);
  expect(step).toMatchObject({ do: "delete-pod", why: "MaxDuration" });
  expect(afterMs - OVER).toBeGreaterThanOrEqual(3 * DEFAULT_TIMING.observeFirstBeatMs);
});
