import { describe, expect, test } from "vitest";
import { Slots } from "../../src/core/slots.ts";

/** Acts that end on command. `begun` has their names in order of their start. */
function acts(slots: Slots) {
  const begun: number[] = [];
  const ends = new Map<number, PromiseWithResolvers<void>>();
  const run = (name: number) =>
    slots.run(async () => {
      begun.push(name);
      const end = Promise.withResolvers<void>();
      ends.set(name, end);
      await end.promise;
      return name;
    });
  return { begun, run, end: (name: number) => ends.get(name)?.resolve() };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("slots", () => {
  test("are given at once while some are free, then in order", async () => {
    const slots = new Slots(2);
    const { begun, run, end } = acts(slots);
    const all = [1, 2, 3, 4, 5].map(run);
    expect(begun).toEqual([1, 2]);
    expect(slots.waiting).toBe(3);
    end(2);
    await settle();
    expect(begun).toEqual([1, 2, 3]);
    for (const name of [1, 3, 4, 5]) {
      end(name);
      await settle();
    }
    expect(await Promise.all(all)).toEqual([1, 2, 3, 4, 5]);
    expect([slots.used, slots.waiting]).toEqual([0, 0]);
  });

  test("go to the first waiter when they are free again, not to a newcomer", async () => {
    const slots = new Slots(1);
    const { begun, run, end } = acts(slots);
    const first = run(1);
    void run(2);
    end(1);
    void first.then(() => run(3));
    await settle();
    expect(begun).toEqual([1, 2]);
    end(2);
    await settle();
    expect(begun).toEqual([1, 2, 3]);
  });

  test("are given back by an act that fails", async () => {
    const slots = new Slots(1);
    await expect(slots.run(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
    await expect(slots.run(async () => "next")).resolves.toBe("next");
  });

  test("serve a thousand waiters in order", async () => {
    const slots = new Slots(3);
    const order: number[] = [];
    const act = (name: number) =>
      slots.run(async () => {
        await settle();
        order.push(name);
      });
    const names = Array.from({ length: 1_000 }, (_, n) => n);
    await Promise.all(names.map(act));
    expect(order).toEqual(names);
  });
});
