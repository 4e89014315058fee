import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { oneLine } from "../../src/observe/terminal.ts";
import { berthVersion } from "../../src/settings/version.ts";
import { ROOT } from "../project/lint-gate.ts";

test.each([
  ["ended\n-> all is well", "ended -> all is well"],
  ["\u001b[2J\u001b]52;c;bWlz\u0007gone", "[2J ]52;c;bWlz gone"],
  ["a\u009b31mb", "a 31mb"],
  ["a\u202eb\u2028c", "a b c"],
  ["exit code 137: größer als 64Mi", "exit code 137: größer als 64Mi"],
])("puts %j on one line without control characters", (text, shown) => {
  expect(oneLine(text)).toBe(shown);
});

/** Runs a command while one of its streams has no reader, as after `head` has ended before a long report. */
async function unread(stream: "stdout" | "stderr", ...argv: string[]) {
  // The shell waits until the stream is closed, so that even the first write has no reader.
  const child = spawn("sh", ["-c", 'read -r _ && exec "$@"', "sh", process.execPath, "bin/berth.mjs", ...argv], {
    cwd: ROOT,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const read = text(stream === "stdout" ? child.stderr : child.stdout);
  child[stream].destroy();
  await once(child[stream], "close");
  child.stdin.end("go\n");
  const [[code], other] = await Promise.all([once(child, "exit"), read]);
  return { code, other };
}

describe("a stream without a reader", () => {
  test("is no failure of a report, and causes no message", async () => {
    expect(await unread("stdout", "version", "-o", "json")).toEqual({ code: 0, other: "" });
  });

  test("does not change the exit code of a wrong command line", async () => {
    expect(await unread("stderr", "version", "-o", "yaml")).toEqual({ code: 2, other: "" });
  });

  test("does not affect the other stream", async () => {
    expect(await unread("stderr", "version")).toEqual({ code: 0, other: `${berthVersion()}\n` });
  });
});
