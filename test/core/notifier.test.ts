import { expect, test } from "vitest";
import { Notifier } from "../../src/core/notifier.ts";

/** Whether a promise has settled once all work that is ready has run. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const none = Symbol("none");
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(none)])) !== none;
}

test("wakes all current waiters, and no later ones", async () => {
  const notifier = new Notifier();
  const [one, other] = [notifier.wait(), notifier.wait()];
  notifier.notify();
  await Promise.all([one, other]);
  expect(await isSettled(notifier.wait())).toBe(false);
});

test("ends a wait when its signal aborts, at once if it has already aborted", async () => {
  const notifier = new Notifier();
  const stop = new AbortController();
  const wait = notifier.wait(stop.signal);
  expect(await isSettled(wait)).toBe(false);
  stop.abort();
  await wait;
  await notifier.wait(stop.signal);
});

test("until checks its condition at once and after every change", async () => {
  const notifier = new Notifier();
  const { signal } = new AbortController();
  let left = 2;
  await notifier.until(() => true, signal);
  const done = notifier.until(() => left === 0, signal);
  left = 1;
  notifier.notify();
  expect(await isSettled(done)).toBe(false);
  left = 0;
  expect(await isSettled(done)).toBe(false);
  notifier.notify();
  await done;
});

test("until ends with its signal, even if its condition is false", async () => {
  const notifier = new Notifier();
  const stop = new AbortController();
  const done = notifier.until(() => false, stop.signal);
  expect(await isSettled(done)).toBe(false);
  stop.abort();
  await done;
});
