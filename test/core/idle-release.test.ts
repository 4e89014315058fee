import { expect, test } from "vitest";
import { IdleRelease } from "../../src/core/idle-release.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const LINGER_MS = 30_000;

/** An idle object with a finalizer. */
function held() {
  const clock = new VirtualClock();
  const state = { isIdle: true, mayBeHeld: true, fails: 0 };
  const asked: number[] = [];
  const failures: unknown[] = [];
  const hold = {
    get mayBeHeld() {
      return state.mayBeHeld;
    },
    async release(unused: () => boolean) {
      asked.push(clock.monotonic());
      if (state.fails-- > 0) throw new Error("no answer");
      if (unused()) state.mayBeHeld = false;
    },
  };
  const onFailure = (error: unknown) => failures.push(error);
  const release = new IdleRelease({ clock, lingerMs: LINGER_MS, hold, isIdle: () => state.isIdle, onFailure });
  return { clock, state, asked, failures, release };
}

test("releases once, a fixed time after the object became idle, whatever changes are reported meanwhile", async () => {
  const { clock, state, asked, release } = held();
  release.noteChange();
  await clock.advance(LINGER_MS - 1);
  release.noteChange();
  expect(asked).toEqual([]);
  await clock.advance(1);
  expect(state.mayBeHeld).toBe(false);
  release.noteChange();
  await clock.advance(10 * LINGER_MS);
  expect(asked).toHaveLength(1);
});

test("restarts the wait after work", async () => {
  const { clock, state, asked, release } = held();
  release.noteChange();
  await clock.advance(LINGER_MS / 2);
  state.isIdle = false;
  release.noteChange();
  await clock.advance(LINGER_MS);
  expect(asked).toEqual([]);
  state.isIdle = true;
  release.noteChange();
  await clock.advance(LINGER_MS - 1);
  expect(asked).toEqual([]);
  await clock.advance(1);
  expect(state.mayBeHeld).toBe(false);
});

test("reports a failure and retries after the same time", async () => {
  const { clock, state, asked, failures, release } = held();
  state.fails = 2;
  release.noteChange();
  await clock.advance(3 * LINGER_MS);
  expect(failures).toHaveLength(2);
  expect(asked).toHaveLength(3);
  expect(state.mayBeHeld).toBe(false);
});

test("releases nothing after its end", async () => {
  const { clock, asked, release } = held();
  release.noteChange();
  release.end();
  release.noteChange();
  await clock.advance(10 * LINGER_MS);
  expect(asked).toEqual([]);
});
