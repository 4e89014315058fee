import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "berth-ci-report-"));
afterAll(() => rmSync(folder, { recursive: true }));

type File = Readonly<Record<string, "passed" | "failed" | "pending">>;

/** A report in vitest's format. A file without tests failed to load. */
function report(files: Readonly<Record<string, File>>): string {
  const testResults = Object.entries(files).map(([name, tests]) => {
    const assertionResults = Object.entries(tests).map(([fullName, status]) => {
      return { fullName, status, failureMessages: status === "failed" ? [`${fullName} went wrong\nat line 1`] : [] };
    });
    const isBroken = assertionResults.length === 0 || assertionResults.some(({ status }) => status === "failed");
    const message = assertionResults.length === 0 ? "cannot be loaded" : "";
    return { name: resolve(name), status: isBroken ? "failed" : "passed", message, assertionResults };
  });
  const path = join(folder, `${Math.random()}.json`);
  writeFileSync(path, JSON.stringify({ testResults }));
  return path;
}

function run(...args: string[]): string {
  return execFileSync(process.execPath, [".ci/report.mjs", ...args], { encoding: "utf8" }).trim();
}

const good = { one: "passed", two: "passed", three: "pending" } as const;
const bad = { four: "passed", five: "failed" } as const;

test("adds up passed, failed and skipped tests", () => {
  expect(run("sum", report({ a: good, b: bad }), "1")).toBe("3 1 1");
});

test("counts a file that failed to load as a failure", () => {
  expect(run("sum", report({ a: good, b: {} }), "1")).toBe("2 1 1");
});

test("counts a run that ended with an error, or without tests, as a failure", () => {
  expect(run("sum", report({ a: good }), "1")).toBe("2 1 1");
  expect(run("sum", report({}), "0")).toBe("0 1 0");
  expect(run("sum", report({ a: good }), "0")).toBe("2 0 1");
});

test("names the failed files and their failures", () => {
  const file = report({ a: good, "test/b": bad, c: {} });
  expect(run("files", file)).toBe("test/b\nc");
  expect(run("names", file)).toBe("test/b: five\n    five went wrong\n    at line 1\nc: cannot be loaded");
});

test("uses a second run only for the files in it", () => {
  const first = report({ a: good, b: bad });
  expect(run("sum", first, "1", report({ b: { four: "passed", five: "passed" } }), "0")).toBe("4 0 1");
  expect(run("sum", first, "1", report({ b: bad }), "1")).toBe("3 1 1");
  expect(run("sum", first, "1", report({ b: { four: "passed", five: "passed" } }), "1")).toBe("4 1 1");
  expect(run("sum", first, "1", report({}), "1")).toBe("3 1 1");
});

test("names the files that passed at the second try", () => {
  const first = report({ a: good, "test/b": bad, c: {} });
  expect(run("flaky", first, report({ "test/b": { four: "passed", five: "passed" }, c: bad }))).toBe("test/b");
});
