import { describe, expect, test } from "vitest";
import { unended, withoutEnd } from "../../src/core/text.ts";

describe("a text without its end", () => {
  test.each([
    ["", ""],
    ["/", ""],
    ["///", ""],
    ["/a", "/a"],
    ["/a//b//", "/a//b"],
  ])("%j has no slash at its end: %j", (text, without) => {
    expect(withoutEnd(text, (character) => character === "/")).toBe(without);
  });

  test.each([
    ["no room. ", "no room"],
    ["no room ...\n", "no room"],
    ["1.5 cores", "1.5 cores"],
    [" . ", ""],
    ["", ""],
  ])("%j goes on after %j", (words, without) => {
    expect(unended(words)).toBe(without);
  });

  // Minutes, if each of them were a beginning.
  test("a megabyte of what may end a text, and does not, takes no time to speak of", () => {
    const words = `${".".repeat(1_000_000)}x`;
    expect(unended(words)).toBe(words);
  });
});
