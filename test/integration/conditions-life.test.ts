import { describe, expect, test } from "vitest";
import { SECRETS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { workersSpec } from "../api/environments.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { otherPoller, SHORT_LEASE, untilAssigned, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";
import { changeRights, limitedUser, limitOperator } from "./limited-operator.ts";
import { printedColumns } from "./printed-columns.ts";

const cluster = useCluster();

const environmentEvents = (world: World, reason: string) =>
  world.events(reason).filter(({ involvedObject }) => involvedObject.kind === "Environment");

describe.concurrent("while nothing changes", () => {
  test("an Environment is not written: its version stays the same over long polls and queue statistics", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    const { metrics } = world.startOperator();
    await world.untilCondition("Ready", "Ready");
    await world.untilParked(1);
    // Also the queue's number of polling workers, which statistics report a moment after the first poll.
    await world.until("the counts are written", () => {
      const { sessions, queue } = world.environment?.status ?? {};
      return sessions?.warm === 1 && queue?.workersPolling === 1;
    });
    const calls = (call: string) => metricValue(metrics.workRequests, { call });
    const version = world.environment?.metadata.resourceVersion;
    const [polls, readings] = [await calls("poll"), await calls("stats")];
    await world.until("10 more polls and 20 readings", async () => {
      return (await calls("poll")) >= polls + 10 && (await calls("stats")) >= readings + 20;
    });
    const live = await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
    expect(live.metadata.resourceVersion).toBe(version);
    expect(environmentEvents(world, "KeyAccepted")).toEqual([]);
    expect(environmentEvents(world, "Reachable")).toEqual([]);
  });

  test("a new process of the operator keeps the status: no second Event, and no new transition time", async () => {
    await using world = await startWorld(cluster, { key: false });
    await world.createEnvironment();
    const first = world.startOperator();
    const shown = await world.untilCondition("Authenticated", "KeySecretMissing");
    await world.until("the Event KeySecretMissing", () => environmentEvents(world, "KeySecretMissing").length === 1);
    await first.stop();
    const second = world.startOperator();
    await world.until("the second operator has read the key", async () => {
      return (await metricValue(second.metrics.kubeRequests, { verb: "get", resource: "secrets" })) >= 5;
    });
    expect(world.condition("Authenticated")).toEqual(shown);
    expect(environmentEvents(world, "KeySecretMissing").map(({ count }) => count)).toEqual([1]);
    await world.createKey();
    await world.untilCondition("Ready", "Ready");
    await world.until("the Event KeyAccepted", () => environmentEvents(world, "KeyAccepted").length === 1);
  });
});

describe.concurrent("workers", () => {
  test("the columns show mode and maximum, and the Environment can be deleted", async () => {
    await using world = await startWorld(cluster);
    const spec = { ...world.spec(), ...workersSpec({ maxReplicas: 7 }), api: world.spec()["api"], sessions: undefined };
    await world.kube.create(ENVIRONMENTS, {
      metadata: { name: world.name, namespace: world.namespace, finalizers: ["berth.dev/drain"] },
      spec: { ...spec, environmentId: world.environmentId },
    } as never);
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    expect(await printedColumns(cluster, world.namespace, world.name)).toMatchObject({
      Mode: "Workers",
      Max: 7,
      Ready: "True",
      Reason: "Ready",
    });
    await world.deleteEnvironment();
    await world.until("the Environment is gone", () => !world.environment);
  });
});

describe.concurrent("another client that polls the queue", () => {
  /** Polls until it is disposed. */
  function pollOn(world: World): Disposable {
    const client = otherPoller(world);
    const ending = new AbortController();
    const poll = async () => {
      while (!ending.signal.aborted) await client.poll({ block_ms: 500 });
    };
    poll().catch(() => {});
    return { [Symbol.dispose]: () => ending.abort() };
  }

  test("is reported until it stops, or until it is expected", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("PollersExpected", "PollersExpected");
    const polling = pollOn(world);
    const { message } = await world.untilCondition("PollersExpected", "OtherPollers");
    expect(message).toContain("spec.api.otherPollers");
    expect(world.condition("Ready")?.status).toBe("True");
    await world.patchSpec({ api: { otherPollers: 1 } });
    await world.untilCondition("PollersExpected", "PollersExpected");
    await world.patchSpec({ api: { otherPollers: 0 } });
    await world.untilCondition("PollersExpected", "OtherPollers");
    polling[Symbol.dispose]();
    await world.untilCondition("PollersExpected", "PollersExpected");
    expect(environmentEvents(world, "OtherPollers")).not.toEqual([]);
  });
});

describe.concurrent("an Environment that is deleted and immediately recreated under the same name", () => {
  test("is served by its own Pods, and the old one is no longer reported", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 3 }, spec: { paused: true } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(3);
    await world.untilCondition("Ready", "Paused");
    const old = world.environment;
    await world.deleteEnvironment();
    await world.createEnvironment({ paused: false });
    await world.until("the new Environment is ready", () => {
      return world.environment?.metadata.uid !== old?.metadata.uid && world.condition("Ready")?.reason === "Ready";
    });
    const owners = new Set<string | undefined>();
    const stop = world.onPodChange(() => {
      for (const { metadata } of world.pods) {
        if (metadata.labels?.["berth.dev/phase"] === "running") owners.add(metadata.ownerReferences?.[0]?.uid);
      }
    });
    for (let item = 0; item < 3; item += 1) world.simulator.enqueue(world.environmentId);
    await world.untilServed(3);
    expect(world.environment?.status?.observedGeneration).toBe(1);
    const endings = world.simulator.items(world.environmentId).map(({ stoppedBy }) => stoppedBy?.as);
    expect(endings).toEqual(["sessions-token", "sessions-token", "sessions-token"]);
    stop();
    expect([...owners]).toEqual([world.environment?.metadata.uid]);
    world.simulator.assertNoViolations();
  });

  test("with a running session: the old one drains first, then the new one is served", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      // Long enough that the drain is visible.
      node: { fates: () => ({ kind: "worker", workMs: 6_000 }) },
      spec: { deletionGraceSeconds: 60 },
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    await untilState(world, item, "active");
    await world.deleteEnvironment();
    await world.untilCondition("Ready", "Deleting");
    await world.until("the Environment is gone", () => !world.environment);
    expect(world.simulator.item(item.id).stoppedBy?.as).toBe("sessions-token");
    await world.createEnvironment();
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(2);
    world.simulator.assertNoViolations();
  });
});

test("a revoked permission to read the key is reported, while the current key continues to serve", async () => {
  await using world = await startWorld(cluster);
  await limitOperator(world);
  await world.createEnvironment();
  const flags = ["--kubeconfig", await cluster.kubeconfigFor(limitedUser(world))];
  const { metrics } = world.startOperator({ flags });
  await world.untilCondition("Ready", "Ready");
  await world.untilParked(1);
  await changeRights(world, { resource: "secrets", verb: "get" });
  const shown = await world.untilCondition("Authenticated", "KeySecretUnreadable");
  expect(shown.status).toBe("Unknown");
  expect(world.condition("Ready")).toMatchObject({ status: "Unknown", reason: "KeySecretUnreadable" });
  const refusals = await metricValue(metrics.kubeRequests, { verb: "get", resource: "secrets", code: "403" });
  expect(refusals, "one failed reading is no news").toBeGreaterThanOrEqual(2);
  world.simulator.enqueue(world.environmentId);
  await world.untilServed(1);
  await changeRights(world);
  await world.untilCondition("Ready", "Ready");
  world.simulator.assertNoViolations();
});

test("a drain that can't settle its sessions times out, and reports it", async () => {
  await using world = await startWorld(cluster, {
    node: { fates: () => ({ kind: "worker", end: "hang", onTerm: "ignore" }) },
    podSpec: { terminationGracePeriodSeconds: 1 },
    spec: { deletionGraceSeconds: 1 },
  });
  await world.createEnvironment();
  world.startOperator();
  await world.untilParked(1);
  const item = world.simulator.enqueue(world.environmentId);
  await untilState(world, item, "active");
  world.simulator.inject({ kind: "status", status: 500 });
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => !world.environment);
  const [event] = await world.until("an Event", () => {
    const told = environmentEvents(world, "DrainGivenUp");
    return told.length > 0 && told;
  });
  expect(event?.type).toBe("Warning");
  expect(event?.message).toMatch(/^1 work items were not settled within deletionGraceSeconds and 3 s/);
  expect(environmentEvents(world, "Deleting").map(({ count }) => count)).toEqual([1]);
  await world.caughtUp("secrets");
  expect(world.claims).toEqual([]);
});

describe.concurrent("a key that is rotated while sessions run", () => {
  test("the session continues, and later items are claimed with the new key", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      // Longer than it takes until the rejection is reported.
      node: { fates: () => ({ kind: "worker", workMs: 10_000 }) },
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId);
    await untilState(world, item, "active");
    world.simulator.rotateKey(world.environmentId);
    await world.untilCondition("Authenticated", "KeyRejected");
    const { metadata } = await untilAssigned(world, item);
    const key = Buffer.from(world.simulator.environmentKey(world.environmentId)).toString("base64");
    await world.kube.patch(
      SECRETS,
      { namespace: world.namespace, name: "key" },
      { data: { "environment-key": key } },
      { type: "merge" },
    );
    await world.untilCondition("Ready", "Ready");
    await world.untilServed(1);
    expect(world.simulator.item(item.id).stoppedBy?.as).toBe("sessions-token");
    expect(world.simulator.item(item.id).acks).toHaveLength(1);
    expect(metadata.labels?.["berth.dev/phase"]).toBe("running");
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(2);
    world.simulator.assertNoViolations();
  });

  test("a key that the platform rejected for a while is tried again later without a change", async () => {
    await using world = await startWorld(cluster, { timeScale: 200 });
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    world.simulator.inject({ kind: "status", status: 401 });
    await world.untilCondition("Authenticated", "KeyRejected");
    world.simulator.clearFaults();
    await world.untilCondition("Ready", "Ready");
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    expect(environmentEvents(world, "KeyRejected").map(({ count }) => count)).toEqual([1]);
  });

  test("a rejected key is tried again when its Secret is touched without a change of the key", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    // The platform rejects the key for a while.
    world.simulator.inject({ kind: "status", status: 401 });
    await world.untilCondition("Authenticated", "KeyRejected");
    world.simulator.clearFaults();
    await world.kube.patch(
      SECRETS,
      { namespace: world.namespace, name: "key" },
      { metadata: { annotations: { touched: "yes" } } },
      { type: "merge" },
    );
    await world.untilCondition("Ready", "Ready");
  });
});
