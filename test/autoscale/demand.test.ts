import { expect, test } from "vitest";
import { type DemandReadings, demandOf, NONE_OF_OURS } from "../../src/autoscale/demand.ts";

const STALE_MS = 60_000;
const queue = { depth: 3, pending: 2, readMs: 0 };
const running = { running: 4, readMs: 0 };

const of = (readings: DemandReadings, nowMs = 0) => demandOf(readings, nowMs, STALE_MS);

test("demand is what runs, what waits and what was polled", () => {
  expect(of({ queue, running })).toEqual({ kind: "known", sessions: 9, running: 4, pending: 2 });
});

test("nothing read at all is unknown, not zero", () => {
  expect(of({ queue: null, running: null })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
});

test("one half read is unknown, not the other half", () => {
  expect(of({ queue, running: null })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
  expect(of({ queue: null, running })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
});

test("nothing waits and no worker is ours: zero, by statistics that are fresh and by no others", () => {
  const idle = { ...queue, depth: 0, pending: 0 };
  expect(of({ queue: idle, running: NONE_OF_OURS })).toMatchObject({ kind: "known", sessions: 0 });
  expect(of({ queue: idle, running: NONE_OF_OURS }, STALE_MS + 1)).toMatchObject({ reason: "DemandStale" });
  expect(of({ queue: null, running: NONE_OF_OURS })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue, running: NONE_OF_OURS })).toMatchObject({ reason: "DemandUnknown" });
});

test("a reading is good to the last millisecond of its time", () => {
  expect(of({ queue, running }, STALE_MS)).toMatchObject({ kind: "known" });
});

test.each([
  ["statistics", { queue, running: { ...running, readMs: STALE_MS } }],
  ["running sessions", { queue: { ...queue, readMs: STALE_MS }, running }],
])("%s read too long ago make it stale, whatever the other is", (what, readings) => {
  const demand = of(readings, STALE_MS + 1);
  expect(demand).toMatchObject({ kind: "unknown", reason: "DemandStale" });
  expect(demand).toMatchObject({ message: expect.stringContaining(`${what}`) });
  expect(demand).toMatchObject({ message: expect.stringContaining("60 s ago") });
});

test.each([Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY])("%d is no count", (bad) => {
  expect(of({ queue: { ...queue, depth: bad }, running })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue: { ...queue, pending: bad }, running })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue, running: { ...running, running: bad } })).toMatchObject({ reason: "DemandUnknown" });
});
