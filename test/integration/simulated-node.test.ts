import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { realClock, sleep } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import type { Pod, PodSpec, PodStatus } from "../../src/kube/objects.ts";
import { NODES, POD_DISRUPTION_BUDGETS, PODS, SECRETS } from "../../src/kube/resource.ts";
import { FATE_ANNOTATION, type FateInput, type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { normalized, recorded } from "../testbed/node/recorded.ts";

const cluster = useCluster();
const NODE_NAME = "simulated-node-test";
/** Far more than any step takes, so that only a hang fails the test. */
const PATIENCE_MS = 60_000;
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

/** A Pod for this test's node only. `gated` makes it wait for the key `go` of the Secret with its own name. */
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

/** A recorded status as this API server stores it: an API server older than the recorded one's lacks some fields. */
async function asKnownHere(pod: Pod | undefined, status: unknown): Promise<PodStatus> {
  const { resourceVersion: _any, ...metadata } = pod?.metadata ?? {};
  const path = `/api/v1/namespaces/${namespace}/pods/${metadata.name}/status?dryRun=All`;
  const body = { apiVersion: "v1", kind: "Pod", ...pod, metadata, status };
  return (await cluster.api.request<{ status: PodStatus }>("PUT", path, { body })).status;
}

/** Polls the API server until the Pod matches. Undefined means that the Pod is gone. */
async function eventually(name: string, wanted: (pod: Pod | undefined) => boolean): Promise<Pod | undefined> {
  const bound = AbortSignal.timeout(PATIENCE_MS);
  for (;;) {
    const pod = await client.get(PODS, { namespace, name }).catch((error: unknown) => {
      if (isNotFound(error)) return undefined;
      throw error;
    });
    if (wanted(pod)) return pod;
    if (bound.aborted) throw new Error(`${name} never got there: ${JSON.stringify(pod?.status)}`);
    await sleep(realClock, 50);
  }
}

async function giveKey(name: string): Promise<void> {
  const data = { go: Buffer.from("hello").toString("base64") };
  await client.create(SECRETS, { metadata: { name, namespace }, data });
}

async function touch(name: string): Promise<void> {
  await client.patch(PODS, { namespace, name }, { metadata: { labels: { touched: "yes" } } }, { type: "merge" });
}

const stateOf = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0]?.state;
const parked = (pod: Pod | undefined) => stateOf(pod)?.waiting?.reason === "CreateContainerConfigError";
const running = (pod: Pod | undefined) => stateOf(pod)?.running !== undefined;
const ended = (pod: Pod | undefined) => stateOf(pod)?.terminated !== undefined;

describe("a parked Pod", () => {
  test("is not started by its Secret alone before the kubelet syncs it", async () => {
    const name = "never-looking-test";
    const never = { min: 1e9, mid: 1e9, max: 1e9 };
    await using _patient = await startNode({ client: cluster.nodeKubeconfig, name, latencies: { look: never } });
    const spec = { nodeSelector: { "kubernetes.io/hostname": name } };
    for (const pod of ["untouched", "touched"]) {
      await client.create(PODS, podFor(pod, { gated: true, spec }));
      await eventually(pod, parked);
    }
    for (const pod of ["untouched", "touched"]) await giveKey(pod);
    await touch("touched");
    await eventually("touched", running);
    expect(parked(await eventually("untouched", () => true))).toBe(true);
    await touch("untouched");
    await eventually("untouched", running);
  });

  test("waits with the kubelet's message, and starts when it has its key and is touched", async () => {
    // Without a token, whose volume would be read again at every sync.
    await client.create(PODS, podFor("parked", { gated: true, spec: { automountServiceAccountToken: false } }));
    const waiting = await eventually("parked", parked);
    expect(stateOf(waiting)?.waiting?.message).toBe('secret "parked" not found');
    expect(waiting?.status?.conditions?.find(({ type }) => type === "PodReadyToStartContainers")?.status).toBe("True");

    await giveKey("parked");
    const reads = node.counters.objectReads;
    await touch("parked");
    await eventually("parked", running);
    // One sync was enough. Without the touch, the next would have been seconds away.
    expect(node.counters.objectReads).toBe(reads + 1);
  });
});

test("a deleted Pod gets SIGTERM, reports its end and is removed", async () => {
  await client.create(PODS, podFor("deleted", { fate: { kind: "run", onTerm: { code: 0 } } }));
  await eventually("deleted", running);
  const last: Pod[] = [];
  const unsubscribe = node.subscribe((event) => {
    if (event.type === "gone" && event.pod.metadata.name === "deleted") last.push(event.pod);
  });
  await client.delete(PODS, { namespace, name: "deleted" });
  await eventually("deleted", (pod) => pod === undefined);
  await expect.poll(() => last.length, { timeout: PATIENCE_MS }).toBe(1);
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

describe("a status from the API server equals that of a real kubelet", () => {
  const wanted = {
    running: [{}, running],
    succeeded: [{ fate: { kind: "exit" } }, (pod) => pod?.status?.phase === "Succeeded"],
    "exit-1": [
      { fate: { kind: "exit", code: 1, message: "no session token\n" } },
      (pod) => pod?.status?.phase === "Failed",
    ],
  } satisfies Record<string, [Parameters<typeof podFor>[1], (pod: Pod | undefined) => boolean]>;

  test.each(Object.entries(wanted))("%s", async (record, [shape, reached]) => {
    const pod = podFor(`as-${record}`, shape);
    // The fixtures' Pods had no token mounted.
    pod.spec.automountServiceAccountToken = false;
    await client.create(PODS, pod);
    const reported = await eventually(`as-${record}`, reached);
    const { podIP: _ip, podIPs: _ips, ...seen } = normalized(reported?.status ?? {}) as Record<string, unknown>;
    const {
      podIP: _recordedIp,
      podIPs: _recordedIps,
      ...expected
    } = normalized(await asKnownHere(reported, recorded(record).status)) as Record<string, unknown>;
    const byType = (conditions: unknown) =>
      [...(conditions as { type: string }[])].sort((a, b) => a.type.localeCompare(b.type));
    expect({ ...seen, conditions: byType(seen["conditions"]) }).toEqual({
      ...expected,
      conditions: byType(expected["conditions"]),
    });
  });
});

test("an API eviction ends a Pod, and its condition survives the node's own status updates", async () => {
  await client.create(PODS, podFor("evicted", { fate: { kind: "run", onTerm: { code: 0, afterMs: 500 } } }));
  await eventually("evicted", running);
  const gone: Pod[] = [];
  const unsubscribe = node.subscribe((event) => {
    if (event.type === "gone" && event.pod.metadata.name === "evicted") gone.push(event.pod);
  });
  const body = { apiVersion: "policy/v1", kind: "Eviction", metadata: { name: "evicted", namespace } };
  await client.raw("POST", `/api/v1/namespaces/${namespace}/pods/evicted/eviction`, body);
  await eventually("evicted", (pod) => pod === undefined);
  await expect.poll(() => gone.length, { timeout: PATIENCE_MS }).toBe(1);
  unsubscribe();
  const types = gone[0]?.status?.conditions?.map(({ type, reason }) => [type, reason]);
  expect(types).toContainEqual(["DisruptionTarget", "EvictionByEvictionAPI"]);
  expect(gone[0]?.status?.phase).toBe("Succeeded");
});

test("conditions lose their reasons when they become true", async () => {
  await client.create(PODS, podFor("reasons", { fate: { kind: "run", startDelayMs: 500 } }));
  await eventually(
    "reasons",
    (pod) => pod?.status?.conditions?.some(({ reason }) => reason === "ContainersNotReady") === true,
  );
  const pod = await eventually("reasons", running);
  const ready = pod?.status?.conditions?.find(({ type }) => type === "Ready");
  expect(ready).toMatchObject({ status: "True" });
  expect([ready?.reason, ready?.message]).toEqual([undefined, undefined]);
});

test("a Pod deleted by force is gone immediately, and its name can be reused", async () => {
  await client.create(PODS, podFor("forced"));
  const first = await eventually("forced", running);
  await client.delete(PODS, { namespace, name: "forced" }, { gracePeriodSeconds: 0 });
  await client.create(PODS, podFor("forced"));
  const second = await eventually("forced", running);
  expect(second?.metadata.uid).not.toBe(first?.metadata.uid);
  await expect
    .poll(() => node.pods.filter(({ pod }) => pod.metadata.name === "forced").length, { timeout: PATIENCE_MS })
    .toBe(1);
});

describe("a node of processes", () => {
  test("runs the Pod's command with its resolved environment, and keeps its output", async () => {
    const name = "process-node-test";
    await using processes = await startNode({ client: cluster.nodeKubeconfig, name, runtime: "process" });
    const code = "console.log(process.env.GO, process.env.WHERE, process.cwd()); setInterval(() => {}, 1e6)";
    const env = [
      { name: "GO", valueFrom: { secretKeyRef: { name: "process", key: "go" } } },
      { name: "WHERE", value: "/workspace/$(GO)" },
    ];
    const containers = [{ name: "c", image: "worker:1", command: ["node", "-e", code], env }];
    const pod = podFor("process", { spec: { containers, nodeSelector: { "kubernetes.io/hostname": name } } });
    await client.create(PODS, pod);
    await eventually("process", parked);
    await giveKey("process");
    await touch("process");
    await eventually("process", running);
    await expect
      .poll(() => processes.logs({ namespace, name: "process" }), { timeout: PATIENCE_MS })
      .toMatch(/^hello \/.+\/workspace\/hello \/.+\/workspace\n$/);
    await client.delete(PODS, { namespace, name: "process" }, { gracePeriodSeconds: 1 });
    await eventually("process", (seen) => seen === undefined);
  });

  test("reports what is missing when a Pod has no command", async () => {
    const name = "process-node-bare";
    await using _processes = await startNode({ client: cluster.nodeKubeconfig, name, runtime: "process" });
    await client.create(PODS, podFor("bare", { spec: { nodeSelector: { "kubernetes.io/hostname": name } } }));
    const pod = await eventually("bare", (seen) => stateOf(seen)?.waiting?.reason === "CreateContainerError");
    expect(stateOf(pod)?.waiting?.message).toMatch(/no command specified.*set command/);
  });
});

test("a drained node is cordoned and evicts its Pods, except those that a budget protects", async () => {
  const name = "drained-node-test";
  await using drained = await startNode({ client: cluster.nodeKubeconfig, name });
  const spec = { nodeSelector: { "kubernetes.io/hostname": name } };
  await client.create(POD_DISRUPTION_BUDGETS, {
    metadata: { name: "protect", namespace },
    spec: { minAvailable: 1, selector: { matchLabels: { protected: "yes" } } },
  });
  const kept = podFor("kept", { spec });
  kept.metadata.labels = { protected: "yes" };
  await client.create(PODS, kept);
  await client.create(PODS, podFor("drained", { spec }));
  await eventually("kept", running);
  await eventually("drained", running);
  await expect.poll(() => drained.drain(), { timeout: PATIENCE_MS }).toEqual(["kept"]);
  await eventually("drained", (pod) => pod === undefined);
  expect((await client.get(NODES, { name })).spec?.unschedulable).toBe(true);
  await drained.cordon(false);
  expect((await client.get(NODES, { name })).spec?.unschedulable ?? false).toBe(false);
});

describe("a lost node", () => {
  test("loses its Pods to the taint manager while containers run on, and removes them once it is back", async () => {
    const name = "lost-node-test";
    await using lost = await startNode({ client: cluster.nodeKubeconfig, name });
    const tolerations = ["not-ready", "unreachable"].map((what) => ({
      key: `node.kubernetes.io/${what}`,
      operator: "Exists",
      effect: "NoExecute",
      tolerationSeconds: 1,
    }));
    const spec = { nodeSelector: { "kubernetes.io/hostname": name }, tolerations };
    await client.create(PODS, podFor("lost", { spec }));
    await eventually("lost", running);
    lost.fail();
    const pod = await eventually("lost", (seen) => seen?.metadata.deletionTimestamp !== undefined);
    const conditions = pod?.status?.conditions ?? [];
    expect(conditions.find(({ type }) => type === "DisruptionTarget")?.reason).toBe("DeletionByTaintManager");
    expect(conditions.find(({ type }) => type === "Ready")?.status).toBe("False");
    expect(stateOf(pod)?.running).toBeDefined();
    expect(lost.pods.find((seen) => seen.pod.metadata.name === "lost")?.running).toBe(true);
    await lost.recover();
    await eventually("lost", (seen) => seen === undefined);
  });

  test("ends Pods that were removed from the API while it was away", async () => {
    const name = "absent-node-test";
    await using absent = await startNode({ client: cluster.nodeKubeconfig, name });
    await client.create(PODS, podFor("absent", { spec: { nodeSelector: { "kubernetes.io/hostname": name } } }));
    await eventually("absent", running);
    absent.fail();
    await client.delete(PODS, { namespace, name: "absent" }, { gracePeriodSeconds: 0 });
    await absent.recover();
    await expect.poll(() => absent.pods.length, { timeout: PATIENCE_MS }).toBe(0);
  });
});

describe("a node that is shut down", () => {
  test("ends its Pods with a kubelet's reason and condition, accepts no others, and comes back", async () => {
    const name = "shut-down-node-test";
    await using leaving = await startNode({ client: cluster.nodeKubeconfig, name });
    const bound = { nodeName: name };
    await client.create(PODS, podFor("shut-running", { spec: bound }));
    await client.create(PODS, podFor("shut-parked", { spec: bound, gated: true }));
    await eventually("shut-running", running);
    await eventually("shut-parked", parked);
    await leaving.shutDown();
    for (const pod of ["shut-running", "shut-parked"]) {
      const seen = await eventually(pod, ended);
      expect(seen?.status).toMatchObject({ phase: "Failed", reason: "Terminated" });
      const target = seen?.status?.conditions?.find(({ type }) => type === "DisruptionTarget");
      expect(target).toMatchObject({ status: "True", reason: "TerminationByKubelet" });
    }
    const ready = async () => {
      const { status } = await client.get(NODES, { name });
      const conditions = (status?.["conditions"] ?? []) as { type: string; status: string }[];
      return conditions.find(({ type }) => type === "Ready")?.status;
    };
    expect(await ready()).toBe("False");
    const late = podFor("shut-late", { spec: { ...bound, tolerations: [{ operator: "Exists" }] } });
    await client.create(PODS, late);
    expect((await eventually("shut-late", (pod) => pod?.status?.phase === "Failed"))?.status).toMatchObject({
      reason: "NodeShutdown",
    });
    await leaving.recover();
    expect(await ready()).toBe("True");
  });
});

test("a rebooted node has lost its running containers, and parks its other Pods again", async () => {
  const name = "rebooted-node-test";
  await using rebooted = await startNode({ client: cluster.nodeKubeconfig, name });
  await client.create(PODS, podFor("boot-running", { spec: { nodeName: name } }));
  await client.create(PODS, podFor("boot-parked", { spec: { nodeName: name }, gated: true }));
  await eventually("boot-running", running);
  await eventually("boot-parked", parked);
  rebooted.reboot();
  expect(stateOf(await eventually("boot-running", ended))?.terminated).toMatchObject({
    exitCode: 255,
    reason: "Unknown",
  });
  await giveKey("boot-parked");
  await touch("boot-parked");
  await eventually("boot-parked", running);
});

test("a node without memory evicts Pods, and one without capacity refuses them", async () => {
  await client.create(PODS, podFor("starved"));
  await eventually("starved", running);
  expect(node.evict({ namespace, name: "starved" }, "memory")).toBe(true);
  const starved = await eventually("starved", (pod) => pod?.status?.phase === "Failed");
  expect(starved?.status).toMatchObject({ reason: "Evicted", message: expect.stringContaining("low on resource") });
  await client.create(PODS, podFor("refused", { fate: { kind: "refused", reason: "OutOfcpu" } }));
  const refused = await eventually("refused", (pod) => pod?.status?.phase === "Failed");
  expect(refused?.status?.reason).toBe("OutOfcpu");
  expect(refused?.status?.containerStatuses).toBeUndefined();
});

test("a stopped node deletes its Node object, so that nothing more is bound to it", async () => {
  const name = "stopped-node-test";
  const stopped = await startNode({ client: cluster.nodeKubeconfig, name });
  expect((await client.get(NODES, { name })).spec?.taints ?? []).toEqual([]);
  await stopped.stop();
  await expect(client.get(NODES, { name })).rejects.toSatisfy(isNotFound);
});

test("hundreds of Pods park and run on one node with a few writes each", async () => {
  const name = "crowded-node-test";
  await using crowded = await startNode({ client: cluster.nodeKubeconfig, name, timeScale: 5 });
  const count = 300;
  const spec = { nodeSelector: { "kubernetes.io/hostname": name } };
  const pods = Array.from({ length: count }, (_, at) => podFor(`crowd-${at}`, { spec, gated: at % 2 === 0 }));
  await Promise.all(pods.map((pod) => client.create(PODS, pod)));
  const inPhase = (phase: string) => crowded.pods.filter(({ status }) => status?.phase === phase).length;
  await expect.poll(() => inPhase("Running"), { timeout: PATIENCE_MS }).toBe(count / 2);
  // The last of them may be bound after the last of the running ones.
  await expect.poll(() => inPhase("Pending"), { timeout: PATIENCE_MS }).toBe(count / 2);
  // Parked: created, sandbox ready, config error. Running: created, sandbox ready, running. No other writes.
  expect(crowded.counters.statusWrites).toBeLessThanOrEqual(4 * count);
});
