import { expect, test } from "vitest";
import { FIRST_UNDER_WAY } from "../../../src/claims/claim-limiter.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60_000;
/** Slow enough that the operator would begin further claims before the first is through. */
const SLOW_MS = 250;
const ITEMS = FIRST_UNDER_WAY + 16;
/** The world simulates every Pod and request, on a machine that may be busy. */
const TIMEOUT = { timeout: 120_000 };

/** A world whose template has served, with a parked Pod for each item to come. */
async function warmWorld() {
  const events: PointEvent[] = [];
  const observers: ((event: PointEvent) => void)[] = [(event) => events.push(event)];
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2 * ITEMS, warm: ITEMS },
    fate: () => ({ startError: false, program: "stock", servesMs: 20 * SECOND }),
    points: (event) => {
      for (const observe of observers) observe(event);
    },
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  // While a template has not served yet, at most three claims are under way.
  const proof = world.enqueue();
  await world.until("a session of the template is served", () => world.item(proof).state === "stopped", 2 * MINUTE);
  await world.until("all Pods are parked", () => world.parked.length === ITEMS && world.isSettled, MINUTE);
  events.length = 0;
  return { world, kube, events, observers };
}

test("a burst stays within the limit of claims in flight, and each item is claimed once", TIMEOUT, async () => {
  const { world, kube, events } = await warmWorld();
  kube.delay = () => SLOW_MS;
  const ids = Array.from({ length: ITEMS }, () => world.enqueue());
  await world.until("all items are stopped", () => ids.every((id) => world.item(id).state === "stopped"), 5 * MINUTE);
  expect(world.violations).toEqual([]);
  const { most, begun } = underWay(events);
  expect(begun).toBe(ITEMS);
  expect(most).toBe(FIRST_UNDER_WAY);
});

test("polls again in the turn in which an item was polled", TIMEOUT, async () => {
  const { world, observers } = await warmWorld();
  let polledInTurn = false;
  const followed: boolean[] = [];
  observers.push((event) => {
    if (isOf("claim.poll", "before")(event)) followed.push(polledInTurn);
    if (!isOf("claim.poll", "after")(event)) return;
    polledInTurn = true;
    setImmediate(() => {
      polledInTurn = false;
    });
  });
  const ids = Array.from({ length: 3 }, () => world.enqueue());
  await world.until("all items are polled", () => ids.every((id) => world.item(id).offeredAt !== undefined));
  expect(followed.length).toBeGreaterThan(1);
  expect(followed).not.toContain(false);
});

/** The number of claims begun, and the maximum between their journal and the touch of their Pod. */
function underWay(events: readonly PointEvent[]): { most: number; begun: number } {
  const now = new Set<string>();
  let most = 0;
  let begun = 0;
  for (const { point, phase, pod } of events) {
    const name = pod ?? "";
    if (point === "claim.journal" && phase === "before") {
      now.add(name);
      begun += 1;
    }
    if (point === "session.touch" && phase === "after") now.delete(name);
    most = Math.max(most, now.size);
  }
  return { most, begun };
}

function isOf(point: string, phase: PointEvent["phase"]): (event: PointEvent) => boolean {
  return (event) => event.point === point && event.phase === phase;
}
