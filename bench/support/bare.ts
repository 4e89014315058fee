import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseEnvironment } from "../../src/api/environment.ts";
import { API_VERSION, KIND } from "../../src/api/names.ts";
import { PODS } from "../../src/kube/resource.ts";
import { newPodName, sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Served, type Stand, specOf } from "./stand.ts";
import type { Touches } from "./touches.ts";

/** The input of the process of bare-loop.ts, as JSON. */
export interface BareInput {
  readonly kubeconfig: string;
  readonly baseUrl: string;
  readonly environmentId: string;
  readonly key: string;
  readonly namespace: string;
  readonly podNames: readonly string[];
  readonly count: number;
}

/** The number of Pods to create at the same time. */
const CREATIONS = 8;

/**
 * Creates Pods as the operator does, but without an owner, and waits until all are parked. Returns one more Pod without
 * creating it.
 */
export async function parkPods(
  stand: Stand,
  served: Served,
  spec: Record<string, unknown>,
  count: number,
  touches: Touches,
) {
  const metadata = {
    name: served.name,
    namespace: served.namespace,
    uid: "00000000-0000-4000-8000-000000000000",
    generation: 1,
    resourceVersion: "1",
    creationTimestamp: new Date().toISOString(),
  };
  const parsed = parseEnvironment({ apiVersion: API_VERSION, kind: KIND, metadata, spec: specOf(served, spec) });
  if (!parsed.ok) throw new Error(parsed.problems.join("; "));
  const template = sessionTemplate(parsed.environment);
  const render = () => {
    const pod = template.render(newPodName(served.name));
    // The owner doesn't exist.
    delete pod.metadata.ownerReferences;
    return pod;
  };
  let made = 0;
  const make = async () => {
    while (made < count) {
      made += 1;
      await stand.kube.create(PODS, render());
    }
  };
  await Promise.all(Array.from({ length: CREATIONS }, make));
  await touches.untilParked(count);
  return render();
}

/**
 * Starts the bare loop as a process and resolves when it polls. `end` resolves when it has served `count` items and has
 * exited.
 */
export async function startBareLoop(stand: Stand, served: Served, podNames: readonly string[], count: number) {
  const { simulator, environmentId, namespace } = served;
  const input: BareInput = {
    ...{
      kubeconfig: stand.cluster.operatorKubeconfig,
      baseUrl: simulator.url,
      environmentId,
      namespace,
      podNames,
      count,
    },
    key: simulator.environmentKey(environmentId),
  };
  const main = new URL("./bare-loop.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, JSON.stringify(input)], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit") as Promise<[number | null]>;
  await once(createInterface({ input: child.stdout }), "line");
  return {
    pid: child.pid ?? 0,
    async end() {
      child.stdin.end();
      const [code] = await ended;
      if (code !== 0) throw new Error(`the bare loop ended with ${code}`);
    },
  };
}
