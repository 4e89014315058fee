import { describe, expect, test } from "vitest";
import { chooseSeed, readFaultSettings } from "./settings.ts";

describe("the seed of a run", () => {
  test("is the requested one", () => {
    expect(chooseSeed("42", false)).toBe(42);
    expect(chooseSeed("0", true)).toBe(0);
  });

  test("is the same in every run of CI, and in files that run without run.ts", () => {
    expect(chooseSeed(undefined, true)).toBe(readFaultSettings({}).seed);
  });

  test("is otherwise a random number that can be requested again", () => {
    const seed = chooseSeed(undefined, false);
    expect(chooseSeed(String(seed), false)).toBe(seed);
  });

  test.each(["", "-1", "1.5", "x", "2147483648"])("%j is refused, with a hint", (asked) => {
    expect(() => chooseSeed(asked, false)).toThrow(/whole number from 0 to 2147483647/);
  });
});
