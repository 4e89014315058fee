import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ServerTime, STAMPS_APART_MS } from "../../src/core/server-time.ts";

const SECOND = 1_000;
const HOUR = 3_600_000;
/** An instant on our clock. */
const START = Date.UTC(2030, 0, 1);

/** One answered request. Its Date header is written between sending and answer, and cut to seconds. */
interface Exchange {
  readonly gapMs: number;
  readonly thereMs: number;
  readonly backMs: number;
}

const exchange = fc.record({
  gapMs: fc.integer({ min: 0, max: 10_000 }),
  thereMs: fc.integer({ min: 0, max: 3_000 }),
  backMs: fc.integer({ min: 0, max: 3_000 }),
});

/** The offset of the two clocks, the observed exchanges, and the time since the last one. */
const WORLD = [
  fc.integer({ min: -40 * HOUR, max: 40 * HOUR }),
  fc.array(exchange, { minLength: 1, maxLength: 50 }),
  fc.integer({ min: 0, max: HOUR }),
] as const;

/**
 * Passes the exchanges to `time` and returns when the last one ended, on our clock. `offsetAt` is server minus ours.
 */
function observe(
  time: ServerTime,
  exchanges: readonly Exchange[],
  offsetAt: (wallMs: number) => number,
  fromMs = START,
) {
  let nowMs = fromMs;
  for (const { gapMs, thereMs, backMs } of exchanges) {
    const sentMs = nowMs + gapMs;
    const writtenMs = sentMs + thereMs;
    nowMs = writtenMs + backMs;
    const dateMs = Math.floor((writtenMs + offsetAt(writtenMs)) / SECOND) * SECOND;
    time.observe(sentMs, nowMs, dateMs);
  }
  return nowMs;
}

const many: Exchange[] = Array.from({ length: 200 }, (_, n) => ({ gapMs: 137 * (n % 11), thereMs: 3, backMs: 4 }));

const width = ({ earliestMs, latestMs }: { earliestMs: number; latestMs: number }) => latestMs - earliestMs;

test("the bounds always contain the server's true time, whatever the offset and the latencies", () => {
  fc.assert(
    fc.property(...WORLD, (offsetMs, exchanges, laterMs) => {
      const time = new ServerTime();
      const atMs = observe(time, exchanges, () => offsetMs) + laterMs;
      const { earliestMs, latestMs } = time.at(atMs);
      expect(earliestMs).toBeLessThanOrEqual(atMs + offsetMs);
      expect(latestMs).toBeGreaterThanOrEqual(atMs + offsetMs);
    }),
  );
});

test("the bounds also hold while one of the clocks drifts within the allowed limit", () => {
  fc.assert(
    fc.property(
      fc.double({ min: -0.0004, max: 0.0004, noNaN: true }),
      fc.array(fc.record({ gapMs: fc.integer({ min: 0, max: HOUR }), thereMs: fc.nat(500), backMs: fc.nat(500) }), {
        minLength: 1,
        maxLength: 60,
      }),
      fc.integer({ min: 0, max: 24 * HOUR }),
      (drift, exchanges, laterMs) => {
        const time = new ServerTime();
        const offsetAt = (wallMs: number) => (wallMs - START) * drift;
        const atMs = observe(time, exchanges, offsetAt) + laterMs;
        const { earliestMs, latestMs } = time.at(atMs);
        expect(earliestMs).toBeLessThanOrEqual(atMs + offsetAt(atMs));
        expect(latestMs).toBeGreaterThanOrEqual(atMs + offsetAt(atMs));
      },
    ),
  );
});

describe("the width of the bounds", () => {
  test("is far below the second of a Date header after many answers", () => {
    const time = new ServerTime();
    const atMs = observe(time, many, () => 1_234);
    expect(width(time.at(atMs))).toBeLessThan(100);
  });

  test("is a second plus the round trip after one answer", () => {
    const time = new ServerTime();
    const atMs = observe(time, [{ gapMs: 0, thereMs: 20, backMs: 30 }], () => 0);
    expect(width(time.at(atMs))).toBeCloseTo(SECOND + 50, 0);
  });

  test("is some seconds around our own time before any answer", () => {
    expect(new ServerTime().at(START)).toEqual({ earliestMs: START - 5_000, latestMs: START + 5_000 });
    expect(new ServerTime().at(START, 10)).toEqual({ earliestMs: START - 10, latestMs: START + 10 });
  });

  test("does not change for answers without a Date or with an end before their start", () => {
    const time = new ServerTime();
    time.observe(START, START + 10, null);
    time.observe(START, START - 1, START);
    time.observe(START, START + 10, Number.NaN);
    expect(time.at(START)).toEqual(new ServerTime().at(START));
  });
});

test.each([
  ["ours is set forward", 90_000],
  ["ours is set back", -90_000],
])("discards the old bounds after a clock was set: %s", (_, jumpMs) => {
  const time = new ServerTime();
  const beforeMs = observe(time, many, () => 500);
  const afterMs = observe(time, many.slice(0, 1), () => 500 - jumpMs, beforeMs + jumpMs);
  const { earliestMs, latestMs } = time.at(afterMs);
  expect(earliestMs).toBeLessThanOrEqual(afterMs + 500 - jumpMs);
  expect(latestMs).toBeGreaterThanOrEqual(afterMs + 500 - jumpMs);
  expect(latestMs - earliestMs).toBeLessThan(1_100);
});

describe("timestamps", () => {
  const stampOf = (ms: number) => ({ fromMs: ms, beforeMs: ms + 1 });

  test("give no bound before the first one", () => {
    expect(new ServerTime().earliestStampAt(START)).toBe(Number.NEGATIVE_INFINITY);
  });

  test("give a bound that only earlier events are below, whatever the offset of the server's clock", () => {
    fc.assert(
      fc.property(...WORLD, (offsetMs, exchanges, laterMs) => {
        const time = new ServerTime();
        let nowMs = START;
        for (const { gapMs, thereMs, backMs } of exchanges) {
          const fromMs = nowMs + gapMs;
          nowMs = fromMs + thereMs + backMs;
          time.noteStamp({ fromMs, untilMs: nowMs }, stampOf(fromMs + thereMs + offsetMs));
        }
        expect(time.earliestStampAt(nowMs + laterMs)).toBeLessThanOrEqual(nowMs + laterMs + offsetMs - STAMPS_APART_MS);
      }),
    );
  });

  test("one of them gives a bound, minus the allowed difference of the server's clocks", () => {
    const time = new ServerTime();
    time.noteStamp({ fromMs: START - 700, untilMs: START + 20 }, stampOf(START + 5_000));
    expect(time.earliestStampAt(START + 20)).toBeCloseTo(START + 5_000 - STAMPS_APART_MS, 0);
  });

  test("overrule Date headers that differ by more than a second", () => {
    const [near, far] = [new ServerTime(), new ServerTime()];
    for (const time of [near, far]) time.noteStamp({ fromMs: START - 100, untilMs: START }, stampOf(START - 50));
    const [nearMs, farMs] = [observe(near, many, () => 900), observe(far, many, () => 5_000)];
    expect(near.at(nearMs).earliestMs).toBeGreaterThan(nearMs + 500);
    expect(far.at(farMs).latestMs).toBeLessThan(farMs + 200);
  });

  test("give the time without Date headers", () => {
    const time = new ServerTime();
    time.noteStamp({ fromMs: START - 100, untilMs: START }, stampOf(START + 3_000));
    const { earliestMs, latestMs } = time.at(START);
    expect([earliestMs, latestMs]).toEqual([expect.closeTo(START + 3_000, 0), expect.closeTo(START + 3_101, 0)]);
  });

  test("a clock that was set counts from its second timestamp on, since the first may be a repeated old one", () => {
    const time = new ServerTime();
    const note = (atMs: number, stampMs: number) =>
      time.noteStamp({ fromMs: START + atMs - 100, untilMs: START + atMs }, stampOf(START + stampMs));
    const earliest = () => Math.round((time.earliestStampAt(START) - START) / SECOND);
    note(0, -50);
    for (const [atMs, stampMs] of [
      [1_000, -60_000],
      [2_000, -300_000],
      [3_000, 2_950],
    ] as const) {
      note(atMs, stampMs);
      expect(earliest()).toBe(-0);
    }
    note(4_000, -56_050);
    note(5_000, -55_050);
    expect(earliest()).toBe(-60);
  });
});
