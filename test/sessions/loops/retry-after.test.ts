import { describe, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";
import type { ContainerFate } from "./node.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const ASKED_MS = 120 * SECOND;

/** Answers of one call are 429 with this Retry-After while `on`; when it was sent, and to what else it was answered. */
function refusing(world: LoopWorld, refused: string) {
  const state = { on: true, sentMs: [] as number[] };
  world.api.answer = (call) => {
    if (call !== refused) return undefined;
    state.sentMs.push(world.clock.monotonic());
    if (!state.on) return undefined;
    const error = { type: "rate_limit_error", message: "not so often" };
    return { status: 429, headers: { "retry-after": String(ASKED_MS / SECOND) }, body: { type: "error", error } };
  };
  return state;
}

/** How far apart requests were, in milliseconds. */
const gaps = (sentMs: readonly number[]) => sentMs.slice(1).map((ms, n) => ms - (sentMs[n] ?? 0));

/** A world whose session's container dies without a word after five seconds. */
async function withDyingSession(lease: "Worker" | "Operator") {
  const fate: ContainerFate = {
    startError: false,
    program: lease === "Worker" ? "dies" : "crashes",
    servesMs: 6 * SECOND,
  };
  const world = new LoopWorld({ sessions: { lease }, fate: () => fate });
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until("it runs", () => world.item(id).state === "active");
  return { world, id };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("a stop that the Work API asks to come later", () => {
  test("lease: Operator: comes then, while the lease is kept", async () => {
    const { world, id } = await withDyingSession("Operator");
    const stops = refusing(world, "stop");
    await world.until("it was refused twice", () => stops.sentMs.length > 1, 5 * MINUTE);
    expect(gaps(stops.sentMs)[0]).toBeGreaterThanOrEqual(ASKED_MS);
    expect(world.item(id).state).toBe("active");
    stops.on = false;
    await world.until("it is stopped", () => world.item(id).state === "stopped", ASKED_MS + MINUTE);
    expect(stops.sentMs).toHaveLength(3);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("lease: Worker: comes then, while the lease that was taken for it is renewed", async () => {
    const { world, id } = await withDyingSession("Worker");
    const stops = refusing(world, "stop");
    await world.until("it was refused", () => stops.sentMs.length > 0, 5 * MINUTE);
    stops.on = false;
    await world.until("it is stopped", () => world.item(id).state === "stopped", ASKED_MS + MINUTE);
    expect(stops.sentMs).toHaveLength(2);
    expect(gaps(stops.sentMs)[0]).toBeGreaterThanOrEqual(ASKED_MS);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("lease: Worker: refused again and again, it is sent as often as was asked, and its session runs once", async () => {
    const { world, id } = await withDyingSession("Worker");
    const stops = refusing(world, "stop");
    await world.until("it was refused", () => stops.sentMs.length > 0, 5 * MINUTE);
    await world.pass(10 * MINUTE);
    expect(stops.sentMs.length).toBeLessThanOrEqual(6);
    stops.on = false;
    await world.until("it is over", () => world.item(id).state === "stopped" && world.isSettled, 10 * MINUTE);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("does not keep an Environment that is being deleted beyond its bound", async () => {
    const { world, id } = await withDyingSession("Operator");
    const stops = refusing(world, "stop");
    await world.until("it was refused", () => stops.sentMs.length > 0, MINUTE);
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.pass(20 * SECOND);
    stops.on = false;
    await world.until("the Environment is gone", () => world.environment === undefined, 2 * MINUTE);
    expect(world.item(id).state).toBe("stopped");
    holdsTrue(world);
  });
});

test("a look at an item that is to be settled comes when the Work API asked for it, once its lease has lapsed", async () => {
  const { world, id } = await withDyingSession("Worker");
  await world.until("it is over", () => world.node.running.size === 0);
  // Its item goes back to the queue meanwhile, and is not to be run again here.
  world.patchEnvironment({ spec: { paused: true } });
  const lists = refusing(world, "list");
  await world.pass(10 * MINUTE);
  // Once in time for what the lease allows, then as asked.
  const [first = 0, ...others] = gaps(lists.sentMs);
  expect(first).toBeLessThan(40 * SECOND);
  expect(others.length).toBeGreaterThan(3);
  for (const gapMs of others) expect(gapMs).toBeGreaterThanOrEqual(ASKED_MS);
  lists.on = false;
  await world.until("its claim is over", () => world.claims.length === 0, ASKED_MS + MINUTE);
  world.patchEnvironment({ spec: { paused: false } });
  world.fate = () => ({ startError: false, program: "stock", servesMs: SECOND });
  await world.until("it is served", () => world.item(id).state === "stopped", 2 * MINUTE);
  holdsTrue(world);
});

// A beat follows each stop that failed, and its answer has the stop decided on again.
test.each([429, 500, 503])(
  "a stop that is answered with %i is sent less and less often, whatever is heard meanwhile",
  async (status) => {
    const { world, id } = await withDyingSession("Operator");
    let stops = 0;
    let on = true;
    world.api.answer = (call) => {
      if (call !== "stop" || !on) return undefined;
      stops += 1;
      return { status, body: { type: "error", error: { type: "api_error", message: "not now" } } };
    };
    await world.pass(2 * MINUTE);
    expect(stops).toBeGreaterThan(5);
    expect(stops).toBeLessThan(15);
    on = false;
    await world.until("it is stopped", () => world.item(id).state === "stopped", MINUTE);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  },
);
