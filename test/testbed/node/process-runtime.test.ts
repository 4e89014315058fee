import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ANNOTATION_DEADLINE } from "../../../src/api/names.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Container, Pod } from "../../../src/kube/objects.ts";
import { shellFrame, waitingCommand } from "../../../src/pods/frame.ts";
import { renderTurn, turnName } from "../../../src/pods/turns.ts";
import { type FateInput, parseFate } from "../../../testbed/node/fate.ts";
import { Latency, seededRandom } from "../../../testbed/node/latency.ts";
import { ProcessRuntime } from "../../../testbed/node/process-runtime.ts";
import { type ContainerExit, type LiveContainer, StartError } from "../../../testbed/node/runtime.ts";
import { volumeFiles } from "../../../testbed/node/volume-files.ts";
import { keeperPod } from "../../support/keeper-pods.ts";
import { boundPod } from "./pod-bench.ts";

const NODE = process.execPath;
let workDir: string;
let runtime: ProcessRuntime;

beforeAll(async () => {
  workDir = await mkdtemp(join(tmpdir(), "process-runtime-test-"));
  runtime = new ProcessRuntime({ clock: realClock, workDir, images: { "known:1": IMAGE } });
});
afterAll(async () => {
  await runtime.close();
  await rm(workDir, { recursive: true, force: true });
});

const live: LiveContainer[] = [];
afterEach(() => {
  for (const container of live.splice(0)) container.signal("SIGKILL");
});

/** The replacement for an image. */
const IMAGE = {
  command: [NODE, "-p", "[process.env.FROM_IMAGE, process.env.FROM_POD, process.argv.at(-1)].join()"],
  env: { FROM_IMAGE: "image", FROM_POD: "image" },
};

let count = 0;

function newPod(shape: Partial<Container>): Pod {
  count += 1;
  const pod = boundPod({ containers: [shape] });
  pod.metadata.name = `process-${count}`;
  return pod;
}

/** Starts a container, by default in a Pod with a unique name. */
async function start(
  shape: Partial<Container>,
  env: Record<string, string> = {},
  fate?: FateInput,
  pod = newPod(shape),
) {
  const container = { name: "c", image: "worker:1", ...shape };
  const exited = Promise.withResolvers<ContainerExit>();
  const started = await runtime.start({
    pod,
    container,
    fate: fate && parseFate(fate),
    runsToCompletion: false,
    env,
    restartCount: 0,
    latency: new Latency(seededRandom(1)),
    onExit: exited.resolve,
    evict: () => {},
  });
  live.push(started);
  const log = async () => await runtime.logs(pod, container.name);
  return { pod, container: started, exited: exited.promise, log };
}

/** Returns a container that runs JavaScript. */
const script = (code: string, shape: Partial<Container> = {}) => ({ ...shape, command: [NODE, "-e", code] });

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    // A zombie also answers, until its parent reads its exit code.
    return !/^\d+ \(.*\) [ZX]/s.test(
      existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, "latin1") : "",
    );
  } catch {
    return false;
  }
};

describe("the environment of a process", () => {
  test("is the Pod's, and contains only the program path of ours", async () => {
    process.env["LEAKED_FROM_THE_NODE"] = "yes";
    onTestFinished(() => void delete process.env["LEAKED_FROM_THE_NODE"]);
    const { exited, log } = await start(script("console.log(JSON.stringify(process.env))"), { GIVEN: "value" });
    expect(await exited).toEqual({ exitCode: 0 });
    const env = JSON.parse(await log()) as Record<string, string>;
    expect(env["GIVEN"]).toBe("value");
    expect(Object.keys(env).sort()).toEqual([
      "GIVEN",
      "HOME",
      "HOSTNAME",
      "MEMORY_DIR",
      "PATH",
      "SIMULATED_NODE_CONTAINER",
      "TERMINATION_LOG",
      "TMPDIR",
      "WORKSPACE",
    ]);
    for (const name of ["HOME", "TMPDIR", "WORKSPACE", "MEMORY_DIR"]) expect(env[name]).toContain(workDir);
  });

  test("never has our home, even if the Pod requests one", async () => {
    const { exited, log } = await start(script("console.log(require('os').homedir())"), {
      HOME: process.env["HOME"] ?? "/root",
    });
    await exited;
    expect(await log()).toContain(workDir);
  });

  test("has paths below mounts replaced with local paths, in variables and in arguments", async () => {
    const write = "require('fs').writeFileSync(process.argv[1] + '/f', process.cwd() + ' ' + process.env.DATA)";
    const mounted = { workingDir: "/workspace/deep", volumeMounts: [{ name: "d", mountPath: "/data" }] };
    const { exited, pod } = await start({ ...script(write, mounted), args: ["/data"] }, { DATA: "/data/out" });
    expect(await exited).toEqual({ exitCode: 0 });
    const root = join(workDir, "pods", `tb_${pod.metadata.name}_${pod.metadata.uid}`, "root");
    expect(readFileSync(join(root, "data/f"), "utf8")).toBe(`${root}/workspace/deep ${root}/data/out`);
  });
});

describe("the end of a process", () => {
  test.each([
    ["without a signal", "process.exit(3)", 3],
    ["by a signal from inside", "process.kill(process.pid, 'SIGABRT'); setInterval(() => {}, 1e6)", 134],
  ])("%s yields its exit code", async (_how, code, exitCode) => {
    expect(await (await start(script(code))).exited).toEqual({ exitCode });
  });

  test("SIGTERM reaches the first process, which may end in its own way", async () => {
    const { container, exited, log } = await start(
      script("process.on('SIGTERM', () => process.exit(7)); console.log('ready'); setInterval(() => {}, 1e6)"),
    );
    await expect.poll(log).toContain("ready");
    container.signal("SIGTERM");
    expect(await exited).toEqual({ exitCode: 7 });
  });

  test("a program that ignores SIGTERM ends with SIGKILL", async () => {
    const { container, exited, log } = await start(
      script("process.on('SIGTERM', () => console.log('no')); console.log('ready'); setInterval(() => {}, 1e6)"),
    );
    await expect.poll(log).toContain("ready");
    container.signal("SIGTERM");
    await expect.poll(log).toContain("no");
    container.signal("SIGKILL");
    expect(await exited).toEqual({ exitCode: 137 });
  });

  test("kills what the program started, even outside its process group and orphaned", async () => {
    const daemon = "require('child_process').spawn('sleep', ['600'], {detached: true, stdio: 'ignore'})";
    const { exited, log } = await start(
      script(`const d = ${daemon}; console.log(d.pid); d.unref(); setTimeout(() => process.exit(0), 100)`),
    );
    await exited;
    const pid = Number(await log());
    expect(pid).toBeGreaterThan(0);
    expect(isAlive(pid)).toBe(false);
  });

  test("by SIGKILL also kills what left the group and hides its environment", async () => {
    const hidden = "require('child_process').spawn('sleep', ['600'], {detached: true, stdio: 'ignore', env: {}})";
    const { container, exited, log } = await start(script(`console.log(${hidden}.pid)`));
    await expect.poll(log).toMatch(/^\d+\n/);
    container.signal("SIGKILL");
    expect(await exited).toEqual({ exitCode: 137 });
    expect(isAlive(Number(await log()))).toBe(false);
  });

  test("has its termination log as message, or the end of its output if it failed and the Pod requests that", async () => {
    const fail = "console.error('Error: handleItem: workId is required'); process.exit(1)";
    const policy = { terminationMessagePolicy: "FallbackToLogsOnError" };
    expect(await (await start(script(fail, policy))).exited).toEqual({
      exitCode: 1,
      message: "Error: handleItem: workId is required\n",
    });
    expect(await (await start(script(fail))).exited).toEqual({ exitCode: 1 });
    expect(await (await start(script("console.log('fine')", policy))).exited).toEqual({ exitCode: 0 });
    const own = "require('fs').writeFileSync(process.env.TERMINATION_LOG, 'mine'); process.exit(2)";
    expect(await (await start(script(own, policy))).exited).toEqual({ exitCode: 2, message: "mine" });
  });

  test("can be caused by a fate of the node: the memory limit", async () => {
    const { exited } = await start(script("setInterval(() => {}, 1e6)"), {}, { kind: "oom", afterMs: 1 });
    expect(await exited).toEqual({ exitCode: 137, reason: "OOMKilled" });
  });
});

describe("the standard streams of a process", () => {
  const code = "process.stdin.on('data', (d) => console.log('got ' + d)).on('end', () => console.error('end'))";

  test("with stdin are an open pipe and its output, for several clients", async () => {
    const { container, exited, log } = await start(script(code, { stdin: true }));
    const outputs = ["", ""];
    const [leave] = outputs.map((_, at) =>
      container.streams?.follow((bytes) => {
        outputs[at] += bytes.toString();
      }),
    );
    container.streams?.write(Buffer.from("one"));
    await expect.poll(() => outputs).toEqual(["got one\n", "got one\n"]);
    leave?.();
    container.streams?.write(Buffer.from("two"));
    await expect.poll(() => outputs).toEqual(["got one\n", "got one\ngot two\n"]);
    container.streams?.closeInput();
    expect(await exited).toEqual({ exitCode: 0 });
    expect(await log()).toBe("got one\ngot two\nend\n");
    expect((await container.streams?.log())?.toString()).toBe(await log());
  });

  test("without stdin are a log, and an empty input", async () => {
    const { container, exited } = await start(script(code));
    container.streams?.write(Buffer.from("ignored"));
    expect(await exited).toEqual({ exitCode: 0 });
    expect((await container.streams?.log())?.toString()).toBe("end\n");
  });

  test("are complete when the process ends, even if it ends right after a long output", async () => {
    const { exited, log } = await start(script("console.log('x'.repeat(500_000))", { stdin: true }));
    await exited;
    expect((await log()).length).toBe(500_001);
  });
});

describe("a process that waits in Berth's shell", () => {
  const waiting = (code: string, shape: Partial<Container> = {}) => ({
    ...shape,
    stdin: true,
    command: waitingCommand([NODE, "-e", code]),
  });
  const send = ({ streams }: LiveContainer, frame: string | null) => streams?.write(Buffer.from(frame ?? ""));

  test("skips junk, starts its program with the frame's variables, and hides its input from it", async () => {
    const show = "console.log(process.env.SECRET, require('fs').readFileSync(0, 'utf8').length)";
    const { container, exited, log } = await start(waiting(show));
    send(container, "\njunk\nberth1 20 half");
    send(container, shellFrame({ SECRET: "it's" }));
    send(container, shellFrame({ SECRET: "other" }));
    expect(await exited).toEqual({ exitCode: 0 });
    expect(await log()).toBe("berth1 started\nit's 0\n");
  });

  test("ends on SIGTERM, and at once without its program", async () => {
    const { container, exited } = await start(waiting(""));
    container.signal("SIGTERM");
    expect(await exited).toEqual({ exitCode: 143 });
    const missing = await start({ stdin: true, command: waitingCommand(["no-such-program"]) });
    expect(await missing.exited).toEqual({ exitCode: 127 });
    expect(await missing.log()).toBe("no-such-program: not found in the image, or not executable\n");
  });

  test("meets its fate only after its frame", async () => {
    const oom = { kind: "oom", afterMs: 0 } as const;
    const { container, exited, log } = await start(waiting("setInterval(() => {}, 1e6)"), {}, oom);
    send(container, "junk\n");
    send(container, shellFrame({ A: "1" }));
    expect(await exited).toEqual({ exitCode: 137, reason: "OOMKilled" });
    expect(await log()).toBe("berth1 started\n");
  });
});

describe("the processes of a Pod whose session can sleep", () => {
  const POD = { name: "sleeper", namespace: "tb" };

  const writeVolumes = async (pod: Pod) => {
    const files = volumeFiles(pod, { secret: () => undefined, configMap: () => undefined });
    await runtime.writeFiles(pod, files ?? new Map());
  };

  test("are turns that share the Pod's volumes", async () => {
    const pod = keeperPod({ ...POD, container: { command: [NODE, "-e", "eval(process.env.CODE)"] } });
    await writeVolumes(pod);
    const serve = async (turn: number, code: string) => {
      const { container, exited } = await start(renderTurn(pod, turn), { DIR: "/workspace" }, undefined, pod);
      container.streams?.write(Buffer.from(shellFrame({ CODE: code }) ?? ""));
      expect(await exited).toEqual({ exitCode: 0 });
      return await runtime.logs(pod, turnName(turn));
    };
    await serve(1, "fs.writeFileSync(process.env.DIR + '/f', 'kept')");
    const show = "console.log(fs.readFileSync(process.env.DIR + '/f', 'utf8'))";
    expect(await serve(2, show)).toBe("berth1 started\nkept\n");
  });

  test("are a keeper that ends on SIGTERM", async () => {
    const pod = keeperPod(POD);
    const [keeper = {}] = pod.spec.containers;
    const { container, exited } = await start(keeper, {}, undefined, pod);
    container.signal("SIGTERM");
    expect(await exited).toMatchObject({ exitCode: 143 });
  });

  test("are a keeper that ends with 4 after its deadline", async () => {
    const deadline = String(Math.floor(Date.now() / 1_000) - 1);
    const pod = keeperPod({ ...POD, annotations: { [ANNOTATION_DEADLINE]: deadline } });
    await writeVolumes(pod);
    const [keeper = {}] = pod.spec.containers;
    expect(await (await start(keeper, {}, undefined, pod)).exited).toMatchObject({ exitCode: 4 });
  });
});

describe("the replacement for an image", () => {
  test("provides the command and variables, followed by the Pod's arguments and overridden by its variables", async () => {
    const { exited, log } = await start({ image: "known:1", args: ["word"] }, { FROM_POD: "pod" });
    expect(await exited).toEqual({ exitCode: 0 });
    expect(await log()).toBe("image,pod,word\n");
  });

  test("is overridden by a command of the Pod", async () => {
    const { exited, log } = await start({ image: "known:1", ...script("console.log('own')") });
    expect(await exited).toEqual({ exitCode: 0 });
    expect(await log()).toBe("own\n");
  });
});

describe("a command that can't be run", () => {
  test("is a fault before the start if it's missing, and the message says what to do", () => {
    expect(runtime.createFault({ name: "c" })).toMatch(/no command specified.*set command/);
    expect(runtime.createFault({ name: "c", command: ["node"] })).toBeUndefined();
  });

  test.each([
    ["absent", ["/no/such/binary"], 'exec: "/no/such/binary": stat /no/such/binary: no such file or directory'],
    ["not on the path", ["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'],
    ["not executable", ["/etc/passwd"], 'exec: "/etc/passwd": permission denied'],
  ])("that is %s is a start error with the runtime's message", async (_what, command, message) => {
    const error = await start({ command }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(StartError);
    expect((error as Error).message).toContain(message);
  });

  test("has its $(VARIABLES) expanded first", async () => {
    const shape = { command: [NODE, "-e", "console.log(process.argv[1])"], args: ["$(WHO)-$$(WHO)-$(NOBODY)"] };
    const { exited, log } = await start(shape, { WHO: "me" });
    await exited;
    expect(await log()).toBe("me-$(WHO)-$(NOBODY)\n");
  });
});

describe("a node process that is killed with SIGKILL", () => {
  test("leaves no process of its containers and no folder behind", async () => {
    const parent: ChildProcess = fork(join(import.meta.dirname, "process-parent.ts"), [], {
      execArgv: [],
      stdio: "ignore",
    });
    parent.stdout?.resume();
    const [said] = (await once(parent, "message")) as [{ pids: number[]; folder: string }];
    expect(said.pids).toHaveLength(3);
    expect(said.pids.filter(isAlive)).toEqual(said.pids);
    parent.kill("SIGKILL");
    await expect.poll(() => said.pids.filter(isAlive), { timeout: 10_000 }).toEqual([]);
    await expect.poll(() => existsSync(said.folder), { timeout: 10_000 }).toBe(false);
  });
});

test("a removed Pod leaves no folder", async () => {
  const { pod, exited } = await start(script(""));
  await exited;
  await runtime.forget(pod);
  expect((await readdir(join(workDir, "pods"))).filter((name) => name.includes(`_${pod.metadata.name}_`))).toEqual([]);
});
