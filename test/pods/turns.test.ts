import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { KEEPER_VOLUME } from "../../src/api/names.ts";
import type { Container, ContainerState, Pod } from "../../src/kube/resource.ts";
import { isWaitingCommand, programFrame, waitingCommand, waitingScript } from "../../src/pods/frame.ts";
import { newPodName } from "../../src/pods/pod-render.ts";
import {
  endedTurn,
  hasOpenTurn,
  hasRerunTurn,
  hasTurns,
  isAsleep,
  isRerun,
  isWaitingTurnDead,
  keeperOf,
  keeperVolume,
  livesOn,
  newestTurn,
  openTurn,
  podOfSlot,
  renderTurn,
  slotName,
  slotOf,
  startsAhead,
  turnAnnotations,
  turnName,
  turnNumber,
  turnPatch,
} from "../../src/pods/turns.ts";
import { patchEphemeralContainers } from "../support/ephemeral-containers.ts";
import { type KeeperPod, keeperPod } from "../support/keeper-pods.ts";
import { pod } from "./pods.ts";
import { AS_FIRST_PROCESS, childOf, hasNamespaces, isInstalled, SHELLS, type Shell, waits } from "./shells.ts";
import { turnsPod } from "./turn-pods.ts";

const REF = { name: "berth-research-x", namespace: "agents" };
const liveOf = (more: Partial<KeeperPod> = {}) => keeperPod({ ...REF, ...more });
const RUNNING: ContainerState = { running: { startedAt: "2030-01-01T00:00:00Z" } };
const ENDED: ContainerState = { terminated: { exitCode: 0 } };

describe("the names of turns and slots", () => {
  test("lead back to the turn and the Pod", () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1, maxLength: 50 }),
        fc.integer({ min: 2, max: 999_999 }),
        (environment, n) => {
          const name = newPodName(environment);
          expect(turnNumber(turnName(n))).toBe(n);
          expect(podOfSlot(slotName(name, n))).toEqual({ pod: name, turn: n });
          expect(podOfSlot(name)).toEqual({ pod: name, turn: 0 });
        },
      ),
    );
  });

  test("of the first turn is the Pod's own", () => {
    expect([slotName("pod", 0), slotName("pod", 1), slotName("pod", 2)]).toEqual(["pod", "pod", "pod-t2"]);
  });

  test.each(["pod-t0", "pod-t", "pod-t02", "pod-t1x", "pod-t1234567", "-t2"])("are not read from %s", (name) => {
    expect(podOfSlot(name)).toEqual({ pod: name, turn: 0 });
  });

  test.each(["worker", "berth-turn-", "berth-turn-x", "my-berth-turn-2"])("are not read from container %s", (name) => {
    expect(turnNumber(name)).toBe(0);
  });
});

describe("the turn of a Pod", () => {
  const readOf = (of: Pod) => ({
    ...{ ended: endedTurn(of), newest: newestTurn(of), isOpen: hasOpenTurn(of), open: openTurn(of), slot: slotOf(of) },
  });

  test.each([
    ["before the first one is added", { ended: 0, turns: [] }, { newest: 0, isOpen: false, open: 1, slot: "pod" }],
    ["while the first one waits", { ended: 0, turns: [1] }, { newest: 1, isOpen: true, open: 1, slot: "pod" }],
    ["before the next one is added", { ended: 1, turns: [1] }, { newest: 1, isOpen: false, open: 2, slot: "pod-t2" }],
    ["while the next one waits", { ended: 1, turns: [2, 1] }, { newest: 2, isOpen: true, open: 2, slot: "pod-t2" }],
    ["after a number was skipped", { ended: 1, turns: [3, 1] }, { newest: 3, isOpen: true, open: 3, slot: "pod-t3" }],
    ["after the tenth", { ended: 9, turns: [9, 10] }, { newest: 10, isOpen: true, open: 10, slot: "pod-t10" }],
    ["that lost its turns", { ended: 4, turns: [] }, { newest: 0, isOpen: false, open: 5, slot: "pod-t5" }],
  ])("%s", (_, { ended, turns }, expected) => {
    const states = Object.fromEntries(turns.map((turn) => [turn, RUNNING]));
    expect(readOf(turnsPod({ name: "pod", ended, turns: states }))).toEqual({ ended, ...expected });
  });

  test("is none if the Pod has no turns: its slot has its own name", () => {
    const other = pod({}, { spec: { ephemeralContainers: [{ name: "debugger" }] } });
    expect(hasTurns(other)).toBe(false);
    expect(readOf(other)).toMatchObject({ ended: 0, newest: 0, isOpen: false, slot: "berth-research-x" });
  });

  test("has not ended if the Pod's record is not a number", () => {
    expect(endedTurn({ metadata: { annotations: { "berth.dev/ended-turn": "many" } } })).toBe(0);
  });
});

describe("a Pod lives on after its turn", () => {
  test("while its keeper runs", () => {
    expect(livesOn(turnsPod({ turns: { 1: ENDED } }), 1)).toBe(true);
  });

  test.each<[string, Pod, number]>([
    ["it has no turns", pod({ phase: "Running", containerStatuses: [{ name: "worker", state: RUNNING }] }), 1],
    ["the claim has no turn", turnsPod({ turns: { 1: ENDED } }), 0],
    ["it is being deleted", turnsPod({ turns: { 1: ENDED }, metadata: { deletionTimestamp: "2030-01-01" } }), 1],
    ["its keeper has ended", turnsPod({ turns: { 1: ENDED }, keeper: ENDED }), 1],
    ["its keeper has not started", turnsPod({ turns: { 1: ENDED }, keeper: { waiting: {} } }), 1],
    ["it has failed", turnsPod({ turns: { 1: ENDED }, status: { phase: "Failed" } }), 1],
    ["its node is lost", turnsPod({ turns: { 1: ENDED }, status: { reason: "NodeLost" } }), 1],
  ])("not if %s", (_, of, turn) => expect(livesOn(of, turn)).toBe(false));
});

describe("a turn that its node ended or started again", () => {
  const asleep = (of: Parameters<typeof turnsPod>[0]) => turnsPod({ phase: "sleeping", ended: 1, ...of });

  test("was killed while it waited for the session's next item", () => {
    expect(isWaitingTurnDead(asleep({ turns: { 1: ENDED, 2: ENDED } }))).toBe(true);
    expect(isWaitingTurnDead(asleep({ turns: { 1: ENDED, 2: RUNNING } }))).toBe(false);
    expect(isWaitingTurnDead(asleep({ turns: { 1: ENDED } }))).toBe(false);
    // It served, or its Pod ends.
    expect(isWaitingTurnDead(asleep({ turns: { 1: ENDED, 2: ENDED }, phase: "running" }))).toBe(false);
    expect(isWaitingTurnDead(asleep({ turns: { 1: ENDED, 2: ENDED }, keeper: ENDED }))).toBe(false);
  });

  test("runs although its end is on record", () => {
    expect(hasRerunTurn(asleep({ turns: { 1: RUNNING, 2: RUNNING } }))).toBe(true);
    expect(hasRerunTurn(asleep({ turns: { 1: ENDED, 2: RUNNING } }))).toBe(false);
    const debugged = asleep({ turns: { 1: ENDED }, others: { debugger: RUNNING } });
    expect(hasRerunTurn(debugged)).toBe(false);
  });

  test("is another container than the one that was given the session", () => {
    const claimed = (id: string | undefined, phase: "running" | "sleeping" = "running") =>
      turnsPod({ ended: 1, turns: { 2: RUNNING }, ids: { 2: "containerd://now" }, phase, claimedIn: id });
    expect(isRerun(claimed("containerd://before"), 2)).toBe(true);
    expect(isRerun(claimed("containerd://now"), 2)).toBe(false);
    // The id is that of an earlier turn until the next one is claimed.
    expect(isRerun(claimed("containerd://before", "sleeping"), 2)).toBe(false);
    expect(isRerun(claimed(undefined), 2)).toBe(false);
    expect(isRerun(turnsPod({ turns: { 2: RUNNING }, phase: "running", claimedIn: "containerd://before" }), 2)).toBe(
      false,
    );
  });

  test("is asleep by its label only", () => {
    expect([isAsleep(asleep({})), isAsleep(turnsPod({})), isAsleep(pod())]).toEqual([true, false, false]);
  });
});

describe("a turn's container", () => {
  const CONTAINER: Container = {
    ...{ name: "worker", image: "worker:1", imagePullPolicy: "Always", command: ["node", "a b"], args: ["--x"] },
    workingDir: "/workspace",
    env: [
      { name: "A", value: "1" },
      { name: "MEMORY", valueFrom: { resourceFieldRef: { resource: "limits.memory" } } },
      { name: "OTHERS", valueFrom: { resourceFieldRef: { resource: "limits.memory", containerName: "proxy" } } },
      { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
    ],
    envFrom: [{ configMapRef: { name: "settings" } }],
    resources: { limits: { memory: "1Gi" } },
    securityContext: { runAsUser: 1_000 },
    terminationMessagePolicy: "FallbackToLogsOnError",
  };

  test("is the session container as a waiting shell, without its resources", () => {
    expect(renderTurn(liveOf({ container: CONTAINER }), 3)).toEqual({
      ...{ name: "berth-turn-3", image: "worker:1", imagePullPolicy: "IfNotPresent", workingDir: "/workspace" },
      command: waitingCommand(["node", "a b", "--x"], expect.stringMatching(/^_t=3; \. \/\S+$/)),
      env: [
        { name: "A", value: "1" },
        // Its own limits would be those of the whole node.
        { name: "MEMORY", valueFrom: { resourceFieldRef: { resource: "limits.memory", containerName: "worker" } } },
        { name: "OTHERS", valueFrom: { resourceFieldRef: { resource: "limits.memory", containerName: "proxy" } } },
        { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
      ],
      envFrom: [{ configMapRef: { name: "settings" } }],
      securityContext: { runAsUser: 1_000 },
      terminationMessagePolicy: "FallbackToLogsOnError",
      volumeMounts: [
        { name: "workspace", mountPath: "/workspace" },
        { name: KEEPER_VOLUME, mountPath: expect.any(String), readOnly: true },
      ],
      stdin: true,
    });
  });

  test("with parking Program starts the first program ahead, and waits in a shell for the items of all others", () => {
    const live = liveOf({ container: CONTAINER, annotations: { "berth.dev/parking": "Program" } });
    const [first, second] = [renderTurn(live, 1), renderTurn(live, 2)];
    expect(startsAhead(live, 1)).toBe(true);
    expect(first).toMatchObject({ stdin: true });
    expect(first.command).toEqual(["/bin/sh", "-c", expect.any(String), "berth-program", "node", "a b", "--x"]);
    expect(isWaitingCommand(first.command)).toBe(false);
    expect(startsAhead(live, 2)).toBe(false);
    expect(turnAnnotations("Program")["berth.dev/turn-script"]).toContain(waitingScript("line"));
    expect(turnAnnotations("Shell")["berth.dev/turn-script"]).toContain(waitingScript());
    expect(second.command?.slice(3)).toEqual(["berth-shell", "node", "a b", "--x"]);
    // The kubelet would expand these.
    expect(first.command?.[2]).not.toMatch(/\$\([A-Za-z_]|\$\$/);
  });

  test("gets what admission added to the Pod", () => {
    const live = liveOf();
    const keeper = live.spec.containers[0] as Container;
    const token = { name: "token", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount", readOnly: true };
    const added = {
      image: "registry.internal/worker@sha256:1",
      env: [{ name: "HTTPS_PROXY", value: "http://proxy" }],
      volumeMounts: [...(keeper["volumeMounts"] as object[]), token],
      volumeDevices: [{ name: "disk", devicePath: "/dev/xvda" }],
    };
    const changed = { ...live, spec: { ...live.spec, containers: [{ ...keeper, ...added }] } };
    expect(renderTurn(changed, 1)).toMatchObject(added);
  });

  test("is the same for every process that adds it, and the API server accepts it", () => {
    const live = liveOf({ container: CONTAINER });
    const again = JSON.parse(JSON.stringify(live)) as Pod;
    expect(JSON.stringify(renderTurn(again, 2))).toBe(JSON.stringify(renderTurn(live, 2)));
    const patched = patchEphemeralContainers(live, turnPatch(live, 2));
    expect(patched).toMatchObject({ containers: [{ name: "berth-turn-2" }] });
  });

  test("is added to the Pod that was read, and to no later version of it", () => {
    const live = liveOf();
    const read = { ...live, metadata: { ...live.metadata, uid: "pod-uid", resourceVersion: "7" } };
    expect(turnPatch(read, 1).metadata).toEqual({ uid: "pod-uid", resourceVersion: "7" });
  });

  test("is rendered from no other container than the keeper", () => {
    const live = liveOf();
    const replaced = { ...live, spec: { containers: [{ name: "worker", command: waitingCommand(["worker"]) }] } };
    expect(() => renderTurn(replaced, 1)).toThrow("has no keeper container");
    const unnamed = { ...live, metadata: { ...live.metadata, annotations: {} } };
    expect(() => renderTurn(unnamed, 1)).toThrow("has no keeper container");
  });
});

describe("a keeper's container", () => {
  const { command = [], ...rest } = keeperOf({ name: "worker", image: "worker:1", command: ["node"], args: ["--x"] });

  test("has the program in its arguments, and does not wait for a line", () => {
    expect(command.slice(-2)).toEqual(["node", "--x"]);
    expect(isWaitingCommand(command)).toBe(false);
    // The kubelet would expand these.
    expect(command[2]).not.toMatch(/\$\([A-Za-z_]|\$\$/);
    expect(rest).not.toHaveProperty("args");
  });

  test("mounts the Pod's deadline, read-only", () => {
    expect(rest["volumeMounts"]).toEqual([{ name: KEEPER_VOLUME, mountPath: expect.any(String), readOnly: true }]);
    expect(keeperVolume()).toMatchObject({ name: KEEPER_VOLUME });
    expect(fileOf("berth.dev/deadline")).not.toBe(fileOf("berth.dev/ended-turn"));
  });
});

/** The name of the file in the keeper's volume that has this annotation of the Pod. */
function fileOf(annotation: string): string {
  const { downwardAPI } = keeperVolume() as {
    downwardAPI: { items: { path: string; fieldRef: { fieldPath: string } }[] };
  };
  const item = downwardAPI.items.find(({ fieldRef }) => fieldRef.fieldPath === `metadata.annotations['${annotation}']`);
  if (!item) throw new Error(`the volume has no file for ${annotation}`);
  return item.path;
}

interface KeeperRun {
  /** The content of the deadline's file; null: there is none. */
  readonly deadline?: string | null;
  readonly path?: string;
  readonly launcher?: readonly string[];
}

const REAL_PATH = "/usr/bin:/bin";

/** Starts a keeper's script, with its deadline in a new folder, which is also its working directory. */
function startKeeper({ program, args, argv0 }: Shell, folder: string, run: KeeperRun = {}) {
  const { deadline = null, path = REAL_PATH, launcher = [] } = run;
  const { command = [], volumeMounts } = keeperOf({ name: "worker", command: ["node"] });
  const [{ mountPath }] = volumeMounts as [{ mountPath: string }];
  if (deadline !== null) writeFileSync(join(folder, fileOf("berth.dev/deadline")), deadline);
  const script = command.map((each) => each.replaceAll(mountPath, folder)).slice(1);
  const [first = "", ...others] = [...launcher, program, ...args, ...script];
  const child: ChildProcess = spawn(first, others, {
    ...{ cwd: folder, env: { PATH: path }, stdio: ["ignore", "pipe", "pipe"], detached: true },
    ...(argv0 && { argv0 }),
  });
  const end = () => {
    try {
      // With the `sleep` that it started.
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  };
  onTestFinished(end);
  const output = { stdout: "", stderr: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    output.stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    output.stderr += text;
  });
  // Its `sleep` holds the ends of the pipes.
  child.once("exit", end);
  const ended = once(child, "close").then(([code]: (number | null)[]) => ({ code, ...output }));
  return { child, ended };
}

function newFolder(): string {
  const path = mkdtempSync(join(tmpdir(), "keeper-test-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function newTool(folder: string, name: string, lines: readonly string[]): void {
  const file = join(folder, name);
  writeFileSync(file, ["#!/bin/sh", ...lines, ""].join("\n"));
  chmodSync(file, 0o755);
}

/** The time at which `runBy` starts, in seconds since the epoch. */
const NOW = 2_000_000_000;

/**
 * Runs a keeper whose `sleep` advances its `date`, and returns how long it slept each time.
 * @param duringSleep shell commands that each `sleep` runs, in the folder of the deadline; `$n` counts the calls
 */
async function runBy(shell: Shell, deadline: string | null, duringSleep = "") {
  const folder = newFolder();
  const tools = join(folder, "bin");
  mkdirSync(tools);
  writeFileSync(join(folder, "now"), `${NOW}\n`);
  newTool(tools, "date", ["read -r now <now", '[ "$1" = +%s ] && echo "$now"']);
  newTool(tools, "sleep", [
    'echo "$1" >>slept; n=0; while read -r _; do n=$((n+1)); done <slept',
    'read -r now <now; echo "$((now+$1))" >now',
    duringSleep,
  ]);
  const { code, stderr } = await startKeeper(shell, folder, { deadline, path: tools }).ended;
  const slept = readFileSync(join(folder, "slept"), { encoding: "utf8", flag: "a+" });
  return { code, stderr, slept: slept.trim().split("\n").filter(Boolean).map(Number) };
}

/** The exit code of a shell that waited for its line when its input was closed. */
const WAITED = 75;

interface TurnStart {
  /** The Pod's record of ended turns. */
  readonly ended: string | null;
  readonly parking?: "Shell" | "Program";
  /** Of the template. */
  readonly argv?: readonly string[];
  /** What is on its standard input before that closes. */
  readonly input?: string;
}

/** Starts the shell of a turn on a node. */
function startTurn({ program, args, argv0 }: Shell, turn: number, of: TurnStart) {
  const { ended, parking = "Shell", argv = ["sh"], input = "" } = of;
  const folder = newFolder();
  if (ended !== null) writeFileSync(join(folder, fileOf("berth.dev/ended-turn")), ended);
  const pod = liveOf({ container: { command: [...argv] }, annotations: { "berth.dev/parking": parking } });
  const [{ mountPath }] = keeperOf({ name: "worker" })["volumeMounts"] as [{ mountPath: string }];
  const [, ...command] = renderTurn(pod, turn).command ?? [];
  const inFolder = (text: string) => text.replaceAll(mountPath, folder);
  const script = command.map(inFolder);
  const sourced = pod.metadata.annotations?.["berth.dev/turn-script"] ?? "";
  writeFileSync(join(folder, fileOf("berth.dev/turn-script")), inFolder(sourced));
  writeFileSync(join(folder, "input"), input);
  // With a socket, which Node would use, bash reads its user's start-up file.
  const stdin = openSync(join(folder, "input"), "r");
  const { status, stdout, stderr } = spawnSync(program, [...args, ...script], {
    ...{ encoding: "utf8", env: { PATH: REAL_PATH }, stdio: [stdin, "pipe", "pipe"] },
    ...(argv0 && { argv0 }),
  });
  closeSync(stdin);
  return { status, stdout, stderr };
}

for (const [name, shell] of Object.entries(SHELLS)) {
  describe.skipIf(!isInstalled(shell))(`in ${name}, the shell of a turn`, () => {
    const ended = (turn: number, record: string | null) => startTurn(shell, turn, { ended: record });

    test.each([
      [3, "3"],
      [3, "12"],
      [1, "1\n"],
    ])("ends at once when turn %i starts again after turn %j has ended on record", (turn, record) => {
      expect(ended(turn, record)).toEqual({ status: 0, stdout: "", stderr: "" });
    });

    test.each([
      [1, "0"],
      [12, "3"],
      [1, "nonsense"],
      [1, ""],
      [1, null],
    ])("of turn %i waits if %j is on record", (turn, record) => {
      expect(ended(turn, record)).toEqual({ status: WAITED, stdout: "", stderr: "" });
    });
  });

  describe.skipIf(!isInstalled(shell))(`in ${name}, a turn with parking Program`, () => {
    /** The program prints its arguments and its input. */
    const argv = ["sh", "-c", 'echo "$1"; cat; exit 7', "worker", "a b"];
    const startedAs = (turn: number, ended: string, input: string) =>
      startTurn(shell, turn, { ended, parking: "Program", argv, input });
    const frame = programFrame({ ANTHROPIC_WORK_ID: "work_1" }) ?? "";

    test("starts the first program ahead of its work item, with the container's input", () => {
      const input = `\n${frame}${frame}`;
      expect(startedAs(1, "0", "")).toEqual({ status: 7, stdout: "a b\n", stderr: "" });
      expect(startedAs(1, "0", input)).toEqual({ status: 7, stdout: `a b\n${input}`, stderr: "" });
    });

    test("starts no later program before its work item comes", () => {
      expect(startedAs(2, "1", "\n")).toEqual({ status: WAITED, stdout: "", stderr: "" });
      const stdout = `berth1 started\na b\n${frame.slice(1)}`;
      expect(startedAs(2, "1", `\n${frame}${frame}`)).toEqual({ status: 7, stdout, stderr: "" });
    });

    test.each([1, 2])("starts no program when turn %i starts again after it has ended on record", (turn) => {
      expect(startedAs(turn, String(turn), frame)).toEqual({ status: 0, stdout: "", stderr: "" });
    });

    test.each([1, 2])("ends with 127 if the program of turn %i is not in the image", (turn) => {
      const missing = { ended: "0", parking: "Program", argv: ["no-such-program"], input: frame } as const;
      expect(startTurn(shell, turn, missing)).toMatchObject({ status: 127, stdout: "" });
    });
  });

  describe.skipIf(!isInstalled(shell))(`in ${name}, a keeper`, () => {
    /** It prefers its own `date` and `sleep` to those of the image. */
    const hasOwnTools = shell.program.endsWith("busybox");

    test.each(["0", "1000000000"])("ends with 4 after its deadline %s", async (deadline) => {
      const ended = await startKeeper(shell, newFolder(), { deadline }).ended;
      expect(ended).toEqual({ code: 4, stdout: "", stderr: "" });
    });

    test.skipIf(hasOwnTools)("sleeps until its deadline, and reads it every five minutes", async () => {
      expect(await runBy(shell, String(NOW + 700))).toEqual({ code: 4, stderr: "", slept: [300, 300, 100] });
      expect(await runBy(shell, String(NOW))).toEqual({ code: 4, stderr: "", slept: [] });
    });

    test.skipIf(hasOwnTools)("uses a deadline that an operator has moved", async () => {
      const earlier = await runBy(shell, String(NOW + 100_000), `echo ${NOW + 310} >deadline`);
      expect(earlier).toEqual({ code: 4, stderr: "", slept: [300, 10] });
      const later = await runBy(shell, String(NOW + 100), `echo ${NOW + 150} >deadline`);
      expect(later).toEqual({ code: 4, stderr: "", slept: [100, 50] });
    });

    test.skipIf(hasOwnTools).each([null, "", "soon", "-5", "12a", "1.5", "1 2"])(
      "stays while its deadline is %j",
      async (deadline) => {
        const { code, slept } = await runBy(shell, deadline, "[ $n -lt 3 ] || echo 0 >deadline");
        expect({ code, slept }).toEqual({ code: 4, slept: [300, 300, 300] });
      },
    );

    test.each([null, "soon"])("waits, and exits with 143 on SIGTERM, while its deadline is %j", async (deadline) => {
      const { child, ended } = startKeeper(shell, newFolder(), { deadline });
      await waits(() => child.pid);
      child.kill("SIGTERM");
      expect(await ended).toEqual({ code: 143, stdout: "", stderr: "" });
    });

    test.skipIf(!hasNamespaces)("exits with 143 on SIGTERM also as a container's first process", async () => {
      const { program, args } = shell;
      const deadline = String(Math.floor(Date.now() / 1_000) + 1_000);
      const { child, ended } = startKeeper({ program, args }, newFolder(), { deadline, launcher: AS_FIRST_PROCESS });
      const first = () => childOf(child.pid);
      await waits(first);
      process.kill(first() ?? 0, "SIGTERM");
      expect((await ended).code).toBe(143);
    });

    test.skipIf(hasOwnTools).each(["date", "sleep"])("ends with 127 if the image has no %s", async (missing) => {
      const folder = newFolder();
      for (const tool of ["date", "sleep"]) if (tool !== missing) newTool(folder, tool, ["exit 0"]);
      const { code, stderr } = await startKeeper(shell, folder, { deadline: "9999999999", path: folder }).ended;
      expect({ code, stderr }).toEqual({ code: 127, stderr: `${missing}: not found in the image\n` });
    });
  });
}
