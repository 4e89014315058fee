import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const MINUTE = 60_000;

/**
 * A world whose operator loses its permission to patch Secrets between two claims. `refused` gets the times of its
 * tries.
 */
async function withoutPatch(sessions: Record<string, unknown>, seed = 1, refused: number[] = []) {
  const world = new LoopWorld({ seed, sessions: { maxConcurrent: 4, warm: 1, ...sessions } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  operator.kube.intercept.push(({ verb, plural }) => {
    if (verb !== "patch" || plural !== "secrets") return;
    refused.push(world.clock.monotonic());
    throw refusal(403, "Forbidden", 'secrets "x" is forbidden: no leave');
  });
  return { world, giveBack: () => operator.kube.intercept.splice(0) };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe.each([
  // The first heartbeat never comes.
  ["Worker", "silent"],
  // The program works for an hour.
  ["Operator", "plain"],
] as const)("lease: %s: an opening whose earlier duplicate took effect", (lease, program) => {
  test("meets a conflict, and its container runs for its allowed time", async () => {
    const sessions = { lease, warm: 1, firstBeatTimeoutSeconds: 60, maxDurationSeconds: 300 };
    const fate = () => ({ startError: false, program, servesMs: 60 * MINUTE });
    const world = new LoopWorld({ sessions, fate });
    world.createEnvironment();
    const operator = world.startOperator();
    await world.until("a parked Pod", () => world.parked.length > 0);
    let twins = 0;
    operator.kube.intercept.push(({ verb, plural, name, body }) => {
      if (verb !== "patch" || plural !== "secrets" || twins > 0) return;
      twins += 1;
      world.server.patch(SECRETS, NAMESPACE, name, body);
    });
    const id = world.enqueue();
    await world.until("the container runs", () => world.node.running.size === 1, MINUTE);
    expect(twins).toBe(1);
    await world.until("no container runs", () => world.node.running.size === 0, 10 * MINUTE);
    await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    holdsTrue(world);
  });
});

describe.each(["Worker", "Operator"] as const)("lease: %s: a claim whose Secret may not be patched", (lease) => {
  test("settles after a while, and Ready and an Event name the missing permission", async () => {
    const { world } = await withoutPatch({ lease });
    const id = world.enqueue();
    await world.until(
      "Ready names the missing permission",
      () => world.conditionOf("Ready")?.message.includes("permission to patch Secrets") === true,
    );
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
    await world.until("its claim is settled", () => world.claims.length === 0, MINUTE);
    expect(world.told.find((words) => words.startsWith("StartFailed"))).toContain("permission to patch Secrets");
    expect(world.node.running.size).toBe(0);
    holdsTrue(world);
  });

  test("settles before its item would be requeued, however long the pauses are", async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const { world } = await withoutPatch({ lease }, seed);
      const id = world.enqueue();
      await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
      expect(world.item(id).acks, `seed ${seed}`).toHaveLength(1);
      holdsTrue(world);
    }
  });

  test("returns to the queue with onPodFailure: Release, and is served once the permission is back", async () => {
    const { world, giveBack } = await withoutPatch({ lease, onPodFailure: "Release" });
    const id = world.enqueue();
    await world.until(
      "the acknowledged item is queued again",
      () => world.item(id).acks.length > 0 && world.item(id).state === "queued",
      10 * MINUTE,
    );
    giveBack();
    await world.until("everything is settled", () => world.isSettled, 60 * MINUTE);
    holdsTrue(world);
  });

  test("costs only a few items of the queue, and the rest are served once the permission is back", async () => {
    const { world, giveBack } = await withoutPatch({ lease });
    const ids = Array.from({ length: 12 }, () => world.enqueue());
    await world.until(
      "starts fail",
      () => world.conditionOf("SessionsStarting")?.reason === "StartsFailing",
      10 * MINUTE,
    );
    expect(world.conditionOf("SessionsStarting")?.message).toContain("permission to patch Secrets");
    await world.pass(3 * MINUTE);
    expect(ids.filter((id) => world.item(id).state === "stopped").length).toBeLessThanOrEqual(6);
    giveBack();
    await world.until("all items are served and settled", () => world.isSettled, 60 * MINUTE);
    holdsTrue(world);
  });

  test("lets the next item be claimed two minutes after the last failed opening, and not earlier", async () => {
    const refused: number[] = [];
    const { world } = await withoutPatch({ lease }, 1, refused);
    const ids = [world.enqueue(), world.enqueue()];
    const claimed = () => ids.filter((id) => world.item(id).acks.length > 0).length;
    await world.until("one item is claimed", () => claimed() === 1, MINUTE);
    await world.until("two items are claimed", () => claimed() === 2, 10 * MINUTE);
    const tries = [...refused, world.clock.monotonic()];
    const longestPauseMs = Math.max(...tries.slice(1).map((ms, n) => ms - (tries[n] ?? 0)));
    expect(longestPauseMs).toBeGreaterThanOrEqual(DEFAULT_TIMING.restartMs);
    holdsTrue(world);
  });

  test("is opened if the permission returns soon", async () => {
    const { world, giveBack } = await withoutPatch({ lease });
    const id = world.enqueue();
    await world.until("the item is claimed", () => world.item(id).acks.length > 0);
    await world.pass(10_000);
    giveBack();
    await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
    expect(world.told.some((words) => words.startsWith("SessionStarted"))).toBe(true);
    holdsTrue(world);
  });
});

test("backs off when the answer to an opening was lost together with the permission", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 } });
  world.createEnvironment();
  const refused: number[] = [];
  let sent = false;
  const operator = world.startOperator();
  operator.kube.intercept.push(({ verb, plural, name, body }) => {
    if (plural !== "secrets" || name === "key" || (!sent && verb !== "patch")) return;
    if (!sent) {
      sent = true;
      world.server.patch(SECRETS, NAMESPACE, name, body);
      throw refusal(504, "Timeout", "no answer");
    }
    if (verb !== "get" && verb !== "patch") return;
    refused.push(world.clock.monotonic());
    throw refusal(403, "Forbidden", 'secrets "x" is forbidden: no leave');
  });
  const id = world.enqueue();
  await world.until("the container runs", () => world.item(id).state === "active", MINUTE);
  await world.pass(5 * MINUTE);
  expect(refused.length).toBeGreaterThan(5);
  expect(refused.length).toBeLessThan(40);
  operator.kube.intercept.splice(0);
  await world.until("the claim is settled", () => world.isSettled && world.claims.length === 0, 5 * MINUTE);
  holdsTrue(world);
});
