import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

/** Shells as found in images; those missing on this machine are left out. */
const SHELLS = [["/bin/sh"], ["/bin/bash"], ["/bin/dash"], ["/bin/busybox", "sh"]].filter(([program = ""]) =>
  existsSync(program),
);

const command =
  sessionTemplate(parsed(stored(sessionsSpec({ template: podTemplate(), parking: "Init" }))))
    .render("berth-research-bcdfghjk")
    .spec.initContainers?.at(-1)?.command ?? [];

/** Builds of busybox differ in whether they search PATH for `sleep`; some always run their own. */
const hasOwnSleep = (shell: readonly string[]) => shell.includes("/bin/busybox");

/** Whether a process of Linux has a child; the gate's only child is `sleep`. */
const hasChild = ({ pid }: ChildProcess) => readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim() !== "";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gate-test-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Runs the gate's own command with another shell and for another file. */
function gate(shell: readonly string[], file: string, env: Record<string, string> = { PATH: "/usr/bin:/bin" }) {
  const [program = "", ...before] = shell;
  const [, flag = "", script = "", name = ""] = command;
  const child: ChildProcess = spawn(program, [...before, flag, script, name, file], { env, stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = once(child, "exit").then(([code]: (number | null)[]) => code);
  return { child, ended };
}

let count = 0;
const newFile = () => {
  count += 1;
  return join(dir, `key-${count}`);
};

test("the gate's command is a shell, its script, and the file", () => {
  expect(command.slice(0, 2)).toEqual(["/bin/sh", "-c"]);
  expect(command.at(-1)).toMatch(/^\/var\/run\/secrets\//);
  expect(SHELLS.length).toBeGreaterThan(0);
});

describe.each(SHELLS.map((shell) => [shell.join(" "), shell] as const))("run by %s, the gate", (_, shell) => {
  test("waits until the file exists, and exits with 0", async () => {
    const file = newFile();
    const { child, ended } = gate(shell, file);
    await once(child, "spawn");
    expect(child.exitCode).toBeNull();
    await writeFile(file, "");
    expect(await ended).toBe(0);
  });

  test("exits at once if the file already exists", async () => {
    const file = newFile();
    await writeFile(file, "x");
    expect(await gate(shell, file).ended).toBe(0);
  });

  test("exits with 143 on SIGTERM, which a container's first process would otherwise ignore", async () => {
    const file = newFile();
    const started = newFile();
    // The script sets the trap before its first check; this `sleep` runs after that.
    const bin = await mkdtemp(join(dir, "bin-"));
    await writeFile(join(bin, "sleep"), `#!/bin/sh\n: > ${started}\nexec /bin/sleep 0.1\n`, { mode: 0o755 });
    const { child, ended } = gate(shell, file, { PATH: `${bin}:/usr/bin:/bin` });
    const sleeps = hasOwnSleep(shell) ? () => hasChild(child) : () => existsSync(started);
    await expect.poll(sleeps, { timeout: 10_000 }).toBe(true);
    child.kill("SIGTERM");
    expect(await ended).toBe(143);
  });

  // A shell that always runs its own `sleep` allows no other one and no missing one.
  if (hasOwnSleep(shell)) return;

  test("accepts a sleep that knows only whole seconds", async () => {
    const file = newFile();
    const bin = await mkdtemp(join(dir, "bin-"));
    const script = `#!/bin/sh\ncase "$1" in *.*) exit 1;; esac\n: > ${file}\n`;
    await writeFile(join(bin, "sleep"), script, { mode: 0o755 });
    expect(await gate(shell, file, { PATH: `${bin}:/usr/bin:/bin` }).ended).toBe(0);
  });

  test("fails without any sleep, and does not spin", async () => {
    expect(await gate(shell, newFile(), { PATH: dir }).ended).toBe(1);
  });
});
