import { expect, test } from "vitest";
import { API_VERSION } from "../../src/api/names.ts";
import { berthVersion } from "../../src/settings/version.ts";
import { cliRun } from "../support/cli-run.ts";

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

/** Commands that run until stopped, have their own flags, or print a script. */
const WITHOUT_REPORT = ["run", "simulator", "completion"];

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
