import { describe, expect, onTestFinished, test } from "vitest";
import { PERSISTENT_VOLUME_CLAIMS, type Pod } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { WAITING_KEPT_MS } from "../../../src/sleep/volume-plan.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, NAME, NAMESPACE, type Operator } from "./loop-world.ts";
import { sleepyWorld } from "./sleepy-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

const takesRoom = ({ status }: Pod) => status?.phase !== "Succeeded" && status?.phase !== "Failed";

/** Refuses Pods beyond this number. */
function limitPods(world: LoopWorld, { kube }: Operator, pods: number): void {
  kube.intercept.push(({ verb, plural }) => {
    if (verb !== "create" || plural !== "pods" || world.pods.filter(takesRoom).length < pods) return;
    throw refusal(
      403,
      "Forbidden",
      `pods "x" is forbidden: exceeded quota: tight, requested: pods=1, limited: ${pods}`,
    );
  });
}

/** A cluster with room for three Pods: in two, sessions run for hours, and in the third, a session sleeps. */
async function fullCluster() {
  const made = await sleepyWorld({ sessions: { warm: 0, maxConcurrent: 200 } });
  const { world, operator, serve, nameOf } = made;
  limitPods(world, operator, 3);
  const sessionId = await serve();
  const name = nameOf(sessionId);
  world.fate = (pod) => ({
    ...{ startError: false, program: "stock" },
    servesMs: pod.metadata.name === name ? SECOND : 600 * MINUTE,
  });
  for (let n = 0; n < 2; n += 1) world.enqueue();
  await world.until("two sessions run", () => world.node.running.size === 2);
  return { ...made, sessionId, name };
}

const isActive = (world: LoopWorld, item: string) => world.item(item).state === "active";
const toldOf = (world: LoopWorld, reason: string) => world.told.filter((words) => words.startsWith(reason));
const failLists = ({ api }: LoopWorld) => {
  api.answer = (call) => (call === "list" ? { status: 500 } : undefined);
};

describe("the item of a sleeping session in a full cluster", () => {
  test.each([
    [0, 0.5],
    [3, 2],
    [6, 2.5],
    [10, 3.5],
    [20, 5.5],
    [150, 40],
  ])("behind those of %i new sessions is served in its Pod within %d s", async (waiting, seconds) => {
    const { world, sessionId, name } = await fullCluster();
    for (let n = 0; n < waiting; n += 1) world.enqueue();
    const item = world.enqueue({ sessionId });
    await world.until("it is active", () => isActive(world, item), seconds * SECOND);
    expect(world.starts.at(-1)?.pod).toBe(name);
  });
});

describe("a new session in a full cluster", () => {
  test.each([
    [5, 13, false],
    [60, 80, true],
  ])("gets room after %i to %i s from a session without an item (list fails: %s)", async (least, most, fails) => {
    const { world } = await fullCluster();
    await world.pass(MINUTE);
    if (fails) failLists(world);
    world.enqueue();
    await world.pass((least - 1) * SECOND);
    expect(toldOf(world, "SleepEnded")).toEqual([]);
    await world.until("a sleeping Pod goes", () => world.podsOf("sleeping").length === 0, (most - least) * SECOND);
  });
});

describe("a sleeping Pod whose session's item waits", () => {
  const SLEEP_MS = 2 * MINUTE;
  const workspace = { type: "Pod", sleepSeconds: SLEEP_MS / SECOND };
  const ended = (sessionId: string, why: string) =>
    `SleepEnded: session ${sessionId} no longer sleeps, and its Pod is deleted: ${why}`;
  const EXPIRED = "no work item came within workspace.sleepSeconds";

  /** A session whose item waits, because the Environment is paused. */
  async function paused() {
    const made = await sleepyWorld({ sessions: { workspace } });
    const sessionId = await made.serve();
    made.world.patchEnvironment({ spec: { paused: true } });
    await made.world.pass(SECOND);
    const item = made.world.enqueue({ sessionId });
    const unpause = () => made.world.patchEnvironment({ spec: { paused: false } });
    return { ...made, sessionId, item, unpause, name: made.nameOf(sessionId) };
  }

  test.each([false, true])("sleeps on after sleepSeconds until it is claimed (restart: %s)", async (isRestarted) => {
    const { world, operator, sessionId, item, name, nameOf, isServed, unpause } = await paused();
    await world.pass(SLEEP_MS - 20 * SECOND);
    if (isRestarted) {
      operator.kill();
      await world.pass(SECOND);
      world.startOperator();
    }
    await world.pass(SLEEP_MS - 20 * SECOND);
    expect(nameOf(sessionId)).toBe(name);
    unpause();
    await world.until("its item is served", () => isServed(item), MINUTE);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
    expect(toldOf(world, "SleepEnded")).toEqual([]);
    // Then it sleeps as long as usual.
    await world.pass(SLEEP_MS - 20 * SECOND);
    expect(nameOf(sessionId)).toBe(name);
    await world.until("its Pod is deleted", () => nameOf(sessionId) === undefined, 40 * SECOND);
  });

  test("is deleted when sleepSeconds have passed twice, with an Event that says so", async () => {
    const { world, sessionId, nameOf } = await paused();
    await world.pass(2 * SLEEP_MS - 20 * SECOND);
    expect(nameOf(sessionId)).toBeDefined();
    await world.until("its Pod is deleted", () => nameOf(sessionId) === undefined, 30 * SECOND);
    const why = "workspace.sleepSeconds have passed twice, and its next work item still waits in the queue";
    expect(toldOf(world, "SleepEnded")).toEqual([ended(sessionId, why)]);
  });

  test("is deleted soon after its item was stopped", async () => {
    const { world, sessionId, item, nameOf } = await paused();
    await world.pass(SLEEP_MS + 20 * SECOND);
    world.api.world.stopItem(item, true);
    await world.until("its Pod is deleted", () => nameOf(sessionId) === undefined, 10 * SECOND);
    expect(toldOf(world, "SleepEnded")).toEqual([ended(sessionId, EXPIRED)]);
  });

  test("is deleted at once with its Environment", async () => {
    const { world } = await paused();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME, {});
    await world.until("everything is gone", () => world.pods.length === 0 && world.environment === undefined);
  });

  test("sleeps on while maxConcurrent sessions run", async () => {
    const { world, serve, nameOf, isServed } = await sleepyWorld({ sessions: { workspace, maxConcurrent: 1 } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.fate = () => ({ startError: false, program: "stock", servesMs: SLEEP_MS + 30 * SECOND });
    world.enqueue();
    await world.until("another session runs", () => world.node.running.size === 1);
    const item = world.enqueue({ sessionId });
    await world.until("it runs", () => isActive(world, item), SLEEP_MS + MINUTE);
    expect(world.starts.at(-1)?.pod).toBe(name);
    await world.until("it is served", () => isServed(item), SLEEP_MS + MINUTE);
  });

  test("stays when more than maxSleeping sessions sleep, and another one goes", async () => {
    const { world, serve, sessionOf, nameOf } = await sleepyWorld({ sessions: { maxSleeping: 1 } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.fate = () => ({ startError: false, program: "stock", servesMs: MINUTE });
    const other = world.enqueue();
    await world.until("another session runs", () => isActive(world, other));
    world.patchEnvironment({ spec: { paused: true } });
    world.enqueue({ sessionId });
    await world.until("the other one sleeps", () => nameOf(sessionOf(other)) !== undefined, 2 * MINUTE);
    await world.until("one of them goes", () => world.podsOf("sleeping").length === 1);
    expect(nameOf(sessionId)).toBe(name);
  });

  test("that can't be known because the list fails, is kept as long", async () => {
    const { world, serve, nameOf } = await sleepyWorld({ sessions: { workspace } });
    const sessionId = await serve();
    world.patchEnvironment({ spec: { paused: true } });
    world.enqueue();
    failLists(world);
    await world.pass(2 * SLEEP_MS - 20 * SECOND);
    expect(nameOf(sessionId)).toBeDefined();
    await world.until("its Pod is deleted", () => nameOf(sessionId) === undefined, 30 * SECOND);
    expect(toldOf(world, "SleepEnded")).toEqual([ended(sessionId, EXPIRED)]);
  });
});

describe("the unused volume of a session whose item waits", () => {
  const RETAIN_SECONDS = 60;

  /** A session whose item waits, because the Environment is paused, or because a quota has no room for its Pod. */
  async function waiting(because: "paused" | "quota") {
    const workspace = {
      type: "PerSession",
      claimTemplate: { resources: { requests: { storage: "1Gi" } } },
      retainSeconds: RETAIN_SECONDS,
    };
    const world = new LoopWorld({ sessions: { warm: 0, workspace } });
    onTestFinished(() => expect([...world.wrongs, ...world.violations]).toEqual([]));
    world.createEnvironment();
    const operator = world.startOperator();
    const first = world.enqueue();
    await world.until("the first item is served", () => world.item(first).state === "stopped" && world.isSettled);
    const volumes = () => world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
    const [volume] = volumes().map(({ metadata: { name = "" } }) => name);
    if (because === "paused") world.patchEnvironment({ spec: { paused: true } });
    else limitPods(world, operator, 0);
    await world.pass(SECOND);
    const item = world.enqueue({ sessionId: world.api.world.item(first).data.id });
    const end = () => {
      operator.kube.intercept.splice(0);
      world.patchEnvironment({ spec: { paused: false } });
    };
    return { world, volumes, volume, item, end };
  }

  test.each(["paused", "quota"] as const)("is kept after retainSeconds: %s", async (because) => {
    const { world, volumes, volume, item, end } = await waiting(because);
    await world.pass(4 * RETAIN_SECONDS * SECOND);
    expect(volumes().map(({ metadata }) => metadata.name)).toEqual([volume]);
    end();
    await world.until("its session runs", () => isActive(world, item), 6 * MINUTE);
    expect(volumes().map(({ metadata }) => metadata.name)).toEqual([volume]);
  });

  test("is deleted 24 hours later, with an Event that says so", async () => {
    const { world, volumes, volume = "" } = await waiting("paused");
    const usedMs = world.clock.now() - WAITING_KEPT_MS + 3 * MINUTE;
    const annotations = { "berth.dev/last-used": new Date(usedMs).toISOString() };
    world.server.patch(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, volume, { metadata: { annotations } });
    await world.pass(3 * MINUTE);
    expect(volumes()).toHaveLength(1);
    await world.until("it is deleted", () => volumes().length === 0, 4 * MINUTE);
    expect(toldOf(world, "WorkspaceExpired")).toEqual([
      expect.stringMatching(/retainSeconds and 24 hours more, in which the session's next work item waited/),
    ]);
  });
});

test("the list is not read for sleeping sessions while the queue is empty, or while items find Pods", async () => {
  let lists = 0;
  const { world, serve } = await sleepyWorld({
    sessions: { warm: 2 },
    points: ({ point, phase }) => {
      if (point === "queue.list" && phase === "before") lists += 1;
    },
  });
  for (let n = 0; n < 4; n += 1) await serve();
  await world.pass(5 * MINUTE);
  expect(lists).toBe(0);
});
