import { describe, expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { SECRETS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { playWorker, SHORT_LEASE, serveOne, untilState, workerClient } from "../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const hanging: FateInput = { kind: "worker", end: "hang" };
const played: FateInput = { kind: "run" };

function worldOf(fate: FateInput, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, { ...SHORT_LEASE, node: { fates: () => fate }, ...options });
}

/** The Environment and everything that belongs to it is deleted. */
async function untilNothingIsLeft(world: World): Promise<void> {
  await world.until("the Environment is gone", () => world.environment === undefined);
  // A new control plane's garbage collector takes half a minute to learn of the Environment resource.
  await world.until("no Pod is left", () => world.pods.length === 0, 100_000);
  await world.caughtUp("secrets");
  expect(world.claims).toEqual([]);
  world.simulator.assertNoViolations();
}

function finalizers(world: World): readonly string[] {
  return world.environment?.metadata.finalizers ?? [];
}

describe.concurrent("an idle Environment", () => {
  test("has no finalizer, and is deleted immediately with its parked Pods", async () => {
    await using world = await worldOf(hanging, { sessions: { warm: 2 } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(2);
    expect(finalizers(world)).toEqual([]);
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
  });

  test("is deleted even without an operator", async () => {
    await using world = await worldOf(hanging);
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilParked(1);
    await operator.stop();
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
  });

  test("has the finalizer before an item is acknowledged, and loses it after its last claim", async () => {
    await using world = await worldOf({ kind: "worker", workMs: 300 });
    const live: Promise<string[] | undefined>[] = [];
    world.simulator.on("item", (_item, event) => {
      if (event !== "acknowledged") return;
      const environment = world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
      live.push(environment.then(({ metadata }) => metadata.finalizers));
    });
    await world.createEnvironment();
    world.startOperator();
    for (let item = 0; item < 3; item += 1) world.simulator.enqueue(world.environmentId);
    await world.untilServed(3);
    expect(await Promise.all(live)).toEqual([[FINALIZER], [FINALIZER], [FINALIZER]]);
    await world.until("the finalizer is gone", () => finalizers(world).length === 0);
    // The next claim adds it again.
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(4);
    expect(await Promise.all(live)).toHaveLength(4);
    world.simulator.assertNoViolations();
  });
});

describe.concurrent("a busy Environment", () => {
  test("waits for a session that ends in time, claims nothing more, and is deleted", async () => {
    // Longer than the deletion of a parked Pod takes.
    await using world = await worldOf({ kind: "worker", workMs: 12_000 }, { spec: { deletionGraceSeconds: 60 } });
    const { item } = await serveOne(world);
    await untilState(world, item, "active");
    await world.deleteEnvironment();
    await world.untilCondition("Ready", "Deleting");
    const late = world.simulator.enqueue(world.environmentId);
    await world.until("the parked Pod is gone", () => world.pods.length === 1);
    expect(world.simulator.item(item.id).state).toBe("active");
    await untilNothingIsLeft(world);
    expect(world.simulator.item(item.id).stoppedBy?.as).toBe("sessions-token");
    expect(world.simulator.item(item.id).history.map(({ event }) => event)).not.toContain("stop requested");
    expect(world.simulator.item(late.id).acks).toEqual([]);
  });

  test("stops a session gracefully after deletionGraceSeconds, and is deleted when the worker has exited", async () => {
    // A quarter of the time limit of 60 s is enough to read one heartbeat, and for the worker to learn of the stop with
    // the next.
    await using world = await worldOf(hanging, {
      timeScale: 4,
      spec: { deletionGraceSeconds: 2 },
      podSpec: { terminationGracePeriodSeconds: 30 },
    });
    const { item } = await serveOne(world);
    await untilState(world, item, "active");
    await world.deleteEnvironment();
    await world.until("the stop is requested", () => world.simulator.item(item.id).stopRequestedAt !== undefined);
    await untilNothingIsLeft(world);
    const { history, stoppedBy } = world.simulator.item(item.id);
    expect(history.find(({ event }) => event === "stop requested")?.by.as).toBe("environment-key");
    expect(stoppedBy?.as).toBe("sessions-token");
    await world.until("the Event EnvironmentDeleted", () => world.events("EnvironmentDeleted").length > 0);
  });

  test("ends a session that ignores the stop: its Pod after the grace period, then the item", async () => {
    // Half the time limit, and a short grace period that leaves most of it to a busy machine.
    const podSpec = { terminationGracePeriodSeconds: 5 };
    await using world = await worldOf(played, { timeScale: 2, spec: { deletionGraceSeconds: 1 }, podSpec });
    const { item } = await serveOne(world);
    using _beating = await playWorker(world, item);
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
    expect(world.simulator.item(item.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "environment-key" } });
  });

  test("is kept by its finalizer while no operator runs, and drained by the next", async () => {
    await using world = await worldOf(hanging, {
      spec: { deletionGraceSeconds: 1 },
      podSpec: { terminationGracePeriodSeconds: 30 },
    });
    const { item, operator } = await serveOne(world);
    await untilState(world, item, "active");
    await operator.stop();
    await world.deleteEnvironment();
    await world.until("the Environment is marked as deleted", () => world.environment?.metadata.deletionTimestamp);
    expect(finalizers(world)).toEqual([FINALIZER]);
    world.startOperator();
    await untilNothingIsLeft(world);
    expect(world.simulator.item(item.id).state).toBe("stopped");
  });

  test("can be deleted in the foreground: the garbage collector deletes the Pods, and the item settles", async () => {
    await using world = await worldOf(hanging, { spec: { deletionGraceSeconds: 60 } });
    const { item } = await serveOne(world);
    await untilState(world, item, "active");
    const ref = { namespace: world.namespace, name: world.name };
    await world.kube.delete(ENVIRONMENTS, ref, { propagationPolicy: "Foreground" });
    await untilNothingIsLeft(world);
    expect(world.simulator.item(item.id).state).toBe("stopped");
  });
});

describe.concurrent("a busy Environment that can't settle is deleted at the time limit, with its Secrets", () => {
  test("the Work API is unreachable", async () => {
    await using world = await worldOf(hanging, { spec: { deletionGraceSeconds: 1 } });
    const { item } = await serveOne(world);
    await untilState(world, item, "active");
    world.simulator.inject({ kind: "reset" });
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
    world.simulator.clearFaults();
  });

  test("the environment key is missing", async () => {
    await using world = await worldOf(played, { spec: { deletionGraceSeconds: 1 } });
    const { item } = await serveOne(world);
    const worker = await world.until("the claim is opened", () => workerClient(world, item));
    // A lease that outlasts the whole test, including the garbage collector's half minute.
    await worker.mustBeat(item.id, "NO_HEARTBEAT", 600);
    await world.kube.delete(SECRETS, { namespace: world.namespace, name: "key" });
    world.simulator.rotateKey(world.environmentId);
    await world.deleteEnvironment();
    await untilNothingIsLeft(world);
    // It could not be stopped: its lease lapses on its own.
    expect(world.simulator.item(item.id).state).toBe("active");
  });
});
