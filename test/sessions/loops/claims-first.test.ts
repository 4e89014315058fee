import { expect, test } from "vitest";
import type { PointEvent } from "../../../src/core/points.ts";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60_000;

/** What an operator does that serves `items` at once, from the first poll that brings one. */
async function rush({ items, warm }: { items: number; warm: number }): Promise<PointEvent[]> {
  const events: PointEvent[] = [];
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2 * warm, warm },
    fate: () => ({ startError: false, program: "stock", servesMs: 20 * SECOND }),
    points: (event) => void events.push(event),
  });
  world.createEnvironment();
  world.startOperator();
  // Of a template that has not served yet, three claims at most are under way.
  const proof = world.enqueue();
  await world.until("the template serves", () => world.item(proof).state === "stopped", 2 * MINUTE);
  await world.until("all are parked", () => world.parked.length === warm && world.isSettled, MINUTE);
  events.length = 0;
  const ids = Array.from({ length: items }, () => world.enqueue());
  await world.until("all are acknowledged", () => ids.every((id) => world.item(id).acks.length > 0), 2 * MINUTE);
  await world.until("all are replaced", () => world.parked.length === warm, MINUTE);
  expect(world.violations).toEqual([]);
  return events;
}

const isOf = (point: string, phase: PointEvent["phase"]) => (event: PointEvent) =>
  event.point === point && event.phase === phase;

test.each([20, 10])("no Pod is made while 10 claims are under way that find one of %i", async (warm) => {
  const events = await rush({ items: 10, warm });
  const made = events.findIndex(isOf("prepare.create-pod", "before"));
  const touched = events.filter((event) => isOf("session.touch", "after")(event) && event.asks["touches"] === 1);
  expect(touched).toHaveLength(10);
  expect(made).toBeGreaterThan(events.lastIndexOf(touched.at(-1) as PointEvent));
});

test("Pods are made at once when claims wait for them", async () => {
  const events = await rush({ items: 10, warm: 3 });
  const made = events.findIndex(isOf("prepare.create-pod", "before"));
  expect(made).toBeGreaterThan(-1);
  expect(made).toBeLessThan(events.findLastIndex(isOf("claim.journal", "before")));
});
