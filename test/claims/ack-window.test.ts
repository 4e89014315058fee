import { expect, test } from "vitest";
import { isSomebodyElses } from "../../src/claims/ack-window.ts";

const at = (second: number, fraction = ".000") => `2030-01-01T00:00:0${second}${fraction}Z`;
const EARLIEST = { polledMs: Date.parse(at(2)), sentMs: Date.parse(at(4)) };
const BEFORE_ANY = { polledMs: Number.NEGATIVE_INFINITY, sentMs: Number.NEGATIVE_INFINITY };

test.each([
  ["between our poll and our request", at(3), null, true],
  ["just before our request", at(3, ".999"), null, true],
  ["in the second of our request, on a server that writes whole seconds", at(4, ""), null, false],
  ["with our request", at(4), null, false],
  ["before our poll, which showed no time: the server kept it", at(1), null, false],
  ["at the time in our poll's answer", at(3), at(3), false],
  ["at the time in our poll's answer, with more digits", at(3, ".000000"), at(3), false],
  ["at the time in our poll's answer, cut to the second", at(3, ".500"), at(3, ""), false],
  ["at another time than in our poll's answer", at(3), at(2), true],
  ["at an unreadable time", "soon", null, false],
])("acknowledged %s", (_, shown, before, isOthers) => {
  expect(isSomebodyElses(shown, before, EARLIEST)).toBe(isOthers);
});

test("no acknowledgement is another client's while the server's clock is unknown", () => {
  expect(isSomebodyElses(at(3), null, BEFORE_ANY)).toBe(false);
});
