import { describe, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const ASKED_MS = 120 * SECOND;

/** Answers one call with 429 and this Retry-After while `on`, and records when it was sent. */
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

/** The times between requests, in milliseconds. */
const gaps = (sentMs: readonly number[]) => sentMs.slice(1).map((ms, n) => ms - (sentMs[n] ?? 0));

/** A world whose session's container ends without stopping its item after six seconds. */
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
  await world.until("the session runs", () => world.item(id).state === "active");
  return { world, id };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("a stop that gets a Retry-After", () => {
  test("lease: Operator: is sent at that time while the lease is kept", async () => {
    const { world, id } = await withDyingSession("Operator");
    const stops = refusing(world, "stop");
    await world.until("two stops were refused", () => stops.sentMs.length > 1, 5 * MINUTE);
    expect(gaps(stops.sentMs)[0]).toBeGreaterThanOrEqual(ASKED_MS);
    expect(world.item(id).state).toBe("active");
    stops.on = false;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", ASKED_MS + MINUTE);
    expect(stops.sentMs).toHaveLength(3);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("lease: Worker: is sent at that time while the lease that was taken for it is renewed", async () => {
    const { world, id } = await withDyingSession("Worker");
    const stops = refusing(world, "stop");
    await world.until("a stop was refused", () => stops.sentMs.length > 0, 5 * MINUTE);
    stops.on = false;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", ASKED_MS + MINUTE);
    expect(stops.sentMs).toHaveLength(2);
    expect(gaps(stops.sentMs)[0]).toBeGreaterThanOrEqual(ASKED_MS);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("lease: Worker: respects repeated Retry-After answers, and its session runs once", async () => {
    const { world, id } = await withDyingSession("Worker");
    const stops = refusing(world, "stop");
    await world.until("a stop was refused", () => stops.sentMs.length > 0, 5 * MINUTE);
    await world.pass(10 * MINUTE);
    expect(stops.sentMs.length).toBeLessThanOrEqual(6);
    stops.on = false;
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
      10 * MINUTE,
    );
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("does not keep a deleted Environment beyond its drain timeout", async () => {
    const { world, id } = await withDyingSession("Operator");
    const stops = refusing(world, "stop");
    await world.until("a stop was refused", () => stops.sentMs.length > 0, MINUTE);
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.pass(20 * SECOND);
    stops.on = false;
    await world.until("the Environment is gone", () => world.environment === undefined, 2 * MINUTE);
    expect(world.item(id).state).toBe("stopped");
    holdsTrue(world);
  });
});

test("the list for an item to settle respects Retry-After once the lease has lapsed", async () => {
  const { world, id } = await withDyingSession("Worker");
  await world.until("no container runs", () => world.node.running.size === 0);
  // The item returns to the queue meanwhile, and must not run again here.
  world.patchEnvironment({ spec: { paused: true } });
  const lists = refusing(world, "list");
  await world.pass(10 * MINUTE);
  // Once in time for the lease, then as requested.
  const [first = 0, ...others] = gaps(lists.sentMs);
  expect(first).toBeLessThan(40 * SECOND);
  expect(others.length).toBeGreaterThan(3);
  for (const gapMs of others) expect(gapMs).toBeGreaterThanOrEqual(ASKED_MS);
  lists.on = false;
  await world.until("no claim is left", () => world.claims.length === 0, ASKED_MS + MINUTE);
  world.patchEnvironment({ spec: { paused: false } });
  world.fate = () => ({ startError: false, program: "stock", servesMs: SECOND });
  await world.until("the item is stopped", () => world.item(id).state === "stopped", 2 * MINUTE);
  holdsTrue(world);
});

// A heartbeat follows each failed stop, and its answer triggers the decision to stop again.
test.each([429, 500, 503])(
  "backs off from a stop that is answered with %i, whatever heartbeats return meanwhile",
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
    await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  },
);
