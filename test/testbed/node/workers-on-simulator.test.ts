import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../../simulator/simulator.ts";
import { type Clock, realClock } from "../../../src/core/clock.ts";
import type { Container } from "../../../src/kube/objects.ts";
import { type FateInput, parseFate } from "../../../testbed/node/fate.ts";
import { Latency, seededRandom } from "../../../testbed/node/latency.ts";
import { ProcessRuntime } from "../../../testbed/node/process-runtime.ts";
import type { ContainerExit, ContainerRuntime, LiveContainer } from "../../../testbed/node/runtime.ts";
import { ScriptedRuntime } from "../../../testbed/node/scripted-runtime.ts";
import { ScriptedWorkers } from "../../../testbed/node/scripted-worker.ts";
import { type WorkAnswer, WorkCalls } from "../../../testbed/node/work-calls.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { boundPod } from "./pod-bench.ts";

let simulator: Simulator;
let environmentId: string;

async function useSimulator(clock: Clock, ttlSeconds: number): Promise<void> {
  simulator = await startSimulator({ clock, limits: { ttlSeconds, minTtlSeconds: 1 } });
  environmentId = simulator.createEnvironment().id;
}

afterEach(() => simulator.close());

/** Claims the next item and starts a container for it, as a Pod would. */
async function serve(
  runtime: ContainerRuntime,
  fate?: FateInput,
  shape: Partial<Container> = {},
): Promise<{ workId: string; container: LiveContainer; exited: Promise<ContainerExit> }> {
  const claimed = await simulator.claim(environmentId);
  if (!claimed) throw new Error("the queue is empty");
  const env = { BERTH_WORKER_MAX_IDLE_MS: "100", ...claimed };
  const pod = boundPod({ containers: [shape] });
  const [container] = pod.spec.containers;
  if (!container) throw new Error("no container");
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
  return { workId: claimed["ANTHROPIC_WORK_ID"] ?? "", container: started, exited: exited.promise };
}

/** Makes calls over HTTP, and knows when all of them have been answered. */
class CountedCalls extends WorkCalls {
  #open = 0;
  #idle = Promise.withResolvers<void>();

  override heartbeat(...args: Parameters<WorkCalls["heartbeat"]>): Promise<WorkAnswer> {
    return this.#counted(super.heartbeat(...args));
  }

  override stop(...args: Parameters<WorkCalls["stop"]>): Promise<WorkAnswer> {
    return this.#counted(super.stop(...args));
  }

  override session(...args: Parameters<WorkCalls["session"]>): Promise<WorkAnswer> {
    return this.#counted(super.session(...args));
  }

  async answered(): Promise<void> {
    while (this.#open > 0) await this.#idle.promise;
  }

  async #counted(call: Promise<WorkAnswer>): Promise<WorkAnswer> {
    this.#open += 1;
    try {
      return await call;
    } finally {
      this.#open -= 1;
      if (this.#open === 0) {
        this.#idle.resolve();
        this.#idle = Promise.withResolvers();
      }
    }
  }
}

describe("a scripted worker on the work simulator", () => {
  const TTL_SECONDS = 4;
  let clock: VirtualClock;
  let calls: CountedCalls;
  let workers: ScriptedWorkers;

  beforeEach(async () => {
    clock = new VirtualClock();
    await useSimulator(clock, TTL_SECONDS);
    calls = new CountedCalls();
    workers = new ScriptedWorkers(clock, calls);
  });

  afterEach(() => workers.close());

  const scripted = () => new ScriptedRuntime(clock, workers);

  /** Time passes only while no call is open, so that no lease lapses because the machine is busy. */
  async function until(reached: () => boolean): Promise<void> {
    for (;;) {
      await calls.answered();
      if (reached()) return;
      if (!(await clock.advanceToNext())) throw new Error("nothing more happens");
    }
  }

  async function outcome<T>(end: Promise<T>): Promise<T> {
    let ended = false;
    const settled = () => {
      ended = true;
    };
    end.then(settled, settled);
    await until(() => ended);
    return await end;
  }

  const active = (workId: string) => until(() => simulator.item(workId).state === "active");

  test("serves its item from the first heartbeat to the stop without a violation", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs: 4_500 });
    expect(await outcome(exited)).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("exits when it learns that its item is stopping", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, end: "hang" });
    await active(workId);
    simulator.stopItem(workId);
    expect(await outcome(exited)).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("stops its item when it gets SIGTERM", async () => {
    simulator.enqueue(environmentId);
    const { workId, container, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, end: "hang" });
    await active(workId);
    container.signal("SIGTERM");
    expect(await outcome(exited)).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("that runs out of memory leaves its item live, with a lease that lapses", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs: 300, end: "oom" });
    expect(await outcome(exited)).toEqual({ exitCode: 137, reason: "OOMKilled" });
    expect(simulator.item(workId).state).toBe("active");
    await until(() => simulator.item(workId).state !== "active");
  });

  test("whose session was deleted exits 1 and stops its item", async () => {
    const { id, sessionId } = simulator.enqueue(environmentId);
    if (!sessionId) throw new Error("no session");
    const served = serve(scripted(), { kind: "worker", firstBeatMs: 0 });
    simulator.deleteSession(sessionId);
    const { exited } = await served;
    expect(await outcome(exited)).toMatchObject({ exitCode: 1 });
    expect(simulator.item(id).state).toBe("stopped");
  });

  test("runs with hundreds of others on one machine", async () => {
    const count = 200;
    const leases = 2;
    for (let at = 0; at < count; at += 1) simulator.enqueue(environmentId);
    const exits = [];
    for (let at = 0; at < count; at += 1) {
      const workMs = leases * TTL_SECONDS * 1_000;
      const { exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs });
      exits.push(exited);
    }
    expect((await outcome(Promise.all(exits))).filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    expect(simulator.items(environmentId).filter(({ state }) => state !== "stopped")).toEqual([]);
    simulator.assertNoViolations();
  }, 120_000);
});

describe("the stock worker as a process container on the work simulator", () => {
  const WORKER = join(import.meta.dirname, "../../../examples/worker/worker.mjs");
  let folder: string;
  let processes: ProcessRuntime;

  beforeEach(async () => {
    // A separate process is slower than one in this process. This test is about what it does, not when.
    await useSimulator(realClock, 60);
    folder = await mkdtemp(join(tmpdir(), "stock-worker-test-"));
    processes = new ProcessRuntime({ clock: realClock, workDir: folder });
  });

  afterEach(async () => {
    await processes.close();
    await rm(folder, { recursive: true, force: true });
  });

  test("executes its tool calls in the Pod's own folder, with the Pod's own home", async () => {
    simulator.enqueue(environmentId, { script: bashScript("echo $HOME > written; touch ~/in-home") });
    const { workId, exited } = await serve(processes, undefined, { command: ["node", WORKER] });
    expect(await exited).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
    const [pod = ""] = await readdir(join(folder, "pods"));
    const written = await readFile(join(folder, "pods", pod, "root/workspace/written"), "utf8");
    expect(written).toBe(`${join(folder, "pods", pod, "home")}\n`);
    expect(await readdir(join(folder, "pods", pod, "home"))).toContain("in-home");
  }, 120_000);
});
