import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { PODS } from "../../src/kube/resource.ts";
import { GATE_CONTAINER } from "../../src/pods/pod-gate.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilEnded, untilGone, untilState } from "../support/session-life.ts";
import { NEVER, SOON, stockWorld } from "../support/stock-worker-world.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const INIT = { warm: 1, parking: "Init" } as const;

/** A node that runs gates as processes, so that their script runs, and session containers as scripts. */
function gatedWorld(fate: FateInput, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, {
    ...SHORT_LEASE,
    sessions: INIT,
    ...options,
    node: {
      runtime: (_pod, { name }) => (name === GATE_CONTAINER ? "process" : "scripted"),
      fates: (_pod, { name }) => (name === GATE_CONTAINER ? undefined : fate),
      ...options.node,
    },
  });
}

describe.concurrent("parking: Init", () => {
  test("the stock worker serves a session, and its parked Pod shows a running gate and no error", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: INIT });
    await world.createEnvironment();
    const operator = world.startOperator();
    const [parked] = await world.untilParked(1);
    const states = [...(parked?.status?.initContainerStatuses ?? []), ...(parked?.status?.containerStatuses ?? [])];
    expect(states.map(({ name, state }) => [name, Object.keys(state ?? {})[0], state?.waiting?.reason])).toEqual([
      [GATE_CONTAINER, "running", undefined],
      ["worker", "waiting", "PodInitializing"],
    ]);
    await world.until("the status counts the Pod as warm", () => world.environment?.status?.sessions?.warm === 1);
    const item = world.simulator.enqueue(world.environmentId, { script: bashScript("echo served") });
    await world.untilServed(1);
    expect(world.simulator.item(item.id).stoppedBy?.as).toBe("sessions-token");
    expect(world.simulator.session(item.sessionId ?? "").toolCalls.map(({ output }) => output)).toEqual(["served"]);
    expect(world.simulator.item(item.id).acks).toHaveLength(1);
    world.simulator.assertNoViolations();
    await operator.stop();
  });

  test("a template's own init containers come first, and its sidecars run next to the gate", async () => {
    const initContainers = [
      { name: "prep", image: "prep:1" },
      { name: "proxy", image: "proxy:1", restartPolicy: "Always" },
    ];
    await using world = await gatedWorld(
      { kind: "worker", workMs: 200 },
      {
        podSpec: { initContainers },
        node: {
          fates: (_pod, { name }) =>
            ({ prep: { kind: "exit" }, proxy: { kind: "run" }, worker: { kind: "worker", workMs: 200 } })[name] as
              | FateInput
              | undefined,
        },
      },
    );
    await world.createEnvironment();
    world.startOperator();
    const [pod] = await world.untilParked(1);
    const states = pod?.status?.initContainerStatuses?.map(({ name, state }) => [name, Object.keys(state ?? {})[0]]);
    expect(states).toEqual([
      ["prep", "terminated"],
      ["proxy", "running"],
      [GATE_CONTAINER, "running"],
    ]);
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    world.simulator.assertNoViolations();
  });

  test("an image that runs as root despite runAsNonRoot is detected before any claim", async () => {
    await using world = await gatedWorld({ kind: "worker" }, { node: { fates: () => ({ kind: "root-image" }) } });
    await world.createEnvironment();
    world.startOperator();
    const item = world.simulator.enqueue(world.environmentId);
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toContain("runAsNonRoot");
    expect(message).toContain(GATE_CONTAINER);
    expect(world.simulator.item(item.id)).toMatchObject({ state: "queued", acks: [] });
  });

  test("an image without a shell never gets parked, and the condition says what it needs", async () => {
    await using world = await gatedWorld(
      { kind: "worker" },
      { node: { fates: (_pod, { name }) => (name === GATE_CONTAINER ? { kind: "start-error" } : { kind: "run" }) } },
    );
    await world.createEnvironment();
    world.startOperator();
    const item = world.simulator.enqueue(world.environmentId);
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toContain("/bin/sh");
    expect(message).toContain("parking: Key");
    expect(world.simulator.item(item.id).acks).toEqual([]);
  });

  test("a template that uses the reserved mount path is refused with the API server's message", async () => {
    const mountPath = "/var/run/secrets/berth.dev";
    await using world = await gatedWorld(
      { kind: "worker" },
      {
        podSpec: { volumes: [{ name: "mine", emptyDir: {} }] },
        container: { volumeMounts: [{ name: "mine", mountPath }] },
      },
    );
    await world.createEnvironment();
    world.startOperator();
    const { message } = await world.untilCondition("TemplateAccepted", "Refused");
    expect(message).toContain(mountPath);
    expect(world.pods).toEqual([]);
  });

  test("a parked Pod that is deleted ends immediately on SIGTERM, whatever its grace period", async () => {
    await using world = await gatedWorld({ kind: "worker" }, { podSpec: { terminationGracePeriodSeconds: 3_600 } });
    await world.createEnvironment();
    world.startOperator();
    const [pod] = await world.untilParked(1);
    if (!pod) throw new Error("no Pod");
    await world.patchSpec({ sessions: { warm: 0, warmScaleDownSeconds: 0 } });
    await untilGone(world, pod);
    await world.until("the Secret is gone", () => world.claims.length === 0);
  });

  test("a Pod that is evicted while parked is replaced, and does not count as a failure", async () => {
    await using world = await gatedWorld({ kind: "worker", workMs: 200 });
    await world.createEnvironment();
    world.startOperator();
    const [pod] = await world.untilParked(1);
    if (!pod) throw new Error("no Pod");
    world.node.evict({ namespace: world.namespace, name: pod.metadata.name });
    await world.until("another Pod is parked", () =>
      world.parked.some(({ metadata }) => metadata.uid !== pod.metadata.uid),
    );
    await world.untilCondition("CapacityAvailable", "Available");
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
  });

  test("an operator dies between the opening and the touch: the next one touches the Pod", async () => {
    await using world = await gatedWorld({ kind: "worker", workMs: 300 });
    await world.createEnvironment();
    const first = await world.startOperatorProcess();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    await world.until("the claim is opened", () => world.claims.some(({ data }) => data?.["work-secret"]));
    await first.process.kill();
    world.startOperator();
    await world.untilServed(1);
    expect(world.simulator.item(item.id).acks).toHaveLength(1);
    world.simulator.assertNoViolations();
  });

  test("a Pod parked by its key still serves after the change, and later Pods use the init container", async () => {
    await using world = await stockWorld(cluster, SOON, { sessions: { warm: 1, maxConcurrent: 3 } });
    await world.createEnvironment();
    world.startOperator();
    const [old] = await world.untilParked(1);
    await world.patchSpec({ sessions: { parking: "Init" } });
    await world.until("the Pod is replaced by one with a gate", () => {
      const [pod, ...more] = world.parked;
      return more.length === 0 && pod?.metadata.uid !== old?.metadata.uid && pod?.spec.initContainers?.length === 1;
    });
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    world.simulator.assertNoViolations();
  });

  test("a session that is stopped or whose Pod is deleted ends as with parking: Key", async () => {
    await using world = await stockWorld(cluster, NEVER, { sessions: INIT });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.kube.delete(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    const { last } = await untilEnded(world, served, "PodDeleted");
    expect(last.stoppedBy?.as).toBe("sessions-token");
  });
});
