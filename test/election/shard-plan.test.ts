import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { planShards, shardOf } from "../../src/election/shard-plan.ts";

describe("planShards", () => {
  test.each([
    ["all shards are free", ["a", "b"], [null, null, null, null], [2, 2]],
    ["one member holds all, another joins", ["a", "b"], ["a", "a", "a", "a"], [2, 2]],
    ["more members than shards", ["a", "b", "c"], ["a", null], [1, 1, 0]],
    ["an odd number of shards", ["a", "b"], ["a", null, null], [2, 1]],
  ] as const)("%s", (_, members, holders, parts) => {
    const plan = planShards({ members, holders });
    expect(
      members
        .map((member) => plan.filter((owner) => owner === member).length)
        .sort()
        .reverse(),
    ).toEqual(parts);
  });

  test("keeps the extra shard with the member that holds most, so that nothing moves needlessly", () => {
    expect(planShards({ members: ["a", "b"], holders: ["b", "a", "b"] })).toEqual(["b", "a", "b"]);
  });

  test("takes every shard from a holder that is not a member", () => {
    expect(planShards({ members: ["a"], holders: ["gone", "a", null] })).toEqual(["a", "a", "a"]);
  });

  test("assigns nothing without members", () => {
    expect(planShards({ members: [], holders: ["x", null] })).toEqual([null, null]);
  });

  const names = ["a", "b", "c", "d", "e"];
  const shares = fc.record({
    members: fc.subarray(names, { minLength: 1 }),
    holders: fc.array(fc.constantFrom(null, ...names, "leaver"), { minLength: 1, maxLength: 16 }),
  });

  test("assigns every shard, balances parts to within one, and ignores the order of members", () => {
    fc.assert(
      fc.property(shares, ({ members, holders }) => {
        const plan = planShards({ members, holders });
        const parts = members.map((member) => plan.filter((owner) => owner === member).length);
        expect(plan).not.toContain(null);
        expect(Math.max(...parts) - Math.min(...parts)).toBeLessThanOrEqual(1);
        expect(planShards({ members: [...members].reverse(), holders })).toEqual(plan);
      }),
    );
  });

  test("makes the same plan again after it was carried out in full or in part", () => {
    fc.assert(
      fc.property(shares, fc.infiniteStream(fc.boolean()), ({ members, holders }, done) => {
        const plan = planShards({ members, holders });
        expect(planShards({ members, holders: plan })).toEqual(plan);
        // Shards are given up first and acquired later. A shard that its planned owner holds does not move.
        const half = holders.map((holder, shard) =>
          holder === plan[shard] || done.next().value ? (plan[shard] ?? null) : null,
        );
        const again = planShards({ members, holders: half });
        for (const [shard, holder] of half.entries()) if (holder !== null) expect(again[shard]).toBe(holder);
      }),
    );
  });

  test("makes no unnecessary moves", () => {
    fc.assert(
      fc.property(shares, ({ members, holders }) => {
        const plan = planShards({ members, holders });
        const moved = holders.filter(
          (holder, shard) => holder !== null && members.includes(holder) && plan[shard] !== holder,
        );
        const most = Math.ceil(holders.length / members.length);
        const least = Math.floor(holders.length / members.length);
        const counts = members.map((member) => holders.filter((holder) => holder === member).length);
        const over = (quota: number) => counts.reduce((sum, count) => sum + Math.max(0, count - quota), 0);
        expect(moved.length).toBeGreaterThanOrEqual(over(most));
        expect(moved.length).toBeLessThanOrEqual(over(least));
      }),
    );
  });
});

test("an Environment's shard is the same in every process and release", () => {
  // Fixed values: with any other result, replicas of two releases would both serve an Environment.
  const keys = ["agents/research", "agents/batch", "default/a", "team-b/research"];
  expect(keys.map((key) => shardOf(key, 3))).toEqual([2, 2, 0, 2]);
  expect(keys.map((key) => shardOf(key, 16))).toEqual([3, 5, 1, 5]);
  expect(keys.map((key) => shardOf(key, 1))).toEqual([0, 0, 0, 0]);
});

test.each([2, 3, 8, 16])("Environments spread evenly over %i shards", (shards) => {
  const count = 4_000;
  const parts = Array.from({ length: shards }, () => 0);
  for (let i = 0; i < count; i += 1) {
    const shard = shardOf(`team-${i % 7}/environment-${i}`, shards);
    parts[shard] = (parts[shard] ?? 0) + 1;
  }
  for (const part of parts) expect(Math.abs(part - count / shards)).toBeLessThan((count / shards) * 0.25);
});
