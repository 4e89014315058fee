import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { realClock, sleep } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import type { Pod, PodSpec } from "../../src/kube/objects.ts";
import { PODS, SECRETS } from "../../src/kube/resource.ts";
import { FATE_ANNOTATION, type FateInput, type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const NODE_NAME = "simulated-node-test";
let client: KubeClient;
let namespace: string;
let node: SimulatedNode;

beforeAll(async () => {
  client = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
  namespace = await cluster.createNamespace("node");
  node = await startNode({ client: cluster.nodeKubeconfig, name: NODE_NAME, seed: 7 });
});

afterAll(async () => {
  await node?.stop();
  await client?.close();
});

/** A Pod for our node alone; `gated` waits for the key `go` of the Secret with its own name. */
function podFor(
  name: string,
  { fate, gated, spec }: { fate?: FateInput; gated?: boolean; spec?: Partial<PodSpec> } = {},
): Pod {
  const go = { name: "GO", valueFrom: { secretKeyRef: { name, key: "go" } } };
  return {
    metadata: { name, namespace, ...(fate ? { annotations: { [FATE_ANNOTATION]: JSON.stringify(fate) } } : {}) },
    spec: {
      nodeSelector: { "kubernetes.io/hostname": NODE_NAME },
      restartPolicy: "Never",
      containers: [{ name: "c", image: "worker:1", ...(gated ? { env: [go] } : {}) }],
      ...spec,
    },
  };
}

/** Asks the API server until a Pod is as wanted; undefined stands for a Pod that is gone. */
async function eventually(name: string, wanted: (pod: Pod | undefined) => boolean): Promise<Pod | undefined> {
  for (let tries = 0; ; tries += 1) {
    const pod = await client.get(PODS, { namespace, name }).catch((error: unknown) => {
      if (isNotFound(error)) return undefined;
      throw error;
    });
    if (wanted(pod)) return pod;
    if (tries > 600) throw new Error(`${name} never got there: ${JSON.stringify(pod?.status)}`);
    await sleep(realClock, 50);
  }
}

const stateOf = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0]?.state;
const parked = (pod: Pod | undefined) => stateOf(pod)?.waiting?.reason === "CreateContainerConfigError";
const running = (pod: Pod | undefined) => stateOf(pod)?.running !== undefined;
const ended = (pod: Pod | undefined) => stateOf(pod)?.terminated !== undefined;

describe("a parked Pod", () => {
  test("waits with kubelet's words, and starts when it has its key and is touched", async () => {
    await client.create(PODS, podFor("parked", { gated: true }));
    const waiting = await eventually("parked", parked);
    expect(stateOf(waiting)?.waiting?.message).toBe('secret "parked" not found');
    expect(waiting?.status?.conditions?.find(({ type }) => type === "PodReadyToStartContainers")?.status).toBe("True");

    const data = { go: Buffer.from("now").toString("base64") };
    await client.create(SECRETS, { metadata: { name: "parked", namespace }, data });
    const reads = node.counters.objectReads;
    await client.patch(
      PODS,
      { namespace, name: "parked" },
      { metadata: { labels: { touched: "yes" } } },
      { type: "merge" },
    );
    await eventually("parked", running);
    // One look was enough: had nobody touched it, the next would have been seconds away.
    expect(node.counters.objectReads).toBe(reads + 1);
  });
});

test("a deleted Pod gets SIGTERM, reports its end and goes", async () => {
  await client.create(PODS, podFor("deleted", { fate: { kind: "run", onTerm: { code: 0 } } }));
  await eventually("deleted", running);
  const last: Pod[] = [];
  const unsubscribe = node.subscribe((event) => {
    if (event.type === "gone" && event.pod.metadata.name === "deleted") last.push(event.pod);
  });
  await client.delete(PODS, { namespace, name: "deleted" });
  await eventually("deleted", (pod) => pod === undefined);
  await expect.poll(() => last.length).toBe(1);
  unsubscribe();
  expect(last[0]?.status?.phase).toBe("Succeeded");
  expect(last[0]?.metadata.deletionGracePeriodSeconds).toBe(0);
});

test("a container over its memory limit is OOMKilled, and its Pod is Failed", async () => {
  await client.create(PODS, podFor("oom", { fate: { kind: "oom", afterMs: 200 } }));
  const seen = await eventually("oom", ended);
  expect(stateOf(seen)?.terminated).toMatchObject({ exitCode: 137, reason: "OOMKilled" });
  expect((await eventually("oom", (pod) => pod?.status?.phase === "Failed"))?.status?.phase).toBe("Failed");
});
