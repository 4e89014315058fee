import { expect, test } from "vitest";
import { errorText } from "../../src/core/errors.ts";

test("puts an error and its causes on one line, without repeating a cause", () => {
  const cause = new Error("session expired,\n  log in again\n");
  expect(errorText(new Error("no credentials", { cause }))).toBe("no credentials: session expired, log in again");
  // An error whose message repeats its cause.
  expect(errorText(new Error(`no credentials: ${errorText(cause)}`, { cause }))).toBe(
    "no credentials: session expired, log in again",
  );
  expect(errorText(new Error("", { cause: "x" }))).toBe("Error: x");
});
