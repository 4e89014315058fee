import { expect, test } from "vitest";
import { StartTimes } from "../../src/sessions/session-recorder.ts";

function after(...sinceTouchMs: number[]): StartTimes {
  const starts = new StartTimes();
  for (const ms of sinceTouchMs) starts.note(ms);
  return starts;
}

test("nothing is waited for before anything is known", () => {
  expect(new StartTimes().patienceMs).toBe(0);
});

test("a node that starts its containers late is given more time than it usually takes", () => {
  expect(after(900, 800, 1_000).patienceMs).toBe(2_250);
});

test("one container that started late changes nothing", () => {
  expect(after(100, 120, 9_000, 110).patienceMs).toBe(300);
});

test("it is never more than a few seconds", () => {
  expect(after(60_000).patienceMs).toBe(4_000);
});

test("a node that got faster is told so by its newest starts", () => {
  expect(after(...Array.from({ length: 50 }, () => 2_000), ...Array.from({ length: 16 }, () => 100)).patienceMs).toBe(
    250,
  );
});

/** Where each first touch is missed, its start follows the second one at once. */
test("touches that are missed do not make anybody wait longer and longer", () => {
  const starts = new StartTimes();
  for (let session = 0; session < 100; session += 1) starts.note(150);
  expect(starts.patienceMs).toBeLessThan(500);
});
