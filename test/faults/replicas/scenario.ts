import type { Random } from "../../../src/core/backoff.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { ReplicaWorld, type ReplicaWorldOptions } from "./replica-world.ts";

/** One thing that can happen to several replicas, in a world of its own, and what is promised of it. */
export interface Scenario {
  /** A sentence. */
  readonly name: string;
  /** Run in the long run only. */
  readonly long: boolean;
  /** Rejects where a promise is broken. `random` is the scenario's own, by the run's seed and its name. */
  readonly run: (cluster: TestCluster, random: Random) => Promise<void>;
}

/** A scenario in a world of replicas: what happens, and then `finish`, which holds every promise against it. */
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

/** One of these. */
export function oneOf<T>(random: Random, ...values: readonly [T, ...T[]]): T {
  return values[Math.floor(random() * values.length)] ?? values[0];
}

/** A seed for what draws its own numbers. */
export function seedOf(random: Random): number {
  return Math.floor(random() * 2 ** 30);
}
