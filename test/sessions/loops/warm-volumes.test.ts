import { describe, expect, test } from "vitest";
import { ANNOTATION_LAST_USED, ANNOTATION_SESSION_ID } from "../../../src/api/names.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import { PERSISTENT_VOLUME_CLAIMS, PODS, type Pod } from "../../../src/kube/resource.ts";
import { workspaceOf } from "../../../src/pods/workspace-pods.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import type { KubeRequest } from "./kube.ts";
import { LoopWorld, type LoopWorldOptions, NAMESPACE, type Operator } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

const WORKSPACE = {
  type: "PerSession",
  claimTemplate: { resources: { requests: { storage: "1Gi" } } },
  retainSeconds: 600,
};

type Meant = Pick<PointEvent, "point" | "phase">;

/** Warm Pods with volumes. `at`: called when an operator first passes the point. */
function start({ sessions, ...options }: LoopWorldOptions = {}, meant?: Meant, at?: (operator: Operator) => void) {
  let isDone = meant === undefined;
  const world: LoopWorld = new LoopWorld({
    ...options,
    sessions: { maxConcurrent: 4, warm: 2, retainEndedSeconds: 3_600, workspace: WORKSPACE, ...sessions },
    points: ({ point, phase }) => {
      if (isDone || point !== meant?.point || phase !== meant.phase) return;
      isDone = true;
      at?.(operator);
    },
  });
  world.createEnvironment();
  const operator = world.startOperator();
  return Object.assign(world, { operator, warm: () => untilWarm(world, Number(sessions?.["warm"] ?? 2)) });
}

/** The Pods that are parked once `count` are. */
async function untilWarm(world: LoopWorld, count: number): Promise<Pod[]> {
  await world.until(`${count} parked Pods`, () => world.parked.length === count);
  return world.parked;
}

const volumes = (world: LoopWorld) => world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
const names = (objects: readonly { readonly metadata: { readonly name?: string } }[]) =>
  objects.map(({ metadata }) => metadata.name ?? "").sort();
const sessionOf = (world: LoopWorld, volume: string | null) =>
  volumes(world).find(({ metadata }) => metadata.name === volume)?.metadata.annotations?.[ANNOTATION_SESSION_ID];
const podOf = (world: LoopWorld, workId: string) =>
  world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId);
const volumeOf = (world: LoopWorld, workId: string) => {
  const pod = podOf(world, workId);
  return pod ? workspaceOf(pod) : null;
};
const sessionIdOf = (world: LoopWorld, workId: string) => world.api.world.item(workId).data.id;
const isStopped = (world: LoopWorld, ...ids: string[]) => ids.every((id) => world.item(id).state === "stopped");
const isAssignment = ({ verb, plural, body }: KubeRequest) => {
  const { metadata } = (body ?? {}) as { metadata?: { annotations?: Record<string, unknown> } };
  return (
    verb === "patch" && plural === "persistentvolumeclaims" && ANNOTATION_SESSION_ID in (metadata?.annotations ?? {})
  );
};
const isMark = ({ verb, plural, body }: KubeRequest) => {
  const { metadata } = (body ?? {}) as { metadata?: { annotations?: Record<string, unknown> } };
  const isPatch = verb === "patch" && plural === "persistentvolumeclaims";
  return isPatch && typeof metadata?.annotations?.[ANNOTATION_LAST_USED] === "string";
};

/** The process loses its leadership, and another one begins. Requests in flight still take effect. */
function replace(world: LoopWorld, operator: Operator): Operator {
  operator.loseLeadership();
  void operator.stop();
  return world.startOperator();
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

test("a new session gets a warm Pod at its first offer, and the Pod's volume", async () => {
  const world = start({ prepareMs: () => 40 * SECOND });
  const warm = await world.warm();
  expect(names(volumes(world))).toEqual(names(warm));
  const id = world.enqueue();
  await world.until("the item is stopped", () => isStopped(world, id));
  expect(world.item(id).offers).toHaveLength(1);
  expect(names(warm)).toContain(volumeOf(world, id));
  expect(sessionOf(world, volumeOf(world, id))).toBe(sessionIdOf(world, id));
  await world.warm();
  expect(volumes(world)).toHaveLength(3);
  holdsTrue(world);
});

test("the volume is assigned after the journal, and before the acknowledgement", async () => {
  const order: string[] = [];
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2, warm: 1, workspace: WORKSPACE },
    points: ({ point, phase }) => {
      if (["claim.journal", "workspace.assign", "claim.ack"].includes(point)) order.push(`${point} ${phase}`);
    },
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  await world.until("a volume", () => volumes(world).length === 1);
  const bound = { metadata: { annotations: { "pv.kubernetes.io/bind-completed": "yes" } } };
  world.server.patch(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, names(volumes(world))[0] ?? "", bound);
  await untilWarm(world, 1);
  await world.pass(SECOND);
  const before = new Map(kube.requests);
  const id = world.enqueue();
  await world.until("the item is acknowledged", () => world.item(id).acks.length > 0);
  const both = (point: string) => [`${point} before`, `${point} after`];
  expect(order).toEqual(
    [...both("claim.journal"), ...both("workspace.assign"), ...both("claim.ack")].slice(0, order.length),
  );
  expect(order).toContain("claim.ack before");
  // One request more than without volumes, although the volume was written when it was bound.
  const since = (label: string) => (kube.requests.get(label) ?? 0) - (before.get(label) ?? 0);
  expect([since("list persistentvolumeclaims"), since("get persistentvolumeclaims")]).toEqual([0, 0]);
  expect(since("patch persistentvolumeclaims")).toBe(1);
});

test("a session that has a volume gets its own Pod, although warm ones are free", async () => {
  const world = start();
  await world.warm();
  const first = world.enqueue();
  await world.until("the first item is stopped", () => isStopped(world, first));
  const warm = await world.warm();
  const second = world.enqueue({ sessionId: sessionIdOf(world, first) });
  await world.until("the second item is stopped", () => isStopped(world, second));
  expect(volumeOf(world, second)).toBe(volumeOf(world, first));
  expect(names(world.parked)).toEqual(names(warm));
  holdsTrue(world);
});

test("a session that has a volume gets its own Pod, although warm ones take all the room", async () => {
  const world = start({ sessions: { maxConcurrent: 2, warm: 2 } });
  await world.warm();
  const first = world.enqueue();
  await world.until("the first item is stopped", () => isStopped(world, first));
  await world.warm();
  const second = world.enqueue({ sessionId: sessionIdOf(world, first) });
  await world.until("the second item is stopped", () => isStopped(world, second));
  expect(volumeOf(world, second)).toBe(volumeOf(world, first));
  expect(world.maxLivePods).toBeLessThanOrEqual(2);
  holdsTrue(world);
});

test("of two sessions that come for one warm Pod, each gets its own volume", async () => {
  const world = start({ sessions: { warm: 1 } });
  await world.warm();
  const ids = [world.enqueue(), world.enqueue()];
  await world.until("both items are stopped", () => isStopped(world, ...ids));
  expect(new Set(ids.map((id) => volumeOf(world, id))).size).toBe(2);
  holdsTrue(world);
});

test("two items of one session get one volume", async () => {
  const world = start();
  await world.warm();
  const first = world.enqueue();
  const second = world.enqueue({ sessionId: sessionIdOf(world, first) });
  await world.until("both items are stopped", () => isStopped(world, first, second), 5 * MINUTE);
  expect(volumeOf(world, second)).toBe(volumeOf(world, first));
  holdsTrue(world);
});

test("a session sleeps in its warm Pod, and later in a Pod with the same volume", async () => {
  const template = {
    spec: {
      containers: [{ name: "worker", image: "worker:1", command: ["worker"] }],
      terminationGracePeriodSeconds: 30,
    },
  };
  const world = start({ sessions: { template, workspace: { ...WORKSPACE, sleepSeconds: 60 } } });
  const warm = await world.warm();
  const first = world.enqueue();
  await world.until("the session sleeps", () => world.podsOf("sleeping").length === 1);
  const [pod] = world.podsOf("sleeping");
  expect(names(warm)).toContain(pod?.metadata.name);
  const sessionId = sessionIdOf(world, first);
  const second = world.enqueue({ sessionId });
  await world.until("the second item is stopped", () => isStopped(world, second));
  expect(world.starts.map((started) => started.pod)).toEqual([pod?.metadata.name, pod?.metadata.name]);
  await world.until(
    "the Pod is deleted",
    () => names(world.pods).every((name) => name !== pod?.metadata.name),
    5 * MINUTE,
  );
  const third = world.enqueue({ sessionId });
  await world.until("the third item is stopped", () => isStopped(world, third));
  expect(volumes(world).filter(({ metadata }) => sessionOf(world, metadata.name ?? "") === sessionId)).toHaveLength(1);
  expect(world.pods.filter((each) => workspaceOf(each) === pod?.metadata.name)).toHaveLength(1);
  const { values } = await world.metrics.sessionsWoken.get();
  expect(values.map(({ labels, value }) => [labels.result, value])).toEqual([
    ["same-pod", 1],
    ["volume", 1],
  ]);
  holdsTrue(world);
});

describe("a process that ends", () => {
  test.each<[string, Meant]>([
    ["before the volume is assigned", { point: "workspace.assign", phase: "before" }],
    ["when the volume is assigned", { point: "workspace.assign", phase: "after" }],
    ["before the acknowledgement", { point: "claim.ack", phase: "before" }],
  ])("%s: the session is served with one volume, and others with theirs", async (_, meant) => {
    const world = start({}, meant, (operator) => operator.kill());
    await world.warm();
    const first = world.enqueue();
    await world.until("the item is journaled", () => world.claims.length === 1);
    const [claim] = world.claims;
    const taken = claim?.metadata.name ?? "";
    await world.pass(2 * SECOND);
    const isAssigned = sessionOf(world, taken) !== undefined;
    expect(isAssigned).toBe(meant.phase === "after" || meant.point === "claim.ack");
    world.startOperator();
    const others = [world.enqueue(), world.enqueue(), world.enqueue()];
    await world.until("all items are stopped", () => isStopped(world, first, ...others), 5 * MINUTE);
    if (isAssigned) expect(volumeOf(world, first)).toBe(taken);
    holdsTrue(world);
  });

  test("between a volume and its Pod: the volume is deleted, and no Pod is missing", async () => {
    const world = start({}, { point: "prepare.create-pod", phase: "before" }, (operator) => operator.kill());
    await world.until("a volume without a Pod", () => volumes(world).length > 0);
    await world.pass(SECOND);
    const left = volumes(world).filter(({ metadata }) => !names(world.pods).includes(metadata.name ?? ""));
    expect(left.length).toBeGreaterThan(0);
    world.startOperator();
    await world.warm();
    await world.until("only their volumes are left", () => volumes(world).length === 2, 3 * MINUTE);
    expect(names(volumes(world))).toEqual(names(world.parked));
  });

  test("with an assignment in flight: it is refused if it arrives after the next process has begun", async () => {
    let next: Operator | undefined;
    const meant = { point: "workspace.assign", phase: "before" } as const;
    const world = start({}, meant, (operator) => {
      operator.kube.delay = (request) => (isAssignment(request) ? 20 * SECOND : 0);
      // The request is sent before that.
      void Promise.resolve().then(() => {
        next = replace(world, operator);
      });
    });
    await world.warm();
    const first = world.enqueue();
    await world.until("the next process begins", () => next !== undefined);
    const sessionId = sessionIdOf(world, first);
    world.api.world.stopItem(first, true);
    await world.pass(30 * SECOND);
    const sessions = volumes(world).map(({ metadata }) => sessionOf(world, metadata.name ?? ""));
    expect(sessions.filter((session) => session !== undefined)).toEqual([]);
    const again = world.enqueue({ sessionId });
    await world.until("the session is served", () => isStopped(world, again));
    holdsTrue(world);
  });
});

test("a Pod that an earlier process created late is used after one more list", async () => {
  const world = start({ sessions: { warm: 1 } });
  const [pod] = await world.warm();
  const [volume] = volumes(world);
  if (!pod || !volume) throw new Error("no warm Pod");
  world.weather.watch = { lagMs: 30, breaks: 0 };
  const name = "berth-research-late1234";
  const again = ({ metadata: { labels, annotations, ownerReferences } }: Pod | typeof volume) => ({
    ...{ name, namespace: NAMESPACE, labels, ownerReferences },
    annotations: { ...annotations, ...(annotations?.["berth.dev/workspace"] && { "berth.dev/workspace": name }) },
  });
  const count = () => world.operator.kube.requests.get("list persistentvolumeclaims") ?? 0;
  const before = count();
  world.server.create(PERSISTENT_VOLUME_CLAIMS, {
    metadata: again(volume) as never,
    ...(volume.spec && { spec: volume.spec }),
  });
  world.server.create(PODS, { apiVersion: "v1", kind: "Pod", metadata: again(pod) as never, spec: pod.spec });
  await untilWarm(world, 2);
  await world.pass(20 * SECOND);
  expect(count() - before).toBe(1);
  const ids = [world.enqueue(), world.enqueue()];
  await world.until("both items are stopped", () => isStopped(world, ...ids));
  expect(ids.map((id) => volumeOf(world, id))).toContain(name);
  holdsTrue(world);
});

describe("an assignment without an answer", () => {
  test.each([0, 8])("that takes effect after %i s: the session is served with one volume", async (lateSeconds) => {
    const world = start();
    await world.warm();
    let left = 1;
    const delay = (ms: number) => (request: KubeRequest) => (isAssignment(request) && left-- > 0 ? ms : 0);
    if (lateSeconds > 0) world.operator.kube.delay = delay(lateSeconds * SECOND);
    else world.operator.kube.answerDelay = delay(8 * SECOND);
    const [first, other] = [world.enqueue(), world.enqueue()];
    await world.until("both items are stopped", () => isStopped(world, first, other), 3 * MINUTE);
    await world.pass(10 * SECOND);
    const sessions = volumes(world).map(({ metadata }) => sessionOf(world, metadata.name ?? ""));
    expect(sessions.filter((session) => session !== undefined)).toHaveLength(2);
    holdsTrue(world);
  });

  test("is refused once the volume was written again", async () => {
    const world = start();
    await world.warm();
    world.operator.kube.delay = (request) => (isAssignment(request) ? 8 * SECOND : 0);
    const id = world.enqueue();
    await world.until("the item is journaled", () => world.claims.length === 1);
    await world.until("the claim is dropped", () => world.claims.length === 0);
    world.api.world.stopItem(id, true);
    await world.pass(20 * SECOND);
    const sessions = volumes(world).map(({ metadata }) => sessionOf(world, metadata.name ?? ""));
    expect(sessions.filter((session) => session !== undefined)).toEqual([]);
  });
});

test("a mark as unused that takes effect late does not shorten the time for which a volume is kept", async () => {
  const retainSeconds = 60;
  const world = start({ sessions: { retainEndedSeconds: 0, workspace: { ...WORKSPACE, retainSeconds } } });
  await world.warm();
  let marks = 0;
  world.operator.kube.delay = (request) => (isMark(request) && ++marks === 1 ? 45 * SECOND : 0);
  const first = world.enqueue();
  await world.until("the volume is being marked", () => marks === 1);
  const sessionId = sessionIdOf(world, first);
  const own = () => volumes(world).filter(({ metadata }) => sessionOf(world, metadata.name ?? "") === sessionId);
  world.fate = () => ({ startError: false, program: "stock", servesMs: 2 * MINUTE });
  const second = world.enqueue({ sessionId });
  await world.until("the second item is stopped", () => isStopped(world, second), 5 * MINUTE);
  await world.pass((retainSeconds - 5) * SECOND);
  expect(own()).toHaveLength(1);
  await world.until("the volume is deleted", () => own().length === 0);
  holdsTrue(world);
});

test("a deletion that takes effect late leaves the volume of a session that has come back", async () => {
  const world = start({ sessions: { retainEndedSeconds: 0, workspace: { ...WORKSPACE, retainSeconds: 60 } } });
  await world.warm();
  const first = world.enqueue();
  let isLate = false;
  world.operator.kube.delay = ({ verb, plural }) => {
    if (isLate || verb !== "delete" || plural !== "persistentvolumeclaims") return 0;
    isLate = true;
    return 20 * SECOND;
  };
  await world.until("the volume is being deleted", () => isLate);
  const sessionId = sessionIdOf(world, first);
  world.fate = () => ({ startError: false, program: "stock", servesMs: 30 * SECOND });
  const second = world.enqueue({ sessionId });
  await world.until("the second item is stopped", () => isStopped(world, second));
  const own = volumes(world).filter(({ metadata }) => sessionOf(world, metadata.name ?? "") === sessionId);
  expect(names(own)).toEqual([world.starts[0]?.pod]);
  holdsTrue(world);
});

test("while volumes can't be assigned, nothing is acknowledged, and Ready says why", async () => {
  const world = start();
  await world.warm();
  let refused = true;
  world.operator.kube.intercept.push((request) => {
    if (refused && isAssignment(request)) throw refusal(403, "Forbidden", "cannot patch persistentvolumeclaims");
  });
  const id = world.enqueue();
  await world.until("Ready says why", () => world.conditionOf("Ready")?.message?.includes("features.volumes") ?? false);
  await world.pass(MINUTE);
  expect(world.item(id).acks).toEqual([]);
  refused = false;
  await world.until("the item is stopped", () => isStopped(world, id), 3 * MINUTE);
  holdsTrue(world);
});

test("a Pod that was made for a session is not used after its volume was deleted", async () => {
  const world = start({ sessions: { warm: 1 } });
  await world.warm();
  const first = world.enqueue();
  await world.until("the first item is stopped", () => isStopped(world, first));
  const [sessionId, lost] = [sessionIdOf(world, first), volumeOf(world, first) ?? ""];
  const madeFor = () => world.parked.find((pod) => workspaceOf(pod) === lost);
  const second = world.enqueue({ sessionId });
  await world.until("its next Pod", () => world.pods.filter((pod) => workspaceOf(pod) === lost).length === 2);
  world.api.world.stopItem(second, true);
  await world.until("its next Pod is parked", () => madeFor() !== undefined);
  world.operator.kill();
  // Without its finalizer, it is gone at once.
  world.server.delete(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, lost);
  world.startOperator();
  const served: (string | null)[] = [];
  for (const item of ["third", "fourth", "fifth"]) {
    const id = world.enqueue({ sessionId });
    await world.until(`the ${item} item is stopped`, () => isStopped(world, id));
    served.push(volumeOf(world, id));
  }
  expect(new Set(served).size).toBe(1);
  expect(served).not.toContain(lost);
  await world.until("the Pod is deleted", () => madeFor() === undefined);
  holdsTrue(world);
});

describe("a volume that no session got", () => {
  test("is deleted with its Pod when fewer Pods are wanted", async () => {
    const world = start({ timing: { warmScaleDownMs: 1_000 } });
    await world.warm();
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.until("one volume is left", () => volumes(world).length === 1);
    expect(names(volumes(world))).toEqual(names(world.parked));
    expect(world.told.filter((words) => words.startsWith("WorkspaceExpired"))).toEqual([]);
    expect(await metricValue(world.metrics.workspacesExpired, {})).toBe(0);
  });

  test("is deleted after its Pod was deleted by hand, and a new Pod gets its own", async () => {
    const world = start();
    const [pod] = await world.warm();
    world.server.delete(PODS, NAMESPACE, pod?.metadata.name ?? "");
    const isGone = () => !names(volumes(world)).includes(pod?.metadata.name ?? "");
    await world.until("the volume is deleted", isGone, 30 * SECOND);
    await world.warm();
    expect(names(volumes(world))).toEqual(names(world.parked));
  });

  test("is deleted after its Pod went while no process ran", async () => {
    const world = start();
    const [pod] = await world.warm();
    world.operator.kill();
    world.server.delete(PODS, NAMESPACE, pod?.metadata.name ?? "");
    await world.pass(MINUTE);
    world.startOperator();
    const isGone = () => !names(volumes(world)).includes(pod?.metadata.name ?? "");
    await world.until("the volume is deleted", isGone, 3 * MINUTE);
  });

  test("stays while the operator's view of the Pods is out of date", async () => {
    const world = start();
    world.weather.watch = { lagMs: 10 * MINUTE, breaks: 0 };
    await world.until("two Pods", () => world.pods.length === 2);
    const deleted: string[] = [];
    world.server.subscribe(({ type, plural, object }) => {
      if (type === "DELETED" && plural === "persistentvolumeclaims") deleted.push(object.metadata.name ?? "");
    });
    await world.pass(5 * MINUTE);
    expect(deleted).toEqual([]);
  });

  test("serves the next Pod while a quota refuses Pods", async () => {
    const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 2, workspace: WORKSPACE } });
    world.createEnvironment();
    let refused = true;
    const { kube } = world.startOperator();
    kube.intercept.push(({ verb, plural, dryRun }) => {
      if (refused && verb === "create" && plural === "pods" && !dryRun)
        throw refusal(403, "Forbidden", "pods is forbidden: exceeded quota: tight");
    });
    await world.pass(MINUTE);
    expect(volumes(world).length).toBeLessThanOrEqual(2);
    refused = false;
    await untilWarm(world, 2);
    expect(names(volumes(world))).toEqual(names(world.parked));
  });

  test("is replaced with its Pod if someone deletes it", async () => {
    const world = start({ sessions: { warm: 1 } });
    const [pod] = await world.warm();
    world.server.delete(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, pod?.metadata.name ?? "");
    const id = world.enqueue();
    await world.until("the item is stopped", () => isStopped(world, id));
    expect(volumeOf(world, id)).not.toBe(pod?.metadata.name);
    await world.warm();
    expect(names(world.parked)).not.toContain(pod?.metadata.name);
    holdsTrue(world);
  });
});

test("a quota without room for volumes is reported, and volumes that exist are used", async () => {
  const world = start({ sessions: { warm: 1 } });
  await world.warm();
  let refused = true;
  world.operator.kube.intercept.push(({ verb, plural }) => {
    if (refused && verb === "create" && plural === "persistentvolumeclaims")
      throw refusal(403, "Forbidden", "persistentvolumeclaims is forbidden: exceeded quota: volumes");
  });
  const [first, second] = [world.enqueue(), world.enqueue()];
  await world.until("the first item is stopped", () => isStopped(world, first));
  await world.until("the quota is reported", () => world.conditionOf("CapacityAvailable")?.reason === "QuotaExceeded");
  expect(world.item(second).acks).toEqual([]);
  refused = false;
  await world.until("the second item is stopped", () => isStopped(world, second));
  holdsTrue(world);
});
