import { expect, test } from "vitest";
import { StartTimes } from "../../src/sessions/session-recorder.ts";

function after(...sinceTouchMs: number[]): StartTimes {
  const starts = new StartTimes();
  for (const ms of sinceTouchMs) starts.note(ms);
  return starts;
}

test("there is no wait before the first start", () => {
  expect(new StartTimes().patienceMs).toBe(0);
});

test("a slow node gets more time than it usually takes", () => {
  expect(after(900, 800, 1_000).patienceMs).toBe(2_250);
});

test("one late container does not change the wait", () => {
  expect(after(100, 120, 9_000, 110).patienceMs).toBe(300);
});

test("the wait is at most a few seconds", () => {
  expect(after(60_000).patienceMs).toBe(4_000);
});

test("the newest starts of a faster node shorten the wait", () => {
  expect(after(...Array.from({ length: 50 }, () => 2_000), ...Array.from({ length: 16 }, () => 100)).patienceMs).toBe(
    250,
  );
});

/** When the kubelet misses the first touch, the container starts right after the second one. */
test("missed touches do not lengthen the wait", () => {
  const starts = new StartTimes();
  for (let session = 0; session < 100; session += 1) starts.note(150);
  expect(starts.patienceMs).toBeLessThan(500);
});
