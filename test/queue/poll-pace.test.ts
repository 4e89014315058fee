import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { PollPace } from "../../src/queue/poll-pace.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const MINUTE_MS = 60_000;
const { idleAfterMs, pollIdleGapMs, statsIdleMs, statsPolledMs, idleMaxMs, hintedIdleMs, pollBlockMs } = DEFAULT_TIMING;

/** A pace without jitter, in a group that wants `intervalMs` between two calls. */
function make(intervalMs = 0) {
  const clock = new VirtualClock();
  const group = { intervalMs };
  const pace = new PollPace({ clock, random: () => 0.5, timing: DEFAULT_TIMING, intervalMs: () => group.intervalMs });
  const signal = new AbortController();
  /** The pause after an empty poll, if nothing wakes it. */
  const pauseMs = async (tookMs = 0) => {
    const fromMs = clock.monotonic();
    let endedMs: number | undefined;
    const rest = pace.restAfterPoll(signal.signal, tookMs).then(() => {
      endedMs = clock.monotonic();
    });
    await clock.advanceUntil(() => endedMs !== undefined, 10 * MINUTE_MS, 1_000);
    await rest;
    return (endedMs ?? 0) - fromMs;
  };
  return { clock, pace, group, signal, pauseMs };
}

describe("polls of an empty queue", () => {
  test("have no pause soon after work was seen", async () => {
    const { clock, pace, pauseMs } = make(MINUTE_MS);
    pace.noteWork();
    await clock.advance(idleAfterMs);
    expect(await pauseMs()).toBe(0);
  });

  test("have no pause after the start if few share the budget", async () => {
    const { clock, pauseMs } = make(pollIdleGapMs);
    await clock.advance(idleAfterMs);
    expect(await pauseMs()).toBe(0);
  });

  test("keep a large group's interval from the start, until work is seen", async () => {
    const { pace, pauseMs } = make(MINUTE_MS);
    expect(await pauseMs()).toBe(MINUTE_MS);
    pace.noteWork();
    expect(await pauseMs()).toBe(0);
  });

  test("keep the shortest pause if the budget has room", async () => {
    const { clock, pauseMs } = make(100);
    await clock.advance(600 * MINUTE_MS);
    expect(await pauseMs()).toBe(pollIdleGapMs);
  });

  test("count the time that a poll waited as part of the pause", async () => {
    const { clock, group, pauseMs } = make(100);
    await clock.advance(600 * MINUTE_MS);
    expect(await pauseMs(400)).toBe(pollIdleGapMs - 400);
    expect(await pauseMs(pollIdleGapMs)).toBe(0);
    expect(await pauseMs(5_000)).toBe(0);
    group.intervalMs = 10_000;
    expect(await pauseMs(1_000)).toBe(9_000);
  });

  test("slow down to the group's interval", async () => {
    const { clock, pauseMs } = make(10_000);
    await clock.advance(5 * MINUTE_MS);
    expect(await pauseMs()).toBe(10_000);
  });

  test("pause for at most a third of the time for which the queue has been empty", async () => {
    const { clock, pace, pauseMs } = make(MINUTE_MS);
    pace.noteWork();
    await clock.advance(45_000);
    expect(await pauseMs()).toBe(15_000);
  });

  test("never exceed the bound, however large the group is", async () => {
    const { clock, pauseMs } = make(100 * MINUTE_MS);
    await clock.advance(600 * MINUTE_MS);
    expect(await pauseMs()).toBe(idleMaxMs);
  });

  test("continue at once at the first sign of work, and then without a pause", async () => {
    const { clock, pace, signal, pauseMs } = make(MINUTE_MS);
    await clock.advance(60 * MINUTE_MS);
    let ended = false;
    void pace.restAfterPoll(signal.signal).then(() => {
      ended = true;
    });
    await clock.advance(20_000);
    expect(ended).toBe(false);
    pace.noteWork();
    await clock.settle();
    expect(ended).toBe(true);
    expect(clock.pendingTimers).toBe(0);
    expect(await pauseMs()).toBe(0);
  });

  test("end when their loop ends", async () => {
    const { clock, pace, signal } = make(MINUTE_MS);
    await clock.advance(60 * MINUTE_MS);
    const rest = pace.restAfterPoll(signal.signal);
    signal.abort();
    await rest;
    expect(clock.pendingTimers).toBe(0);
  });

  test("of many Environments do not run in step", async () => {
    const clock = new VirtualClock();
    const randoms = [0, 0.5, 0.999];
    const ends: number[] = [];
    const paces = randoms.map(
      (value) => new PollPace({ clock, random: () => value, timing: DEFAULT_TIMING, intervalMs: () => 60_000 }),
    );
    await clock.advance(60 * MINUTE_MS);
    const fromMs = clock.monotonic();
    for (const pace of paces) {
      void pace.restAfterPoll(new AbortController().signal).then(() => ends.push(clock.monotonic() - fromMs));
    }
    await clock.advance(2 * MINUTE_MS);
    expect(ends[0]).toBe(54_000);
    expect(ends[1]).toBe(60_000);
    expect(ends[2]).toBeGreaterThan(65_000);
  });
});

describe("statistics that show no work", () => {
  test("are the only sign of work without polls, and keep that pace", async () => {
    const { clock, pace, group } = make(0);
    await clock.advance(60 * MINUTE_MS);
    expect(pace.statsGapMs()).toBe(statsIdleMs);
    group.intervalMs = 20_000;
    expect(pace.statsGapMs()).toBe(20_000);
    group.intervalMs = 100 * MINUTE_MS;
    expect(pace.statsGapMs()).toBe(idleMaxMs);
  });

  test("are rare while polls show the same, and rarer than the polls", async () => {
    const { clock, pace, group, pauseMs } = make(0);
    await clock.advance(60 * MINUTE_MS);
    await pauseMs();
    expect(pace.statsGapMs()).toBe(statsPolledMs);
    group.intervalMs = 30_000;
    expect(pace.statsGapMs()).toBe(300_000);
  });

  test("are the only sign of work again after polls end", async () => {
    const { clock, pace, pauseMs } = make(0);
    await clock.advance(60 * MINUTE_MS);
    expect(pace.pollsEnd()).toBe(false);
    await pauseMs();
    expect(pace.pollsEnd()).toBe(true);
    expect(pace.pollsEnd()).toBe(false);
    expect(pace.statsGapMs()).toBe(statsIdleMs);
  });

  test("keep their pace soon after work was seen, also alongside polls", async () => {
    const { clock, pace, pauseMs } = make(0);
    await pauseMs();
    await clock.advance(idleAfterMs);
    expect(pace.statsGapMs()).toBe(statsIdleMs);
  });
});

describe("where webhooks announce work", () => {
  /** A pace whose trust in webhooks the test controls, and the length of its pauses. */
  function hinted(intervalMs: number) {
    const clock = new VirtualClock();
    const trust = { isTrusted: true };
    const queue = { looks: () => {}, sees: () => {}, found: () => {}, over: () => {}, leave: () => {} };
    const pace = new PollPace({
      clock,
      random: () => 0.5,
      timing: DEFAULT_TIMING,
      intervalMs: () => intervalMs,
      hinted: {
        ...queue,
        get isTrusted() {
          return trust.isTrusted;
        },
      },
    });
    const pauseMs = async (act: () => void = () => {}) => {
      const fromMs = clock.monotonic();
      let endedMs: number | undefined;
      const rest = pace.restAfterPoll(new AbortController().signal).then(() => {
        endedMs = clock.monotonic();
      });
      await clock.advance(1_000);
      act();
      await clock.advanceUntil(() => endedMs !== undefined, 10 * MINUTE_MS, 1_000);
      await rest;
      return (endedMs ?? 0) - fromMs;
    };
    return { clock, pace, trust, pauseMs };
  }

  test.each([0, 10_000, 600_000])("polls an idle queue rarely where the group wants %i ms", async (intervalMs) => {
    const { clock, pace, pauseMs } = hinted(intervalMs);
    pace.noteWork();
    await clock.advance(60 * MINUTE_MS);
    expect(await pauseMs()).toBe(hintedIdleMs);
  });

  test("pauses for at most a third of the time for which the queue has been empty", async () => {
    const { clock, pace, pauseMs } = hinted(0);
    pace.noteWork();
    await clock.advance(45_000);
    expect(await pauseMs()).toBe(15_000);
  });

  test("returns to the usual pauses when hints are no longer trusted", async () => {
    const { clock, pace, trust, pauseMs } = hinted(10_000);
    pace.noteWork();
    await clock.advance(60 * MINUTE_MS);
    trust.isTrusted = false;
    expect(await pauseMs()).toBe(10_000);
  });

  test("ends a pause at a hint, and then pauses as long as usual", async () => {
    const { clock, pace, pauseMs } = hinted(0);
    pace.noteWork();
    await clock.advance(60 * MINUTE_MS);
    expect(await pauseMs(() => pace.look())).toBe(1_000);
    expect(await pauseMs()).toBe(hintedIdleMs);
  });

  test("skips one pause after a hint during a poll", async () => {
    const { clock, pace, pauseMs } = hinted(0);
    pace.noteWork();
    await clock.advance(60 * MINUTE_MS);
    await pauseMs();
    pace.look();
    expect(await pauseMs()).toBe(0);
    expect(await pauseMs()).toBe(hintedIdleMs);
  });

  test("reads statistics as rarely without polls, and no more rarely than usual alongside polls", async () => {
    const { clock, pace, pauseMs } = hinted(0);
    pace.noteWork();
    await clock.advance(60 * MINUTE_MS);
    expect(pace.statsGapMs()).toBe(hintedIdleMs);
    await pauseMs();
    expect(pace.statsGapMs()).toBe(10 * idleMaxMs);
  });
});

test("polls an idle queue almost without a pause if alone in the group", async () => {
  const { clock, pauseMs } = make(100);
  await clock.advance(60 * MINUTE_MS);
  expect(await pauseMs(pollBlockMs)).toBe(1);
});
