import { describe, expect, test } from "vitest";
import { metricValue } from "../../support/metric-value.ts";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

/** A world whose first acknowledgements take effect only after `lateMs`, when the operator no longer waits for them. */
async function withLateAck(lease: "Worker" | "Operator", lateMs: number, options: { late?: number } = {}) {
  const world = new LoopWorld({
    sessions: { maxConcurrent: 2, warm: 1, lease },
    // The server never requeues an item without heartbeats.
    switches: { starting: "never" },
  });
  let left = options.late ?? 1;
  world.api.delay = (call) => (call === "ack" && left-- > 0 ? lateMs : 0);
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  return { world, operator, id: world.enqueue() };
}

function holdsTrue(...worlds: LoopWorld[]): void {
  // The lateness itself is deliberate here.
  const violations = (worlds[0]?.violations ?? []).filter((words) => !words.startsWith("ack-outside-window"));
  expect([...worlds.flatMap(({ wrongs }) => wrongs), ...violations]).toEqual([]);
}

describe.each(["Worker", "Operator"] as const)("lease: %s: an acknowledgement that takes effect late", (lease) => {
  // Repeats inside the window are late, too; each lands after the one before.
  test.each([4_400, 5_000, 5_800, 7_000])("after %i ms: its session is eventually served", async (lateMs) => {
    const { world, id } = await withLateAck(lease, lateMs, { late: 9 });
    await world.until("the late acknowledgement takes effect", () => world.item(id).state !== "queued", MINUTE);
    world.api.delay = () => 0;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
    expect(world.told.filter((words) => words.startsWith("SessionStarted"))).toHaveLength(1);
    await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
    holdsTrue(world);
  });

  test("outside its window is counted, and its item is served once it is queued again", async () => {
    const { world, id } = await withLateAck(lease, 5_800, { late: 9 });
    await world.until("the late acknowledgement takes effect", () => world.item(id).state === "starting", MINUTE);
    world.api.delay = () => 0;
    expect(world.claims).toHaveLength(1);
    await world.until("the item is acknowledged again", () => world.item(id).acks.length === 2, 4 * MINUTE);
    expect(await metricValue(world.metrics.acks, { result: "late-effect" })).toBe(1);
    await world.until("everything is settled", () => world.isSettled, MINUTE);
    expect(world.starts).toHaveLength(1);
    holdsTrue(world);
  });

  test("is adopted by the next process", async () => {
    const { world, operator, id } = await withLateAck(lease, 5_800, { late: 9 });
    await world.until("the late acknowledgement takes effect", () => world.item(id).state === "starting", MINUTE);
    world.api.delay = () => 0;
    operator.kill();
    world.startOperator();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
    holdsTrue(world);
  });

  test("is stopped when a user stops its session meanwhile", async () => {
    const { world, id } = await withLateAck(lease, 5_800, { late: 9 });
    await world.until("the late acknowledgement takes effect", () => world.item(id).state === "starting", MINUTE);
    world.api.delay = () => 0;
    world.api.world.stopItem(id, false);
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 4 * MINUTE);
    await world.until("everything is settled", () => world.isSettled, MINUTE);
    holdsTrue(world);
  });
});

test("a health check whose acknowledgement takes effect late is stopped, even if the list lags", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 2, warm: 1 }, switches: { starting: "never" } });
  world.api.delay = (call) => (call === "ack" ? 5_800 : 0);
  world.api.listBehindMs = () => 4_900;
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue({ type: "healthcheck" });
  await world.until("the late acknowledgement takes effect", () => world.item(id).state === "starting", MINUTE);
  await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
  holdsTrue(world);
});

test("three late acknowledgements do not block the other items of an unproven template", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 4 }, switches: { starting: "never" } });
  let isLate = true;
  world.api.delay = (call) => (call === "ack" && isLate ? 5_800 : 0);
  world.createEnvironment();
  world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 4);
  const ids = [world.enqueue(), world.enqueue(), world.enqueue()];
  await world.until(
    "all items are acknowledged late",
    () => ids.every((id) => world.item(id).state === "starting"),
    MINUTE,
  );
  isLate = false;
  const other = world.enqueue();
  await world.until("the other item is stopped", () => world.item(other).state === "stopped", 40_000);
  expect(ids.map((id) => world.item(id).state)).toEqual(["starting", "starting", "starting"]);
  holdsTrue(world);
});

test("an item that another cluster acknowledged after our window is left to that cluster", async () => {
  const { world, id } = await withLateAck("Worker", 20_000, { late: 9 });
  await world.until("the claim's Secret exists", () => world.claims.length === 1, MINUTE);
  await world.pass(4_000);
  world.api.delay = () => 0;
  const rival = new LoopWorld({ beside: world, seed: 2, sessions: { maxConcurrent: 2, warm: 1 } });
  rival.createEnvironment();
  rival.startOperator();
  await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
  await world.until("everything is settled", () => world.isSettled && rival.isSettled, 5 * MINUTE);
  expect(rival.told.filter((words) => words.startsWith("SessionStarted"))).toHaveLength(1);
  expect(world.told.filter((words) => words.startsWith("SessionStarted"))).toEqual([]);
  holdsTrue(world, rival);
});
