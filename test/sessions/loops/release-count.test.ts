import { describe, expect, test } from "vitest";
import { ANNOTATION_RELEASES } from "../../../src/api/names.ts";
import { MOST_RELEASES } from "../../../src/claims/releases.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { refusal } from "./api-server.ts";
import type { KubeRequest } from "./kube.ts";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** A world whose containers would run for hours; a test kills them. */
function releasing(sessions: Record<string, unknown>, worldOptions: { seed?: number } = {}) {
  const world = new LoopWorld({
    ...worldOptions,
    // Hours of quiet with a poll every second would take long to simulate.
    timing: { pollIdleGapMs: 10 * SECOND },
    sessions: { maxConcurrent: 2, warm: 1, onPodFailure: "Release", retainFailedSeconds: 3_600, ...sessions },
    fate: () => ({
      startError: false,
      program: sessions["lease"] === "Operator" ? "plain" : "stock",
      servesMs: 9 * HOUR,
    }),
  });
  world.createEnvironment();
  return world;
}

/** The counted items. */
const records = (world: LoopWorld) => world.environment?.metadata.annotations?.[ANNOTATION_RELEASES]?.split(",") ?? [];

const isCount = ({ plural, body }: KubeRequest) =>
  plural === "environments" && JSON.stringify(body ?? null).includes(ANNOTATION_RELEASES);

/** Waits for the item's container, and kills it after this time. False: the item is already stopped. */
async function killNext(world: LoopWorld, id: string, afterMs: number): Promise<boolean> {
  await world.until(
    "the container runs, or the item is stopped",
    () => world.node.running.size > 0 || world.item(id).state === "stopped",
    10 * MINUTE,
  );
  const [running] = world.node.running;
  if (!running) return false;
  await world.pass(afterMs);
  world.node.kill(running.pod);
  await world.until("no container runs", () => world.node.running.size === 0, MINUTE);
  return true;
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

const VARIANTS = [
  { lease: "Worker", retainFailedSeconds: 0, restarts: false },
  { lease: "Worker", retainFailedSeconds: 3_600, restarts: true },
  { lease: "Operator", retainFailedSeconds: 0, restarts: true },
  { lease: "Operator", retainFailedSeconds: 3_600, restarts: false },
] as const;

describe("onPodFailure: Release, with a session whose Pod dies every 25 minutes", () => {
  test.each(VARIANTS)(
    "acknowledges its item four times in 8 hours: $lease, retainFailedSeconds $retainFailedSeconds, restarts: $restarts",
    async ({ lease, retainFailedSeconds, restarts }) => {
      const world = releasing({ lease, retainFailedSeconds });
      let operator = world.startOperator();
      await world.until("a parked Pod", () => world.parked.length > 0);
      const id = world.enqueue();
      while (world.clock.monotonic() < 8 * HOUR && (await killNext(world, id, 25 * MINUTE))) {
        await world.until(
          "the item is no longer active, or a container runs",
          () => world.item(id).state !== "active" || world.node.running.size > 0,
          10 * MINUTE,
        );
        // An operator that is killed after the last release would not report it.
        if (!restarts || world.item(id).state === "stopped") continue;
        operator.kill();
        operator = world.startOperator();
      }
      await world.pass(Math.max(0, 8 * HOUR - world.clock.monotonic()));
      expect(world.item(id).acks).toHaveLength(1 + MOST_RELEASES);
      expect(world.item(id).state).toBe("stopped");
      expect(world.claims).toEqual([]);
      const last = world.told.findLast((words) => words.includes(id));
      expect(last).toContain(`was released ${MOST_RELEASES} times`);
      expect(records(world).length).toBe(1);
      holdsTrue(world);
    },
  );
});

test.each(["Worker", "Operator"])(
  "an item whose stops are answered with 409 runs three times, and then is stopped without a Pod: %s",
  async (lease) => {
    const world = new LoopWorld({ sessions: { maxConcurrent: 2, warm: 1, lease, retainFailedSeconds: 0 } });
    world.createEnvironment();
    const operator = world.startOperator();
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.api.answer = (call) =>
      call === "stop" ? { status: 409, body: { error: { type: "conflict_error", message: "stopped" } } } : undefined;
    const id = world.enqueue();
    await world.pass(7 * MINUTE);
    operator.kill();
    world.startOperator();
    await world.pass(23 * MINUTE);
    expect(world.told.filter((words) => words.startsWith("SessionStarted"))).toHaveLength(MOST_RELEASES);
    world.api.answer = () => undefined;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
    expect(world.told.filter((words) => words.startsWith("StopIgnored"))).not.toEqual([]);
    holdsTrue(world);
  },
);

test("an operator that dies between the count and the end of the claim counts once", async () => {
  const world = releasing({ lease: "Operator" });
  let operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  for (let death = 1; death <= MOST_RELEASES; death += 1) {
    await world.until("the container runs", () => world.node.running.size > 0, 10 * MINUTE);
    operator.kube.intercept.push(({ verb, plural, name }) => {
      if (verb === "delete" && plural === "secrets" && world.claims.some(({ metadata }) => metadata.name === name))
        throw refusal(500, "InternalError", "not now");
    });
    await killNext(world, id, MINUTE);
    await world.until("the item is queued again", () => world.item(id).generation === death + 1, 10 * MINUTE);
    await world.until("the release is counted", () => records(world).length > 0 && world.claims.length > 0, MINUTE);
    await world.pass(5 * SECOND);
    operator.kill();
    operator = world.startOperator();
  }
  expect(await killNext(world, id, MINUTE)).toBe(true);
  await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
  expect(world.item(id).acks).toHaveLength(1 + MOST_RELEASES);
  holdsTrue(world);
});

test("a count that can't be written delays the next claim, and the limit still holds", async () => {
  const world = releasing({ lease: "Operator" });
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  let refusedMs: number | undefined;
  operator.kube.intercept.push((request) => {
    if (!isCount(request)) return;
    refusedMs ??= world.clock.monotonic();
    throw refusal(500, "InternalError", "not now");
  });
  const id = world.enqueue();
  await killNext(world, id, MINUTE);
  await world.until("the item is acknowledged again", () => world.item(id).acks.length === 2, 10 * MINUTE);
  expect(world.clock.monotonic()).toBeGreaterThanOrEqual((refusedMs ?? Infinity) + DEFAULT_TIMING.stepPatienceMs);
  while (await killNext(world, id, MINUTE)) {
    const { generation } = world.item(id);
    const isOver = () => world.item(id).generation > generation || world.item(id).state === "stopped";
    await world.until("the item is queued again or stopped", isOver, 10 * MINUTE);
  }
  expect(world.item(id).acks).toHaveLength(1 + MOST_RELEASES);
  expect(records(world)).toEqual([]);
  holdsTrue(world);
});

test("many items that are released at once are counted in few requests", async () => {
  const world = releasing({ lease: "Operator", maxConcurrent: 40, warm: 40 });
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 40);
  for (let n = 0; n < 40; n += 1) world.enqueue();
  await world.until("all containers run", () => world.node.running.size === 40, 5 * MINUTE);
  await world.pass(MINUTE);
  let requests = 0;
  operator.kube.intercept.push((request) => {
    if (isCount(request)) requests += 1;
  });
  // Releases that come while a request is under way share the next one.
  operator.kube.delay = (request) => (isCount(request) ? 500 : 0);
  for (const { pod } of world.node.running) world.node.kill(pod);
  await world.until(
    "all items are queued again",
    () => world.items.every(({ generation }) => generation === 2),
    10 * MINUTE,
  );
  await world.until("all containers run again", () => world.node.running.size === 40, 10 * MINUTE);
  expect(records(world)).toHaveLength(40);
  expect(requests).toBeLessThan(10);
  holdsTrue(world);
});
