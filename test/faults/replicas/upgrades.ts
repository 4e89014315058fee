import type { Replica } from "./replica.ts";
import { pause, type ReplicaWorld } from "./replica-world.ts";
import { between, oneOf, type Scenario, scenario, seedOf } from "./scenario.ts";

interface Upgrade {
  readonly what: string;
  readonly long?: boolean;
  readonly lease?: "Operator";
  readonly from: number;
  readonly to: number;
  /** How the old replicas end: in time after SIGTERM, or by SIGKILL shortly after it, when the grace period ends. */
  readonly end: "in time" | "after the grace";
  /** The rollout is reversed halfway. */
  readonly rollback?: boolean;
}

const REPLICAS = 3;

const UPGRADES: readonly Upgrade[] = [
  { what: "one shard, replicas that end in time", long: true, from: 1, to: 1, end: "in time" },
  {
    what: "one shard, replicas that are killed after their grace",
    long: true,
    from: 1,
    to: 1,
    end: "after the grace",
  },
  { what: "from two shards to three, killed after their grace", from: 2, to: 3, end: "after the grace" },
  { what: "from two shards to three and back half-way", long: true, from: 2, to: 3, end: "in time", rollback: true },
  { what: "from three shards to one", long: true, from: 3, to: 1, end: "in time" },
  {
    what: "from one shard to three and back half-way",
    long: true,
    from: 1,
    to: 3,
    end: "after the grace",
    rollback: true,
  },
  { what: "lease: Operator, two shards", long: true, lease: "Operator", from: 2, to: 2, end: "in time" },
  { what: "lease: Operator, from two shards to three", long: true, lease: "Operator", from: 2, to: 3, end: "in time" },
  { what: "lease: Operator, killed", long: true, lease: "Operator", from: 2, to: 2, end: "after the grace" },
];

/** Like a Deployment with maxSurge 1 and maxUnavailable 0: the new replica is ready before an old one ends. */
async function replace(
  world: ReplicaWorld,
  old: Replica,
  shards: number,
  endOf: () => Promise<void>,
): Promise<Replica> {
  const next = await world.replica({ shards });
  await world.until("the new replica is ready", () => next.said("caches are filled"));
  old.process.signal("SIGTERM");
  await endOf();
  await old.process.kill();
  return next;
}

function upgradeOf({ what, long, lease, from, to, end, rollback }: Upgrade): Scenario {
  const environments = Math.max(from, to) === 1 ? 1 : 3;
  return scenario({
    name: `a rolling upgrade under load: ${what}`,
    long,
    world: { shards: from, environments, ...(lease && { lease }) },
    async act(world, random) {
      let running: Replica[] = [];
      for (let one = 0; one < REPLICAS; one += 1) running.push(await world.replica());
      await world.untilWellDivided(from, running);
      world.load({
        ratePerSecond: (lease ? 0.3 : 0.7) / environments,
        durationSeconds: between(random, 30, 40),
        seed: seedOf(random),
      });
      await world.until("sessions run", () => world.many.items.some(({ state }) => state === "active"));

      const roll = async (shards: number, count: number) => {
        for (const old of running.slice(0, count)) {
          const endOf = async () => {
            if (end === "in time") await old.process.ended;
            else await pause(between(random, 0, 400));
          };
          running = [...running.slice(1), await replace(world, old, shards, endOf)];
        }
      };
      if (rollback) {
        await roll(to, oneOf(random, 1, 2));
        await roll(from, REPLICAS);
        await world.untilWellDivided(from, running);
      } else {
        await roll(to, REPLICAS);
        await world.untilWellDivided(to, running);
      }
    },
  });
}

export const ROLLING_UPGRADES: readonly Scenario[] = UPGRADES.map(upgradeOf);
