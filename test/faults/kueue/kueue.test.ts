import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { isAsleep } from "../../../src/pods/turns.ts";
import { type Cluster, startCluster } from "../../../testbed/cluster/cluster.ts";
import { installBerth } from "../../../testbed/cluster/install.ts";
import { findKueue, Kueue } from "../../../testbed/kueue/kueue.ts";
import { asNamingCluster } from "../../integration/own-cluster.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { untilState } from "../../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../../support/world.ts";
import { readFaultSettings } from "../support/settings.ts";

const KUEUE = "kueue.x-k8s.io/v1beta2";
const GATE = "kueue.x-k8s.io/admission";
/** A build of Kueue takes minutes. */
const BUILD_TIMEOUT_MS = 1_800_000;
const MERGE = "application/merge-patch+json";

let own: Cluster;
let cluster: TestCluster;
let kueue: Kueue;

describe.runIf(readFaultSettings().long)("beside Kueue", () => {
  beforeAll(async () => {
    const files = await findKueue();
    own = await startCluster();
    await installBerth(own.api);
    cluster = await asNamingCluster(own);
    kueue = await Kueue.install(files, own);
    await create("resourceflavors", { kind: "ResourceFlavor", metadata: { name: "default" } });
  }, BUILD_TIMEOUT_MS);

  afterAll(async () => {
    await kueue?.[Symbol.asyncDispose]();
    await own?.stop();
  });

  /** A world whose Pods are queued, in a ClusterQueue with room for this number of Pods. */
  async function startQueuedWorld(pods: number, options: WorldOptions): Promise<World> {
    const world = await startWorld(cluster, { container: { command: ["worker"] }, ...options });
    const name = world.namespace;
    await create("clusterqueues", {
      kind: "ClusterQueue",
      metadata: { name },
      spec: { namespaceSelector: {}, resourceGroups: quota(pods) },
    });
    await create(`namespaces/${name}/localqueues`, {
      kind: "LocalQueue",
      metadata: { name: "agents" },
      spec: { clusterQueue: name },
    });
    await world.createEnvironment();
    await world.patchSpec({
      sessions: { template: { metadata: { labels: { "kueue.x-k8s.io/queue-name": "agents" } } } },
    });
    return world;
  }

  async function create(path: string, body: { readonly kind: string; readonly [key: string]: unknown }): Promise<void> {
    await own.api.create(`/apis/${KUEUE}/${path}`, { apiVersion: KUEUE, ...body });
  }

  async function setQueue({ namespace }: World, spec: Record<string, unknown>): Promise<void> {
    await own.api.request("PATCH", `/apis/${KUEUE}/clusterqueues/${namespace}`, { body: { spec }, contentType: MERGE });
  }

  const asleep = (world: World) => world.pods.find((pod) => isAsleep(pod) && readPodState(pod).is === "parked");
  const untilGated = (world: World) =>
    world.until("a Pod is gated", () =>
      world.pods.find(({ spec }) => spec.schedulingGates?.some(({ name }) => name === GATE)),
    );

  test("a Pod waits for its queue, and once admitted serves several messages", async () => {
    await using world = await startQueuedWorld(1, {
      sessions: { warm: 1, workspace: { type: "Pod", sleepSeconds: 600 } },
    });
    await setQueue(world, { stopPolicy: "Hold" });
    world.startOperator();
    const gated = await untilGated(world);
    const condition = await world.untilCondition("CapacityAvailable", "SchedulingGated");
    expect(condition.message).toContain(GATE);
    await setQueue(world, { stopPolicy: "None" });
    await world.untilParked(1);
    const first = world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const served = await world.until("the session sleeps", () => asleep(world));
    expect(served.metadata.uid).toBe(gated.metadata.uid);
    world.simulator.enqueue(world.environmentId, { sessionId: first.sessionId });
    await world.untilServed(2);
    expect((await world.until("it sleeps again", () => asleep(world))).metadata.uid).toBe(gated.metadata.uid);
    world.simulator.assertNoViolations();
  });

  test("a full queue takes no Pod from a sleeping session, and more quota lets the next one start", async () => {
    await using world = await startQueuedWorld(1, {
      sessions: { warm: 0, workspace: { type: "Pod", sleepSeconds: 600 } },
    });
    world.startOperator();
    const first = world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const { metadata } = await world.until("the session sleeps", () => asleep(world));
    world.simulator.enqueue(world.environmentId);
    await untilGated(world);
    await world.untilCondition("CapacityAvailable", "SchedulingGated");
    const next = world.simulator.enqueue(world.environmentId, { sessionId: first.sessionId });
    await untilState(world, next, "stopped");
    expect((await world.until("it sleeps again", () => asleep(world))).metadata.uid).toBe(metadata.uid);
    await setQueue(world, { resourceGroups: quota(2) });
    await world.untilServed(3);
    await world.untilCondition("CapacityAvailable", "Available");
    world.simulator.assertNoViolations();
  });

  test("while Kueue is away no session is lost, the condition has the reason, and then all are served", async () => {
    await using world = await startQueuedWorld(4, { sessions: { warm: 1, maxConcurrent: 4 } });
    world.startOperator();
    await world.untilParked(1);
    await kueue.stop();
    for (let item = 0; item < 4; item += 1) world.simulator.enqueue(world.environmentId);
    await world.until("Ready has the reason", () => {
      const { status, message = "" } = world.condition("Ready") ?? {};
      return status === "False" && /failed calling webhook/.test(message);
    });
    await kueue.start();
    await world.untilServed(4);
    await world.untilCondition("Ready", "Ready");
    await world.until("only the warm Pod is left", () => world.pods.length === 1);
    expect(world.simulator.items(world.environmentId).filter(({ acks }) => acks.length !== 1)).toEqual([]);
    world.simulator.assertNoViolations();
  });
});

function quota(pods: number) {
  const resources = [{ name: "pods", nominalQuota: pods }];
  return [{ coveredResources: ["pods"], flavors: [{ name: "default", resources }] }];
}
