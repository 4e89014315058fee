import { randomInt } from "node:crypto";
import { SEED_IN_CI } from "../../support/ci-seed.ts";

/**
 * The settings of a run. run.ts passes its flags in these variables, because vitest's processes have their own flags.
 */
export interface FaultSettings {
  /** The seed of everything random in a run. The same seed repeats the run, as far as the machine's timing allows. */
  readonly seed: number;
  /** Whether to run the large scopes and the many sequences, which take hours instead of minutes. */
  readonly long: boolean;
  /**
   * Whether to try only one death of each request (before, during or after it, with either lease), chosen by the
   * seed. Deaths in memory are sampled too. There are fewer random sequences, hostile answers and scopes of the model, and
   * there is no soak.
   */
  readonly sample: boolean;
}

/** Variables that run.ts sets. */
export const SEED = "BERTH_FAULTS_SEED";
export const LONG = "BERTH_FAULTS_LONG";
export const SAMPLE = "BERTH_FAULTS_SAMPLE";

/** fast-check and our own generators take 31 bits. */
const MAX_SEED = 2 ** 31;

/**
 * Chooses the seed of a run: the requested one, a fixed one in CI, or a random one.
 * @throws {RangeError} if the text is no seed
 */
export function chooseSeed(asked: string | undefined, ci: boolean): number {
  if (asked === undefined) return ci ? SEED_IN_CI : randomInt(MAX_SEED);
  const seed = /^\d+$/.test(asked) ? Number(asked) : Number.NaN;
  if (!(seed < MAX_SEED))
    throw new RangeError(`--seed must be a whole number from 0 to ${MAX_SEED - 1}, not "${asked}"`);
  return seed;
}

/** Reads the settings of a run from the environment. A file that runs without run.ts gets CI's seed. */
export function readFaultSettings(env: NodeJS.ProcessEnv = process.env): FaultSettings {
  return { seed: chooseSeed(env[SEED], true), long: env[LONG] === "true", sample: env[SAMPLE] === "true" };
}
