import fc from "fast-check";
import { expect } from "vitest";
import type { TestCluster } from "../../support/cluster.ts";
import { readFaultSettings } from "../support/settings.ts";
import type { Mode } from "./mode.ts";
import { play } from "./play.ts";
import type { Stage } from "./stage.ts";
import { Tally } from "./tally.ts";
import { inTurns } from "./turns.ts";

/** Limit of concurrent sequences, which mostly wait. A busy machine runs fewer. */
const AT_A_TIME = Number(process.env["BERTH_FAULTS_AT_A_TIME"] ?? 16);
/** The number of a single sequence to run. If it fails again, fast-check shrinks it for this long. */
const ONE = process.env["BERTH_FAULTS_SEQUENCE"];
const SHRINKS_MS = 600_000;

/** Progress is printed after this many sequences, because a run takes minutes. */
const TELL_EVERY = 25;

/** With fewer sequences, it means nothing that some kinds of steps never occurred. */
const ENOUGH_FOR_ALL_KINDS = 100;

/**
 * Some steps need a running Pod or a later request, which may be missing. This many kinds may have no effect in a run.
 */
const MOST_IDLE = 5;

/** Far enough apart that the seeds of two runs share no sequence. */
const SEED_STRIDE = 1_000_003;

/**
 * Plays a run's random sequences, prints what they did, and checks that none failed and that every kind of step
 * occurred.
 * @param file the test's own file, as an argument of `npm run test:faults`
 * @param counts the number of sequences of a plain run, of one with `--sample`, and of one with `--long`
 */
export async function runSequences<Kind extends string, Setting extends object, Played extends Stage>(
  mode: Mode<Kind, Setting, Played>,
  cluster: TestCluster,
  { file, counts }: { readonly file: string; readonly counts: Readonly<Record<"plain" | "sample" | "long", number>> },
): Promise<void> {
  const { seed, long, sample } = readFaultSettings();
  const extent = long ? "long" : sample ? "sample" : "plain";
  const count = Number(process.env["BERTH_FAULTS_SEQUENCES"] ?? counts[extent]);
  const indices = ONE === undefined ? Array.from({ length: count }, (_, index) => index) : [Number(ONE)];
  const tally = new Tally(mode.kinds);
  const failures: string[] = [];
  let played = 0;

  /** Plays sequence `index` of this seed; resolves with its failure, or null. */
  const playOne = async (index: number): Promise<string | null> => {
    const ownSeed = (seed * SEED_STRIDE + index) | 0;
    const property = fc.asyncProperty(mode.sequenceWith(mode.kindOf(index)), async (sequence) => {
      tally.sequences += 1;
      await play(mode, cluster, sequence, Math.abs(ownSeed), tally);
    });
    const found = await fc.check(property, {
      seed: ownSeed,
      numRuns: 1,
      endOnFailure: ONE === undefined,
      ...(ONE === undefined ? {} : { interruptAfterTimeLimit: SHRINKS_MS }),
    });
    if (!found.failed) return null;
    const error = found.errorInstance;
    const again = `BERTH_FAULTS_SEQUENCE=${index} npm run test:faults -- --seed ${seed} ${file}`;
    return `sequence ${index}, ${again}\n${error instanceof Error ? error.message : String(error)}`;
  };

  const answers = () => cluster.api.get("/api/v1/namespaces/default");
  const peak = await inTurns(indices.length, { most: AT_A_TIME, answers }, async (turn) => {
    const failure = await playOne(indices[turn] ?? 0);
    played += 1;
    if (played % TELL_EVERY === 0) console.log(`${played} of ${indices.length} sequences played`);
    if (!failure) return;
    console.error(failure);
    failures.push(failure);
  });
  console.log(`at most ${peak} at a time`);
  console.log(tally.text);
  expect(failures.length, `failures, each of which is printed above; the first:\n${failures[0]}`).toBe(0);
  if (indices.length < ENOUGH_FOR_ALL_KINDS) return;
  expect(tally.untaken, "steps that were never taken").toEqual([]);
  expect(tally.idle.length, `kinds without effect: ${tally.idle.join(", ")}`).toBeLessThanOrEqual(MOST_IDLE);
}
