import { describe, expect, test } from "vitest";
import { unended, withoutEnd } from "../../src/core/text.ts";

describe("the end of a text", () => {
  test.each([
    ["", ""],
    ["/", ""],
    ["///", ""],
    ["/a", "/a"],
    ["/a//b//", "/a//b"],
  ])("%j without slashes at its end is %j", (text, without) => {
    expect(withoutEnd(text, (character) => character === "/")).toBe(without);
  });

  test.each([
    ["no room. ", "no room"],
    ["no room ...\n", "no room"],
    ["1.5 cores", "1.5 cores"],
    [" . ", ""],
    ["", ""],
  ])("%j without a full stop at its end is %j", (words, without) => {
    expect(unended(words)).toBe(without);
  });

  // A regular expression that restarts at each dot would take minutes.
  test("a megabyte of dots that is not at the end takes little time", () => {
    const words = `${".".repeat(1_000_000)}x`;
    expect(unended(words)).toBe(words);
  });
});
