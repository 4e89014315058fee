import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DueHeap } from "../../src/core/due-heap.ts";

describe("keys with a time each", () => {
  test("come earliest first, and in the order of setting when times are equal", () => {
    const heap = new DueHeap<string>();
    for (const [key, atMs] of [
      ["c", 30],
      ["a", 10],
      ["b1", 20],
      ["b2", 20],
    ] as const)
      heap.set(key, atMs);
    const taken: (string | undefined)[] = [];
    for (let n = 0; n < 5; n += 1) taken.push(heap.take(100)?.key);
    expect(taken).toEqual(["a", "b1", "b2", "c", undefined]);
  });

  test("are not taken before their time, and report that time", () => {
    const heap = new DueHeap<string>();
    heap.set("a", 10);
    expect(heap.take(9)).toBeUndefined();
    expect(heap.nextMs).toBe(10);
    expect(heap.take(12)).toMatchObject({ key: "a", atMs: 10 });
    expect(heap.nextMs).toBeUndefined();
  });

  test("have one time: a later call of set replaces the previous time", () => {
    const heap = new DueHeap<string>();
    heap.set("a", 10);
    heap.set("a", 30);
    heap.set("b", 20);
    expect(heap.size).toBe(2);
    expect(heap.take(100)?.key).toBe("b");
    expect(heap.take(29)).toBeUndefined();
    expect(heap.take(30)?.key).toBe("a");
  });

  test("are gone after remove", () => {
    const heap = new DueHeap<string>();
    heap.set("a", 10);
    heap.set("b", 20);
    heap.remove("a");
    heap.remove("never there");
    expect(heap.nextMs).toBe(20);
    expect(heap.size).toBe(1);
  });

  test("leave few dead entries when their times are replaced often, and keep their order", () => {
    const heap = new DueHeap<number>();
    for (let key = 0; key < 50; key += 1) heap.set(key, 50 - key);
    for (let n = 1; n <= 10_000; n += 1) {
      heap.set(50, 1_000 + n);
      expect(heap.held).toBeLessThan(200);
    }
    expect(heap.size).toBe(51);
    const taken = Array.from({ length: 51 }, () => heap.take(20_000)?.atMs);
    expect(taken).toEqual([...Array.from({ length: 50 }, (_, at) => at + 1), 11_000]);
  });

  test("are taken as from a sorted list, whatever is set and removed meanwhile", () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant("set" as const), key: fc.nat(20), atMs: fc.nat(50) }),
      fc.record({ do: fc.constant("remove" as const), key: fc.nat(20) }),
      fc.record({ do: fc.constant("take" as const), nowMs: fc.nat(50) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const heap = new DueHeap<number>();
        let list: { key: number; atMs: number }[] = [];
        for (const next of steps) {
          if (next.do !== "take") list = list.filter(({ key }) => key !== next.key);
          if (next.do === "remove") heap.remove(next.key);
          else if (next.do === "set") {
            heap.set(next.key, next.atMs);
            list.push({ key: next.key, atMs: next.atMs });
          } else {
            // A stable sort keeps the order of setting for equal times.
            const first = [...list].sort((a, b) => a.atMs - b.atMs)[0];
            const due = first && first.atMs <= next.nowMs ? first : undefined;
            list = list.filter((entry) => entry !== due);
            expect(heap.take(next.nowMs)?.key).toBe(due?.key);
          }
          expect(heap.size).toBe(list.length);
        }
      }),
    );
  });
});
