import { type ChildProcess, execFile, spawn } from "node:child_process";
import { type FileHandle, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import {
  programFrame,
  type SessionVariables,
  STARTED_MARKER,
  waitingCommand,
  waitingScript,
} from "../../src/pods/frame.ts";
import { buildGoWorkers, bundleWorker, installPythonPackages } from "../../testbed/workers/programs.ts";

// The examples for `parking: Program`, as processes on the work simulator. They need no cluster, but Go and Python, which
// unit tests do without.

/** Downloads the packages, and compiles the Go SDK, once per machine. */
const BUILD_TIMEOUT_MS = 900_000;
const EXAMPLES = join(import.meta.dirname, "../../examples/worker");
/** More than a pipe holds, so a write of it ends only when the program has read a part. */
const FLOOD = `${"x".repeat(99)}\n`.repeat(1_000);
/** A session that ends only when its worker gets SIGTERM. */
const NEVER = "600000";

const LANGUAGES = ["TypeScript", "Python", "Go"] as const;
type Language = (typeof LANGUAGES)[number];

let built: string;
let programs: Record<Language, { readonly argv: readonly string[]; readonly env?: Record<string, string> }>;

beforeAll(async () => {
  built = await mkdtemp(join(tmpdir(), "berth-waiting-built-"));
  const bundle = join(built, "waiting.mjs");
  const [text, { python, packages }] = await Promise.all([
    bundleWorker(join(EXAMPLES, "waiting.mjs")),
    installPythonPackages(),
    buildGoWorkers(built),
  ]);
  await writeFile(bundle, text);
  programs = {
    TypeScript: { argv: [process.execPath, bundle] },
    Python: { argv: [python, join(EXAMPLES, "waiting.py")], env: { PYTHONPATH: packages } },
    Go: { argv: [join(built, "waiting")] },
  };
}, BUILD_TIMEOUT_MS);
afterAll(() => rm(built, { recursive: true, force: true }));

let simulator: Simulator;
let environmentId: string;
let folder: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-waiting-"));
  simulator = await startSimulator();
  environmentId = simulator.createEnvironment().id;
});

afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill("SIGKILL");
  await simulator.close();
  await rm(folder, { recursive: true, force: true });
});

/** A program with the environment of its parked container, and a pipe as its standard input. */
class Waiting {
  readonly child: ChildProcess;
  readonly exit: Promise<number | null>;
  readonly #stdin: Promise<FileHandle>;
  stdout = "";
  stderr = "";

  constructor(language: Language, fifo: string, isStartedByShell: boolean) {
    const { argv, env } = programs[language];
    const command = isStartedByShell ? waitingCommand(argv, waitingScript("line")) : argv;
    this.child = spawn("/bin/sh", ["-c", 'fifo=$1; shift; exec "$@" <"$fifo"', "sh", fifo, ...command], {
      cwd: folder,
      env: {
        PATH: process.env["PATH"] ?? "",
        HOME: folder,
        WORKSPACE: folder,
        BERTH_WORKER_MAX_IDLE_MS: NEVER,
        ANTHROPIC_BASE_URL: simulator.url,
        ANTHROPIC_ENVIRONMENT_ID: environmentId,
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.push(this.child);
    this.child.stdout?.on("data", (chunk) => (this.stdout += chunk));
    this.child.stderr?.on("data", (chunk) => (this.stderr += chunk));
    this.exit = new Promise((resolve) => this.child.once("close", resolve));
    this.#stdin = open(fifo, "w");
  }

  async write(text: string): Promise<void> {
    await (await this.#stdin).writeFile(text);
  }

  async closeInput(): Promise<void> {
    await (await this.#stdin).close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.exit;
    await this.closeInput();
  }
}

/** @param isStartedByShell whether a shell waits for the item, and then starts the program */
async function start(language: Language, isStartedByShell = false): Promise<Waiting> {
  const fifo = join(folder, "stdin");
  await promisify(execFile)("mkfifo", [fifo]);
  return new Waiting(language, fifo, isStartedByShell);
}

/** Queues and claims an item, as the operator does. */
async function claim(
  ...commands: string[]
): Promise<{ workId: string; sessionId: string; variables: SessionVariables }> {
  simulator.enqueue(environmentId, { script: bashScript(...commands) });
  const claimed = (await simulator.claim(environmentId)) ?? {};
  const { ANTHROPIC_BASE_URL: _url, ANTHROPIC_ENVIRONMENT_ID: _id, ...variables } = claimed;
  return { workId: claimed["ANTHROPIC_WORK_ID"] ?? "", sessionId: claimed["ANTHROPIC_SESSION_ID"] ?? "", variables };
}

const frameOf = (variables: SessionVariables) => programFrame(variables) ?? "";

/** Waits until the session's tool calls are answered. @returns their outputs */
async function answers(sessionId: string): Promise<(string | undefined)[]> {
  const calls = () => simulator.session(sessionId).toolCalls;
  await simulator.waitFor(() => calls().length > 0 && calls().every(({ answeredAt }) => answeredAt !== undefined), {
    what: "answers to the tool calls",
    timeoutMs: 60_000,
  });
  // The SDKs differ in the line breaks at the end.
  return calls().map(({ output }) => output?.trimEnd());
}

describe.each(LANGUAGES)("the waiting worker in %s", (language) => {
  test("ignores everything but a whole frame, serves its item, and reads no further", async () => {
    const { workId, sessionId, variables } = await claim(
      "readlink /proc/$PPID/fd/0",
      "tr '\\0' '\\n' </proc/$PPID/environ | grep -E 'SECRET|WORK_ID' | wc -l",
    );
    const frame = frameOf(variables);
    const [, length = ""] = frame.split(" ");
    await using program = await start(language);
    await program.write("\n\r\nhello\n\0\xff\n");
    await program.write("berth1 2 {} #end\nberth1 2 [] #end\nberth1 1 { #end\nberth1 4 null #end\n");
    await program.write(frame.replace(length, String(Number(length) + 1)));
    await program.write(frame.replace(" #end", ""));
    await program.write(frame.replace("berth1", "berth2"));
    await program.write(FLOOD);
    expect({ stdout: program.stdout, stderr: program.stderr }).toEqual({ stdout: "", stderr: "" });
    expect(simulator.item(workId)).toMatchObject({ state: "starting", beats: 0 });
    // Half a line that a lost connection left, and then a frame in two parts.
    await program.write(frame.slice(0, 60));
    await program.write(frame.slice(0, 90));
    await program.write(frame.slice(90));
    expect(await answers(sessionId)).toEqual(["/dev/null", "0"]);
    await expect(program.write(frame)).rejects.toThrow("EPIPE");
    program.child.kill("SIGTERM");
    expect(await program.exit).toBe(0);
    expect(program.stdout).toBe(`${STARTED_MARKER}\n`);
    expect(program.stderr).not.toContain(variables["ANTHROPIC_WORK_SECRET"]);
    expect(simulator.item(workId)).toMatchObject({ state: "stopped", stoppedBy: { as: "sessions-token" } });
    simulator.assertNoViolations();
  });

  test("serves the item of a session that has slept: a shell starts it with the frame", async () => {
    const { workId, sessionId, variables } = await claim("readlink /proc/$PPID/fd/0");
    await using program = await start(language, true);
    const frame = frameOf(variables);
    await program.write(`hello\n${frame.slice(0, 60)}${frame}${frame}`);
    expect(await answers(sessionId)).toEqual(["/dev/null"]);
    program.child.kill("SIGTERM");
    expect(await program.exit).toBe(0);
    expect(program.stdout).toBe(`${STARTED_MARKER}\n${STARTED_MARKER}\n`);
    expect(program.stderr).not.toContain(variables["ANTHROPIC_WORK_SECRET"]);
    expect(simulator.item(workId)).toMatchObject({ state: "stopped" });
    simulator.assertNoViolations();
  });

  test("serves an item with the environment key", async () => {
    simulator.setSwitches({ secrets: "none" });
    const { workId, sessionId, variables } = await claim("echo hello");
    expect(Object.keys(variables)).toContain("ANTHROPIC_ENVIRONMENT_KEY");
    await using program = await start(language);
    await program.write(frameOf(variables));
    expect(await answers(sessionId)).toEqual(["hello"]);
    program.child.kill("SIGTERM");
    expect(await program.exit).toBe(0);
    expect(simulator.item(workId)).toMatchObject({ state: "stopped", stoppedBy: { as: "environment-key" } });
    simulator.assertNoViolations();
  });

  test("exits at once on SIGTERM while it waits", async () => {
    await using program = await start(language);
    await program.write(FLOOD);
    program.child.kill("SIGTERM");
    expect(await program.exit).toBe(143);
    expect({ stdout: program.stdout, stderr: program.stderr }).toEqual({ stdout: "", stderr: "" });
  });

  test("exits with 75 when its standard input is closed without an item", async () => {
    const { variables } = await claim("echo hello");
    await using program = await start(language);
    await program.write(frameOf(variables).slice(0, -10));
    await program.closeInput();
    expect(await program.exit).toBe(75);
    expect({ stdout: program.stdout, stderr: program.stderr }).toEqual({ stdout: "", stderr: "" });
  });
});
