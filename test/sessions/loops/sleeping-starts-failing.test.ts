import { describe, expect, test } from "vitest";
import type { Pod } from "../../../src/kube/resource.ts";
import { workspaceOf } from "../../../src/pods/workspace-pods.ts";
import { sleepEndMessage } from "../../../src/sleep/sleep-plan.ts";
import type { ContainerFate } from "./container.ts";
import { sleepyWorld, TEMPLATE } from "./sleepy-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const SLEEPERS = 8;

const CRASHES: ContainerFate = { startError: false, program: "crashes", servesMs: 500 };
/** The first heartbeat comes after half a minute more than the operator waits, and is refused. */
const LATE: ContainerFate = { startError: false, program: "late", servesMs: 90 * SECOND };
const HANGS: ContainerFate = { startError: false, program: "silent", servesMs: 0 };

const withImage = (image: string) => {
  const [container] = TEMPLATE.spec.containers;
  return { spec: { sessions: { template: { spec: { ...TEMPLATE.spec, containers: [{ ...container, image }] } } } } };
};

const imageOf = (pod?: Pod) => pod?.spec.containers[0]?.image;
const volumeOf = (pod?: Pod) => pod && workspaceOf(pod);

/** A world with sleeping sessions. */
async function withSleepers(
  sessions: Record<string, unknown> = {},
  sleepers = 4,
  prepareMs: (pod: Pod) => number = () => SECOND,
) {
  const made = await sleepyWorld({
    prepareMs,
    sessions: {
      ...{ maxConcurrent: 12, warm: 2, maxSleeping: 20 },
      workspace: { type: "Pod", sleepSeconds: 3_600 },
      ...sessions,
    },
  });
  const { world, serve, nameOf } = made;
  const serves = world.fate;
  const ids: string[] = [];
  for (let n = 0; n < sleepers; n += 1) ids.push(await serve());
  const names = ids.map(nameOf);
  const starting = () => world.conditionOf("SessionsStarting");
  return {
    ...{ ...made, ids, names, serves, starting },
    /** New sessions fail to start. */
    open: async (fate: ContainerFate) => {
      world.fate = () => fate;
      for (let n = 0; n < 3; n += 1) world.enqueue();
      await world.until("starts fail", () => starting()?.reason === "StartsFailing", 5 * MINUTE);
    },
    wakeAll: () => ids.map((sessionId) => world.enqueue({ sessionId })),
    in: (items: readonly string[], state: string) => items.filter((id) => world.item(id).state === state).length,
    /** Sessions that still sleep in the Pod that they slept in at first. */
    kept: () => ids.filter((id, n) => nameOf(id) === names[n]).length,
    /** Their Pods that exist. */
    present: () =>
      names.filter((name) => world.pods.some(({ metadata: m }) => m.name === name && !m.deletionTimestamp)).length,
  };
}

describe.each(["Worker", "Operator"])("lease: %s: while starts fail", (lease) => {
  test("one sleeping session wakes as the probe, the others' items wait, and all keep their Pods", async () => {
    const { world, open, wakeAll, kept, in: count, serves } = await withSleepers({ lease }, SLEEPERS);
    await open(CRASHES);
    const items = wakeAll();
    await world.pass(2 * MINUTE);
    expect({ stopped: count(items, "stopped"), queued: count(items, "queued"), kept: kept() }).toEqual({
      ...{ stopped: 1, queued: SLEEPERS - 1 },
      kept: SLEEPERS,
    });
    // While all are held, no poll keeps the items from other clients.
    const offers = () => items.reduce((sum, id) => sum + world.item(id).offers.length, 0);
    const before = offers();
    await world.pass(MINUTE);
    expect(offers()).toBe(before);
    world.fate = serves;
    await world.until(
      "the others are served",
      () => count(items, "stopped") === SLEEPERS && world.isSettled,
      5 * MINUTE,
    );
    expect(kept()).toBe(SLEEPERS);
  });
});

describe("woken sessions whose programs send no heartbeat in time", () => {
  test("sleep on in their Pods, once the programs have ended", async () => {
    const { world, wakeAll, kept, in: count, starting } = await withSleepers({}, SLEEPERS);
    world.fate = () => LATE;
    const items = wakeAll();
    await world.until("the items are stopped", () => count(items, "stopped") === SLEEPERS, 80 * SECOND);
    expect(starting()?.reason).toBe("StartsFailing");
    await world.until("all sleep again", () => kept() === SLEEPERS && world.isSettled, MINUTE);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([]);
  });

  test("lose their Pods after prepareTimeoutSeconds if the programs hang on", async () => {
    const { world, wakeAll, present, in: count } = await withSleepers({ prepareTimeoutSeconds: 120 }, 3);
    world.fate = () => HANGS;
    const items = wakeAll();
    await world.until("the items are stopped", () => count(items, "stopped") === 3, 80 * SECOND);
    await world.pass(110 * SECOND);
    expect(present()).toBe(3);
    await world.pass(20 * SECOND);
    expect(present()).toBe(0);
  });

  test("lose their Pods at once if another session has served since they started", async () => {
    const { world, wakeAll, present, serves, in: count } = await withSleepers({}, 1);
    world.fate = (pod, container) => (container === "berth-turn-2" ? HANGS : serves(pod, container));
    const items = wakeAll();
    await world.until("it runs", () => world.node.running.size === 1);
    const other = world.enqueue();
    await world.until("another session is served", () => world.item(other).state === "stopped");
    await world.until("the item is stopped", () => count(items, "stopped") === 1, 80 * SECOND);
    await world.until("its Pod is deleted", () => present() === 0, 5 * SECOND);
  });
});

describe("after a template that started no sessions was replaced", () => {
  test.each([
    [{ type: "Pod", sleepSeconds: 3_600 }, 2],
    [{ type: "Pod", sleepSeconds: 3_600 }, 0],
    [{ type: "PerSession", sleepSeconds: 3_600, claimTemplate: { resources: { requests: { storage: "1Gi" } } } }, 2],
  ])("its sleeping sessions get Pods of the new one, with an Event: %o, warm: %i", async (workspace, warm) => {
    const {
      world,
      open,
      wakeAll,
      ids,
      in: count,
      serves,
      sleeperOf,
      starting,
    } = await withSleepers({ workspace, warm });
    await open(CRASHES);
    const volumes = ids.map((id) => volumeOf(sleeperOf(id)));
    world.fate = (pod, container) => (imageOf(pod) === "worker:1" ? CRASHES : serves(pod, container));
    world.patchEnvironment(withImage("worker:2"));
    const items = wakeAll();
    await world.until("all are served", () => count(items, "stopped") === 4 && world.isSettled, 5 * MINUTE);
    await world.until("all sleep", () => ids.every((id) => sleeperOf(id) !== undefined));
    expect(ids.map((id) => imageOf(sleeperOf(id)))).toEqual(ids.map(() => "worker:2"));
    for (const id of ids) expect(world.told).toContain(`SleepEnded: ${sleepEndMessage(id, "Replaced")}`);
    expect(starting()?.reason).toBe("Starting");
    expect(ids.map((id) => volumeOf(sleeperOf(id)))).toEqual(volumes);
  });

  test("one of them a minute moves until the new one serves, so a second broken one costs few their files", async () => {
    const { world, open, wakeAll, present } = await withSleepers();
    await open(CRASHES);
    world.patchEnvironment(withImage("worker:2"));
    wakeAll();
    await world.pass(50 * SECOND);
    expect(present()).toBe(3);
    // The new template is held by now.
    await world.pass(130 * SECOND);
    expect(present()).toBe(1);
  });

  test("none moves while no Pod of the new one gets ready", async () => {
    const { world, open, wakeAll, present } = await withSleepers({}, 2, (pod) =>
      imageOf(pod) === "worker:2" ? 60 * MINUTE : SECOND,
    );
    await open(CRASHES);
    world.patchEnvironment(withImage("worker:2"));
    wakeAll();
    await world.pass(3 * MINUTE);
    expect(present()).toBe(2);
  });
});

test("a new process continues a hold that only sleeping Pods have on record", async () => {
  const { world, operator, wakeAll, starting, serves, in: count } = await withSleepers();
  world.fate = () => CRASHES;
  const items = wakeAll();
  await world.until("the items are stopped", () => count(items, "stopped") === 4 && world.isSettled);
  expect(world.podsOf("ended")).toEqual([]);
  await world.stop(operator);
  world.startOperator();
  const more = wakeAll();
  await world.pass(50 * SECOND);
  expect([starting()?.reason, count(more, "queued")]).toEqual(["StartsFailing", 4]);
  world.fate = serves;
  await world.until("all are served", () => count(more, "stopped") === 4 && world.isSettled, 5 * MINUTE);
});

describe("one session whose program always fails", () => {
  test("holds no other session, and each of its items ends", async () => {
    const { world, ids, serves, starting, isServed, in: count } = await withSleepers({}, 2);
    const [broken, other] = ids;
    const isBroken = (pod: Pod) => pod.metadata.annotations?.["berth.dev/session-id"] === broken;
    world.fate = (pod, container) => (isBroken(pod) ? CRASHES : serves(pod, container));
    for (let n = 0; n < 5; n += 1) {
      const item = world.enqueue({ sessionId: broken ?? "" });
      await world.until("its item is stopped", () => isServed(item), 30 * SECOND);
    }
    expect(starting()?.reason).toBe("Starting");
    const items = [world.enqueue({ sessionId: other ?? "" }), world.enqueue()];
    await world.until("others are served", () => count(items, "stopped") === 2, 15 * SECOND);
  });

  test("holds no other session of a template that has served none, but is held itself", async () => {
    const { world, serves, starting, sessionOf, in: count } = await withSleepers({}, 0);
    const items = [world.enqueue()];
    const sessionId = sessionOf(items[0] ?? "");
    const isBroken = ({ metadata }: Pod) => metadata.annotations?.["berth.dev/session-id"] === sessionId;
    world.fate = (pod, container) => (isBroken(pod) ? CRASHES : serves(pod, container));
    for (let n = 1; n < 4; n += 1) {
      await world.pass(15 * SECOND);
      items.push(world.enqueue({ sessionId }));
    }
    await world.pass(15 * SECOND);
    expect([count(items, "stopped"), starting()?.reason]).toEqual([3, "StartsFailing"]);
    expect(starting()?.message).toContain(`all of session ${sessionId}; others are still claimed`);
    const other = world.enqueue();
    await world.until("another session is served", () => world.item(other).state === "stopped", 20 * SECOND);
    await world.until("the hold ends", () => starting()?.reason === "Starting" && count(items, "stopped") === 4);
  });
});
