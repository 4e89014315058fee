import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../../simulator/simulator.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Container } from "../../../src/kube/objects.ts";
import { type FateInput, parseFate } from "../../../testbed/node/fate.ts";
import { Latency, seededRandom } from "../../../testbed/node/latency.ts";
import { ProcessRuntime } from "../../../testbed/node/process-runtime.ts";
import type { ContainerExit, ContainerRuntime, LiveContainer } from "../../../testbed/node/runtime.ts";
import { ScriptedRuntime } from "../../../testbed/node/scripted-runtime.ts";
import { ScriptedWorkers } from "../../../testbed/node/scripted-worker.ts";
import { boundPod } from "./pod-bench.ts";

let simulator: Simulator;
let environmentId: string;
let workers: ScriptedWorkers;

beforeEach(async () => {
  // Leases lapse after 4 s, so workers send a heartbeat every 2 s, which may be almost 2 s late.
  await useSimulator(4);
  workers = new ScriptedWorkers(realClock);
});

async function useSimulator(ttlSeconds: number): Promise<void> {
  simulator = await startSimulator({ limits: { ttlSeconds, minTtlSeconds: 1 } });
  environmentId = simulator.createEnvironment().id;
}

afterEach(async () => {
  await workers.close();
  await simulator.close();
});

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

const active = (workId: string) =>
  simulator.waitFor(() => simulator.item(workId).state === "active", { what: `${workId} active` });

describe("a scripted worker on the work simulator", () => {
  const scripted = () => new ScriptedRuntime(realClock, workers);

  test("serves its item from the first heartbeat to the stop without a violation", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs: 4_500 });
    expect(await exited).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("exits when it learns that its item is stopping", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, end: "hang" });
    await active(workId);
    simulator.stopItem(workId);
    expect(await exited).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("stops its item when it gets SIGTERM", async () => {
    simulator.enqueue(environmentId);
    const { workId, container, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, end: "hang" });
    await active(workId);
    container.signal("SIGTERM");
    expect(await exited).toEqual({ exitCode: 0 });
    expect(simulator.item(workId).state).toBe("stopped");
    simulator.assertNoViolations();
  });

  test("that runs out of memory leaves its item live, with a lease that lapses", async () => {
    simulator.enqueue(environmentId);
    const { workId, exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs: 300, end: "oom" });
    expect(await exited).toEqual({ exitCode: 137, reason: "OOMKilled" });
    expect(simulator.item(workId).state).toBe("active");
    await simulator.waitFor(() => simulator.item(workId).state !== "active", { what: "the lease to lapse" });
  });

  test("whose session was deleted exits 1 and stops its item", async () => {
    const { id, sessionId } = simulator.enqueue(environmentId);
    if (!sessionId) throw new Error("no session");
    const served = serve(scripted(), { kind: "worker", firstBeatMs: 0 });
    simulator.deleteSession(sessionId);
    const { exited } = await served;
    expect(await exited).toMatchObject({ exitCode: 1 });
    expect(simulator.item(id).state).toBe("stopped");
  });

  test("runs with hundreds of others on one machine", async () => {
    // A busy machine can delay a heartbeat by a second. The lease lasts for several heartbeats, and still needs more
    // than the first.
    await simulator.close();
    await useSimulator(10);
    const count = 300;
    for (let at = 0; at < count; at += 1) simulator.enqueue(environmentId);
    const exits = [];
    for (let at = 0; at < count; at += 1) {
      const { exited } = await serve(scripted(), { kind: "worker", firstBeatMs: 0, workMs: 6_000 });
      exits.push(exited);
    }
    expect((await Promise.all(exits)).filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    expect(simulator.items(environmentId).filter(({ state }) => state !== "stopped")).toEqual([]);
    simulator.assertNoViolations();
  }, 60_000);
});

describe("the stock worker as a process container on the work simulator", () => {
  const WORKER = join(import.meta.dirname, "../../../examples/worker/worker.mjs");
  let folder: string;
  let processes: ProcessRuntime;

  beforeEach(async () => {
    // A separate process is slower than one in this process. This test is about what it does, not when.
    await simulator.close();
    await useSimulator(60);
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
  }, 60_000);
});
