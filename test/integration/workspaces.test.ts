import { describe, expect, test } from "vitest";
import { PERSISTENT_VOLUME_CLAIMS, type Resource } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { podOf, SHORT_LEASE, untilAssigned } from "../support/session-life.ts";
import { allowVolumes, perSession, provideVolumes, sessionVolumes, volumeOf } from "../support/session-volumes.ts";
import { startWorld, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const KEPT = { retainEndedSeconds: 3_600, retainFailedSeconds: 3_600 };
const LAST_USED = "berth.dev/last-used";
const QUOTAS: Resource = {
  group: "",
  version: "v1",
  plural: "resourcequotas",
  kind: "ResourceQuota",
  namespaced: true,
};

async function volumeWorld(options: WorldOptions = {}, count = 2) {
  const world = await startWorld(cluster, { ...SHORT_LEASE, ...options });
  await allowVolumes(world);
  await provideVolumes(world, count);
  return world;
}

describe.concurrent("workspace: PerSession", () => {
  test("each item of a session gets the volume of the previous one, and another session has its own", async () => {
    await using world = await volumeWorld();
    await world.createEnvironment({
      sessions: { ...(world.spec()["sessions"] as object), ...perSession(world), ...KEPT },
    });
    world.startOperator();
    const first = world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const second = world.simulator.enqueue(world.environmentId, { sessionId: first.sessionId });
    const other = world.simulator.enqueue(world.environmentId);
    await world.untilServed(3);
    const [one, two, three] = [first, second, other].map((item) => volumeOf(podOf(world, item)));
    expect(two).toBe(one);
    expect(three).not.toBe(one);
    const volumes = await sessionVolumes(world);
    expect(volumes.map(({ metadata }) => metadata.name).sort()).toEqual([one, three].sort());
    // The scheduler binds no Pod before its volume is bound.
    expect(volumes.map(({ status }) => status?.phase)).toEqual(["Bound", "Bound"]);
    await world.until("the status counts two volumes", () => world.environment?.status?.workspaces?.volumes === 2);
    world.simulator.assertNoViolations();
  });

  test("lease: Operator: a volume is marked at the end, reused, and deleted after its retention", async () => {
    const fates = () => ({ kind: "exit", code: 0, afterMs: 300 }) as const;
    await using world = await volumeWorld({ node: { fates } });
    const sessions = { ...(world.spec()["sessions"] as object), ...perSession(world), lease: "Operator" };
    await world.createEnvironment({ sessions });
    world.startOperator();
    const mark = async () => (await sessionVolumes(world))[0]?.metadata.annotations?.[LAST_USED];
    const first = world.simulator.enqueue(world.environmentId);
    await world.until("the volume is marked as unused", mark);
    const second = world.simulator.enqueue(world.environmentId, { sessionId: first.sessionId });
    await untilAssigned(world, second);
    await world.untilServed(2);
    await world.until("the volume is marked as unused", mark);
    const [volume] = await sessionVolumes(world);
    const patch = { metadata: { annotations: { [LAST_USED]: "2020-01-01T00:00:00Z" } } };
    const ref = { namespace: world.namespace, name: volume?.metadata.name ?? "" };
    await world.kube.patch(PERSISTENT_VOLUME_CLAIMS, ref, patch, { type: "merge" });
    await world.until("the volume is deleted", async () => (await sessionVolumes(world)).length === 0);
    await world.until("the Event WorkspaceExpired", () => world.events("WorkspaceExpired").length === 1);
    world.simulator.assertNoViolations();
  });

  test("without permission for volumes, nothing is claimed and the fix is reported, until it is granted", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    await provideVolumes(world, 1);
    await world.createEnvironment({ sessions: { ...(world.spec()["sessions"] as object), ...perSession(world) } });
    world.startOperator();
    const item = world.simulator.enqueue(world.environmentId);
    const told = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(told.message).toContain("features.volumes=true");
    expect(world.simulator.item(item.id)).toMatchObject({ state: "queued", acks: [] });
    await allowVolumes(world);
    await world.untilServed(1);
  });

  test("a quota without room for a volume is reported, and the item waits", async () => {
    await using world = await volumeWorld();
    const quota = {
      metadata: { name: "volumes", namespace: world.namespace },
      spec: { hard: { persistentvolumeclaims: "0" } },
    };
    await world.kube.create(QUOTAS, quota);
    await world.createEnvironment({ sessions: { ...(world.spec()["sessions"] as object), ...perSession(world) } });
    world.startOperator();
    const item = world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "QuotaExceeded");
    expect(world.simulator.item(item.id).acks).toEqual([]);
    await world.kube.delete(QUOTAS, quota.metadata);
    await world.untilServed(1);
  });

  test("a warm Pod waits with its volume, which its first session gets and keeps", async () => {
    await using world = await volumeWorld({ timing: { warmScaleDownMs: 1_000 } }, 4);
    const sessions = { ...(world.spec()["sessions"] as object), ...perSession(world), ...KEPT, warm: 1 };
    await world.createEnvironment({ sessions });
    world.startOperator();
    const [warm] = await world.untilParked(1);
    const [unassigned] = await sessionVolumes(world);
    expect(unassigned).toMatchObject({ metadata: { name: warm?.metadata.name }, status: { phase: "Bound" } });
    expect(unassigned?.metadata.annotations).toMatchObject({ "berth.dev/unassigned": "true" });
    const first = world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    expect(podOf(world, first)?.metadata.name).toBe(warm?.metadata.name);
    const [next] = await world.untilParked(1);
    const second = world.simulator.enqueue(world.environmentId, { sessionId: first.sessionId });
    await world.untilServed(2);
    expect(volumeOf(podOf(world, second))).toBe(warm?.metadata.name);
    expect(podOf(world, second)?.metadata.name).not.toBe(next?.metadata.name);
    const volumes = await sessionVolumes(world);
    const own = volumes.find(({ metadata }) => metadata.name === warm?.metadata.name)?.metadata;
    expect(own?.labels).toMatchObject({ "berth.dev/session-id": first.sessionId });
    expect(own?.annotations).toMatchObject({ "berth.dev/session-id": first.sessionId });
    expect(own?.annotations).not.toHaveProperty(["berth.dev/unassigned"]);
    await world.patchSpec({ sessions: { warm: 0 } });
    const left = async () => (await sessionVolumes(world)).map(({ metadata }) => metadata.name).join();
    await world.until("only the session's volume is left", async () => (await left()) === warm?.metadata.name);
    world.simulator.assertNoViolations();
  });

  test("deleting the Environment deletes the volumes", async () => {
    await using world = await volumeWorld();
    await world.createEnvironment({ sessions: { ...(world.spec()["sessions"] as object), ...perSession(world) } });
    world.startOperator();
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    expect(await sessionVolumes(world)).toHaveLength(1);
    await world.deleteEnvironment();
    // The garbage collector learns of new resource types every half a minute.
    const gone = async () => !world.environment && (await sessionVolumes(world)).length === 0;
    await world.until("everything is gone", gone, 110_000);
  });
});

test("workspace: Pod: a warm Pod has its workspace before its session, seeded by an init container", async () => {
  const seed = { name: "seed", image: "worker:1", volumeMounts: [{ name: "berth-workspace", mountPath: "/seed" }] };
  await using world = await startWorld(cluster, {
    ...SHORT_LEASE,
    sessions: { warm: 1, workspace: { type: "Pod", mountPath: "/home/agent", sizeLimit: "1Gi", sleepSeconds: 0 } },
    podSpec: { initContainers: [seed] },
    node: {
      fates: (_pod, container) =>
        container.name === seed.name ? { kind: "exit", code: 0, afterMs: 0 } : { kind: "worker", workMs: 300 },
    },
  });
  await world.createEnvironment();
  world.startOperator();
  const [pod] = await world.untilParked(1);
  const workspace = { name: "berth-workspace", mountPath: "/home/agent" };
  expect(pod?.spec["volumes"]).toContainEqual({ name: workspace.name, emptyDir: { sizeLimit: "1Gi" } });
  expect(pod?.spec.containers[0]?.["volumeMounts"]).toContainEqual(workspace);
  world.simulator.enqueue(world.environmentId);
  await world.untilServed(1);
  world.simulator.assertNoViolations();
  await world.patchSpec({ sessions: { workspace: { type: "Ephemeral", sizeLimit: null } } });
  const { message } = await world.untilCondition("TemplateAccepted", "Refused");
  expect(message).toContain("initContainers[0].volumeMounts[0].name: there is no volume berth-workspace");
});
