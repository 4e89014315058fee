import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/** Tests per file, with those that fail in a first run, and those that fail when their file runs again. */
interface Outcome {
  readonly files?: Readonly<Record<string, number>>;
  readonly fails?: readonly string[];
  readonly failsAgain?: readonly string[];
  /** Skips the last test of each file. */
  readonly skips?: boolean;
  readonly code?: number;
}

/** Replaces `npm` in these tests: it runs nothing, and writes each suite's report according to FAKE_OUTCOMES. */
const NPM = `#!/usr/bin/env node
const { appendFileSync, writeFileSync } = require("node:fs");
const { resolve } = require("node:path");
const args = process.argv.slice(2);
appendFileSync(process.env.FAKE_LOG, args.join(" ").replace(/ --reporter\\S+| --outputFile\\S+/g, "") + "\\n");
console.log("npm says " + args.join(" "));
const outcome = JSON.parse(process.env.FAKE_OUTCOMES)[args[1]];
const report = args.find((arg) => arg.startsWith("--outputFile.json="))?.split("=")[1];
if (report) {
  const { files = { "a.test.ts": 2 }, fails = [], failsAgain = [], skips = false, code } = outcome ?? {};
  const asked = args.slice(2).filter((arg) => arg.endsWith(".test.ts"));
  const failing = asked.length > 0 ? failsAgain : fails;
  const testResults = Object.entries(files).filter(([name]) => asked.length === 0 || asked.includes(name)).map(([name, count]) => {
    const isBad = failing.includes(name);
    const assertionResults = Array.from({ length: count }, (_, at) => ({
      fullName: "test " + at, status: isBad && at === 0 ? "failed" : skips && at === count - 1 ? "skipped" : "passed", failureMessages: isBad ? ["it broke"] : [],
    }));
    return { name: resolve(name), status: isBad ? "failed" : "passed", message: "", assertionResults };
  });
  writeFileSync(report, JSON.stringify({ testResults }));
  process.exit(code ?? (failing.length > 0 ? 1 : 0));
}
process.exit(outcome?.code ?? 0);
`;

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-ci-run-"));
  cpSync(".ci", join(folder, ".ci"), { recursive: true });
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "bin/npm"), NPM);
  chmodSync(join(folder, "bin/npm"), 0o755);
});

afterAll(() => rmSync(folder, { recursive: true }));

function run(outcomes: Readonly<Record<string, Outcome>> = {}) {
  const log = join(folder, "calls");
  writeFileSync(log, "");
  const { status, stdout } = spawnSync("bash", [join(folder, ".ci/run")], {
    encoding: "utf8",
    env: {
      PATH: `${join(folder, "bin")}:${process.env["PATH"]}`,
      // Keep the real cache out of the test.
      XDG_CACHE_HOME: join(folder, "cache"),
      FAKE_LOG: log,
      FAKE_OUTCOMES: JSON.stringify(outcomes),
    },
  });
  const calls = readFileSync(log, "utf8").trim().split("\n");
  return { status, stdout, last: stdout.trim().split("\n").at(-1), calls };
}

describe(".ci/run", () => {
  test("ends with the sum of all suites and steps", () => {
    const { status, last, calls } = run();
    expect(calls.filter((call) => call.startsWith("run test")).sort()).toEqual([
      "run test --",
      "run test:e2e --",
      "run test:faults -- --sample",
      "run test:oldest --",
    ]);
    const steps = calls.length - 4;
    expect([status, last]).toEqual([0, `${steps + 8} passed, 0 failed`]);
  });

  test("continues after a failure, and fails at the end", () => {
    const { status, stdout, last } = run({ lint: { code: 3 } });
    expect(last).toMatch(/^\d+ passed, 1 failed$/);
    expect(stdout).toMatch(
      /=== lint failed with 3\n[\s\S]*=== what failed\nlint: npm run lint\n {4}npm says run lint\n/,
    );
    expect(status).toBe(1);
  });

  test.each(["test", "test:oldest", "test:faults", "test:e2e"])(
    "runs the failed files of %s again, alone, and reports them",
    (name) => {
      const { status, stdout, calls } = run({
        [name]: { files: { "a.test.ts": 2, "b.test.ts": 1 }, fails: ["b.test.ts"] },
      });
      const sample = name === "test:faults" ? " --sample" : "";
      expect(calls.at(-1)).toBe(`run ${name} --${sample} b.test.ts`);
      expect(stdout).toContain(`=== what failed at the first try\nnpm run ${name}:\nb.test.ts: test 0\n    it broke\n`);
      const sum = `${calls.length - 5 + 9} passed, 0 failed`;
      expect([status, stdout.trim().split("\n").slice(-2)]).toEqual([
        0,
        ["1 files passed at the second try: b.test.ts", sum],
      ]);
    },
  );

  test("fails and names a file that fails again", () => {
    const { status, stdout, last } = run({ "test:faults": { fails: ["a.test.ts"], failsAgain: ["a.test.ts"] } });
    expect(stdout).toContain("=== what failed\nnpm run test:faults:\na.test.ts: test 0\n    it broke\n");
    expect(stdout).not.toContain("at the second try:");
    expect(last).toMatch(/, 1 failed$/);
    expect(status).toBe(1);
  });

  test("runs nothing again after many failures", () => {
    const names = ["a", "b", "c", "d", "e"].map((name) => `${name}.test.ts`);
    const files = Object.fromEntries(names.map((name) => [name, 1]));
    const { last, calls } = run({ test: { files, fails: names } });
    expect(calls.filter((call) => call.startsWith("run test --"))).toHaveLength(1);
    expect(last).toMatch(/, 5 failed$/);
  });

  test("fails if end-to-end tests were skipped, and reports skipped tests of other suites", () => {
    const { status, stdout, last } = run({ "test:e2e": { skips: true } });
    expect(stdout).toContain("=== what failed\nnpm run test:e2e: skipped tests\n");
    expect([status, last?.replace(/^\d+/, "N")]).toEqual([1, "N passed, 1 failed"]);
    const other = run({ test: { skips: true } });
    expect([other.status, other.last?.replace(/^\d+/, "N")]).toEqual([0, "N passed, 0 failed, 1 skipped"]);
  });

  test("fails if a suite writes no report", () => {
    const { status, last } = run({ "test:e2e": { files: {}, code: 1 } });
    expect(last).toMatch(/, 1 failed$/);
    expect(status).toBe(1);
  });
});
