import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { NODES, PODS, type Pod } from "../../src/kube/resource.ts";
import { type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, untilAssigned, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";
import { limitedUser, limitOperator } from "./limited-operator.ts";

const cluster = useCluster();

/** Selects the two nodes of one test among all nodes of the shared cluster. */
const PAIR = "testbed.berth.dev/pair";

interface Pair extends AsyncDisposable {
  readonly world: World;
  readonly second: SimulatedNode;
}

/** A world with two nodes that both accept its Pods. */
async function twoNodes(sessions: Record<string, unknown>, podSpec: Record<string, unknown> = {}): Promise<Pair> {
  const pair = { [PAIR]: randomUUID() };
  const fates = () => ({ kind: "worker", end: "hang" }) as const;
  const world = await startWorld(cluster, {
    ...SHORT_LEASE,
    node: { fates, labels: pair },
    sessions: { maxConcurrent: 4, warm: 2, ...sessions },
    podSpec: { nodeSelector: pair, terminationGracePeriodSeconds: 30, ...podSpec },
  });
  const second = await startNode({ client: cluster.kubeconfig, name: `second-${randomUUID()}`, fates, labels: pair });
  return {
    world,
    second,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await second.stop();
    },
  };
}

const on = (pods: readonly Pod[], node: SimulatedNode) => pods.filter(({ spec }) => spec.nodeName === node.name);

/** Parks the Pods on the world's own node by cordoning the other one. */
async function parkOnFirst({ world, second }: Pair, count: number): Promise<Pod[]> {
  await second.cordon();
  await world.createEnvironment();
  const parked = await world.untilParked(count);
  expect(on(parked, world.node)).toHaveLength(count);
  return parked;
}

/** Waits until the scheduler uses the node again, and so has processed every earlier change of a node. */
async function untilTakesPods(world: World, node: SimulatedNode): Promise<void> {
  const { namespace } = world;
  const name = "first";
  const spec = { nodeSelector: { "kubernetes.io/hostname": node.name }, containers: [{ name: "c", image: "none" }] };
  await world.kube.create(PODS, { apiVersion: "v1", kind: "Pod", metadata: { namespace, name }, spec });
  await world.until("the Pod is scheduled to the node", async () => {
    return (await world.kube.get(PODS, { namespace, name })).spec.nodeName === node.name;
  });
  await world.kube.delete(PODS, { namespace, name }, { gracePeriodSeconds: 0 });
}

describe.concurrent("a node that is about to be removed", () => {
  test("is cordoned: its free Pods are replaced on another node, and the next session runs there", async () => {
    await using pair = await twoNodes({});
    const { world, second } = pair;
    world.startOperator();
    const old = await parkOnFirst(pair, 2);
    await second.cordon(false);
    await world.node.cordon();
    await world.until("two parked Pods on the other node", () => on(world.parked, second).length === 2);
    const uids = old.map(({ metadata }) => metadata.uid);
    await world.until("the old Pods are gone", () => !world.pods.some(({ metadata }) => uids.includes(metadata.uid)));
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await untilAssigned(world, item);
    expect(pod.spec.nodeName).toBe(second.name);
    await untilState(world, item, "active");
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
    world.simulator.assertNoViolations();
  });

  test.each(["karpenter.sh/disrupted", "ToBeDeletedByClusterAutoscaler"])("is tainted %s: the same", async (key) => {
    await using pair = await twoNodes({ warm: 1 });
    const { world, second } = pair;
    world.startOperator();
    await parkOnFirst(pair, 1);
    await second.cordon(false);
    const taints = [{ key, effect: "NoSchedule" }];
    await world.kube.patch(NODES, { name: world.node.name }, { spec: { taints } }, { type: "merge" });
    await world.until("a parked Pod on the other node", () => on(world.parked, second).length === 1);
    await world.until("no Pod is left on the old node", () => on(world.pods, world.node).length === 0);
  });

  test("is only a candidate of the cluster autoscaler: its Pods stay, and are claimed last", async () => {
    await using pair = await twoNodes({ warm: 1 });
    const { world, second } = pair;
    world.startOperator();
    const [older] = await parkOnFirst(pair, 1);
    const taints = [{ key: "DeletionCandidateOfClusterAutoscaler", effect: "PreferNoSchedule" }];
    await world.kube.patch(NODES, { name: world.node.name }, { spec: { taints } }, { type: "merge" });
    await second.cordon(false);
    await untilTakesPods(world, second);
    await world.patchSpec({ sessions: { warm: 2 } });
    await world.until("a parked Pod on each, which the operator counts, too", () => {
      const counted = world.environment?.status?.sessions?.warm === 2;
      return counted && on(world.parked, second).length === 1 && on(world.parked, world.node).length === 1;
    });
    const item = world.simulator.enqueue(world.environmentId);
    expect((await untilAssigned(world, item)).spec.nodeName).toBe(second.name);
    expect(world.pods.some(({ metadata }) => metadata.uid === older?.metadata.uid)).toBe(true);
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
  });

  test("keeps its running session until the node is drained", async () => {
    await using pair = await twoNodes({ warm: 1 });
    const { world, second } = pair;
    world.startOperator();
    await parkOnFirst(pair, 1);
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await untilAssigned(world, item);
    await untilState(world, item, "active");
    await second.cordon(false);
    await world.node.cordon();
    await world.until("a parked Pod on the other node", () => on(world.parked, second).length === 1);
    await world.until("no free Pod is left on the old node", () => on(world.parked, world.node).length === 0);
    const { beats } = world.simulator.item(item.id);
    await world.until("the session sends more heartbeats", () => world.simulator.item(item.id).beats > beats + 1);
    expect(world.pods.find(({ metadata }) => metadata.uid === pod.metadata.uid)?.metadata.deletionTimestamp).toBe(
      undefined,
    );
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
  });

  test("with no other node: nothing is claimed, items stay in the queue, and the condition says why", async () => {
    await using pair = await twoNodes({ warm: 1 });
    const { world } = pair;
    world.startOperator();
    await parkOnFirst(pair, 1);
    await world.node.cordon();
    await world.untilCondition("CapacityAvailable", "Unschedulable");
    const item = world.simulator.enqueue(world.environmentId);
    // A poll under way when the last free Pod was deleted may have been offered the item: then it is pending, and still
    // waits.
    await world.until("the queue status counts the item", () => {
      const { depth = 0, pending = 0 } = world.environment?.status?.queue ?? {};
      return depth + pending === 1;
    });
    expect(world.simulator.item(item.id).acks).toEqual([]);
    await world.node.cordon(false);
    await untilState(world, item, "active");
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
  });

  test("has Pods that tolerate a cordon: they stay and are claimed, since new Pods would land there too", async () => {
    await using pair = await twoNodes({ warm: 1 }, { tolerations: [{ operator: "Exists" }] });
    const { world, second } = pair;
    world.startOperator({ flags: ["--allowed-in-templates", "tolerations=*"] });
    await second.stop();
    await world.node.cordon();
    await world.createEnvironment();
    const [pod] = await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    expect((await untilAssigned(world, item)).metadata.uid).toBe(pod?.metadata.uid);
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
  });
});

describe("without permission to read Nodes", () => {
  test("everything works, Pods on cordoned nodes are claimed like others, and the log says so once", async () => {
    await using pair = await twoNodes({ warm: 1 });
    const { world } = pair;
    // The operator has its permissions in the namespace, but none in the cluster.
    await limitOperator(world);
    const kubeconfig = await cluster.kubeconfigFor(limitedUser(world));
    const { process } = await world.startOperatorProcess({ flags: ["--kubeconfig", kubeconfig] });
    const [pod] = await parkOnFirst(pair, 1);
    await world.node.cordon();
    await world.until("the log reports the missing permission", () =>
      process.log.some(({ msg }) => msg?.includes("no permission to list and watch Nodes")),
    );
    const item = world.simulator.enqueue(world.environmentId);
    expect((await untilAssigned(world, item)).metadata.uid).toBe(pod?.metadata.uid);
    await untilState(world, item, "active");
    world.simulator.stopItem(item.id);
    await world.untilServed(1);
    // Conditions may quote the scheduler.
    const others = process.log.filter(({ msg = "" }) => !/^\w+=(True|False|Unknown) /.test(msg));
    const aboutNodes = others.filter((line) => JSON.stringify(line).toLowerCase().includes("nodes"));
    expect(aboutNodes.map(({ msg }) => msg)).toEqual([
      expect.stringContaining("no permission to list and watch Nodes"),
    ]);
  });
});
