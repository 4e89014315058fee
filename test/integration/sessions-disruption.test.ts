import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PODS } from "../../src/kube/resource.ts";
import { type FateInput, type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import {
  podOf,
  SHORT_LEASE,
  serveOne,
  untilEnded,
  untilGone,
  untilState,
  workerClient,
} from "../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const hanging: FateInput = { kind: "worker", end: "hang" };

const zone = () => ({ "topology.kubernetes.io/zone": `zone-${randomUUID()}` });

function worldOf(fate: FateInput, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, { ...SHORT_LEASE, node: { fates: () => fate }, ...options });
}

describe.concurrent("the Pod of a running session is deleted", () => {
  test("by a user: the worker stops its item on SIGTERM, and the Event names the cause", async () => {
    await using world = await worldOf(hanging);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last, message } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(message).toContain("the Pod was deleted while its session ran");
    await untilGone(world, served.pod);
  });

  test("by a user, and its program does not handle SIGTERM: the item is fenced and stopped", async () => {
    await using world = await worldOf({ ...hanging, onTerm: { code: 143 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("by a user with force: its end is not observed, but the item is fenced and stopped", async () => {
    await using world = await worldOf({ ...hanging, onTerm: { code: 143 } });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    const ref = { namespace: world.namespace, name: served.pod.metadata.name ?? "" };
    await world.kube.delete(PODS, ref, { gracePeriodSeconds: 0 });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("environment-key");
  });

  test("by an eviction of its node: the Event contains the kubelet's message", async () => {
    await using world = await worldOf({ ...hanging, onTerm: "ignore" });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.node.evict({ namespace: world.namespace, name: served.pod.metadata.name });
    const { last, message } = await untilEnded(world, served, "Evicted");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain("ephemeral");
  });

  test("by a drain of its node: the worker stops its item, and Pods are created once there is a node", async () => {
    await using world = await worldOf(hanging);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    expect(await world.node.drain()).toEqual([]);
    const { last } = await untilEnded(world, served, "Evicted");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    await world.untilCondition("CapacityAvailable", "Unschedulable");
    await world.node.cordon(false);
    await world.untilCondition("CapacityAvailable", "Available");
    await world.untilParked(1);
  });
});

describe.concurrent("the node is lost", () => {
  /** The node controller evicts no Pods while all zones of a cluster are down, so one node stays healthy. */
  let well: SimulatedNode;
  beforeAll(async () => {
    well = await startNode({ client: cluster.kubeconfig, name: `well-${randomUUID()}`, labels: zone() });
  });
  afterAll(() => well.stop());

  /** A world whose node is its own zone, so that its loss is distinct from that of other nodes. */
  const lossyWorld = (fate: FateInput, sessions: Record<string, unknown> = {}) =>
    worldOf(fate, { podSpec, sessions, node: { fates: () => fate, labels: zone() } });

  /** Shortens the five minutes that the taint manager would wait. */
  const podSpec = {
    tolerations: ["not-ready", "unreachable"].map((taint) => ({
      key: `node.kubernetes.io/${taint}`,
      operator: "Exists",
      effect: "NoExecute",
      tolerationSeconds: 2,
    })),
  };

  test("while its container runs on with heartbeats: the item is left alone", async () => {
    await using world = await lossyWorld(hanging);
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.node.fail();
    await world.until("the Pod is marked for deletion", () => podOf(world, served.item)?.metadata.deletionTimestamp);
    const { beats } = world.simulator.item(served.item.id);
    await world.until("three more heartbeats", () => world.simulator.item(served.item.id).beats >= beats + 3);
    expect(world.simulator.item(served.item.id).state).toBe("active");

    await world.node.recover();
    const { last, message } = await untilEnded(world, served, "NodeLost");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(message).toContain(world.node.name);
    await untilGone(world, served.pod);
  });

  test("its container is silent and the lease still runs: the item is fenced and stopped", async () => {
    await using world = await lossyWorld({ kind: "run" });
    const served = await serveOne(world);
    const worker = await world.until("the claim is opened", () => workerClient(world, served.item));
    await worker.mustBeat(served.item.id, "NO_HEARTBEAT", 32);
    world.node.fail();
    const { last, message } = await untilEnded(world, served, "NodeLost");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(message).toContain(world.node.name);
  });

  test("its container is silent and the lease lapses: the item is served again once there is a node", async () => {
    // That node has no free Pod. Otherwise the item would be claimed for it until the loss is detected.
    await using world = await lossyWorld(hanging, { maxConcurrent: 1 });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.node.fail();
    world.node.kill({ namespace: world.namespace, name: served.pod.metadata.name });
    await world.until("the first claim is released", () => world.claims.length === 0);
    expect(world.simulator.item(served.item.id).state).toBe("queued");
    await world.node.recover();
    await world.until("the item is acknowledged again", () => world.simulator.item(served.item.id).acks.length === 2);
    await untilState(world, served.item, "active");
    world.simulator.stopItem(served.item.id);
    await world.untilServed(1);
    world.simulator.assertNoViolations();
    expect(world.simulator.item(served.item.id).acks).toHaveLength(2);
  });

  test("a node that returns in time does not affect its session", async () => {
    await using world = await lossyWorld({ kind: "worker", workMs: 8_000 });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    world.node.fail();
    const beats = world.simulator.item(served.item.id).beats;
    await world.until("another heartbeat", () => world.simulator.item(served.item.id).beats > beats);
    await world.node.recover();
    const { last } = await untilEnded(world, served, "Completed");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });
});
