import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import { programFrame } from "../../src/pods/frame.ts";
import { buildGoWorkers, bundleWorker, installPythonPackages } from "../../testbed/workers/programs.ts";
import { quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Scenario } from "../scenario.ts";
import { cpuSeconds } from "../support/process-status.ts";

const EXAMPLES = join(import.meta.dirname, "../../examples/worker");
/** More than the pipe to a program holds: when it is written, the program is reading. */
const JUNK = "\n".repeat(1_000_000);
/** For a program to become idle after it has read the junk. */
const SETTLE_MS = 200;
const PATIENCE_MS = 60_000;

/** A way to start a worker. */
interface Way {
  readonly name: string;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The program has started before, and gets its item as a line on standard input. */
  readonly waits?: boolean;
}

export const workerStart: Scenario = {
  name: "worker-start",
  title: "The example workers' start",
  about:
    "The time from the start of an example worker's process to its first heartbeat. For a waiting worker, the time " +
    "starts when it gets the line with its item. The workers run as processes on this machine, in turns, one at a " +
    "time.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const samples = options.quick ? 1 : 20;
  const dir = await mkdtemp(join(tmpdir(), "berth-worker-start-"));
  await using simulator = await startSimulator();
  try {
    const ways = await makeWays(dir);
    const found = new Map(ways.map(({ name }) => [name, [] as Start[]]));
    for (let at = 0; at < samples; at += 1) {
      for (const way of ways) found.get(way.name)?.push(await start(way, dir, simulator));
      log(`${at + 1} of ${samples}`);
    }
    const cpuOf = (name: string) => quantiles((found.get(name) ?? []).map(({ cpuMs }) => cpuMs)).p50;
    const rows = [...found].map(([name, starts]): Cell[] => {
      const { p50, p90, max } = quantiles(starts.map(({ ms }) => ms));
      return [name, starts.length, p50, p90, max, cpuOf(name)];
    });
    const ratio = (name: string, over: string, atMost: number) => {
      return {
        name: `CPU time of ${name}, divided by that of ${over}`,
        value: cpuOf(name) / cpuOf(over),
        atMost,
        unit: "x",
      };
    };
    const columns = ["milliseconds", "starts", "p50", "p90", "max", "CPU time, p50"];
    return {
      tables: [{ title: "To the first heartbeat", columns, rows }],
      gates: [
        ratio("TypeScript, one file", "TypeScript, the SDK's modules", 0.75),
        ratio("TypeScript, waiting", "TypeScript, one file", 0.6),
        ratio("Python, waiting", "Python", 0.2),
      ],
    };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function makeWays(dir: string): Promise<Way[]> {
  const bundle = async (name: string) => {
    const path = join(dir, `${name}.mjs`);
    await writeFile(path, await bundleWorker(join(EXAMPLES, `${name}.mjs`)));
    return path;
  };
  const { python, packages } = await installPythonPackages();
  await buildGoWorkers(dir);
  const env = { PYTHONPATH: packages };
  return [
    { name: "TypeScript, the SDK's modules", argv: [process.execPath, join(EXAMPLES, "worker.mjs")] },
    { name: "TypeScript, one file", argv: [process.execPath, await bundle("worker")] },
    { name: "TypeScript, waiting", argv: [process.execPath, await bundle("waiting")], waits: true },
    { name: "Python", argv: [python, join(EXAMPLES, "worker.py")], env },
    { name: "Python, waiting", argv: [python, join(EXAMPLES, "waiting.py")], env, waits: true },
    { name: "Go", argv: [join(dir, "worker")] },
    { name: "Go, waiting", argv: [join(dir, "waiting")], waits: true },
  ];
}

/** Milliseconds from a start to the first heartbeat. */
interface Start {
  readonly ms: number;
  /** What the process used of them. The kernel counts in steps of 10 ms. */
  readonly cpuMs: number;
}

/** Starts a worker with an item, and ends it after its first heartbeat. */
async function start(way: Way, dir: string, simulator: Simulator): Promise<Start> {
  const { id } = simulator.createEnvironment();
  simulator.enqueue(id);
  const claimed = (await simulator.claim(id)) ?? {};
  const { ANTHROPIC_BASE_URL = "", ANTHROPIC_ENVIRONMENT_ID = "", ...item } = claimed;
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: dir,
    WORKSPACE: dir,
    ANTHROPIC_BASE_URL,
    ANTHROPIC_ENVIRONMENT_ID,
  };
  const [program = "", ...args] = way.argv;
  const workId = item["ANTHROPIC_WORK_ID"] ?? "";
  let [startedAt, cpuBefore] = [performance.now(), 0];
  const child = spawn(program, args, {
    env: { ...env, ...way.env, ...(way.waits ? {} : item) },
    stdio: ["pipe", "ignore", "ignore"],
  });
  try {
    if (way.waits) {
      await written(child, JUNK);
      await pause(SETTLE_MS);
      cpuBefore = await cpuSeconds(child.pid ?? 0);
      startedAt = performance.now();
      await written(child, programFrame(item) ?? "");
    }
    const beat = () => simulator.item(workId).beats > 0;
    await simulator.waitFor(beat, { what: `${way.name}: a heartbeat`, timeoutMs: PATIENCE_MS });
    const ms = performance.now() - startedAt;
    return { ms, cpuMs: ((await cpuSeconds(child.pid ?? 0)) - cpuBefore) * 1_000 };
  } finally {
    child.kill();
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
}

async function written(child: ChildProcess, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    child.stdin?.write(text, (error) => (error ? reject(error) : resolve()));
  });
}
