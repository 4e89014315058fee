import fc from "fast-check";
import { expect, test } from "vitest";
import { count, cut, elapsed, pad, seconds } from "../../demo/text.ts";
import { oneLine } from "../../demo/track.ts";

test.each([
  [0, "0.00s"],
  [34, "0.03s"],
  [9_994, "9.99s"],
  [9_996, "10.0s"],
  [12_340, "12.3s"],
  [99_940, "99.9s"],
  [99_960, "100s"],
  [3_600_000, "3600s"],
])("%d ms are shown as %s", (ms, text) => {
  expect(seconds(ms)).toBe(text);
});

test.each([
  [-5, "0:00"],
  [59_999, "0:59"],
  [61_000, "1:01"],
  [3_599_999, "59:59"],
  [3_723_000, "1:02:03"],
])("%d ms are shown as %s on the clock", (ms, text) => {
  expect(elapsed(ms)).toBe(text);
});

test("a text is cut to its columns with a mark, and padded on either side", () => {
  expect([cut("berth", 5), cut("berth", 4), cut("berth", 1), cut("berth", 0)]).toEqual(["berth", "ber~", "~", ""]);
  expect([pad("ab", 4), pad("ab", 4, "right"), pad("abcde", 4)]).toEqual(["ab  ", "  ab", "abcde"]);
});

test("a count of one is singular", () => {
  expect([count(0, "session"), count(1, "session"), count(2, "session")]).toEqual([
    "0 sessions",
    "1 session",
    "2 sessions",
  ]);
});

test("a tool's output becomes one line that does not move the cursor", () => {
  expect(oneLine("  a\tb\r\nc\u001b[31m d\u0007  ")).toBe("a b c [31m d");
  expect(oneLine("grüße → ✓")).toBe("grüße → ✓");
  expect(oneLine("日本 🎉 e\u0301")).toBe("?? ? e?");
  expect(oneLine("е\u0483")).toBe("е?");
  expect(oneLine("x".repeat(5_000))).toHaveLength(200);
  expect(oneLine(`${"x".repeat(199)} y`)).toHaveLength(199);
});

test("no text keeps control, wide or combining characters", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
      const line = oneLine(text);
      expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{M}\p{Cs}]/u);
      expect([...line].length).toBe(line.length);
      expect(line).toBe(line.trim());
    }),
  );
});
