import { expect, test } from "vitest";
import { shardOf } from "../../src/election/shard-plan.ts";

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
