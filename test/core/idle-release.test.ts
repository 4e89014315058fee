import { expect, test } from "vitest";
import { IdleRelease } from "../../src/core/idle-release.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const LINGER_MS = 30_000;

/** An object that carries a finalizer, and is idle. */
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

test("lets go once, so long after it was first seen idle, however often it is told of changes", async () => {
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

test("waits anew after work", async () => {
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

test("tells of a failure, and tries again after as long", async () => {
  const { clock, state, asked, failures, release } = held();
  state.fails = 2;
  release.noteChange();
  await clock.advance(3 * LINGER_MS);
  expect(failures).toHaveLength(2);
  expect(asked).toHaveLength(3);
  expect(state.mayBeHeld).toBe(false);
});

test("lets go of nothing once it was ended", async () => {
  const { clock, asked, release } = held();
  release.noteChange();
  release.end();
  release.noteChange();
  await clock.advance(10 * LINGER_MS);
  expect(asked).toEqual([]);
});
