import { expect, test } from "vitest";
import { type KubeObject, PERSISTENT_VOLUME_CLAIMS, type Pod } from "../../../src/kube/resource.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

const RETAIN_SECONDS = 600;
const WORKSPACE = {
  type: "PerSession",
  claimTemplate: { resources: { requests: { storage: "1Gi" } }, storageClassName: "fast" },
  retainSeconds: RETAIN_SECONDS,
};

function start(options: LoopWorldOptions = {}, servesMs = 5 * SECOND) {
  const world = new LoopWorld({
    ...options,
    fate: ({ metadata }) => ({
      startError: false,
      program: metadata.annotations?.["berth.dev/lease"] === "Operator" ? "plain" : "stock",
      servesMs,
    }),
    sessions: { maxConcurrent: 3, warm: 0, workspace: WORKSPACE, ...options.sessions },
  });
  world.createEnvironment();
  return Object.assign(world, { operator: world.startOperator() });
}

const volumes = (world: LoopWorld) => world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
const lastUsed = (world: LoopWorld) =>
  volumes(world).map(({ metadata }) => metadata.annotations?.["berth.dev/last-used"]);
const claimOf = (pod: Pod | undefined) =>
  pod?.spec.volumes?.flatMap(
    ({ persistentVolumeClaim: claim }) => (claim as { claimName: string })?.claimName ?? [],
  )[0];
const podOf = (world: LoopWorld, workId: string) =>
  world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId);
/** The Pods that use their volumes. */
const using = (world: LoopWorld) =>
  world.pods.filter(({ status }) => status?.phase !== "Succeeded" && status?.phase !== "Failed");
/** Whether a patch marks a volume as unused. */
const isMark = (patch: unknown) =>
  typeof (patch as KubeObject).metadata.annotations?.["berth.dev/last-used"] === "string";
const isStopped = (world: LoopWorld, id: string) => world.item(id).state === "stopped";

test.each(["Worker", "Operator"])(
  "each item of a session gets the volume of the previous one (lease: %s)",
  async (lease) => {
    const world = start({ sessions: { lease, retainEndedSeconds: 3_600 } });
    const first = world.enqueue();
    await world.until("the first item is served", () => isStopped(world, first) && world.podsOf("ended").length === 1);
    const { id: sessionId } = world.api.world.item(first).data;
    const [volume] = volumes(world);
    expect(volume?.spec).toEqual({
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "1Gi" } },
      storageClassName: "fast",
    });
    expect(volume?.metadata.annotations?.["berth.dev/session-id"]).toBe(sessionId);
    const second = world.enqueue({ sessionId });
    const other = world.enqueue();
    await world.until("all items are stopped", () => isStopped(world, second) && isStopped(world, other));
    expect(claimOf(podOf(world, first))).toBe(volume?.metadata.name);
    expect(claimOf(podOf(world, second))).toBe(volume?.metadata.name);
    expect(claimOf(podOf(world, other))).not.toBe(volume?.metadata.name);
    expect(volumes(world)).toHaveLength(2);
    expect(world.wrongs).toEqual([]);
    expect(world.violations).toEqual([]);
  },
);

test("an item whose Pod is ready in time is claimed at its first offer", async () => {
  const world = start({ prepareMs: () => 800 });
  const id = world.enqueue();
  await world.until("the item is stopped", () => isStopped(world, id));
  expect(world.item(id).offers).toHaveLength(1);
});

test("an item whose Pod takes longer stays in the queue, and is claimed at a later offer", async () => {
  const world = start({ prepareMs: () => 40 * SECOND });
  const id = world.enqueue();
  await world.until("a Pod is created for the item", () => world.podsOf("warm").length === 1);
  await world.pass(30 * SECOND);
  expect(world.item(id)).toMatchObject({ state: "queued", acks: [] });
  expect(world.claims).toEqual([]);
  await world.until("the item is stopped", () => isStopped(world, id));
  expect(await metricValue(world.metrics.podsCreated, {})).toBe(1);
  expect(await metricValue(world.metrics.claims, { result: "awaits-pod" })).toBeGreaterThan(0);
});

test("a session that is queued again waits until its previous Pod has ended", async () => {
  const world = start({ sessions: { retainEndedSeconds: 3_600 } }, 40 * SECOND);
  const first = world.enqueue();
  await world.until("the session runs", () => world.item(first).state === "active");
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  let most = 0;
  world.server.subscribe(() => {
    most = Math.max(most, using(world).length);
  });
  await world.until("both items are stopped", () => isStopped(world, first) && isStopped(world, second), 300 * SECOND);
  expect(most).toBe(1);
});

test("the whole queue is served with at most maxConcurrent Pods", async () => {
  const world = start({ sessions: { maxConcurrent: 2 } });
  const ids = Array.from({ length: 8 }, () => world.enqueue());
  await world.until("all items are stopped", () => ids.every((id) => isStopped(world, id)), 10 * MINUTE);
  expect(world.maxLivePods).toBeLessThanOrEqual(2);
  expect(world.wrongs).toEqual([]);
});

test("deleting a volume after retainSeconds without a Pod, and not earlier", async () => {
  const world = start();
  const first = world.enqueue();
  await world.until(
    "the item is stopped and its volume is marked as unused",
    () => isStopped(world, first) && lastUsed(world)[0] !== undefined,
  );
  await world.pass((RETAIN_SECONDS - 60) * SECOND);
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  await world.until("the session runs again", () => world.item(second).state === "active");
  expect(lastUsed(world)).toEqual([undefined]);
  await world.until("the volume is marked as unused again", () => lastUsed(world)[0] !== undefined);
  await world.pass((RETAIN_SECONDS - 10) * SECOND);
  expect(volumes(world)).toHaveLength(1);
  await world.until("the volume is deleted", () => volumes(world).length === 0);
  await world.until("an Event", () => world.told.some((told) => told.startsWith("WorkspaceExpired")));
  expect(world.told.filter((told) => told.startsWith("WorkspaceExpired"))).toHaveLength(1);
  expect(await metricValue(world.metrics.workspacesExpired, {})).toBe(1);
});

test("after a restart between a session's end and its mark, the volume is kept for its usual time", async () => {
  const world = start({}, 20 * SECOND);
  const id = world.enqueue();
  await world.until("the session runs", () => world.item(id).state === "active");
  world.operator.kill();
  await world.pass(2 * RETAIN_SECONDS * SECOND);
  expect(volumes(world)).toHaveLength(1);
  world.startOperator();
  await world.until("the volume is marked as unused", () => lastUsed(world)[0] !== undefined);
  expect(volumes(world)).toHaveLength(1);
  await world.until("the volume is deleted", () => volumes(world).length === 0, 2 * RETAIN_SECONDS * SECOND);
});

test("a Pod that a dead operator created is used by its item", async () => {
  const world = start({ prepareMs: () => 20 * SECOND });
  const id = world.enqueue();
  await world.until("a Pod is created for the item", () => world.podsOf("warm").length === 1);
  world.operator.kill();
  world.startOperator();
  await world.until("the item is stopped", () => isStopped(world, id));
  expect(await metricValue(world.metrics.podsCreated, {})).toBe(1);
});

test("a Pod stays while its item is offered but can't be claimed", async () => {
  const world = start();
  let refused = true;
  world.operator.kube.intercept.push(({ verb, plural }) => {
    if (refused && verb === "create" && plural === "secrets") throw refusal(500, "InternalError", "not now");
  });
  const id = world.enqueue();
  await world.pass(5 * MINUTE);
  expect(world.item(id).acks).toEqual([]);
  refused = false;
  await world.until("the item is stopped", () => isStopped(world, id));
  expect(await metricValue(world.metrics.podsCreated, {})).toBe(1);
});

test("a Pod whose item another client took is deleted, and so is its volume", async () => {
  const world = start({ prepareMs: () => 20 * SECOND });
  const id = world.enqueue();
  await world.until("a Pod is created for the item", () => world.podsOf("warm").length === 1);
  world.api.world.stopItem(id, true);
  await world.until("no Pod is left", () => world.pods.length === 0, 10 * MINUTE);
  await world.until("no volume is left", () => volumes(world).length === 0);
});

test("a refused volume is reported with its fix, and the item is served once the volume is allowed", async () => {
  const world = start();
  let refused = true;
  world.operator.kube.intercept.push(({ verb, plural }) => {
    if (refused && verb === "create" && plural === "persistentvolumeclaims")
      throw refusal(403, "Forbidden", "cannot create resource persistentvolumeclaims");
  });
  const id = world.enqueue();
  const capacity = () => {
    return world.conditionOf("CapacityAvailable");
  };
  await world.until("CapacityAvailable is False", () => capacity()?.status === "False");
  expect(capacity()?.reason).toBe("PreparationFailing");
  expect(capacity()?.message).toContain("features.volumes=true");
  expect(world.item(id).acks).toEqual([]);
  refused = false;
  await world.until("the item is stopped", () => isStopped(world, id), 10 * MINUTE);
  expect(capacity()?.status).toBe("True");
});

test("a session whose volume was replaced by another owner's gets a new one, and the other is not touched", async () => {
  const world = start({ sessions: { workspace: { ...WORKSPACE, retainSeconds: 60 } } });
  const id = world.enqueue();
  await world.until("a volume is created", () => volumes(world).length === 1);
  const [volume] = volumes(world);
  await world.until(
    "the item is stopped and its volume is marked as unused",
    () => isStopped(world, id) && lastUsed(world)[0] !== undefined,
  );
  const name = volume?.metadata.name ?? "";
  world.server.delete(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, name);
  world.server.create(PERSISTENT_VOLUME_CLAIMS, {
    metadata: { ...volume?.metadata, name, namespace: NAMESPACE, ownerReferences: [] },
  });
  const foreign = () => volumes(world).filter(({ metadata }) => metadata.name === name);
  const before = foreign();
  const second = world.enqueue({ sessionId: world.api.world.item(id).data.id });
  await world.until("the second item is stopped", () => isStopped(world, second));
  await world.until("its volume is deleted", () => volumes(world).length === 1, 10 * MINUTE);
  expect(foreign()).toEqual(before);
});

test("after a change to Ephemeral, old volumes still expire, and sessions run without one", async () => {
  const world = start();
  const id = world.enqueue();
  await world.until(
    "the item is stopped and its volume is marked as unused",
    () => isStopped(world, id) && lastUsed(world)[0] !== undefined,
  );
  await world.pass(10 * SECOND);
  world.patchEnvironment({ spec: { sessions: { workspace: { type: "Ephemeral", claimTemplate: null } } } });
  const second = world.enqueue({ sessionId: world.api.world.item(id).data.id });
  await world.until("the item is stopped", () => isStopped(world, second));
  expect(volumes(world)).toHaveLength(1);
  await world.until("the volume is deleted", () => volumes(world).length === 0, 2 * RETAIN_SECONDS * SECOND);
});

test("an unused mark on a volume in use is removed, or the volume would expire too soon", async () => {
  const world = start({}, 400 * SECOND);
  const id = world.enqueue();
  await world.until("the session runs", () => world.item(id).state === "active");
  const annotations = { "berth.dev/last-used": new Date(world.server.now()).toISOString() };
  const name = volumes(world)[0]?.metadata.name ?? "";
  world.server.patch(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, name, { metadata: { annotations } });
  await world.until("the volume is no longer marked as unused", () => lastUsed(world)[0] === undefined, 350 * SECOND);
  expect(world.item(id).state).toBe("active");
});

test("a volume that changed since its creation is marked without another list", async () => {
  const world = start({}, 40 * SECOND);
  const id = world.enqueue();
  await world.until("the session runs", () => world.item(id).state === "active");
  const lists = () => world.operator.kube.requests.get("list persistentvolumeclaims");
  const before = lists();
  expect(before).toBeGreaterThan(0);
  const name = volumes(world)[0]?.metadata.name ?? "";
  world.server.patch(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, name, { spec: { volumeName: "bound-to" } });
  await world.until("the volume is marked as unused", () => lastUsed(world)[0] !== undefined, 2 * MINUTE);
  await world.pass(10 * SECOND);
  expect(lists()).toBe(before);
  expect(volumes(world)[0]?.spec?.["volumeName"]).toBe("bound-to");
});

test("a volume that changed before its mark as unused is not marked if the session has a new Pod by then", async () => {
  const world = start();
  const first = world.enqueue();
  const { id: sessionId } = world.api.world.item(first).data;
  const marks: number[] = [];
  const ids = [first];
  world.operator.kube.delay = ({ verb, plural, name, body }) => {
    if (verb !== "patch" || plural !== "persistentvolumeclaims" || !isMark(body)) return 0;
    marks.push(using(world).length);
    if (marks.length > 1) return 0;
    ids.push(world.enqueue({ sessionId }));
    world.server.patch(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, name, { spec: { volumeName: "bound-to" } });
    return 3 * SECOND;
  };
  await world.until("both items are stopped", () => ids.length === 2 && ids.every((id) => isStopped(world, id)));
  await world.until("the volume is marked as unused", () => lastUsed(world)[0] !== undefined);
  expect(marks).toEqual([0, 0]);
});

test("while volumes can't be listed, lists back off, no session gets a volume, and Ready says why", async () => {
  const world = start();
  let refused = true;
  let lists = 0;
  world.operator.kube.intercept.push(({ verb, plural }) => {
    if (verb !== "list" || plural !== "persistentvolumeclaims") return;
    lists += 1;
    if (refused) throw refusal(500, "InternalError", "not now");
  });
  const ids = Array.from({ length: 12 }, () => world.enqueue());
  await world.pass(5 * MINUTE);
  // Each pause is at least twice as long as the one before, up to half a minute.
  expect(lists).toBeLessThan(25);
  expect(lists).toBeGreaterThan(5);
  expect(ids.flatMap((id) => world.item(id).acks)).toEqual([]);
  expect(world.conditionOf("Ready")?.message).toContain("no session gets its first volume");
  refused = false;
  await world.until("all items are stopped", () => ids.every((id) => isStopped(world, id)), 10 * MINUTE);
  expect(world.conditionOf("Ready")?.status).toBe("True");
});

test.each(["patch", "delete"])(
  "a conflict at every %s of a volume is reported in an Event and retried with backoff",
  async (verb) => {
    const world = start({ sessions: { workspace: { ...WORKSPACE, retainSeconds: 60 } } });
    let refusals = 0;
    let refused = false;
    world.operator.kube.intercept.push((request) => {
      if (!refused || request.verb !== verb || request.plural !== "persistentvolumeclaims") return;
      refusals += 1;
      throw refusal(409, "Conflict", "the quota was changed meanwhile");
    });
    const ids = [world.enqueue(), world.enqueue(), world.enqueue()];
    await world.until("all sessions run", () => ids.every((id) => world.item(id).state === "active"), 5 * MINUTE);
    refused = true;
    await world.until("all items are stopped", () => ids.every((id) => isStopped(world, id)), 5 * MINUTE);
    await world.pass(30 * MINUTE);
    expect(world.told.some((words) => words.startsWith("WorkspaceFailing"))).toBe(true);
    expect(refusals).toBeGreaterThan(10);
    expect(refusals).toBeLessThan(1_000);
    refused = false;
    await world.until("no volume is left", () => volumes(world).length === 0, 5 * MINUTE);
  },
);

test("a session whose Pods don't get ready does not block others, even with room for only one", async () => {
  let isStuck = "none";
  const world = start({
    sessions: { workspace: WORKSPACE, maxConcurrent: 1, prepareTimeoutSeconds: 30 },
    // Simulates a volume that can't be provisioned.
    prepareMs: ({ metadata }) =>
      metadata.annotations?.["berth.dev/session-id"] === isStuck ? 60 * MINUTE : 2 * SECOND,
  });
  const first = world.enqueue();
  await world.until("the first item is stopped", () => isStopped(world, first) && world.pods.length === 0);
  isStuck = world.api.world.item(first).data.id;
  const stuck = world.enqueue({ sessionId: isStuck });
  await world.until("a Pod is created for the item", () => world.pods.length === 1);
  const others = [world.enqueue(), world.enqueue()];
  await world.until("the other items are stopped", () => others.every((id) => isStopped(world, id)), 10 * MINUTE);
  expect(world.item(stuck).acks).toEqual([]);
});
