import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SHELLS, type Shell } from "../../src/commands/completion-scripts.ts";
import { FLAGS } from "../../src/settings/flags.ts";
import { cliRun } from "../support/cli-run.ts";

const run = promisify(execFile);

/** How each shell reads a script without running it. */
const CHECK: Record<Shell, string[]> = { bash: ["-n"], zsh: ["-n"], fish: ["--no-execute"] };

const isInstalled = (shell: Shell) => spawnSync(shell, ["-c", "true"]).status === 0;

let folder: string;
const scripts = new Map<Shell, string>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-completion-"));
  for (const shell of SHELLS) {
    const { code, out, err } = await cliRun(["completion", shell]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const path = join(folder, `berth.${shell}`);
    await writeFile(path, out);
    scripts.set(shell, path);
  }
  await writeFile(join(folder, "an environment.yaml"), "");
});
afterAll(() => rm(folder, { recursive: true }));

/** What a real bash offers when TAB is pressed at the end of these words. */
async function offered(...words: string[]): Promise<string[]> {
  const script = `
    source "$1"; shift
    complete -p berth >/dev/null || exit 3
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _berth
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const argv = ["--norc", "-c", script, "bash", scripts.get("bash") ?? "", "berth", ...words];
  const { stdout } = await run("bash", argv, { cwd: folder });
  return stdout.split("\n").filter((line) => line !== "");
}

describe("in bash", () => {
  test("the commands are offered, by what was typed of them", async () => {
    expect(await offered("")).toEqual(
      expect.arrayContaining(["run", "uninstall", "template", "completion", "version"]),
    );
    expect(await offered("te")).toEqual(["template"]);
  });

  test("every flag of berth run is offered", async () => {
    const flags = await offered("run", "--");
    expect(flags).toEqual(expect.arrayContaining(Object.values(FLAGS).map(({ name }) => `--${name}`)));
    expect(await offered("run", "--log")).toEqual(["--log-level"]);
  });

  test("choices are offered after their flag, also behind an equals sign", async () => {
    expect(await offered("template", "-o", "")).toEqual(["yaml", "json"]);
    expect(await offered("check", "-o", "")).toEqual(["text", "json"]);
    expect(await offered("version", "--output", "j")).toEqual(["json"]);
    expect(await offered("template", "--output", "=", "j")).toEqual(["json"]);
    expect(await offered("template", "--output", "=")).toEqual(["yaml", "json"]);
    expect(await offered("run", "--log-level", "w")).toEqual(["warn"]);
    expect(await offered("completion", "f")).toEqual(["fish"]);
  });

  test("files are offered after a flag that names one, with the blanks in their names", async () => {
    expect(await offered("template", "-f", "an")).toEqual(["an environment.yaml"]);
  });

  test("nothing is offered where only a person knows", async () => {
    expect(await offered("template", "-n", "")).toEqual([]);
  });
});

describe.each(SHELLS.filter(isInstalled))("the script for %s", (shell) => {
  test("is one that the shell can read", async () => {
    await expect(run(shell, [...CHECK[shell], scripts.get(shell) ?? ""])).resolves.toMatchObject({ stderr: "" });
  });
});

test("another shell is refused, and those that there are named", async () => {
  const { code, err } = await cliRun(["completion", "tcsh"]);
  expect(code).toBe(2);
  expect(err).toContain("Allowed choices are bash, zsh, fish");
  expect(err).toContain("usage: berth completion <bash|zsh|fish>");
});
