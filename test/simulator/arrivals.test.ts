import { describe, expect, test } from "vitest";
import { arrivalsSchema, arrivalTimes } from "../../simulator/arrivals.ts";
import { bashScript } from "../../simulator/script.ts";
import { startRig } from "./rig.ts";

const SECOND = 1000;

describe("arrivals", () => {
  test("of kind poisson come at the mean rate, at times that the seed determines", () => {
    const times = (seed: number) => [
      ...arrivalTimes(arrivalsSchema.parse({ kind: "poisson", ratePerSecond: 5, seed, durationSeconds: 200 })),
    ];
    const first = times(42);
    expect(first).toEqual(times(42));
    expect(first).not.toEqual(times(43));
    // About 1000 are expected. The seed is fixed, so the test can't fail by chance.
    expect(first.length).toBeGreaterThan(900);
    expect(first.length).toBeLessThan(1100);
    const gaps = first.slice(1).map((at, index) => at - (first[index] ?? 0));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
    // With exponential gaps, the standard deviation equals the mean.
    expect(Math.sqrt(variance) / mean).toBeGreaterThan(0.85);
    expect(Math.sqrt(variance) / mean).toBeLessThan(1.15);
  });

  test("queue one item each, on the simulator's clock", async () => {
    await using rig = await startRig({ scale: 10 });
    const arrivals = rig.simulator.arrivals(rig.environmentId, { kind: "replay", atSeconds: [20, 0, 10] });
    await rig.clock.advance(0);
    expect(arrivals.arrived).toBe(1);
    await rig.clock.advance(1 * SECOND - 1);
    expect(arrivals.arrived).toBe(1);
    await rig.clock.advance(1);
    expect(arrivals.arrived).toBe(2);
    await rig.clock.advance(1 * SECOND);
    expect(await arrivals.done).toBe(3);
    expect(rig.simulator.stats(rig.environmentId)).toMatchObject({ depth: 3 });
  });

  test("of kind burst come at the same time", async () => {
    await using rig = await startRig();
    const plan = { kind: "burst", size: 10, bursts: 2, everySeconds: 30 } as const;
    const arrivals = rig.simulator.arrivals(rig.environmentId, plan);
    await rig.clock.advance(29 * SECOND);
    expect(arrivals.arrived).toBe(10);
    await rig.clock.advance(1 * SECOND);
    expect(await arrivals.done).toBe(20);
  });

  test("end at their count or when they're stopped", async () => {
    await using rig = await startRig();
    const counted = rig.simulator.arrivals(rig.environmentId, { kind: "poisson", ratePerSecond: 100, count: 7 });
    const endless = rig.simulator.arrivals(rig.environmentId, { kind: "poisson", ratePerSecond: 1 });
    await rig.clock.advance(10 * SECOND);
    expect(await counted.done).toBe(7);
    expect(rig.simulator.stopArrivals(endless.id)).toBe(true);
    const before = await endless.done;
    await rig.clock.advance(60 * SECOND);
    expect(endless.arrived).toBe(before);
    expect(rig.simulator.stopArrivals(endless.id)).toBe(false);
  });

  test("can use a different item each time", async () => {
    await using rig = await startRig();
    const plan = { kind: "burst", size: 2 } as const;
    rig.simulator.arrivals(rig.environmentId, plan, (index) => ({ script: bashScript(`echo ${index}`) }));
    await rig.clock.advance(0);
    const commands = rig.simulator.sessions().map((session) => session.toolCalls[0]?.input.command);
    expect(commands).toEqual(["echo 0", "echo 1"]);
  });

  test("are sessions of which some come back, each with another item", async () => {
    await using rig = await startRig();
    const plan = {
      kind: "burst",
      size: 40,
      returns: { share: 0.5, times: 2, afterSeconds: { min: 60, max: 120 } },
    } as const;
    const arrivals = rig.simulator.arrivals(rig.environmentId, plan, (index) => ({
      script: bashScript(`echo ${index}`),
    }));
    await rig.clock.advance(0);
    const queued = () => rig.simulator.items().filter(({ state }) => state === "queued");
    const serveAll = () => {
      for (const { id } of queued()) rig.simulator.stopItem(id, { force: true });
    };
    serveAll();
    await rig.clock.advance(60 * SECOND - 1);
    expect(queued()).toEqual([]);
    await rig.clock.advance(60 * SECOND + 1);
    const back = arrivals.returned;
    expect(back).toBeGreaterThan(10);
    expect(back).toBeLessThan(30);
    expect(new Set(queued().map(({ sessionId }) => sessionId)).size).toBe(back);
    serveAll();
    await rig.clock.advance(120 * SECOND);
    serveAll();
    await rig.clock.advance(600 * SECOND);
    expect(arrivals.returned).toBe(2 * back);
    const items = rig.simulator.sessions().map(({ workIds }) => workIds.length);
    expect(new Set(items)).toEqual(new Set([1, 3]));
    const [returned] = rig.simulator.sessions().filter(({ workIds }) => workIds.length === 3);
    const prompts = returned?.events.filter(({ type }) => type === "user.message");
    expect(prompts).toHaveLength(3);
  });

  test("are sessions that come back any number of times from a range", async () => {
    await using rig = await startRig();
    const returns = { times: { min: 0, max: 3 }, afterSeconds: 10 } as const;
    rig.simulator.arrivals(rig.environmentId, { kind: "burst", size: 40, returns });
    for (let round = 0; round < 5; round += 1) {
      await rig.clock.advance(10 * SECOND);
      for (const { id, state } of rig.simulator.items())
        if (state === "queued") rig.simulator.stopItem(id, { force: true });
    }
    const items = rig.simulator.sessions().map(({ workIds }) => workIds.length);
    expect(new Set(items)).toEqual(new Set([1, 2, 3, 4]));
  });

  test("are sessions that don't come back after they ended, or after the arrivals were stopped", async () => {
    await using rig = await startRig();
    const plan = { kind: "burst", size: 2, returns: { afterSeconds: 10 } } as const;
    const arrivals = rig.simulator.arrivals(rig.environmentId, plan);
    await rig.clock.advance(0);
    for (const { id } of rig.simulator.items()) rig.simulator.stopItem(id, { force: true });
    rig.simulator.terminateSession(rig.simulator.sessions()[0]?.id ?? "");
    await rig.clock.advance(10 * SECOND);
    expect(arrivals.returned).toBe(1);
    const again = rig.simulator.arrivals(rig.environmentId, plan);
    await rig.clock.advance(0);
    for (const { id } of rig.simulator.items()) rig.simulator.stopItem(id, { force: true });
    expect(rig.simulator.stopArrivals(again.id)).toBe(true);
    await rig.clock.advance(60 * SECOND);
    expect(again.returned).toBe(0);
  });

  test("are rejected if the plan is invalid", async () => {
    await using rig = await startRig();
    const returns = { share: 2, afterSeconds: 1 };
    expect(() => rig.simulator.arrivals(rig.environmentId, { kind: "burst", size: 1, returns })).toThrow();
    expect(() => rig.simulator.arrivals(rig.environmentId, { kind: "poisson", ratePerSecond: 0 })).toThrow();
    expect(() => rig.simulator.arrivals("env_none", { kind: "burst", size: 1 })).toThrow("not found");
  });
});
