import { expect, test } from "vitest";
import { SECRETS } from "../../../src/kube/resource.ts";
import { metricValue } from "../../support/metric-value.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;

/** When the container of an item's Pod ran, in ms since the epoch. The kubelet reports whole seconds. */
function timesOf(world: LoopWorld, workId: string) {
  const pod = world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId);
  const { startedAt = "", finishedAt = "" } = pod?.status?.containerStatuses?.[0]?.state?.terminated ?? {};
  return { startedMs: Date.parse(startedAt ?? ""), finishedMs: Date.parse(finishedAt ?? "") };
}

function served(servesMs: number): LoopWorld & { operator: ReturnType<LoopWorld["startOperator"]> } {
  const world = new LoopWorld({
    sessions: { warm: 2, maxConcurrent: 4, retainEndedSeconds: 3_600 },
    fate: () => ({ startError: false, program: "stock", servesMs }),
  });
  world.createEnvironment();
  return Object.assign(world, { operator: world.startOperator() });
}

test("items of one session are served one after another, even if Pods are free", async () => {
  const world = served(20 * SECOND);
  await world.until("two Pods are parked", () => world.podsOf("warm").length === 2);
  const first = world.enqueue();
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  const other = world.enqueue();
  await world.until("all items are served", () => world.podsOf("ended").length === 3, 300 * SECOND);
  const [one, two, three] = [first, second, other].map((id) => timesOf(world, id));
  expect(two?.startedMs).toBeGreaterThanOrEqual(one?.finishedMs ?? Number.NaN);
  // A different session does not wait.
  expect(three?.startedMs).toBeLessThan(one?.finishedMs ?? Number.NaN);
  expect(await metricValue(world.metrics.claims, { result: "session-runs" })).toBeGreaterThan(0);
  expect(await metricValue(world.metrics.claims, { result: "claimed" })).toBe(3);
});

test("an item that comes just before its session's Pod ends is claimed at its first offer", async () => {
  const world = served(5 * SECOND);
  await world.until("two Pods are parked", () => world.podsOf("warm").length === 2);
  const first = world.enqueue();
  await world.until(
    "the first session has ended",
    () => timesOf(world, first).finishedMs > 0 || world.api.world.item(first).state === "stopped",
  );
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  await world.until("both Pods have finished", () => world.podsOf("ended").length === 2);
  expect(timesOf(world, second).startedMs).toBeGreaterThanOrEqual(timesOf(world, first).finishedMs);
  expect(world.api.world.item(second).offers).toHaveLength(1);
});

test("a new operator detects running sessions and starts none of them again", async () => {
  const world = new LoopWorld({
    sessions: { warm: 2, maxConcurrent: 4, retainEndedSeconds: 3_600 },
    fate: () => ({ startError: false, program: "stock", servesMs: 60 * SECOND }),
  });
  world.createEnvironment();
  const operator = world.startOperator();
  const first = world.enqueue();
  await world.until("the session runs", () => world.item(first).state === "active");
  operator.kill();
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  world.startOperator();
  await world.until("both Pods have finished", () => world.podsOf("ended").length === 2, 300 * SECOND);
  expect(timesOf(world, second).startedMs).toBeGreaterThanOrEqual(timesOf(world, first).finishedMs);
});

test("many items of a running session neither block other sessions nor cause frequent polls", async () => {
  const world = served(120 * SECOND);
  await world.until("two Pods are parked", () => world.podsOf("warm").length === 2);
  const first = world.enqueue();
  await world.until("the session runs", () => world.item(first).state === "active");
  const { id: sessionId } = world.api.world.item(first).data;
  const more = Array.from({ length: 30 }, () => world.enqueue({ sessionId }));
  const other = world.enqueue();
  await world.until("the other session runs", () => world.item(other).state === "active", 10 * SECOND);
  await world.pass(60 * SECOND);
  const offers = more.map((id) => world.item(id).offers.length);
  // Once per reclaim time of our own polls, 15 s.
  expect(Math.max(...offers)).toBeLessThanOrEqual(6);
  expect(more.every((id) => world.item(id).acks.length === 0)).toBe(true);
});

test("a session whose record was deleted does not start again while its Pod is still ending", async () => {
  const world = served(0);
  world.fate = () => ({ startError: false, program: "deaf", servesMs: 600 * SECOND });
  await world.until("two Pods are parked", () => world.podsOf("warm").length === 2);
  const first = world.enqueue();
  await world.until("the session runs", () => world.item(first).state === "active");
  world.operator.kill();
  const name = world.claims[0]?.metadata.name ?? "";
  world.server.delete(SECRETS, NAMESPACE, name);
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  world.startOperator();
  await world.until("the second item is claimed", () => world.item(second).acks.length > 0, 1_200 * SECOND);
  const pod = world.pods.find(({ metadata }) => metadata.name === name);
  expect(pod?.status?.containerStatuses?.[0]?.state?.running).toBeUndefined();
});
