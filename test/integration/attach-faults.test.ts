import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../simulator/item.ts";
import type { PointObserver } from "../../src/core/points.ts";
import type { AttachFault } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { podOf, type Served, serveOne, untilAssigned, untilEnded, untilGone } from "../support/session-life.ts";
import { SOON, stockWorld } from "../support/stock-worker-world.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import type { InProcessOperator, World } from "../support/world.ts";

const cluster = useCluster();

/** A world whose Pods wait in a real shell. The first client that attaches gets this fault, and so on. */
const shellWorld = (...faults: (AttachFault | undefined)[]) =>
  stockWorld(cluster, SOON, {
    sessions: { warm: 1, parking: "Shell" },
    node: { runtime: "process", fates: () => undefined, attachFaults: () => faults.shift() },
  });

describe.concurrent("a session's line", () => {
  test.each<[string, AttachFault]>([
    ["is lost", { kind: "input-lost" }],
    ["breaks off in the middle", { kind: "cut", afterBytes: 60 }],
    ["breaks off in the middle, and the connection says nothing", { kind: "cut", afterBytes: 60, silent: true }],
    ["is not confirmed", { kind: "output-lost" }],
  ])("that %s starts its session once", async (_, fault) => {
    await using world = await shellWorld(fault);
    await expectStartedOnce(world, await serveOne(world));
  });

  test("is read after junk from another client that stays attached, and that client sees no credential", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    const operator = world.startOperator();
    const [parked] = await world.untilParked(1);
    const ref = { namespace: world.namespace, name: parked?.metadata.name ?? "" };
    const stray = await world.kube.attach(ref, { container: "worker" });
    stray.send("\n\nexport A=1\nberth1 3 exit 1 #end\nberth1 99 half of a li");
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.name).toBe(ref.name);
    await untilEnded(world, { operator, item, pod }, "Completed");
    expect(stray.output).toContain("berth1 started\n");
    expect(stray.output).not.toContain("ANTHROPIC");
    stray.close();
  });
});

/** Starts a proxy to the API server, and returns it with the flags of an operator that uses it. */
async function startNetwork() {
  const network = await TcpProxy.start(cluster.server);
  const dir = await mkdtemp(join(tmpdir(), "berth-attach-"));
  const kubeconfig = join(dir, "kubeconfig");
  const text = await readFile(cluster.operatorKubeconfig, "utf8");
  await writeFile(kubeconfig, text.replaceAll(cluster.server, network.url(cluster.server)), { mode: 0o600 });
  const dispose = async () => {
    await network[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  };
  return { network, flags: ["--kubeconfig", kubeconfig], [Symbol.asyncDispose]: dispose };
}

async function expectStartedOnce(world: World, served: Served): Promise<void> {
  const { last } = await untilEnded(world, served, "Completed");
  expect(last.acks).toHaveLength(1);
  const log = await world.node.logs({ namespace: world.namespace, name: served.pod.metadata.name ?? "" });
  expect(log.split("berth1 started\n")).toHaveLength(2);
}

/** Expects that an item is served once by the parked Pod, although the answer to the line of `sender` comes late. */
async function expectLateLine(world: World, { network, sender, operator, parked }: LateLine): Promise<void> {
  const item = world.simulator.enqueue(world.environmentId);
  await world.until("the line is not answered", () => hasSent(world, sender, "unanswered"));
  await untilBeaten(world, item);
  network.forward();
  const pod = await untilAssigned(world, item);
  expect(pod.metadata.uid).toBe(parked?.metadata.uid);
  await expectStartedOnce(world, { operator, item, pod });
}

interface LateLine {
  readonly network: TcpProxy;
  readonly sender: InProcessOperator;
  readonly operator: InProcessOperator;
  readonly parked: Served["pod"] | undefined;
}

const labelsOf = ({ namespace, name }: World) => ({ namespace, environment: name });

function untilAttached(world: World, { metrics }: InProcessOperator, count: number): Promise<boolean> {
  const isSo = async () => (await metricValue(metrics.attachStreams, labelsOf(world))) === count;
  return world.until(`${count} connections to waiting Pods`, isSo);
}

/** Whether an operator has sent one line over a connection that it had opened before, with this result. */
async function hasSent(world: World, { metrics }: InProcessOperator, result: string): Promise<boolean> {
  return (await metricValue(metrics.deliveries, { ...labelsOf(world), connection: "kept", result })) === 1;
}

/** Calls this function right before an operator sends a line. */
function onDelivery(act: () => void): { seams: { points: PointObserver } } {
  const points: PointObserver = ({ point, phase }) => {
    if (point === "session.deliver" && phase === "before") act();
  };
  return { seams: { points } };
}

/** Waits until the program has sent a heartbeat. Its session may have ended since. */
function untilBeaten(world: World, { id }: ItemRecord): Promise<number> {
  return world.until("the program's first heartbeat", () => world.simulator.item(id).firstBeatAt);
}

describe.concurrent("a waiting Pod", () => {
  test("is attached to again after the API server's connections broke, and gets the next session", async () => {
    await using world = await shellWorld();
    await using api = await startNetwork();
    await world.createEnvironment();
    const operator = world.startOperator({ flags: api.flags });
    const [parked] = await world.untilParked(1);
    await untilAttached(world, operator, 1);
    api.network.refuse();
    api.network.cut();
    await untilAttached(world, operator, 0);
    api.network.forward();
    await untilAttached(world, operator, 1);
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await untilAssigned(world, item);
    expect(pod.metadata.uid).toBe(parked?.metadata.uid);
    await expectStartedOnce(world, { operator, item, pod });
    expect(await hasSent(world, operator, "started")).toBe(true);
  });

  test("gets no item once its node has stopped answering, although its connection seems open", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    const operator = world.startOperator();
    const [parked] = await world.untilParked(1);
    await untilAttached(world, operator, 1);
    world.node.fail();
    const item = world.simulator.enqueue(world.environmentId);
    await world.until("it is offered", () => world.simulator.item(item.id).offers.length > 0);
    await untilAttached(world, operator, 0);
    expect(world.simulator.item(item.id).acks).toEqual([]);
    await world.node.recover();
    const pod = await untilAssigned(world, item);
    expect(pod.metadata.uid).toBe(parked?.metadata.uid);
    await expectStartedOnce(world, { operator, item, pod });
  });

  test.each<[string, (network: TcpProxy) => void]>([
    ["is read, and the answer comes late", (network) => network.holdAnswers()],
    ["comes late itself", (network) => network.freezeOpen()],
  ])("starts its session once if its line %s", async (_, disturb) => {
    await using world = await shellWorld();
    await using api = await startNetwork();
    await world.createEnvironment();
    const operator = world.startOperator({ flags: api.flags, ...onDelivery(() => disturb(api.network)) });
    const [parked] = await world.untilParked(1);
    await untilAttached(world, operator, 1);
    await expectLateLine(world, { ...api, sender: operator, operator, parked });
  });

  test.each(["while the next leader delivers", "after the session has started"])(
    "starts its session once if the line of a leader that lost its Lease arrives %s",
    async (moment) => {
      await using world = await shellWorld();
      await using api = await startNetwork();
      await world.createEnvironment();
      const through = { flags: api.flags, ...onDelivery(() => api.network.stall()) };
      const old = world.startOperator({ leaderElect: true, ...through });
      const [parked] = await world.untilParked(1);
      await untilAttached(world, old, 1);
      const isLater = moment === "after the session has started";
      const release = onDelivery(() => {
        if (!isLater) api.network.forward();
      });
      const operator = world.startOperator({ leaderElect: true, ...release });
      await expectLateLine(world, { ...api, sender: old, operator, parked });
    },
  );
});

describe.concurrent("an operator that can't attach", () => {
  test("gives no session to a Pod until it has attached to it", async () => {
    let isRefused = true;
    await using world = await stockWorld(cluster, SOON, {
      sessions: { warm: 1, maxConcurrent: 1, parking: "Shell" },
      node: {
        runtime: "process",
        fates: () => undefined,
        attachFaults: () => (isRefused ? { kind: "refused" } : undefined),
      },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "AttachFailing");
    expect(world.simulator.item(item.id).acks).toEqual([]);
    isRefused = false;
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    await untilEnded(world, { operator, item, pod }, "Completed");
  });

  test("parks Pods with a key where nodes refuse it, if the spec leaves the choice", async () => {
    await using world = await stockWorld(cluster, SOON, {
      sessions: { warm: 1, maxConcurrent: 2 },
      node: { runtime: "process", fates: () => undefined, attachFaults: () => ({ kind: "refused" }) },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    const [shell] = await world.untilParked(1);
    await world.until("the status says why", () => {
      const { mode, failure } = world.environment?.status?.parking ?? {};
      return mode === "Key" && failure?.includes("refused");
    });
    if (shell) await untilGone(world, shell);
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.annotations).not.toHaveProperty("berth.dev/parking");
    await untilEnded(world, { operator, item, pod }, "Completed");
  });

  test("parks Pods with a key where a policy forbids it, and says so", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: { warm: 1, maxConcurrent: 2 } });
    const { namespace, kube } = world;
    const name = `no-attach-${namespace}`;
    const admission = "/apis/admissionregistration.k8s.io/v1";
    await kube.raw("POST", `${admission}/validatingadmissionpolicies`, {
      metadata: { name },
      spec: {
        matchConstraints: {
          namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
          resourceRules: [
            { apiGroups: [""], apiVersions: ["v1"], operations: ["CONNECT"], resources: ["pods/attach"] },
          ],
        },
        validations: [{ expression: "false", message: "no client may attach here" }],
      },
    });
    await kube.raw("POST", `${admission}/validatingadmissionpolicybindings`, {
      metadata: { name },
      spec: { policyName: name, validationActions: ["Deny"] },
    });
    const attach = () => kube.attach({ namespace, name: "none" }, { container: "none" });
    await world.until("the policy is in force", () =>
      attach().catch((error) => String(error).includes("no client may")),
    );
    await world.createEnvironment();
    const operator = world.startOperator();
    const [waiting] = await world.untilParked(1);
    expect(world.environment?.status?.parking?.message).toContain("no client may attach here");
    expect(waiting?.metadata.annotations).not.toHaveProperty("berth.dev/parking");
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await world.until("a Pod has the item", () => podOf(world, item));
    expect(pod.metadata.name).toBe(waiting?.metadata.name);
    await untilEnded(world, { operator, item, pod }, "Completed");
    await kube.raw("DELETE", `${admission}/validatingadmissionpolicybindings/${name}`);
    await kube.raw("DELETE", `${admission}/validatingadmissionpolicies/${name}`);
  });
});
