import { describe, expect, test } from "vitest";
import { metricValue } from "../../support/metric-value.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const MINUTE = 60_000;

/** A world whose list lags by this time. */
async function behind(ms: number, options: LoopWorldOptions, fate: Partial<ContainerFate> = {}) {
  const base = { startError: false, program: "stock", servesMs: 5_000 } as const;
  const world = new LoopWorld({ ...options, fate: () => ({ ...base, ...fate }) });
  world.api.listBehindMs = () => ms;
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  return { world, operator, id: world.enqueue() };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe.each([500, 2_000, 4_900])("a list that lags by %i ms", (ms) => {
  test.each(["crashes", "killed", "dies"] as const)(
    "a session that %s at once settles and does not run again",
    async (program) => {
      const { world, id } = await behind(ms, { switches: { starting: "expires" } }, { program, servesMs: 100 });
      await world.until(
        "the item is acknowledged and everything is settled",
        () => world.item(id).acks.length > 0 && world.isSettled,
        10 * MINUTE,
      );
      expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
      holdsTrue(world);
    },
  );

  test("a session that served and stopped its item settles within seconds", async () => {
    const { world, id } = await behind(ms, {}, { servesMs: 1_000 });
    await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
    await world.until("everything is settled", () => world.isSettled, 15_000);
    expect(world.sessionReasons).toEqual(["SessionStarted", "Completed"]);
    holdsTrue(world);
  });

  test("a short session that sent a heartbeat does not count as a failed start", async () => {
    const { world } = await behind(ms, {}, { program: "dies", servesMs: 100 });
    await world.until(
      "the item is stopped and everything is settled",
      () => world.isSettled && world.items[0]?.state === "stopped",
      10 * MINUTE,
    );
    expect(await metricValue(world.metrics.startFailures, {})).toBe(0);
    holdsTrue(world);
  });

  test("a lease does not count as lost while the list still shows the item as queued", async () => {
    const { world, id } = await behind(ms, {}, { servesMs: 20_000 });
    await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
    expect(await metricValue(world.metrics.leasesLost, {})).toBe(0);
    holdsTrue(world);
  });

  test("a lease that the next process adopts right after the opening is kept", async () => {
    const { world, operator, id } = await behind(
      ms,
      { sessions: { lease: "Operator" } },
      { program: "plain", servesMs: 3 * MINUTE },
    );
    await world.until("the container runs", () => world.node.running.size === 1, MINUTE);
    operator.kill();
    world.startOperator();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
    await world.until("everything is settled", () => world.isSettled, 15_000);
    expect(world.sessionReasons).toEqual(["SessionStarted", "Completed"]);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("an acknowledgement whose answer was lost is detected, and its session served", async () => {
    const { world, id } = await behind(ms, {});
    world.api.delay = (call) => (call === "ack" ? 1_600 : 0);
    await world.until("the item is acknowledged", () => world.item(id).state === "starting", MINUTE);
    world.api.delay = () => 0;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
    expect(world.item(id).acks).toHaveLength(1);
    holdsTrue(world);
  });

  test("a session past its maximum duration is stopped", async () => {
    const { world, id } = await behind(
      ms,
      { sessions: { maxDurationSeconds: 120 } },
      { program: "stock", servesMs: 60 * MINUTE },
    );
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
      5 * MINUTE,
    );
    expect(world.sessionReasons).toEqual(["SessionStarted", "MaxDuration"]);
    holdsTrue(world);
  });
});

test("list replicas with different lags end no session and stop none twice", async () => {
  const { world, id } = await behind(0, {}, { program: "dies", servesMs: 35_000 });
  world.api.listBehindMs = () => world.random() * 5_000;
  await world.until(
    "the item is acknowledged and everything is settled",
    () => world.item(id).acks.length > 0 && world.isSettled,
    10 * MINUTE,
  );
  expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
  holdsTrue(world);
});
