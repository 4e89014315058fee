import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { describe, expect, test } from "vitest";
import { runCli } from "../../src/commands/cli.ts";
import { jsonText } from "../../src/commands/invocation.ts";
import { addUninstallFlags, UNINSTALL_USAGE, type UninstallSettings } from "../../src/commands/uninstall-settings.ts";
import { ROOT } from "../project/lint-gate.ts";
import { cliRun } from "../support/cli-run.ts";

const REPORT = {
  ok: true,
  stopped: true,
  deleted: ["a/b", "a/c"],
  undrained: ["a/c"],
  released: ["a/c"],
  problem: null,
};

async function cli(argv: readonly string[], env: Record<string, string> = {}) {
  const seen: UninstallSettings[] = [];
  let err = "";
  const commands = {
    run: async () => {
      throw new Error("the operator was started");
    },
    uninstall: async (settings: UninstallSettings) => {
      seen.push(settings);
      return REPORT;
    },
    check: async () => {
      throw new Error("the operator was checked");
    },
  };
  const streams = {
    out: () => {},
    err: (text: string) => {
      err += text;
    },
  };
  const code = await runCli(["uninstall", ...argv], commands, env, streams);
  return { code, err, settings: seen[0] };
}

describe("berth uninstall", () => {
  test("releases all Environments, and by default deletes none and stops no operator", async () => {
    const { code, settings } = await cli([]);
    expect(code).toBe(0);
    expect(settings).toMatchObject({ namespaces: [], deployment: undefined, deleteEnvironments: false });
  });

  test("reads its flags and the location of the cluster", async () => {
    const argv = ["--namespace=a", "--namespace=b,c", "--deployment=berth-system/berth-operator"];
    const { settings } = await cli([...argv, "--delete-environments", "--drain-seconds=7", "--kubeconfig=file"], {
      KUBERNETES_SERVICE_HOST: "10.0.0.1",
      HTTPS_PROXY: "http://proxy.example",
    });
    expect(settings).toEqual({
      kubeconfig: "file",
      kubeEnvironment: { KUBERNETES_SERVICE_HOST: "10.0.0.1" },
      proxy: { httpsProxy: "http://proxy.example" },
      namespaces: ["a", "b", "c"],
      deployment: { namespace: "berth-system", name: "berth-operator" },
      deleteEnvironments: true,
      drainSeconds: 7,
      output: "text",
    });
  });

  test("writes its report with -o json, and otherwise only its log", async () => {
    const commands = { uninstall: async () => REPORT };
    expect(await cliRun(["uninstall", "-o", "json"], { commands })).toEqual({
      code: 0,
      out: jsonText(REPORT),
      err: "",
    });
    expect(await cliRun(["uninstall"], { commands })).toEqual({ code: 0, out: "", err: "" });
  });

  test("also writes the report after a failure, and exits with 1 and the problem in both formats", async () => {
    const report = { ...REPORT, ok: false, released: [], problem: "fix it" };
    const commands = { uninstall: async () => report };
    const err = "berth: fix it\n";
    expect(await cliRun(["uninstall", "-o", "json"], { commands })).toEqual({ code: 1, out: jsonText(report), err });
    expect(await cliRun(["uninstall"], { commands })).toEqual({ code: 1, out: "", err });
  });

  test.each([
    [["--deployment=berth-operator"], "--deployment: write the Deployment as NAMESPACE/NAME"],
    [["--drain-seconds=soon"], "--drain-seconds: write whole seconds"],
    [["--namespace=A_b"], "--namespace: a namespace has at most 63 lowercase letters"],
    [["--force"], "unknown option '--force'"],
  ])("%j exits with 2, the fix and its own usage line", async (argv, message) => {
    const { code, err, settings } = await cli(argv);
    expect(code).toBe(2);
    expect(settings).toBeUndefined();
    expect(err).toContain(message);
    expect(err).toContain(UNINSTALL_USAGE);
  });

  test("has exactly its flags in docs/install.md and in its usage line", async () => {
    const flags = addUninstallFlags(new Command()).options.map((option) => option.flags);
    const page = (await readFile(join(ROOT, "docs/install.md"), "utf8")).split("## `berth uninstall`")[1] ?? "";
    expect([...page.matchAll(/^\| `(-[^`]+)` \|/gm)].map(([, name]) => name)).toEqual(flags);
    expect([...UNINSTALL_USAGE.matchAll(/\[(-[^\]]+)\]/g)].map(([, name]) => name)).toEqual(flags);
  });
});
