import { describe, expect, test } from "vitest";
import { Passes } from "../../src/core/passes.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const RETRY_MS = 5_000;
const MIN_WAKE_MS = 100;

/** Passes that count, and whose every run a test may hold up or break. */
function bench({ restMs = 0 } = {}) {
  const clock = new VirtualClock();
  const ending = new AbortController();
  const state = { ran: 0, atOnce: 0, most: 0, failures: [] as unknown[], hold: Promise.resolve(), breaks: 0 };
  const passes = new Passes({
    clock,
    retryMs: RETRY_MS,
    minWakeMs: MIN_WAKE_MS,
    restMs,
    failed: (error) => state.failures.push(error),
    async pass() {
      state.ran += 1;
      state.atOnce += 1;
      state.most = Math.max(state.most, state.atOnce);
      await state.hold;
      state.atOnce -= 1;
      if (state.breaks > 0) {
        state.breaks -= 1;
        throw new Error("no answer");
      }
    },
  });
  return { clock, ending, state, passes, start: () => passes.start(ending.signal) };
}

/** A promise that a test resolves. */
const held = () => Promise.withResolvers<void>();

describe("changes", () => {
  test("nothing runs before the start, however often it is asked for", async () => {
    const { clock, passes, state, start } = bench();
    passes.poke();
    passes.wakeAfter(1);
    await clock.advance(60_000);
    expect(state.ran).toBe(0);
    start();
    await clock.settle();
    expect(state.ran).toBe(1);
  });

  test("many of one moment make one pass", async () => {
    const { clock, passes, state, start } = bench();
    start();
    for (let n = 0; n < 10; n += 1) passes.poke();
    await clock.settle();
    expect(state.ran).toBe(1);
  });

  test("those that come while it rests after a pass make one more when the rest is over", async () => {
    const { clock, passes, state, start } = bench({ restMs: 20 });
    start();
    await clock.settle();
    expect(state.ran).toBe(1);
    for (let n = 0; n < 10; n += 1) {
      passes.poke();
      await clock.advance(1);
    }
    expect(state.ran).toBe(1);
    await clock.advance(10);
    expect(state.ran).toBe(2);
    await clock.advance(1_000);
    expect(state.ran).toBe(2);
  });

  test("the first one after a rest is looked at at once", async () => {
    const { clock, passes, state, start } = bench({ restMs: 20 });
    start();
    await clock.advance(1_000);
    passes.poke();
    await clock.settle();
    expect(state.ran).toBe(2);
  });

  test("an end does not wait for the rest", async () => {
    const { clock, ending, passes, start } = bench({ restMs: 20 });
    start();
    await clock.settle();
    ending.abort();
    await passes.ended();
    expect(clock.pendingTimers).toBe(0);
  });

  test("many while a pass is under way make one more, after it", async () => {
    const { clock, passes, state, start } = bench();
    const first = held();
    state.hold = first.promise;
    start();
    await clock.settle();
    for (let n = 0; n < 10; n += 1) passes.poke();
    await clock.settle();
    expect(state.ran).toBe(1);
    first.resolve();
    await clock.settle();
    expect(state.ran).toBe(2);
    expect(state.most).toBe(1);
  });
});

describe("the clock", () => {
  test("of several times to wake the earliest counts, whatever order they come in", async () => {
    const { clock, passes, state, start } = bench();
    start();
    await clock.settle();
    passes.wakeAfter(3_000);
    passes.wakeAfter(1_000);
    passes.wakeAfter(2_000);
    await clock.advance(999);
    expect(state.ran).toBe(1);
    await clock.advance(1);
    expect(state.ran).toBe(2);
    // The others were for the same reason: whoever still waits for them asks again in the pass.
    await clock.advance(10_000);
    expect(state.ran).toBe(2);
  });

  test("after a wake the next one counts anew", async () => {
    const { clock, passes, state, start } = bench();
    start();
    await clock.settle();
    passes.wakeAfter(1_000);
    await clock.advance(1_000);
    passes.wakeAfter(4_000);
    await clock.advance(4_000);
    expect(state.ran).toBe(3);
  });

  test("a time that is past waits the shortest while: no hot loop", async () => {
    const { clock, passes, state, start } = bench();
    start();
    await clock.settle();
    passes.wakeAfter(-50_000);
    await clock.advance(MIN_WAKE_MS - 1);
    expect(state.ran).toBe(1);
    await clock.advance(1);
    expect(state.ran).toBe(2);
  });
});

describe("failures", () => {
  test("a pass that failed is told of and tried again after a while, until it works", async () => {
    const { clock, state, start } = bench();
    state.breaks = 2;
    start();
    await clock.settle();
    expect(state.failures).toEqual([new Error("no answer")]);
    await clock.advance(RETRY_MS - 1);
    expect(state.ran).toBe(1);
    await clock.advance(1);
    expect(state.failures).toHaveLength(2);
    await clock.advance(RETRY_MS);
    expect(state.ran).toBe(3);
    await clock.advance(60_000);
    expect([state.ran, state.failures.length]).toEqual([3, 2]);
  });

  test("a change during a pass that fails is not lost", async () => {
    const { clock, passes, state, start } = bench();
    const first = held();
    state.hold = first.promise;
    state.breaks = 1;
    start();
    await clock.settle();
    passes.poke();
    first.resolve();
    await clock.settle();
    expect(state.ran).toBe(2);
  });
});

describe("the end", () => {
  test("resolves when the pass under way is over, and none begins any more", async () => {
    const { clock, passes, state, ending, start } = bench();
    const first = held();
    state.hold = first.promise;
    start();
    await clock.settle();
    passes.poke();
    ending.abort();
    let over = false;
    const ended = passes.ended().then(() => {
      over = true;
    });
    await clock.settle();
    expect(over).toBe(false);
    first.resolve();
    await ended;
    passes.poke();
    passes.wakeAfter(1);
    await clock.advance(60_000);
    expect(state.ran).toBe(1);
    expect(passes.active).toBe(false);
  });

  test("leaves no timer behind", async () => {
    const { clock, passes, ending, start } = bench();
    start();
    await clock.settle();
    passes.wakeAfter(1_000);
    expect(clock.pendingTimers).toBe(1);
    ending.abort();
    expect(clock.pendingTimers).toBe(0);
  });

  test("of passes that never started comes at once", async () => {
    await bench().passes.ended();
  });
});
