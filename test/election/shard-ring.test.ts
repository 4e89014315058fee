import { randomInt } from "node:crypto";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { CI_SEED } from "../support/ci-seed.ts";
import { metricValue } from "../support/metric-value.ts";
import { LeaseWorld, type Replica } from "./simulated-replicas.ts";

const seed = CI_SEED.seed ?? randomInt(2 ** 31 - 1);
const worlds: LeaseWorld[] = [];

function world(from = seed): LeaseWorld {
  const one = new LeaseWorld(seededRandom(from));
  worlds.push(one);
  return one;
}

afterEach(async () => {
  for (const one of worlds.splice(0)) await one.end();
});

const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);

/** Whether every shard is held, and the numbers of shards differ by at most one. */
function isFair(one: LeaseWorld, shards: number): boolean {
  const { parts } = one;
  return sum(parts) === shards && Math.max(...parts) - Math.min(...parts) <= 1;
}

describe(`fair parts (seed ${seed})`, () => {
  test.each([1, 2, 3, 4, 5].flatMap((replicas) => [1, 2, 3, 8, 16].map((shards) => [replicas, shards] as const)))(
    "%i replicas divide %i shards fairly, and then nothing moves",
    async (replicas, shards) => {
      const one = world();
      for (let i = 0; i < replicas; i += 1) one.start(shards);
      await one.until("fair parts", () => isFair(one, shards));
      // Late moves would have begun by now.
      await one.pass(15_000);
      const terms = sum(one.replicas.map((replica) => replica.terms.length));
      await one.pass(120_000, 1_000);
      expect(isFair(one, shards)).toBe(true);
      expect(sum(one.replicas.map((replica) => replica.terms.length))).toBe(terms);
    },
  );

  test("a new replica gets its part, each shard is given up in order, and nothing else moves", async () => {
    const one = world();
    const first = one.start(6);
    await one.until("all held", () => first.open.length === 6);
    first.drainMs = 3_000;
    const second = one.start(6);
    await one.until("halves", () => isFair(one, 6));
    await one.pass(60_000, 1_000);
    expect([first.terms.length, second.terms.length]).toEqual([6, 3]);
    expect(await metricValue(first.metrics.leaderTransitions, { lease: "berth-0-of-6", change: "lost" })).toBe(0);
  });

  test("the shards of a leaving replica are acquired at once, without waiting for its Leases to expire", async () => {
    const one = world();
    const first = one.start(4);
    one.start(4);
    await one.until("halves", () => isFair(one, 4));
    first.stop();
    const tookMs = await one.until("all held again", () => one.replicas[1]?.open.length === 4);
    expect(tookMs).toBeLessThan(10_000);
    expect(one.leaseNames.filter((name) => name.includes("replica"))).toHaveLength(1);
  });

  test("the shards of a killed replica are acquired after the lease duration, and no earlier", async () => {
    const one = world();
    const [first, second, third] = [one.start(6), one.start(6), one.start(6)];
    await one.until("thirds", () => isFair(one, 6));
    first.kill();
    const tookMs = await one.until("all held again", () => second.open.length + third.open.length === 6);
    expect(tookMs).toBeGreaterThan(10_000);
    expect(tookMs).toBeLessThan(25_000);
    await one.until("fair parts", () => isFair(one, 6));
    // Its Leases are eventually deleted.
    await one.until(
      "its Lease is cleared away",
      () => one.leaseNames.filter((name) => name.includes("replica")).length === 2,
    );
  });

  test("surplus replicas stand by", async () => {
    const one = world();
    for (let i = 0; i < 4; i += 1) one.start(2);
    await one.until("two hold one each", () => one.parts.join() === "1,1,0,0");
    const holder = one.replicas.find(({ open }) => open.length > 0) as Replica;
    holder.kill();
    await one.until("another one has it", () => one.parts.join() === "1,1,0");
  });

  test("a shard whose planned owner can't acquire it goes to another replica, and stays there", async () => {
    const one = world();
    const first = one.start(4);
    await one.until("all held", () => first.open.length === 4);
    // A member that never manages to acquire a shard.
    one.put(
      "berth-replica-feedfeed",
      { holderIdentity: "feeble", leaseDurationSeconds: 3_600 },
      { "berth.dev/lease": "replica", "berth.dev/shards": "4" },
    );
    await one.until("two are given up", () => first.open.length === 2);
    await one.until("they are taken back", () => first.open.length === 4);
    const terms = first.terms.length;
    await one.pass(120_000, 1_000);
    expect([first.open.length, first.terms.length]).toEqual([4, terms]);
  });

  test("works without permission to delete Leases; old ones remain", async () => {
    const one = world();
    one.mayDelete = false;
    const [first, second] = [one.start(2), one.start(2)];
    await one.until("halves", () => isFair(one, 2));
    first.kill();
    await one.until("all held again", () => second.open.length === 2);
    await one.pass(120_000, 1_000);
    expect(one.leaseNames.filter((name) => name.includes("replica"))).toHaveLength(2);
    // It does not retry the forbidden delete.
    expect(one.requests.filter(({ verb }) => verb === "delete")).toHaveLength(1);
    second.stop();
    one.start(2);
    await one.until("followed", () => one.parts.join() === "2,0");
  });

  test("reports the held shards and the number of replicas", async () => {
    const one = world();
    const replicas = [one.start(3), one.start(3)];
    await one.until("fair parts", () => isFair(one, 3));
    await one.pass(10_000);
    for (const { metrics, open, ring } of replicas) {
      expect(await metricValue(metrics.replicas, {})).toBe(2);
      expect(ring.held).toEqual(open);
      for (const shard of [0, 1, 2]) {
        expect(await metricValue(metrics.leader, { lease: `berth-${shard}-of-3` })).toBe(open.includes(shard) ? 1 : 0);
      }
    }
  });
});

describe("losing a Lease", () => {
  test("a stolen Lease ends only that shard's term", async () => {
    const one = world();
    const first = one.start(3);
    await one.until("all held", () => first.open.length === 3);
    const labels = one.lease("berth-1-of-3")?.metadata.labels ?? {};
    one.put("berth-1-of-3", { holderIdentity: "thief", leaseDurationSeconds: 3_600 }, labels);
    await one.until("it is lost", () => first.open.length === 2);
    expect(first.terms.filter(({ signal }) => signal.aborted).map(({ shard }) => shard)).toEqual([1]);
  });

  test("all terms end when the API server is away too long, and begin again afterwards", async () => {
    const one = world();
    const first = one.start(3);
    await one.until("all held", () => first.open.length === 3);
    first.weather.failures = 1;
    await one.until("nothing is held", () => first.open.length === 0);
    expect(first.terms.every(({ signal }) => signal.aborted)).toBe(true);
    first.weather.failures = 0;
    await one.until("all held again", () => first.open.length === 3);
  });

  test("a shorter outage ends no term", async () => {
    const one = world();
    const first = one.start(3);
    await one.until("all held", () => first.open.length === 3);
    first.weather.failures = 1;
    await one.pass(4_000);
    first.weather.failures = 0;
    await one.pass(30_000);
    expect(first.terms.map(({ signal }) => signal.aborted)).toEqual([false, false, false]);
  });

  test("a clean stop releases all Leases", async () => {
    const one = world();
    const first = one.start(2);
    await one.until("all held", () => first.open.length === 2);
    first.stop();
    await one.until("released", () => one.lease("berth-0-of-2")?.spec?.holderIdentity === "");
    expect(one.lease("berth-1-of-2")?.spec?.holderIdentity).toBe("");
  });
});

describe("replicas with different numbers of shards", () => {
  test("a replica with a new number of shards waits until all old replicas have gone", async () => {
    const one = world();
    const old = [one.start(1), one.start(1)];
    await one.until("one leads", () => one.parts.join() === "1,0");
    const fresh = [one.start(3), one.start(3)];
    await one.pass(60_000, 500);
    expect(fresh.map(({ terms }) => terms.length)).toEqual([0, 0]);
    for (const replica of old) {
      replica.stop();
      await one.pass(8_000);
    }
    await one.until("the new ones hold all", () => sum(fresh.map(({ open }) => open.length)) === 3);
    // Fair parts soon: no replica is to blame for the time that all shards were free.
    const tookMs = await one.until("fair parts", () => fresh.every(({ open }) => open.length > 0));
    expect(tookMs).toBeLessThan(30_000);
  });

  test("a killed replica with another number of shards blocks only while its Lease lasts", async () => {
    const one = world();
    const old = one.start(3);
    await one.until("all held", () => old.open.length === 3);
    const fresh = one.start(1);
    await one.pass(5_000);
    old.kill();
    const tookMs = await one.until("the new one leads", () => fresh.open.length === 1);
    expect(tookMs).toBeGreaterThan(10_000);
    // The Leases with the old number of shards are deleted.
    await one.until("only one Lease is left", () => one.leaseNames.join() === "berth");
  });

  test("one number of shards wins a simultaneous start, in whatever order the requests arrive", async () => {
    for (let i = 0; i < 20; i += 1) {
      const one = world(seed + i);
      const replicas = [one.start(1), one.start(3)];
      for (const { weather } of replicas) weather.latencyMs = 400;
      await one.until("one replica holds everything", () =>
        replicas.some(({ open, shards }) => open.length === shards),
      );
      await one.pass(10_000);
    }
  });

  test("a holder that resumes after the takeover notices it before it acts", async () => {
    const one = world();
    const old = one.start(1);
    await one.until("it leads", () => old.open.length === 1);
    old.clock.pause();
    const fresh = one.start(2);
    await one.until("the new ones hold all", () => fresh.open.length === 2);
    old.clock.resume();
    one.check();
    await one.pass(60_000);
    expect([old.open.length, old.terms.length, fresh.open.length]).toEqual([0, 1, 2]);
  });

  test("a holder that resumes during the takeover does not get its Lease back by renewing it", async () => {
    for (let i = 0; i < 60; i += 1) {
      const one = world(seed + i);
      const old = one.start(1);
      await one.until("it leads", () => old.open.length === 1);
      old.clock.pause();
      const fresh = one.start(2);
      for (const { weather } of [old, fresh]) weather.latencyMs = 600;
      await one.pass(13_000 + 5_000 * one.random(), 500);
      old.clock.resume();
      await one.pass(15_000);
    }
  });

  test("a Lease deleted by hand counts as held until it would have expired", async () => {
    const one = world();
    const old = one.start(1);
    await one.until("it leads", () => old.open.length === 1);
    const fresh = one.start(2);
    await one.pass(10_000);
    old.clock.pause();
    one.put("berth", null);
    await one.until("the others took over", () => fresh.open.length === 2);
    old.clock.resume();
    await one.pass(20_000);
    expect([old.open.length, fresh.open.length]).toEqual([0, 2]);
  });
});

describe("requests", () => {
  test.each([
    [1, 1],
    [3, 1],
    [3, 3],
    [3, 12],
  ])("%i replicas of %i shards send the requests in docs/high-availability.md", async (replicas, shards) => {
    const one = world();
    for (let i = 0; i < replicas; i += 1) one.start(shards);
    await one.until("fair parts", () => isFair(one, shards));
    await one.pass(20_000);
    const from = one.requests.length;
    await one.pass(300_000, 1_000);
    const counts = new Map<string, number>();
    for (const { by, verb } of one.requests.slice(from))
      counts.set(`${by} ${verb}`, (counts.get(`${by} ${verb}`) ?? 0) + 1);
    const perMinute = (replica: Replica, verb: string) => (counts.get(`${replica.identity} ${verb}`) ?? 0) / 5;
    for (const replica of one.replicas) {
      const held = replica.open.length;
      const renewals = shards === 1 ? 30 * held : 15 * held + 15;
      expect(perMinute(replica, "update")).toBeGreaterThan(renewals * 0.8 - 1);
      expect(perMinute(replica, "update")).toBeLessThan(renewals * 1.1 + 1);
      expect(perMinute(replica, "list")).toBeLessThanOrEqual(shards === 1 && held === 1 ? 1 : 23);
      expect(perMinute(replica, "get") + perMinute(replica, "create")).toBe(0);
    }
  });
});

type Fault =
  | { do: "pass"; ms: number }
  | { do: "start"; shards: number }
  | { do: "stop" | "kill" | "resume"; who: number }
  | { do: "pause"; who: number; suspended: boolean }
  | { do: "clock"; who: number; ms: number }
  | { do: "weather"; who: number; latencyMs: number; lostRequests: number; lostAnswers: number; failures: number };

const who = fc.nat(5);
const chance = fc.constantFrom(0, 0, 0.3, 1);

const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.integer({ min: 200, max: 20_000 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("start" as const), shards: fc.constantFrom(1, 2, 3) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("stop" as const, "kill" as const, "resume" as const), who }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("pause" as const), who, suspended: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("clock" as const), who, ms: fc.integer({ min: 0, max: 60_000 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("weather" as const),
      who,
      latencyMs: fc.constantFrom(20, 500, 4_000, 12_000),
      lostRequests: chance,
      lostAnswers: chance,
      failures: chance,
    }),
  },
);

function apply(one: LeaseWorld, step: Exclude<Fault, { do: "pass" }>): void {
  if (step.do === "start") {
    if (one.alive.length < 5) one.start(step.shards);
    return;
  }
  const replica = one.alive[step.who % Math.max(1, one.alive.length)];
  if (!replica) return;
  if (step.do === "stop") replica.stop();
  else if (step.do === "kill") replica.kill();
  else if (step.do === "resume") replica.clock.resume();
  else if (step.do === "pause") replica.clock.pause(step);
  else if (step.do === "clock") replica.clock.wallOffsetMs += step.ms;
  else Object.assign(replica.weather, step);
}

test("no two replicas act for one Environment under random faults, and fair parts return", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { minLength: 10, maxLength: 40 }), fc.nat(), async (faults, from) => {
      const one = new LeaseWorld(seededRandom(from));
      for (const shards of [1, 3, 3]) one.start(shards);
      for (const step of faults) {
        if (step.do === "pass") await one.pass(step.ms);
        else apply(one, step);
        one.check();
      }
      // The network is calm and one number of shards is left: everything is held, in fair parts.
      for (const replica of one.alive) {
        replica.clock.resume();
        Object.assign(replica.weather, { latencyMs: 20, lostRequests: 0, lostAnswers: 0, failures: 0 });
        replica.stop();
        one.check();
      }
      await one.pass(1_000);
      const last = [one.start(3, "last-a"), one.start(3, "last-b")];
      await one.until("all is held", () => sum(last.map(({ open }) => open.length)) === 3);
      await one.until("fair parts", () => last.every(({ open }) => open.length > 0), 60_000);
      await one.end();
    }),
    { numRuns: 40, ...CI_SEED },
  );
}, 120_000);
