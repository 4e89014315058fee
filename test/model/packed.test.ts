import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NumberList, StateStore } from "../../model/packed.ts";

const WIDTH = 5;

describe("the store of states", () => {
  test("keeps each state once, in the order of insertion", () => {
    const state = fc.uint8Array({ minLength: WIDTH, maxLength: WIDTH, max: 3 });
    fc.assert(
      fc.property(fc.array(state, { maxLength: 3_000 }), (states) => {
        const store = new StateStore(WIDTH);
        const seen = new Map<string, number>();
        for (const one of states) {
          const key = one.join();
          if (!seen.has(key)) seen.set(key, seen.size);
          expect(store.add(one)).toBe(seen.get(key));
        }
        expect(store.count).toBe(seen.size);
        for (const [key, index] of seen) expect(store.at(index).join()).toBe(key);
      }),
      { numRuns: 20 },
    );
  });

  test("grows", () => {
    const store = new StateStore(4);
    for (let n = 0; n < 50_000; n += 1) expect(store.add(bytesOf(n))).toBe(n);
    for (let n = 0; n < 50_000; n += 997) expect(store.add(bytesOf(n))).toBe(n);
    expect(store.count).toBe(50_000);
  });
});

test("a list of numbers grows", () => {
  const list = new NumberList();
  for (let n = 0; n < 10_000; n += 1) list.push(-n);
  expect(list.length).toBe(10_000);
  expect(list.at(9_999)).toBe(-9_999);
});

function bytesOf(n: number): Uint8Array {
  return new Uint8Array([n & 255, (n >> 8) & 255, (n >> 16) & 255, 0]);
}
