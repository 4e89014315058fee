import type { Random } from "../../../src/core/backoff.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { ReplicaWorld, type ReplicaWorldOptions } from "./replica-world.ts";

/** One thing that can happen to several replicas, in its own world, with the promises that must hold. */
export interface Scenario {
  /** A sentence. */
  readonly name: string;
  /** Only part of the long run. */
  readonly long: boolean;
  /** Rejects if a promise is broken. `random` depends on the run's seed and the scenario's name. */
  readonly run: (cluster: TestCluster, random: Random) => Promise<void>;
}

/** A scenario in a world of replicas. After its actions, `finish` checks every promise. */
export function scenario(parts: {
  readonly name: string;
  readonly long?: boolean | undefined;
  readonly world?: ReplicaWorldOptions;
  readonly act: (world: ReplicaWorld, random: Random) => Promise<void>;
}): Scenario {
  const { name, long = false, world: options = {}, act } = parts;
  return {
    name,
    long,
    async run(cluster, random) {
      await using world = await ReplicaWorld.start(cluster, options);
      try {
        await act(world, random);
        await world.finish();
      } catch (error) {
        const said = error instanceof Error ? error.message : String(error);
        throw new Error(`${said}\n${await world.describe()}`, { cause: error });
      }
    },
  };
}

/** A number from `min` to below `max`. */
export function between(random: Random, min: number, max: number): number {
  return min + (max - min) * random();
}

/** One of these values. */
export function oneOf<T>(random: Random, ...values: readonly [T, ...T[]]): T {
  return values[Math.floor(random() * values.length)] ?? values[0];
}

/** A seed for code that draws its own random numbers. */
export function seedOf(random: Random): number {
  return Math.floor(random() * 2 ** 30);
}
