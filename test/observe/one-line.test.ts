import { expect, test } from "vitest";
import { oneLine } from "../../src/observe/terminal.ts";

test.each([
  ["ended\n-> all is well", "ended -> all is well"],
  ["\u001b[2J\u001b]52;c;bWlz\u0007gone", "[2J ]52;c;bWlz gone"],
  ["a\u009b31mb", "a 31mb"],
  ["a\u202eb\u2028c", "a b c"],
  ["exit code 137: größer als 64Mi", "exit code 137: größer als 64Mi"],
])("%j is one line that steers nothing", (text, shown) => {
  expect(oneLine(text)).toBe(shown);
});
