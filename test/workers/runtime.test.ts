import { describe, expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { Json } from "../api/environments.ts";
import { metricValue } from "../support/metric-value.ts";
import { FleetWorld } from "./fleet-world.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const STEP_MS = 250;
const LONG_MS = 15 * MINUTE_MS;
const GRACE_MS = 10 * MINUTE_MS;

const AT_ONCE: Json = { scaleDown: { stabilizationWindowSeconds: 0 } };

const total = (world: FleetWorld) => Object.values(world.replicas).reduce((sum, each) => sum + each, 0);

const sized = { maxReplicas: 8 };

test.each<[string, Record<string, unknown>]>([
  ["with a probe", { ...sized, busyProbe: { httpGet: { path: "/busy", port: 9000 } } }],
  ["without a probe", sized],
])(
  "a new process does not know the last minutes, and removes no worker for the whole window: %s",
  async (_how, workers) => {
    const world = new FleetWorld(seededRandom(7), workers);
    world.start();
    world.enqueue(8);
    for (let waited = 0; total(world) < 8 && waited < 60; waited += 1) await world.run(SECOND_MS);
    expect(total(world)).toBe(8);
    // Their sessions have ended; the default window of 300 s keeps the workers.
    for (let waited = 0; (world.busy > 0 || world.queued > 0) && waited < 240; waited += 1) await world.run(SECOND_MS);
    expect(world.busy).toBe(0);
    await world.restart();
    for (let second = 0; second < 295; second += 1) {
      await world.run(SECOND_MS);
      expect(total(world), `${second} s after the restart`).toBe(8);
    }
    await world.run(MINUTE_MS);
    expect(total(world)).toBe(0);
    expect(world.faults).toEqual([]);
    await world.stop();
  },
);

test.each<[string, Json]>([
  ["with a probe", { busyProbe: { httpGet: { path: "/busy", port: 9000 } } }],
  ["without a probe", {}],
])("a ready worker should poll while none is busy: %s", async (_how, workers) => {
  const world = new FleetWorld(seededRandom(3), { minReplicas: 1, maxReplicas: 1, ...workers });
  world.start();
  expect(world.shouldPoll).toBe(false);
  await world.run(MINUTE_MS);
  expect(world.shouldPoll).toBe(true);
  world.enqueue(1);
  for (let waited = 0; world.busy === 0 && waited < 60; waited += 1) await world.run(SECOND_MS);
  await world.run(15 * SECOND_MS);
  expect([world.busy, world.shouldPoll]).toEqual([1, false]);
  for (let waited = 0; world.busy > 0 && waited < 240; waited += 1) await world.run(SECOND_MS);
  await world.run(15 * SECOND_MS);
  expect(world.shouldPoll).toBe(true);
  await world.stop();
});

test("capacity is Unknown until a worker is ready", async () => {
  const world = new FleetWorld(seededRandom(3), { maxReplicas: 2 });
  world.start();
  await world.run(MINUTE_MS);
  expect(world.verdicts).toContain("CapacityUnchecked");
  world.enqueue(1);
  for (let waited = 0; total(world) === 0 && waited < 60; waited += 1) await world.run(SECOND_MS);
  await world.run(MINUTE_MS);
  expect(world.verdicts).toContain("Available");
  await world.stop();
});

test("a long idle Environment creates workers as soon as work arrives, and never reports unread demand", async () => {
  const world = new FleetWorld(seededRandom(11), {
    maxReplicas: 4,
    busyProbe: { httpGet: { path: "/busy", port: 9000 } },
  });
  world.start();
  const said = new Set<string>();
  const run = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += STEP_MS) {
      await world.run(STEP_MS);
      for (const reason of world.verdicts) said.add(reason);
    }
  };
  await run(LONG_MS);
  expect(world.walks, "list reads without workers and waiting items").toBe(0);
  said.delete("DemandUnread");
  world.enqueue(3);
  // The operator reads statistics every 10 s in this world.
  await run(12_000);
  expect(Object.values(world.replicas)).toEqual([3]);
  expect(world.walks).toBeGreaterThan(0);
  await run(LONG_MS);
  const walks = world.walks;
  expect({ served: world.served, replicas: Object.values(world.replicas) }).toEqual({ served: 3, replicas: [0] });
  await run(LONG_MS);
  expect(world.walks, "list reads after the last worker is gone").toBe(walks);
  expect([...said].filter((reason) => ["DemandUnread", "ReadingStale"].includes(reason))).toEqual([]);
  await world.stop();
});

/** A fleet whose node evicted a worker: the failed Pod remains, and a new worker replaced it. */
async function withEvicted(workers: Json): Promise<FleetWorld> {
  const busyProbe = { httpGet: { path: "/busy", port: 9000 } };
  const world = new FleetWorld(seededRandom(3), { maxReplicas: 4, behavior: AT_ONCE, busyProbe, ...workers });
  world.start();
  world.enqueue(1);
  await world.run(20 * SECOND_MS);
  world.evict();
  await world.run(60 * SECOND_MS);
  expect(world.served).toBe(1);
  return world;
}

test("an evicted worker's Pod does not keep the Deployment of an earlier template", async () => {
  const world = await withEvicted({ minReplicas: 1 });
  const before = Object.keys(world.replicas);
  world.changeTemplate();
  await world.run(30 * SECOND_MS);
  expect(Object.values(world.replicas)).toEqual([1]);
  expect(Object.keys(world.replicas)).not.toEqual(before);
  await world.stop();
});

test("an evicted worker's Pod does not delay the deletion of its Environment", async () => {
  const world = await withEvicted({ minReplicas: 1 });
  world.drain(GRACE_MS);
  await world.run(30 * SECOND_MS);
  expect(world.isDrained).toBe(true);
  await world.stop();
});

test("an evicted worker's Pod does not cause sessions to be counted", async () => {
  const world = await withEvicted({ minReplicas: 0 });
  await world.run(15 * SECOND_MS);
  const { walks } = world;
  await world.run(30 * SECOND_MS);
  expect({ replicas: Object.values(world.replicas), walks: world.walks }).toEqual({ replicas: [0], walks });
  await world.stop();
});

/** A fleet at its maximum of two, whose workers are busy with sessions of this length. */
async function busyPair(seconds: number): Promise<FleetWorld> {
  const busyProbe = { httpGet: { path: "/busy", port: 9000 } };
  const world = new FleetWorld(seededRandom(3), { maxReplicas: 2, behavior: AT_ONCE, busyProbe });
  world.sessionMs = { min: seconds * SECOND_MS, max: seconds * SECOND_MS };
  world.start();
  world.enqueue(4);
  for (let waited = 0; world.busy < 2 && waited < 60; waited += 1) await world.run(SECOND_MS);
  expect(world.busy).toBe(2);
  return world;
}

test("a deleted busy worker finishes its session, and counts towards maxReplicas until then", async () => {
  const world = await busyPair(100);
  world.deleteBusy();
  await world.run(5 * SECOND_MS);
  // The ReplicaSet replaced it at once. The operator takes the replacement back.
  expect({ total: total(world), pods: world.pods, busy: world.busy }).toEqual({ total: 1, pods: 2, busy: 2 });
  expect(world.saidOf("AtMaximum")).toContain("all 2 workers exist and more work waits");
  await world.run(250 * SECOND_MS);
  expect(world).toMatchObject({ served: 4, lost: 0, faults: [] });
  expect(await metricValue(world.metrics.workersEndedWhileBusy, {})).toBe(0);
  await world.stop();
});

describe("if another Environment with the same environmentId is served", () => {
  const OUT = { isServed: false, mayClaim: false };

  test.each<[string, Json]>([
    ["with a probe", { busyProbe: { httpGet: { path: "/busy", port: 9000 } } }],
    ["without a probe", {}],
  ])("workers finish their sessions, and then all are gone: %s", async (_how, workers) => {
    const world = new FleetWorld(seededRandom(5), { minReplicas: 3, maxReplicas: 3, ...workers });
    world.sessionMs = { min: 100 * SECOND_MS, max: 100 * SECOND_MS };
    world.start();
    await world.run(MINUTE_MS);
    world.enqueue(1);
    for (let waited = 0; world.busy === 0 && waited < 60; waited += 1) await world.run(SECOND_MS);
    world.sets(OUT);
    await world.run(MINUTE_MS);
    expect(world.busy).toBe(1);
    if (workers["busyProbe"]) expect(total(world)).toBe(1);
    await world.run(2 * MINUTE_MS);
    expect(world).toMatchObject({ served: 1, lost: 0, faults: [], pods: 0 });
    const { walks } = world;
    world.enqueue(2);
    await world.run(LONG_MS);
    expect(world).toMatchObject({ pods: 0, walks });
    expect(world.verdicts).toContain("ScalingFollowsDemand");
    await world.stop();
  });

  test("none is created if it is served since the demand was read", async () => {
    const world = new FleetWorld(seededRandom(5), { minReplicas: 1, maxReplicas: 2 });
    world.whileHeld = () => world.sets(OUT);
    world.start();
    let most = 0;
    for (let passed = 0; passed < MINUTE_MS; passed += SECOND_MS) {
      await world.run(SECOND_MS);
      most = Math.max(most, world.pods);
    }
    expect(world.precedence.mayClaim).toBe(false);
    expect(most).toBe(0);
    await world.stop();
  });

  test("none is created before its sessions have ended", async () => {
    const world = new FleetWorld(seededRandom(5), { minReplicas: 1, maxReplicas: 2 });
    world.sets({ isServed: true, mayClaim: false });
    world.start();
    await world.run(2 * MINUTE_MS);
    expect(world.pods).toBe(0);
    world.sets({ isServed: true, mayClaim: true });
    await world.run(MINUTE_MS);
    expect(world.pods).toBe(1);
    await world.stop();
  });
});

test("the deletion of the Environment shortens the wait for workers that finish their sessions", async () => {
  const world = await busyPair(10_000);
  world.deleteBusy();
  await world.run(5 * SECOND_MS);
  world.drain(20 * SECOND_MS);
  await world.run(15 * SECOND_MS);
  expect({ busy: world.busy, lost: world.lost }).toEqual({ busy: 2, lost: 0 });
  await world.run(40 * SECOND_MS);
  expect({ isDrained: world.isDrained, lost: world.lost, faults: world.faults }).toEqual({
    isDrained: true,
    lost: 2,
    faults: [],
  });
  expect(await metricValue(world.metrics.workersEndedWhileBusy, {})).toBe(2);
  await world.stop();
});

/** Message and status of a ValidatingAdmissionPolicy; its reason is Invalid by default. */
const REFUSED = new KubeApiError(
  "create deployments agents/x: deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'images' denied request: no image of this registry",
  { status: 422, reason: "Invalid" },
);
/** The API server's refusal of a patch whose test failed. */
const CHANGED = new KubeApiError("patch deployments agents/x: the server rejected our request", {
  status: 422,
  reason: "Invalid",
});
const TAKEN = new KubeApiError('create deployments agents/x: deployments.apps "x" already exists', {
  status: 409,
  reason: "AlreadyExists",
});

/** A fleet whose Deployments the API server refuses with this error. */
function refusing(error: KubeApiError): FleetWorld {
  const world = new FleetWorld(seededRandom(5), { minReplicas: 1, maxReplicas: 2 });
  world.refusal = error;
  world.start();
  return world;
}

/** Lets the API server accept Deployments, expects one and no reported failure after this time, and ends the world. */
async function expectTakenWithin(ms: number, world: FleetWorld): Promise<void> {
  world.refusal = null;
  await world.run(ms);
  expect({ replicas: Object.values(world.replicas), said: world.saidOf("ScalingFailed") }).toEqual({
    replicas: [1],
    said: undefined,
  });
  await world.stop();
}

test("reports a cluster policy's objection to the Deployment until it is accepted", async () => {
  const world = refusing(REFUSED);
  await world.run(30 * SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toContain("ValidatingAdmissionPolicy 'images' denied request");
  await expectTakenWithin(60 * SECOND_MS, world);
});

test("does not report a Deployment that another client changed at the same moment", async () => {
  const world = refusing(CHANGED);
  await world.run(SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toBeUndefined();
  await expectTakenWithin(10 * SECOND_MS, world);
});

test("reports that a Deployment with the name exists, being deleted or no longer the Environment's", async () => {
  const world = refusing(TAKEN);
  await world.run(SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toBeUndefined();
  await world.run(30 * SECOND_MS);
  expect(world.saidOf("ScalingFailed")).toContain("already exists");
  await expectTakenWithin(60 * SECOND_MS, world);
});
