import { expect, test } from "vitest";
import { type DemandReadings, demandOf, NONE_OF_OURS } from "../../src/autoscale/demand.ts";

const STALE_MS = 60_000;
const queue = { depth: 3, pending: 2, readMs: 0 };
const running = { running: 4, readMs: 0 };

const of = (readings: DemandReadings, nowMs = 0) => demandOf(readings, nowMs, STALE_MS);

test("the demand is the running, waiting and polled sessions", () => {
  expect(of({ queue, running })).toEqual({ kind: "known", sessions: 9, running: 4, pending: 2 });
});

test("is unknown, not zero, before any reading", () => {
  expect(of({ queue: null, running: null })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
});

test("is unknown, not half, if one part was never read", () => {
  expect(of({ queue, running: null })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
  expect(of({ queue: null, running })).toMatchObject({ kind: "unknown", reason: "DemandUnknown" });
});

test("is zero if nothing waits and there are no own workers, but only with fresh statistics", () => {
  const idle = { ...queue, depth: 0, pending: 0 };
  expect(of({ queue: idle, running: NONE_OF_OURS })).toMatchObject({ kind: "known", sessions: 0 });
  expect(of({ queue: idle, running: NONE_OF_OURS }, STALE_MS + 1)).toMatchObject({ reason: "DemandStale" });
  expect(of({ queue: null, running: NONE_OF_OURS })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue, running: NONE_OF_OURS })).toMatchObject({ reason: "DemandUnknown" });
});

test("a reading is valid until the last millisecond of its time", () => {
  expect(of({ queue, running }, STALE_MS)).toMatchObject({ kind: "known" });
});

test.each([
  ["statistics", { queue, running: { ...running, readMs: STALE_MS } }],
  ["running sessions", { queue: { ...queue, readMs: STALE_MS }, running }],
])("old %s make it stale, however fresh the other reading is", (what, readings) => {
  const demand = of(readings, STALE_MS + 1);
  expect(demand).toMatchObject({ kind: "unknown", reason: "DemandStale" });
  expect(demand).toMatchObject({ message: expect.stringContaining(`${what}`) });
  expect(demand).toMatchObject({ message: expect.stringContaining("60 s ago") });
});

test.each([Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY])("%d is not a count", (bad) => {
  expect(of({ queue: { ...queue, depth: bad }, running })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue: { ...queue, pending: bad }, running })).toMatchObject({ reason: "DemandUnknown" });
  expect(of({ queue, running: { ...running, running: bad } })).toMatchObject({ reason: "DemandUnknown" });
});
