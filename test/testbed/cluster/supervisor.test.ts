import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { access, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { processStart } from "../../../testbed/cluster/lock.ts";
import { type ProcessSpec, Supervisor } from "../../../testbed/cluster/supervisor.ts";
import { temporaryDir } from "./temporary.ts";

const MODULE = join(import.meta.dirname, "../../../testbed/cluster/supervisor.ts");

async function startSupervisor(): Promise<Supervisor> {
  const supervisor = await Supervisor.start(join(await temporaryDir(), "supervised"));
  onTestFinished(() => supervisor.end());
  return supervisor;
}

function shell(dir: string, script: string, name = "shell"): ProcessSpec {
  const env = { PATH: "/bin:/usr/bin" };
  return { name, command: "/bin/sh", args: ["-c", script], env, cwd: dir, logFile: join(dir, `${name}.log`) };
}

/** Starts a shell with a child that ignores SIGTERM, and returns the pids of both. */
async function family(supervisor: Supervisor): Promise<number[]> {
  const script = `/bin/sh -c 'trap "" TERM; echo $$; while :; do sleep 1000; done' & wait`;
  const parent = await supervisor.spawn(shell(supervisor.dir, script, "family"));
  const child = await firstLine(join(supervisor.dir, "family.log"));
  return [parent.pid, Number(child)];
}

async function firstLine(file: string): Promise<string> {
  let text = "";
  await expect
    .poll(
      async () => {
        text = await readFile(file, "utf8");
        return text.includes("\n");
      },
      { timeout: 10_000, interval: 10 },
    )
    .toBe(true);
  return text.split("\n")[0] ?? "";
}

async function expectGone(pids: readonly number[], dir: string): Promise<void> {
  const left = async () => [
    ...pids.filter((pid) => processStart(pid) !== undefined),
    ...((await exists(dir)) ? [dir] : []),
  ];
  await expect.poll(left, { timeout: 10_000, interval: 10 }).toEqual([]);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

describe("a supervised process", () => {
  it("writes its output to a file and reports its exit code", async () => {
    const supervisor = await startSupervisor();
    const running = await supervisor.spawn(shell(supervisor.dir, "echo out; echo err >&2; exit 7"));
    expect(await running.exited).toEqual({ code: 7, signal: null });
    expect(running.exit).toEqual({ code: 7, signal: null });
    expect(await readFile(join(supervisor.dir, "shell.log"), "utf8")).toBe("out\nerr\n");
  });

  it("has only its own environment", async () => {
    const supervisor = await startSupervisor();
    const running = await supervisor.spawn(shell(supervisor.dir, "env"));
    await running.exited;
    const names = (await readFile(join(supervisor.dir, "shell.log"), "utf8")).match(/^\w+(?==)/gm);
    expect(names?.filter((name) => !["PWD", "OLDPWD", "SHLVL", "_"].includes(name))).toEqual(["PATH"]);
  });

  it("gets signals, and its name is free again after it ended", async () => {
    const supervisor = await startSupervisor();
    const running = await supervisor.spawn(shell(supervisor.dir, "exec sleep 1000"));
    await expect(supervisor.spawn(shell(supervisor.dir, "true"))).rejects.toThrow("shell is already running");
    running.kill("SIGTERM");
    expect(await running.exited).toEqual({ code: null, signal: "SIGTERM" });
    const next = await supervisor.spawn(shell(supervisor.dir, "exit 3"));
    expect(await next.exited).toEqual({ code: 3, signal: null });
  });

  it("that can't be started is reported at once", async () => {
    const supervisor = await startSupervisor();
    const spec = { ...shell(supervisor.dir, ""), command: "/nonesuch" };
    await expect(supervisor.spawn(spec)).rejects.toThrow("cannot start shell");
    expect(await (await supervisor.spawn(shell(supervisor.dir, "exit 0"))).exited).toEqual({ code: 0, signal: null });
  });

  it("ends with everything that it started, and the folder is removed", async () => {
    const supervisor = await startSupervisor();
    const pids = await family(supervisor);
    await supervisor.end();
    await expectGone([...pids, supervisor.pid], supervisor.dir);
  });

  it("ends when its supervisor is killed", async () => {
    const supervisor = await startSupervisor();
    const pids = await family(supervisor);
    process.kill(supervisor.pid, "SIGKILL");
    await expectGone([...pids, supervisor.pid], supervisor.dir);
    await expect(supervisor.spawn(shell(supervisor.dir, "true"))).rejects.toThrow("has ended");
  });

  it("doesn't end when a terminal interrupts its supervisor", async () => {
    const supervisor = await startSupervisor();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.kill(supervisor.pid, signal);
    expect(await (await supervisor.spawn(shell(supervisor.dir, "exit 4"))).exited).toEqual({ code: 4, signal: null });
  });
});

describe("the owner of a supervisor", () => {
  /** Starts a process that supervises a program and reports its pids. */
  async function owner(dir: string, afterwards: string[] = []): Promise<{ child: ChildProcess; pids: number[] }> {
    const program = join(await temporaryDir(), "owner.ts");
    const spec = shell(dir, "echo ready; exec sleep 1000");
    await writeFile(
      program,
      `import { Supervisor } from ${JSON.stringify(MODULE)};
       const supervisor = await Supervisor.start(${JSON.stringify(dir)}, ${JSON.stringify(afterwards)});
       const running = await supervisor.spawn(${JSON.stringify(spec)});
       process.send([supervisor.pid, running.pid]);`,
    );
    const child = fork(program, { execArgv: [], stdio: "inherit" });
    const [pids] = (await once(child, "message")) as [number[]];
    return { child, pids };
  }

  it.each(["SIGKILL", "SIGTERM", "SIGINT"] as const)("leaves nothing behind after %s", async (signal) => {
    const dir = join(await temporaryDir(), "supervised");
    const { child, pids } = await owner(dir);
    expect(pids.every((pid) => processStart(pid) !== undefined)).toBe(true);
    expect(await exists(dir)).toBe(true);
    child.kill(signal);
    await expectGone(pids, dir);
  });

  it.each(["SIGKILL", "SIGTERM"] as const)("runs a command after %s, when the programs have ended", async (signal) => {
    const temporary = await temporaryDir();
    const seen = join(temporary, "seen");
    // The folder still exists, and the program has ended.
    const script = 'ls "$1" > "$2.new"; pgrep --session "$(cat "$1/pid")" >> "$2.new"; mv "$2.new" "$2"';
    const dir = join(temporary, "supervised");
    const { child, pids } = await owner(dir, ["/bin/sh", "-c", script, "sh", dir, seen]);
    await writeFile(join(dir, "pid"), String(pids[1]));
    child.kill(signal);
    await expectGone(pids, dir);
    expect(await readFile(seen, "utf8")).toBe("pid\nshell.log\n");
  });
});
