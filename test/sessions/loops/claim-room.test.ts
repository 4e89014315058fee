import { expect, test } from "vitest";
import type { PointEvent } from "../../../src/core/points.ts";
import { MOST_UNDER_WAY } from "../../../src/sessions/claim-room.ts";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60_000;
/** So slow that more would be begun before the first is through. */
const SLOW_MS = 250;
const ITEMS = 4 * MOST_UNDER_WAY;

test("of a burst no more are under way than there is room for, and each is claimed once", async () => {
  const events: PointEvent[] = [];
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2 * ITEMS, warm: ITEMS },
    fate: () => ({ startError: false, program: "stock", servesMs: 20 * SECOND }),
    points: (event) => void events.push(event),
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  // Of a template that has not served yet, three claims at most are under way.
  const proof = world.enqueue();
  await world.until("the template serves", () => world.item(proof).state === "stopped", 2 * MINUTE);
  await world.until("all are parked", () => world.parked.length === ITEMS && world.isSettled, MINUTE);
  events.length = 0;
  kube.delay = () => SLOW_MS;
  const ids = Array.from({ length: ITEMS }, () => world.enqueue());
  await world.until("all are served", () => ids.every((id) => world.item(id).state === "stopped"), 5 * MINUTE);
  expect(world.violations).toEqual([]);
  const { most, begun } = underWay(events);
  expect(begun).toBe(ITEMS);
  expect(most).toBe(MOST_UNDER_WAY);
});

/** How many claims were begun, and how many of them at most were between their journal and the touch of their Pod. */
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
