import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ServerTime, STAMPS_APART_MS } from "../../src/core/server-time.ts";

const SECOND = 1_000;
const HOUR = 3_600_000;
/** Some instant on our clock. */
const START = Date.UTC(2030, 0, 1);

/** One answered request: its Date header is cut to seconds, written somewhere between sending and answer. */
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

/** What the two clocks are apart, what is seen of it, and how long ago that was. */
const WORLD = [
  fc.integer({ min: -40 * HOUR, max: 40 * HOUR }),
  fc.array(exchange, { minLength: 1, maxLength: 50 }),
  fc.integer({ min: 0, max: HOUR }),
] as const;

/** Lets `time` see the exchanges; returns when the last one ended, on our clock. `offsetAt` is server minus ours. */
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

test("the server's true time is never outside of what is said, whatever the offset and the latencies", () => {
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

test("nor when one of the clocks runs wrong, as far as clocks are let to", () => {
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

describe("how much is known", () => {
  test("many answers narrow it far below the second that a Date header carries", () => {
    const time = new ServerTime();
    const atMs = observe(time, many, () => 1_234);
    expect(width(time.at(atMs))).toBeLessThan(100);
  });

  test("one answer gives a second and the round trip", () => {
    const time = new ServerTime();
    const atMs = observe(time, [{ gapMs: 0, thereMs: 20, backMs: 30 }], () => 0);
    expect(width(time.at(atMs))).toBeCloseTo(SECOND + 50, 0);
  });

  test("before any answer it is our own time, give or take some seconds", () => {
    expect(new ServerTime().at(START)).toEqual({ earliestMs: START - 5_000, latestMs: START + 5_000 });
    expect(new ServerTime().at(START, 10)).toEqual({ earliestMs: START - 10, latestMs: START + 10 });
  });

  test("answers without a Date say nothing, nor do those that came before they were asked for", () => {
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
])("after a clock was set, the first answer starts anew: %s", (_, jumpMs) => {
  const time = new ServerTime();
  const beforeMs = observe(time, many, () => 500);
  const afterMs = observe(time, many.slice(0, 1), () => 500 - jumpMs, beforeMs + jumpMs);
  const { earliestMs, latestMs } = time.at(afterMs);
  expect(earliestMs).toBeLessThanOrEqual(afterMs + 500 - jumpMs);
  expect(latestMs).toBeGreaterThanOrEqual(afterMs + 500 - jumpMs);
  expect(latestMs - earliestMs).toBeLessThan(1_100);
});

describe("stamps", () => {
  const stampOf = (ms: number) => ({ fromMs: ms, beforeMs: ms + 1 });

  test("nothing is earlier than the first of them by what was known before it", () => {
    expect(new ServerTime().earliestStampAt(START)).toBe(Number.NEGATIVE_INFINITY);
  });

  test("what is stamped earlier than said was earlier, whatever the offset of the stamps' clock", () => {
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

  test("one tells what is earlier, but for what clocks of one server may lie apart", () => {
    const time = new ServerTime();
    time.noteStamp({ fromMs: START - 700, untilMs: START + 20 }, stampOf(START + 5_000));
    expect(time.earliestStampAt(START + 20)).toBeCloseTo(START + 5_000 - STAMPS_APART_MS, 0);
  });

  test("Date headers are believed as long as the stamps can agree with them, to a second", () => {
    const [near, far] = [new ServerTime(), new ServerTime()];
    for (const time of [near, far]) time.noteStamp({ fromMs: START - 100, untilMs: START }, stampOf(START - 50));
    const [nearMs, farMs] = [observe(near, many, () => 900), observe(far, many, () => 5_000)];
    expect(near.at(nearMs).earliestMs).toBeGreaterThan(nearMs + 500);
    expect(far.at(farMs).latestMs).toBeLessThan(farMs + 200);
  });

  test("without Date headers the stamps tell the time", () => {
    const time = new ServerTime();
    time.noteStamp({ fromMs: START - 100, untilMs: START }, stampOf(START + 3_000));
    const { earliestMs, latestMs } = time.at(START);
    expect([earliestMs, latestMs]).toEqual([expect.closeTo(START + 3_000, 0), expect.closeTo(START + 3_101, 0)]);
  });

  test("a clock that was set is believed from its second stamp on: the first may be an old one that was kept", () => {
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
