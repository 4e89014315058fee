import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { berthVersion } from "../../src/settings/version.ts";
import { ROOT } from "../project/lint-gate.ts";

/** A command of which nobody reads one of its streams any more: `head` is gone before a long report is over. */
async function unread(stream: "stdout" | "stderr", ...argv: string[]) {
  // The shell waits until the reader is gone, so that the first word that is written has none.
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

test("a report that nobody reads to its end is no fault, and nothing is said of it", async () => {
  expect(await unread("stdout", "version", "-o", "json")).toEqual({ code: 0, other: "" });
});

test("a wrong command line whose complaint nobody reads ends as one", async () => {
  expect(await unread("stderr", "version", "-o", "yaml")).toEqual({ code: 2, other: "" });
});

test("what is read is all there, whoever reads the rest", async () => {
  expect(await unread("stderr", "version")).toEqual({ code: 0, other: `${berthVersion()}\n` });
});
