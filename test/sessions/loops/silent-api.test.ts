import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import { metricValue } from "../../support/metric-value.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** Runs one session whose container starts just before the Work API stops answering for `silentMs`. */
async function silence(silentMs: number, fate: Partial<ContainerFate>, options: LoopWorldOptions = {}) {
  const base = { startError: false, program: "stock", servesMs: 10 * SECOND } as const;
  const world = new LoopWorld({ switches: { starting: "never" }, ...options, fate: () => ({ ...base, ...fate }) });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  // Before the program can send its first heartbeat.
  let silent = false;
  world.api.answer = (call) => {
    if (!silent && call !== "heartbeat") return undefined;
    return json(503, { type: "error", error: { type: "overloaded_error", message: "no answer" } });
  };
  const id = world.enqueue();
  await world.until("the container runs", () => world.node.running.size === 1, MINUTE);
  silent = true;
  await world.pass(silentMs);
  world.api.answer = () => undefined;
  return { world, id, operator };
}

describe("a Work API that does not answer", () => {
  test.each([2, 5, 15])(
    "for %i minutes: a session whose first heartbeat failed in the outage is served",
    async (minutes) => {
      const { world, id } = await silence(minutes * MINUTE, { program: "patient", servesMs: (minutes + 1) * MINUTE });
      await world.until(
        "the item is stopped and everything is settled",
        () => world.item(id).state === "stopped" && world.isSettled,
        2 * MINUTE,
      );
      expect(world.sessionReasons).toEqual(["SessionStarted", "Completed"]);
      expect(await metricValue(world.metrics.startFailures, {})).toBe(0);
      expect([...world.wrongs, ...world.violations]).toEqual([]);
    },
  );

  test("a session that sends no heartbeat after the outage still ends as NoFirstBeat", async () => {
    const { world, id } = await silence(5 * MINUTE, { program: "silent", servesMs: 60 * MINUTE });
    await world.pass(25 * SECOND);
    expect(world.item(id).state).toBe("starting");
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
      2 * MINUTE,
    );
    expect(world.sessionReasons).toContain("NoFirstBeat");
  });

  test("programs that gave up during the outage don't count against their template", async () => {
    const { world, id } = await silence(2 * MINUTE, { program: "crashes", servesMs: 30 * SECOND });
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
    expect(await metricValue(world.metrics.startFailures, {})).toBe(0);
  });

  test("the next process does not count the outage either", async () => {
    const { world, id, operator } = await silence(0, { program: "patient", servesMs: 6 * MINUTE });
    world.api.answer = () => json(503, { type: "error", error: { type: "overloaded_error", message: "no" } });
    await world.pass(20 * SECOND);
    operator.kill();
    world.startOperator();
    await world.pass(5 * MINUTE);
    world.api.answer = () => undefined;
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
      2 * MINUTE,
    );
    expect(world.sessionReasons).toEqual(["SessionStarted", "Completed"]);
  });
});

test("a container that takes long to start is not treated as an outage", async () => {
  const fate = () => ({ startError: false, program: "silent", servesMs: 60 * MINUTE }) as const;
  const world = new LoopWorld({ fate, sessions: { firstBeatTimeoutSeconds: 60 } });
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until("the container runs", () => world.node.running.size === 1, MINUTE);
  await world.until("the item is stopped", () => world.item(id).state === "stopped", 75 * SECOND);
});
