import { beforeEach, describe, expect, test } from "vitest";
import { LeaseAges } from "../../src/election/lease-record.ts";
import {
  readShardLeases,
  replicaLeaseLabels,
  shardLeaseLabels,
  shardLeaseName,
  type ViewOptions,
} from "../../src/election/shard-leases.ts";
import type { Lease } from "../../src/kube/resource.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const VIEW: ViewOptions = { base: "berth", shards: 2, leaseDurationMs: 15_000, deadAfterMs: 60_000 };

let clock: VirtualClock;
let ages: LeaseAges;

beforeEach(() => {
  clock = new VirtualClock();
  ages = new LeaseAges(clock);
});

function lease(name: string, holder: string, labels: Record<string, string>, version = "1"): Lease {
  const spec = { holderIdentity: holder, leaseDurationSeconds: 15 };
  return { metadata: { name, uid: `uid-${name}`, resourceVersion: version, labels }, spec };
}

const shard = (index: number, holder: string, shards = 2, version = "1") =>
  lease(shardLeaseName("berth", index, shards), holder, shardLeaseLabels(shards), version);
const replica = (holder: string, shards = 2, version = "1") =>
  lease(`berth-replica-${holder}`, holder, replicaLeaseLabels(shards), version);

function read(...leases: Lease[]) {
  for (const one of leases) ages.note(one);
  return readShardLeases(leases, ages, VIEW);
}

test("the Lease of a single shard has the plain name", () => {
  expect([shardLeaseName("berth", 0, 1), shardLeaseName("berth", 2, 16)]).toEqual(["berth", "berth-2-of-16"]);
});

describe("readShardLeases", () => {
  test("lists holders and members while they renew", () => {
    expect(read(shard(0, "a"), shard(1, "b"), replica("a"), replica("b"))).toMatchObject({
      holders: ["a", "b"],
      members: ["a", "b"],
      foreign: null,
      dead: [],
    });
  });

  test("shows no holder for a released, missing or expired Lease", () => {
    expect(read(shard(0, "")).holders).toEqual([null, null]);
    read(shard(0, "a"));
    clock.pause(14_999);
    expect(read(shard(0, "a")).holders).toEqual(["a", null]);
    clock.pause(1);
    expect(read(shard(0, "a")).holders).toEqual([null, null]);
    expect(read(shard(0, "a", 2, "2")).holders).toEqual(["a", null]);
  });

  test("drops a replica that let a shard's Lease expire, even if its own Lease was renewed", () => {
    read(shard(0, "a"), replica("a"));
    clock.pause(15_000);
    expect(read(shard(0, "a"), replica("a", 2, "2")).members).toEqual([]);
  });

  test("drops a replica with another number of shards", () => {
    expect(read(replica("a", 3), replica("b")).members).toEqual(["b"]);
  });

  test("reports a held Lease with another number of shards until it is released or expires", () => {
    expect(read(shard(2, "x", 3)).foreign).toEqual({ lease: "berth-2-of-3", holder: "x", shards: "3" });
    expect(read(shard(2, "", 3, "2")).foreign).toBeNull();
    read(shard(0, "x", 1));
    clock.pause(15_000);
    expect(read(shard(0, "x", 1)).foreign).toBeNull();
  });

  test("reports long unchanged Leases as dead, except those of its own shards", () => {
    const all = [shard(0, "a"), shard(0, "x", 1), shard(1, "", 3), replica("gone")];
    read(...all);
    clock.pause(59_999);
    expect(read(...all).dead).toEqual([]);
    clock.pause(1);
    expect(read(...all).dead.map(({ metadata }) => metadata.name)).toEqual([
      "berth-replica-gone",
      "berth",
      "berth-1-of-3",
    ]);
  });

  test("counts a Lease as held when it is first seen, whatever times it contains", () => {
    const old = shard(0, "a");
    old.spec = { ...old.spec, renewTime: "1999-01-01T00:00:00.000000Z" };
    expect(read(old).holders).toEqual(["a", null]);
  });

  test("treats a re-created Lease with the same name and version as a new one", () => {
    read(shard(0, "a"));
    clock.pause(15_000);
    const again = shard(0, "a");
    again.metadata.uid = "another";
    expect(read(again).holders).toEqual(["a", null]);
  });
});
