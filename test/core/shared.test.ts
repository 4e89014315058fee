import { expect, test } from "vitest";
import { Shared } from "../../src/core/shared.ts";

test("returns one object for values of the same JSON", () => {
  const shared = new Shared();
  const first = shared.value({ a: [1, "x"] });
  expect(shared.value({ a: [1, "x"] })).toBe(first);
  expect(shared.value({ a: [1, "y"] })).toEqual({ a: [1, "y"] });
  expect(shared.value(undefined)).toBeUndefined();
  expect(shared.value('{"a":[1,"x"]}')).toBe('{"a":[1,"x"]}');
});

test("keeps texts apart from values with the same JSON text", () => {
  const shared = new Shared();
  shared.value(["a"]);
  expect(shared.text('["a"]')).toBe('["a"]');
  expect(shared.text(undefined)).toBeUndefined();
  expect(shared.text("")).toBe("");
});

test("stays small with many or large values, and returns each unchanged", () => {
  const shared = new Shared();
  const kept = shared.value({ n: 0 });
  for (let n = 1; n <= 10_000; n += 1) expect(shared.value({ n })).toEqual({ n });
  expect(shared.value({ n: 0 })).not.toBe(kept);
  const large = { text: "x".repeat(1_000) };
  expect(shared.value(large)).toBe(large);
  expect(shared.value({ ...large })).not.toBe(large);
});
