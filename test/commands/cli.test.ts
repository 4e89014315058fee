import { describe, expect, test } from "vitest";
import { API_VERSION } from "../../src/api/names.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { parseSettings, type Settings } from "../../src/settings/config.ts";
import { type EnvironmentVariables, environmentVariable } from "../../src/settings/environment-variables.ts";
import { FLAGS, usageLine } from "../../src/settings/flags.ts";
import { berthVersion } from "../../src/settings/version.ts";
import { cliRun, NO_KUBECONFIG } from "../support/cli-run.ts";

describe("the command line", () => {
  async function cli(argv: readonly string[], env: EnvironmentVariables = {}, run = async (_: Settings) => {}) {
    const seen: Settings[] = [];
    const commands = {
      run: async (settings: Settings) => {
        seen.push(settings);
        await run(settings);
      },
    };
    return { ...(await cliRun(argv, { env, commands })), seen };
  }

  test("run passes on its settings and exits with 0", async () => {
    const { code, seen, err } = await cli(["run", "--namespace=one"], { BERTH_LOG_LEVEL: "debug" });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(seen).toEqual([parseSettings(["--namespace=one"], { BERTH_LOG_LEVEL: "debug", KUBECONFIG: NO_KUBECONFIG })]);
  });

  const ALL = "usage: berth <run|uninstall|doctor|explain|template|simulator|version|help> [flags]";

  test.each([
    [["run", "--foo"], usageLine()],
    [["run", "--log-level=loud"], usageLine()],
    [["run", "word"], usageLine()],
    [["walk"], ALL],
    [["--foo"], ALL],
    [[], ALL],
    [["help", "walk"], ALL],
    [["doctr"], ALL],
    [["doctor", "--problem"], /^usage: berth doctor \[<environment>\.\.\.\] /],
    [["--problems", "doctor"], /^usage: berth doctor /],
    [["uninstall", "--foo"], /^usage: berth uninstall \[--kubeconfig <path>\] /],
  ])("%j exits with 2 and the usage of the command, and runs nothing", async (argv, usage) => {
    const { code, err, out, seen } = await cli(argv);
    expect({ code, out, seen }).toEqual({ code: 2, out: "", seen: [] });
    expect(err).toMatch(/^berth: .+/);
    expect(err.trimEnd().split("\n").at(-1)).toMatch(usage);
  });

  test("a misspelled command or flag is suggested", async () => {
    expect((await cli(["doctr"])).err).toMatch(/^berth: unknown command 'doctr' \(Did you mean doctor\?\)\n/);
    expect((await cli(["doctor", "--problem"])).err).toMatch(
      /unknown option '--problem' \(Did you mean --problems\?\)\n/,
    );
  });

  test.each([[["walk"]], [["walk", "--far"]], [["help", "walk"]]])("%j reports the unknown command", async (argv) => {
    const { code, err } = await cli(argv);
    expect(code).toBe(2);
    expect(err).toMatch(/^berth: unknown command 'walk'/);
  });

  test("no command lists the available ones", async () => {
    expect((await cli([])).err).toMatch(/^berth: name a command: run, .*doctor, .*version or help\n/);
  });

  test.each([
    [["help"], "--help"],
    [["help", "doctor"], "doctor --help"],
  ])("%j is the same as %s", async (argv, same) => {
    const { code, out, err } = await cli(argv);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toBe((await cli(same.split(" "))).out);
    expect(out).toMatch(/^Usage: berth /);
  });

  test("an invalid variable also exits with 2", async () => {
    expect((await cli(["run"], { BERTH_LEADER_ELECT: "perhaps" })).code).toBe(2);
  });

  test("a setting that turns out to be invalid later also exits with 2", async () => {
    const { code, err } = await cli(["run"], {}, async () => {
      throw new ConfigError("no such file: /some/config");
    });
    expect(code).toBe(2);
    expect(err).toContain("no such file: /some/config");
  });

  test("a failure exits with 1 and prints its causes without credentials", async () => {
    const { code, err } = await cli(["run"], {}, async () => {
      throw new Error("could not start", { cause: new Error("key sk-ant-oat01-abcdef was refused") });
    });
    expect(code).toBe(1);
    expect(err).toBe("berth: could not start: key sk-ant-[redacted] was refused\n");
  });

  test.each([[["version"]], [["--version"]]])("%j prints the version", async (argv) => {
    const { code, out } = await cli(argv);
    expect({ code, out }).toEqual({ code: 0, out: `${berthVersion()}\n` });
    expect(berthVersion()).toMatch(/^\d+\.\d+\.\d+/);
  });

  test("--help lists every flag with its variable and default, and exits with 0", async () => {
    const { code, out } = await cli(["run", "--help"]);
    expect(code).toBe(0);
    // Commander may wrap lines anywhere.
    const text = out.replaceAll(/\s+/g, " ");
    for (const { name } of Object.values(FLAGS)) {
      expect(text).toContain(`--${name}`);
      expect(text).toContain(environmentVariable(name));
    }
    expect(text).toContain("default: :8080");
  });
});

test("berth version prints only the version", async () => {
  expect(await cliRun(["version"])).toEqual({ code: 0, out: `${berthVersion()}\n`, err: "" });
});

test("berth version -o json also prints the API version of this build, and its Node version", async () => {
  const { code, out } = await cliRun(["version", "-o", "json"]);
  expect(code).toBe(0);
  expect(JSON.parse(out)).toEqual({ berth: berthVersion(), apiVersion: API_VERSION, node: process.versions.node });
});

test("berth version refuses another format with its own usage", async () => {
  const { code, out, err } = await cliRun(["version", "-o", "yaml"]);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain("Allowed choices are text, json");
  expect(err).toContain("usage: berth version [-o <format>]");
});

/** Commands that run until they are ended. */
const WITHOUT_REPORT = ["run", "simulator"];

test("every command that reports has -o json", async () => {
  const { err } = await cliRun([]);
  const [, names = ""] = /name a command: (.+) or help/.exec(err) ?? [];
  const telling = names.split(", ").filter((name) => !WITHOUT_REPORT.includes(name));
  expect(telling).toContain("uninstall");
  for (const name of telling) {
    const { out } = await cliRun([name, "--help"]);
    expect(out, name).toMatch(/-o, --output <format>.*\bor json\b/);
  }
});
