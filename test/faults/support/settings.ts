import { randomInt } from "node:crypto";
import { SEED_IN_CI } from "../../support/ci-seed.ts";

/** How a run was asked for: run.ts puts its flags into these variables, since vitest's processes have flags of their own. */
export interface FaultSettings {
  /** Of everything that a run draws at random. The same seed makes the same run, as far as the machine's timing allows. */
  readonly seed: number;
  /** The large scopes and the many sequences, which take hours rather than minutes. */
  readonly long: boolean;
  /** Of each request's deaths (before it, on its way, after it, with either lease) one, which the seed chooses; in memory, a part. */
  readonly sample: boolean;
}

/** Variables that run.ts sets. */
export const SEED = "BERTH_FAULTS_SEED";
export const LONG = "BERTH_FAULTS_LONG";
export const SAMPLE = "BERTH_FAULTS_SAMPLE";

/** fast-check and our own generators take 31 bits. */
const MAX_SEED = 2 ** 31;

/** The seed that a run begins with: the one asked for; a fixed one in CI; any other otherwise. @throws {RangeError} no seed. */
export function chooseSeed(asked: string | undefined, ci: boolean): number {
  if (asked === undefined) return ci ? SEED_IN_CI : randomInt(MAX_SEED);
  const seed = /^\d+$/.test(asked) ? Number(asked) : Number.NaN;
  if (!(seed < MAX_SEED))
    throw new RangeError(`--seed must be a whole number from 0 to ${MAX_SEED - 1}, not "${asked}"`);
  return seed;
}

/** Reads the settings of a run from the environment. Files that are run without run.ts get the seed of CI. */
export function readFaultSettings(env: NodeJS.ProcessEnv = process.env): FaultSettings {
  return { seed: chooseSeed(env[SEED], true), long: env[LONG] === "true", sample: env[SAMPLE] === "true" };
}
