import { expect, test } from "vitest";
import { Notifier } from "../../src/core/notifier.ts";

/** Whether a promise has settled once everything that waits for nothing has run. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const none = Symbol("none");
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(none)])) !== none;
}

test("a change wakes all who wait at that moment, and nobody who waits later", async () => {
  const notifier = new Notifier();
  const [one, other] = [notifier.wait(), notifier.wait()];
  notifier.notify();
  await Promise.all([one, other]);
  expect(await isSettled(notifier.wait())).toBe(false);
});

test("a wait ends when its signal aborts, at once when it has", async () => {
  const notifier = new Notifier();
  const stop = new AbortController();
  const wait = notifier.wait(stop.signal);
  expect(await isSettled(wait)).toBe(false);
  stop.abort();
  await wait;
  await notifier.wait(stop.signal);
});

test("until asks at once, and again after every change", async () => {
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

test("until ends with its signal, whatever is not so", async () => {
  const notifier = new Notifier();
  const stop = new AbortController();
  const done = notifier.until(() => false, stop.signal);
  expect(await isSettled(done)).toBe(false);
  stop.abort();
  await done;
});
