import { expect, test } from "vitest";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

test("reports Pods that can't be watched in Ready, an Event and the gauge until the watch recovers", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("Ready is True", () => world.conditionOf("Ready")?.status === "True");
  const gauge = () => metricValue(world.metrics.failingSteps, { environment: "research", step: "watch" });
  operator.kube.intercept.push(({ verb, plural }) => {
    if (plural === "pods" && (verb === "watch" || verb === "list")) throw refusal(500, "InternalError", "etcd is down");
  });
  operator.kube.breakWatches("pods");
  await world.pass(40_000);
  expect(world.conditionOf("Ready")?.status).toBe("True");
  await world.pass(15_000);
  expect(world.conditionOf("Ready")).toMatchObject({
    status: "False",
    reason: "StatusOutdated",
    message:
      "Berth misses changes of Pods, because it cannot list or watch them: etcd is down; check that the API server is healthy",
  });
  expect(world.told.filter((words) => words.startsWith("StatusOutdated"))).toHaveLength(1);
  expect(await gauge()).toBe(1);
  operator.kube.intercept.splice(0);
  await world.until("Ready is True", () => world.conditionOf("Ready")?.status === "True", 2 * MINUTE);
  expect(await gauge()).toBe(0);
  const id = world.enqueue();
  await world.until("an item is served", () => world.item(id).state === "stopped", MINUTE);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
