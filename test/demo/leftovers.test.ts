import { spawn } from "node:child_process";
import { once } from "node:events";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { findLeftovers, type LeftoverQuery } from "../../demo/leftovers.ts";
import { workerProcesses } from "../../demo/processes.ts";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import type { KubeClient } from "../../src/kube/client.ts";

let simulator: Simulator;
let environmentId: string;

beforeEach(async () => {
  simulator = await startSimulator();
  environmentId = simulator.createEnvironment().id;
  return () => simulator.close();
});

/** An API server with these objects, which records its requests. */
function kubeWith(objects: Readonly<Record<string, readonly object[]>>, asked: string[] = []): KubeClient {
  const list = async ({ plural }: { plural: string }, { labelSelector }: { labelSelector?: string }) => {
    asked.push(`${plural} ${labelSelector}`);
    return { items: objects[plural] ?? [] };
  };
  return { list } as never;
}

const find = (kube: KubeClient, more: Partial<LeftoverQuery> = {}) =>
  findLeftovers({
    kube,
    namespace: "n",
    simulator,
    environments: [{ mode: "sessions", environmentId }],
    afterwards: false,
    interrupted: false,
    ...more,
  });

/** Starts a process of the environment that has a session, unless it waits for one. */
async function startWorker(id: string, session = "session_1"): Promise<number> {
  const env = {
    ...process.env,
    ANTHROPIC_ENVIRONMENT_ID: id,
    ...(session === "" ? {} : { ANTHROPIC_SESSION_ID: session }),
  };
  const child = spawn("sleep", ["600"], { env, stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child, "spawn");
  return child.pid ?? 0;
}

describe("leftovers", () => {
  test("are empty if nothing is left", async () => {
    expect(await find(kubeWith({}))).toEqual([]);
    expect(await find(kubeWith({}), { afterwards: true })).toEqual([]);
  });

  test("include live items, claim Secrets, Pods and processes", async () => {
    const { id } = simulator.enqueue(environmentId);
    const stopped = simulator.enqueue(environmentId);
    simulator.stopItem(stopped.id, { force: true });
    const pid = await startWorker(environmentId);
    const kube = kubeWith({
      secrets: [{ metadata: { name: "berth-demo-a" } }],
      pods: [{ metadata: { name: "berth-demo-b", labels: { "berth.dev/phase": "running" } } }],
    });
    expect(await find(kube)).toEqual([
      `work item ${id} is queued`,
      "claim Secret berth-demo-a",
      "Pod berth-demo-b (running)",
      `worker process ${pid}`,
    ]);
  });

  test("include any Pod after the Environment's deletion, and only assigned ones before", async () => {
    const asked: string[] = [];
    await find(kubeWith({}, asked));
    await find(kubeWith({}, asked), { afterwards: true });
    expect(asked.filter((it) => it.startsWith("pods"))).toEqual([
      "pods berth.dev/phase=running",
      "pods berth.dev/environment",
    ]);
  });

  test("include items of every Environment", async () => {
    const other = simulator.createEnvironment().id;
    const { id } = simulator.enqueue(other);
    const environments = [
      { mode: "sessions", environmentId },
      { mode: "workers", environmentId: other },
    ] as const;
    expect(await find(kubeWith({}), { environments })).toEqual([`work item ${id} is queued`]);
  });

  test("include Deployments, ReplicaSets and processes of always-on workers only after the Environment's deletion", async () => {
    const pid = await startWorker(environmentId);
    const environments = [{ mode: "workers", environmentId }] as const;
    const kube = kubeWith({
      deployments: [{ metadata: { name: "berth-batch-1" } }],
      replicasets: [{ metadata: { name: "berth-batch-1-abc" } }],
    });
    expect(await find(kube, { environments })).toEqual([]);
    expect(await find(kube, { environments, afterwards: true })).toEqual([
      "Deployment berth-batch-1",
      "ReplicaSet berth-batch-1-abc",
      `worker process ${pid}`,
    ]);
  });

  test("include shells that wait for a session only after the Environment's deletion", async () => {
    const pid = await startWorker(environmentId, "");
    expect(await find(kubeWith({}))).toEqual([]);
    expect(await find(kubeWith({}), { afterwards: true })).toEqual([`worker process ${pid}`]);
  });

  test("exclude unclaimed items if a person ended the demo", async () => {
    simulator.enqueue(environmentId);
    expect(await find(kubeWith({}), { interrupted: true })).toEqual([]);
  });

  test("fail if the API server does not answer", async () => {
    const list = async () => {
      throw new Error("no answer");
    };
    await expect(find({ list } as never)).rejects.toThrow("no answer");
  });
});

test("ignores a worker of another environment", async () => {
  await startWorker("env_other");
  expect(await workerProcesses(environmentId, "all")).toEqual([]);
});
