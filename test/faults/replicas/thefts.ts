import { isAlreadyExists } from "../../../src/kube/errors.ts";
import { LEASES, type Lease, type LeaseSpec } from "../../../src/kube/resource.ts";
import type { Replica } from "./replica.ts";
import { pause, type ReplicaWorld } from "./replica-world.ts";
import { between, type Scenario, scenario, seedOf } from "./scenario.ts";

/** What a client with the right to write Leases does to a held one. No replica may do any of this. */
interface Theft {
  readonly what: string;
  readonly long?: boolean;
  readonly act: (world: ReplicaWorld, lease: Lease, other: Replica) => Promise<void>;
}

/** Merges into the Lease's spec. */
async function patchSpec({ world }: ReplicaWorld, { metadata }: Lease, spec: Record<string, unknown>): Promise<void> {
  await world.kube.patch(LEASES, refOf(metadata), { spec }, { type: "merge" });
}

function refOf({ namespace, name = "" }: Lease["metadata"]) {
  return { namespace, name };
}

async function remove({ world }: ReplicaWorld, { metadata }: Lease): Promise<void> {
  await world.kube.delete(LEASES, refOf(metadata));
}

/** Creates the Lease, or changes it if its holder has created it again in the meantime. */
async function create(world: ReplicaWorld, lease: Lease, spec: LeaseSpec): Promise<void> {
  const { name = "", labels = {} } = lease.metadata;
  const { kube, namespace } = world.world;
  try {
    await kube.create(LEASES, { metadata: { namespace, name, labels }, spec });
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    await patchSpec(world, lease, { ...spec });
  }
}

const THIEF = { holderIdentity: "thief", leaseDurationSeconds: 5 };
const LONG_AGO = "1999-01-01T00:00:00.000000Z";
const FAR_FUTURE = "2999-01-01T00:00:00.000000Z";
const MAX_INT32 = 2 ** 31 - 1;
/** Another client's finalizer on a Lease. */
const FINALIZER = "example.com/kept";

const THEFTS: readonly Theft[] = [
  {
    what: "is given to a thief, renewed in the far future",
    long: true,
    act: (world, lease) => patchSpec(world, lease, { ...THIEF, renewTime: FAR_FUTURE }),
  },
  {
    what: "is given to a thief, last renewed long ago, with as many transitions as there can be",
    long: true,
    act: (world, lease) => patchSpec(world, lease, { ...THIEF, renewTime: LONG_AGO, leaseTransitions: MAX_INT32 }),
  },
  {
    what: "is given to the other replica, which has not asked for it",
    act: (world, lease, other) => patchSpec(world, lease, { holderIdentity: other.identity }),
  },
  {
    what: "is released behind its holder's back",
    long: true,
    act: (world, lease) => patchSpec(world, lease, { holderIdentity: "", leaseDurationSeconds: 1 }),
  },
  {
    what: "is deleted",
    act: remove,
  },
  {
    what: "is deleted and created again by a thief",
    long: true,
    act: async (world, lease) => {
      await remove(world, lease);
      await create(world, lease, THIEF);
    },
  },
  {
    what: "loses its whole spec and its labels",
    long: true,
    act: async ({ world }, { metadata }) => {
      const labels = Object.fromEntries(Object.keys(metadata.labels ?? {}).map((name) => [name, null]));
      await world.kube.patch(LEASES, refOf(metadata), { metadata: { labels }, spec: null }, { type: "merge" });
    },
  },
  {
    what: "gets a holder of odd characters and a duration of one second",
    long: true,
    act: (world, lease) =>
      patchSpec(world, lease, { holderIdentity: "\u202e 'thief'\n{}", leaseDurationSeconds: 1, acquireTime: null }),
  },
  {
    what: "is deleted and held back by a finalizer",
    long: true,
    act: async (world, lease) => {
      const { kube } = world.world;
      await kube.patch(LEASES, refOf(lease.metadata), { metadata: { finalizers: [FINALIZER] } }, { type: "merge" });
      await remove(world, lease);
      await pause(3_000);
      await kube.patch(LEASES, refOf(lease.metadata), { metadata: { finalizers: null } }, { type: "merge" });
    },
  },
];

/** Tampering with the leader's Lease under load. Whichever replica leads afterwards, every item is served once. */
function theftOf({ what, long, act }: Theft): Scenario {
  return scenario({
    name: `the leader's Lease ${what}`,
    long,
    async act(world, random) {
      const leader = await world.replica();
      await world.untilHeldBy(leader);
      const other = await world.replica();
      world.load({ ratePerSecond: 0.7, durationSeconds: 25, seed: seedOf(random) });
      await world.untilServing(leader);
      for (let time = 0; time < 2; time += 1) {
        await pause(between(random, 0, 3_000));
        const [lease] = await world.leases();
        if (lease) await act(world, lease, other);
        await world.until("one of the two leads", async () => {
          const holders = new Set((await world.many.holders()).values());
          return [leader, other].some(({ identity }) => holders.has(identity));
        });
      }
    },
  });
}

const heldByThief = scenario({
  name: "a thief keeps the Lease for long: no replica acts until it has expired",
  async act(world, random) {
    const leader = await world.replica();
    await world.untilHeldBy(leader);
    const other = await world.replica();
    world.load({ ratePerSecond: 1, durationSeconds: 15, seed: seedOf(random) });
    await world.untilServing(leader);
    const [lease] = await world.leases();
    if (!lease) throw new Error("there is no Lease");
    await patchSpec(world, lease, { holderIdentity: "thief", leaseDurationSeconds: 20 });
    await world.until("the leader finds out", () => leader.said("leadership lost"));
    // Its earlier requests have arrived by then.
    const looks = leader.looks;
    await world.until("it looks again", () => leader.looks > looks);
    await Promise.all([world.expectSilent(leader, 2), world.expectSilent(other, 2)]);
  },
});

const replicaLeases = scenario({
  name: "Leases of replicas are stolen, deleted and made up: shards go to those who are there",
  long: true,
  world: { shards: 2, environments: 3 },
  async act(world, random) {
    const replicas = [await world.replica(), await world.replica()] as const;
    await world.untilHeldBy(...replicas);
    world.load({ ratePerSecond: 0.4, durationSeconds: 30, seed: seedOf(random) });
    const { kube, namespace } = world.world;
    const { items } = await kube.list(LEASES, { namespace, labelSelector: "berth.dev/lease=replica" });
    const [first, second] = items as [Lease, Lease];
    await patchSpec(world, first, { ...THIEF, leaseDurationSeconds: 60 });
    await remove(world, second);
    for (let one = 0; one < 5; one += 1) {
      const metadata = { namespace, name: `made-up-${one}`, labels: second.metadata.labels ?? {} };
      const spec = { holderIdentity: `made-up-${one}`, leaseDurationSeconds: 25, renewTime: FAR_FUTURE };
      await kube.create(LEASES, { metadata, spec } as Lease);
    }
    await pause(between(random, 0, 5_000));
    // Its shards are free now, and the made-up holders take none.
    await replicas[0].process.kill();
    await world.untilHeldBy(replicas[1]);
  },
});

const foreign = scenario({
  name: "a Lease of another number of shards is made up: who leads goes on, and who comes next waits until it has run out",
  long: true,
  world: { shards: 2, environments: 3 },
  async act(world, random) {
    const replicas = [await world.replica(), await world.replica()] as const;
    await world.untilHeldBy(...replicas);
    world.load({ ratePerSecond: 0.4, durationSeconds: 40, seed: seedOf(random) });
    const { kube, namespace } = world.world;
    const labels = { "berth.dev/lease": "shard", "berth.dev/shards": "9" };
    const metadata = { namespace, name: "berth-0-of-9", labels };
    await kube.create(LEASES, { metadata, spec: { ...THIEF, leaseDurationSeconds: 30 } } as Lease);
    await replicas[0].process.kill();
    await world.until("the other replica logs what it waits for", () =>
      replicas[1].said(
        "a replica with another --shards value holds a Lease; this replica takes no shard until it has ended",
      ),
    );
    await kube.delete(LEASES, { namespace, name: metadata.name });
    await world.untilHeldBy(replicas[1]);
  },
});

export const THEFTS_OF_LEASES: readonly Scenario[] = [...THEFTS.map(theftOf), heldByThief, replicaLeases, foreign];
