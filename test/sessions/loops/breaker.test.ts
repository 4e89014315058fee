import { describe, expect, test } from "vitest";
import { LoopWorld } from "./loop-world.ts";
import type { ContainerFate } from "./node.ts";

const MINUTE = 60_000;
const QUEUED = 40;
/** Three that open the breaker, and those that were under way with them, of four Pods that are parked. */
const OPENING = 8;

const serves = (servesMs: number): ContainerFate => ({ startError: false, program: "stock", servesMs });
const BROKEN: ContainerFate = { startError: true, program: "stock", servesMs: 0 };

const starting = (world: LoopWorld) => world.conditionOf("SessionsStarting")?.reason;

/** Items of these that were acknowledged. */
const eaten = (world: LoopWorld, ids: readonly string[]) => ids.filter((id) => world.item(id).acks.length > 0).length;

const enqueue = (world: LoopWorld, items: number) => Array.from({ length: items }, () => world.enqueue());

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

/** A world in which sessions run for so long, from a template that none can be started from any more; and its operator. */
async function withOldSessions(servesMs: readonly number[], fate: ContainerFate = BROKEN) {
  const world = new LoopWorld({ sessions: { maxConcurrent: 20, warm: 4, retainFailedSeconds: 3_600 } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 4);
  for (const ms of servesMs) {
    world.fate = () => serves(ms);
    const id = world.enqueue();
    await world.until("an old session runs", () => world.item(id).state === "active");
    await world.until("a Pod for the next", () => world.parked.length === 4);
  }
  await world.pass(MINUTE);
  world.fate = () => fate;
  return { world, operator };
}

describe("a template that served and cannot be started any more", () => {
  test("is not taken for a good one because sessions of before end well", async () => {
    const { world } = await withOldSessions([3, 4, 5, 6, 7, 8].map((minutes) => minutes * MINUTE));
    const ids = enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen");
    await world.pass(15 * MINUTE);
    expect(world.node.running.size, "old sessions").toBe(0);
    expect(starting(world)).toBe("BreakerOpen");
    // Probes after 1, 2, 4 and 8 minutes.
    expect(eaten(world, ids)).toBeLessThanOrEqual(OPENING + 4);
    holdsTrue(world);
  });

  // Of Pods that the operator deletes itself, since kubelet would try on, a new process knows nothing.
  test.each([
    ["ends at once", { startError: false, program: "killed", servesMs: 100 }, 0],
    ["cannot be started", BROKEN, 3],
  ] as const)(
    "is not taken for a good one by a new process that finds an old session running: %s",
    async (_what, fate, more) => {
      const { world, operator } = await withOldSessions([600 * MINUTE], fate);
      const ids = enqueue(world, QUEUED);
      await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
      await world.until("all are settled", () => world.claims.length === 1);
      const before = eaten(world, ids);
      await operator.stop();
      world.startOperator();
      await world.pass(50_000);
      expect(starting(world)).toBe("BreakerOpen");
      expect(eaten(world, ids)).toBe(before + more);
      holdsTrue(world);
    },
  );

  test("serves again as soon as a probe does", async () => {
    const { world } = await withOldSessions([600 * MINUTE]);
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen");
    world.fate = () => serves(5_000);
    await world.until(
      "the queue is served",
      () => world.items.filter(({ state }) => state !== "stopped").length === 1,
      5 * MINUTE,
    );
    expect(starting(world)).toBe("Starting");
    holdsTrue(world);
  });
});
