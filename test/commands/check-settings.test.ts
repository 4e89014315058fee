import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { describe, expect, test } from "vitest";
import type { CheckReport } from "../../src/commands/check.ts";
import { addCheckFlags, type CheckSettings } from "../../src/commands/check-settings.ts";
import { runCli } from "../../src/commands/cli.ts";
import { jsonText } from "../../src/commands/invocation.ts";
import { ROOT } from "../project/lint-gate.ts";
import { cliRun } from "../support/cli-run.ts";

const FINE = {
  ok: true,
  deployment: "a/b",
  environments: 0,
  replicas: { wanted: 1, ready: 1 },
  problem: null,
};

async function cli(argv: readonly string[]) {
  const seen: CheckSettings[] = [];
  let err = "";
  const never = async () => {
    throw new Error("another command was started");
  };
  const commands = {
    run: never,
    uninstall: never,
    check: async (settings: CheckSettings) => {
      seen.push(settings);
      return FINE;
    },
  };
  const streams = {
    isTerminal: false,
    input: async () => "",
    out: () => {},
    err: (text: string) => {
      err += text;
    },
  };
  const code = await runCli(["check", ...argv], commands, {}, streams);
  return { code, err, settings: seen[0] };
}

describe("berth check", () => {
  test("reads its flags", async () => {
    const { code, settings } = await cli(["--deployment=berth-system/berth-operator", "--timeout-seconds=7"]);
    expect(code).toBe(0);
    expect(settings).toEqual({
      kubeconfig: undefined,
      kubeEnvironment: {},
      proxy: {},
      deployment: { namespace: "berth-system", name: "berth-operator" },
      timeoutSeconds: 7,
      output: "text",
    });
  });

  const reported = (report: CheckReport, ...flags: string[]) =>
    cliRun(["check", "--deployment=a/b", ...flags], { commands: { check: async () => report } });

  test("writes its report with -o json, and otherwise only its log", async () => {
    expect(await reported(FINE, "-o", "json")).toEqual({ code: 0, out: jsonText(FINE), err: "" });
    expect(await reported(FINE)).toEqual({ code: 0, out: "", err: "" });
  });

  test("exits with 1 and prints the problem in both formats", async () => {
    const report = { ...FINE, ok: false, problem: "fix it" };
    const err = "berth: fix it\n";
    expect(await reported(report, "-o", "json")).toEqual({ code: 1, out: jsonText(report), err });
    expect(await reported(report)).toEqual({ code: 1, out: "", err });
  });

  test.each([
    [[], "--deployment: write the Deployment as NAMESPACE/NAME"],
    [["--deployment=berth-operator"], "--deployment: write the Deployment as NAMESPACE/NAME"],
    [["--deployment=a/b", "--timeout-seconds=soon"], "--timeout-seconds: write whole seconds"],
    [["--deployment=a/b", "-o", "yaml"], "Allowed choices are text, json"],
  ])("%j exits with 2, the fix and its own usage line", async (argv, message) => {
    const { code, err, settings } = await cli(argv);
    expect(code).toBe(2);
    expect(settings).toBeUndefined();
    expect(err).toContain(message);
    expect(err).toContain("usage: berth check --deployment <namespace/name>");
  });

  test("has all its flags in docs/install.md", async () => {
    const page = await readFile(join(ROOT, "docs/install.md"), "utf8");
    const flags = addCheckFlags(new Command("check")).options.map(({ flags }) => flags);
    expect(flags.filter((flag) => !page.includes(`| \`${flag}\` |`))).toEqual([]);
  });
});
