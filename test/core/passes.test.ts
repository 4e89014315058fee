import { describe, expect, test } from "vitest";
import { Passes } from "../../src/core/passes.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const RETRY_MS = 5_000;
const MIN_WAKE_MS = 100;

/** Passes that count their runs. A test can delay them or make them fail. */
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

/** A promise that the test resolves. */
const held = () => Promise.withResolvers<void>();

describe("changes", () => {
  test("run nothing before the start, however often a pass is requested", async () => {
    const { clock, passes, state, start } = bench();
    passes.poke();
    passes.wakeAfter(1);
    await clock.advance(60_000);
    expect(state.ran).toBe(0);
    start();
    await clock.settle();
    expect(state.ran).toBe(1);
  });

  test("lead to one pass when they come in the same turn", async () => {
    const { clock, passes, state, start } = bench();
    start();
    for (let n = 0; n < 10; n += 1) passes.poke();
    await clock.settle();
    expect(state.ran).toBe(1);
  });

  test("lead to one more pass after the rest when they come during it", async () => {
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

  test("lead to a pass at once after a rest", async () => {
    const { clock, passes, state, start } = bench({ restMs: 20 });
    start();
    await clock.advance(1_000);
    passes.poke();
    await clock.settle();
    expect(state.ran).toBe(2);
  });

  test("are not waited for at the end, even during a rest", async () => {
    const { clock, ending, passes, start } = bench({ restMs: 20 });
    start();
    await clock.settle();
    ending.abort();
    await passes.ended();
    expect(clock.pendingTimers).toBe(0);
  });

  test("lead to one more pass when they come during a pass", async () => {
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

describe("wake-up times", () => {
  test("only the earliest counts, in whatever order they are set", async () => {
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
    // The others had the same reason: work that still waits sets its time again during the pass.
    await clock.advance(10_000);
    expect(state.ran).toBe(2);
  });

  test("the next one counts again after a wake-up", async () => {
    const { clock, passes, state, start } = bench();
    start();
    await clock.settle();
    passes.wakeAfter(1_000);
    await clock.advance(1_000);
    passes.wakeAfter(4_000);
    await clock.advance(4_000);
    expect(state.ran).toBe(3);
  });

  test("a past time waits the shortest delay, so there is no hot loop", async () => {
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
  test("reports a failed pass and retries it after a delay, until it succeeds", async () => {
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

  test("does not lose a change during a pass that fails", async () => {
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
  test("comes after the running pass, and no pass starts any more", async () => {
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

  test("comes at once for passes that never started", async () => {
    await bench().passes.ended();
  });
});
