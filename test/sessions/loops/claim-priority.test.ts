import { expect, test } from "vitest";
import type { PointEvent } from "../../../src/core/points.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60_000;
/** Slow enough that a burst lasts, and fast enough that 70 claims finish before other work has waited too long. */
const SLOW_API_MS = 100;

/** The points that an operator passes while it serves `items` at once. */
async function rush({ items, warm }: { items: number; warm: number }): Promise<PointEvent[]> {
  const events: PointEvent[] = [];
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2 * warm, warm },
    fate: () => ({ startError: false, program: "stock", servesMs: 20 * SECOND }),
    points: (event) => void events.push(event),
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  // While a template has not served yet, at most three claims are under way.
  const proof = world.enqueue();
  await world.until("a session of the template is served", () => world.item(proof).state === "stopped", 2 * MINUTE);
  await world.until("all Pods are parked", () => world.parked.length === warm && world.isSettled, MINUTE);
  events.length = 0;
  kube.delay = () => SLOW_API_MS;
  const ids = Array.from({ length: items }, () => world.enqueue());
  await world.until("all sessions sent a heartbeat", () => ids.every((id) => world.item(id).beats > 0), 2 * MINUTE);
  await world.until("all Pods are replaced", () => world.parked.length === warm, MINUTE);
  expect(world.violations).toEqual([]);
  return events;
}

const isOf = (point: string, phase: PointEvent["phase"]) => (event: PointEvent) =>
  event.point === point && event.phase === phase;

test.each([
  [10, 20],
  [10, 10],
  [70, 100],
])("creates no Pod while %i claims with a parked Pod each are under way, of %i parked Pods", async (items, warm) => {
  const events = await rush({ items, warm });
  const made = events.findIndex(isOf("prepare.create-pod", "before"));
  const touched = events.filter((event) => isOf("session.touch", "after")(event) && event.asks["touches"] === 1);
  expect(touched).toHaveLength(items);
  expect(made).toBeGreaterThan(events.lastIndexOf(touched.at(-1) as PointEvent));
});

test("creates Pods at once when claims wait for them", async () => {
  const events = await rush({ items: 10, warm: 3 });
  const made = events.findIndex(isOf("prepare.create-pod", "before"));
  expect(made).toBeGreaterThan(-1);
  expect(made).toBeLessThan(events.findLastIndex(isOf("claim.journal", "before")));
});

test("settling an ended session waits briefly for ongoing claims", async () => {
  const world = new LoopWorld({
    sessions: { maxConcurrent: 60, warm: 40 },
    fate: () => ({ startError: false, program: "stock", servesMs: 20 * SECOND }),
  });
  world.createEnvironment();
  const { kube } = world.startOperator();
  const first = world.enqueue();
  await world.until("the first session runs", () => world.item(first).state === "active", 2 * MINUTE);
  const [pod = ""] = world.podsOf("running").map(({ metadata }) => metadata.name);
  await world.until("the first session is stopped", () => world.item(first).state === "stopped", MINUTE);
  kube.delay = () => SLOW_API_MS;
  const isOver = () => world.pods.some((found) => found.metadata.name === pod && readPodState(found).is === "ended");
  const isGone = () => !world.claims.some(({ metadata }) => metadata.name === pod);
  let [overMs, goneMs] = [Number.NaN, Number.NaN];
  for (let items = 0; items < 40 && Number.isNaN(goneMs); items += 1) {
    world.enqueue();
    await world.pass(SLOW_API_MS);
    if (Number.isNaN(overMs) && isOver()) overMs = world.clock.monotonic();
    if (Number.isNaN(goneMs) && isGone()) goneMs = world.clock.monotonic();
  }
  expect(goneMs - overMs).toBeGreaterThan(SECOND / 2);
  expect(goneMs - overMs).toBeLessThan(2 * SECOND);
  expect(world.violations).toEqual([]);
});
