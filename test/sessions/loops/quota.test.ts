import { describe, expect, test } from "vitest";
import type { Pod } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld } from "./loop-world.ts";
import { TEMPLATE } from "./sleepy-world.ts";

const MINUTE = 60_000;
const SERVES_MS = 5_000;

/** Whether a quota counts the Pod: it has not ended. */
const takesRoom = ({ status }: Pod) => status?.phase !== "Succeeded" && status?.phase !== "Failed";

/**
 * A namespace with a quota of `pods` Pods. It counts an ended Pod for `lagMs` more, and `others` Pods of other owners.
 */
function withQuota({ pods, lagMs = 0, sessions = {} }: { pods: number; lagMs?: number; sessions?: object }) {
  const fate = () => ({ startError: false, program: "stock", servesMs: SERVES_MS }) as const;
  const world = new LoopWorld({ sessions: { maxConcurrent: 9, warm: 0, ...sessions }, fate });
  const counted = new Map<string, number>();
  world.server.subscribe(({ plural, object, type }) => {
    if (plural !== "pods") return;
    const name = object.metadata.name ?? "";
    if (type !== "DELETED" && takesRoom(object as Pod)) counted.set(name, Number.POSITIVE_INFINITY);
    else if (counted.get(name) === Number.POSITIVE_INFINITY) counted.set(name, world.clock.monotonic() + lagMs);
  });
  const quota = { others: 0, refused: 0, used: 0 };
  world.createEnvironment();
  const operator = world.startOperator();
  operator.kube.intercept.push(({ verb, plural }) => {
    if (verb !== "create" || plural !== "pods") return;
    const nowMs = world.clock.monotonic();
    quota.used = [...counted.values()].filter((untilMs) => nowMs < untilMs).length + quota.others;
    if (quota.used < pods) return;
    quota.refused += 1;
    throw refusal(
      403,
      "Forbidden",
      `pods "x" is forbidden: exceeded quota: tight, requested: pods=1, limited: pods=${pods}`,
    );
  });
  return { world, quota };
}

/** Events about the quota. */
const toldOf = (world: LoopWorld) => world.told.filter((words) => words.startsWith("QuotaExceeded"));

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("room in a quota after a Pod has ended", () => {
  test.each([0, 300, 800])("is used immediately when the quota counts an ended Pod for %i ms", async (lagMs) => {
    const { world, quota } = withQuota({ pods: 2, lagMs });
    await world.pass(MINUTE);
    const startMs = world.clock.monotonic();
    for (let n = 0; n < 9; n += 1) world.enqueue();
    await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
    // Five rounds of two: 5 s of work each, plus about 3 s until the next Pod is ready.
    expect(world.clock.monotonic() - startMs).toBeLessThan(45_000);
    expect(quota.refused).toBeLessThan(9 * 4);
    expect(toldOf(world)).not.toEqual([]);
    holdsTrue(world);
  });

  test.each([0, 800])("causes no Event when the quota has room for maxConcurrent: %i ms", async (lagMs) => {
    const { world } = withQuota({ pods: 2, lagMs, sessions: { maxConcurrent: 2 } });
    for (let n = 0; n < 9; n += 1) world.enqueue();
    await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
    expect(toldOf(world)).toEqual([]);
    holdsTrue(world);
  });

  test("costs few refused requests per Pod when other owners use it up", async () => {
    const { world, quota } = withQuota({ pods: 2, sessions: { maxConcurrent: 40 } });
    await world.pass(MINUTE);
    for (let n = 0; n < 60; n += 1) world.enqueue();
    await world.until("two containers run", () => world.node.running.size === 2);
    quota.others = 1;
    const before = quota.refused;
    await world.until(
      "half of the items are stopped",
      () => world.items.filter(({ state }) => state === "stopped").length === 30,
      20 * MINUTE,
    );
    expect(quota.refused - before).toBeLessThan(30 * 4);
    quota.others = 2;
    await world.until("no container runs", () => world.node.running.size === 0, MINUTE);
    const alone = quota.refused;
    await world.pass(10 * MINUTE);
    expect(quota.refused - alone).toBeLessThan(12);
    quota.others = 0;
    await world.until("all items are served and settled", () => world.isSettled, 20 * MINUTE);
    holdsTrue(world);
  });
});

describe("room in a quota that sleeping Pods use up", () => {
  test.each([0, 5, 50, 300, 900])(
    "is made for each waiting session when the quota counts a deleted Pod for %i ms",
    async (lagMs) => {
      const workspace = { type: "Pod", sleepSeconds: 3_600 };
      const { world } = withQuota({ pods: 6, lagMs, sessions: { workspace, template: TEMPLATE } });
      for (let n = 0; n < 6; n += 1) world.enqueue();
      await world.until("all sessions sleep", () => world.podsOf("sleeping").length === 6, 5 * MINUTE);
      await world.pass(MINUTE);
      for (let n = 0; n < 4; n += 1) world.enqueue();
      await world.until("the other sessions are served", () => world.isSettled, 3 * MINUTE);
      // No sleeping Pod is deleted in vain.
      await world.until("as many sessions sleep as before", () => world.podsOf("sleeping").length === 6, MINUTE);
      holdsTrue(world);
    },
  );

  test("is not made for warm Pods", async () => {
    const workspace = { type: "Pod", sleepSeconds: 3_600 };
    const { world } = withQuota({ pods: 4, lagMs: 300, sessions: { workspace, template: TEMPLATE, warm: 2 } });
    for (let n = 0; n < 4; n += 1) world.enqueue();
    await world.until("all sessions sleep", () => world.podsOf("sleeping").length === 4, 5 * MINUTE);
    const slept = new Set(world.podsOf("sleeping").map(({ metadata }) => metadata.name));
    await world.pass(MINUTE);
    expect(world.podsOf("sleeping")).toHaveLength(4);
    world.enqueue();
    await world.until("the other session is served", () => world.isSettled, 3 * MINUTE);
    await world.pass(MINUTE);
    expect(world.podsOf("sleeping").filter(({ metadata }) => slept.has(metadata.name))).toHaveLength(3);
    holdsTrue(world);
  });

  test("is made for one probe at a time while starts fail, however many new sessions wait", async () => {
    const workspace = { type: "Pod", sleepSeconds: 3_600 };
    const sessions = { workspace, template: TEMPLATE, retainFailedSeconds: 0, retainEndedSeconds: 0 };
    const { world } = withQuota({ pods: 6, sessions });
    for (let n = 0; n < 6; n += 1) world.enqueue();
    await world.until("all sessions sleep", () => world.podsOf("sleeping").length === 6, 5 * MINUTE);
    world.fate = () => ({ startError: false, program: "crashes", servesMs: 500 });
    for (let n = 0; n < 3; n += 1) world.enqueue();
    const starting = () => world.conditionOf("SessionsStarting")?.reason;
    await world.until("starts are failing", () => starting() === "StartsFailing", 5 * MINUTE);
    const before = world.podsOf("sleeping").length;
    for (let n = 0; n < 20; n += 1) world.enqueue();
    await world.pass(20 * MINUTE);
    expect(starting()).toBe("StartsFailing");
    expect(world.podsOf("sleeping").length).toBeGreaterThanOrEqual(before - 1);
    holdsTrue(world);
  });
});

test("warm Pods serve new sessions while no further Pod can be created", async () => {
  const { world, quota } = withQuota({ pods: 2, sessions: { warm: 2 } });
  await world.until("two Pods are parked", () => world.parked.length === 2);
  world.fate = () => ({ startError: false, program: "stock", servesMs: 10 * MINUTE });
  quota.others = 9;
  const first = world.enqueue();
  await world.until("the first session runs", () => world.item(first).state === "active");
  await world.until("the pauses between creations are long", () => quota.refused > 4, 5 * MINUTE);
  await world.pass(SERVES_MS);
  const second = world.enqueue();
  await world.until("the other one runs too", () => world.item(second).state === "active", 2_000);
  expect(world.conditionOf("CapacityAvailable")?.reason).toBe("QuotaExceeded");
  holdsTrue(world);
});
