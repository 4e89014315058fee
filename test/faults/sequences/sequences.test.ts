import fc from "fast-check";
import { expect, test } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { readFaultSettings } from "../support/settings.ts";
import { play } from "./play.ts";
import { KINDS, sequenceWith } from "./steps.ts";
import { Tally } from "./tally.ts";
import { inTurns } from "./turns.ts";

const cluster = useCluster();
const { seed, long } = readFaultSettings();

/** Sequences of a run in CI, and of a long one. */
const COUNT = Number(process.env["BERTH_FAULTS_SEQUENCES"] ?? (long ? 1_000 : 100));
/** Each waits most of the time. On a machine that is busy there are fewer at a time. */
const AT_A_TIME = Number(process.env["BERTH_FAULTS_AT_A_TIME"] ?? 16);
/** One sequence alone, by its number. When it fails again it is made smaller for this long. */
const ONE = process.env["BERTH_FAULTS_SEQUENCE"];
const SHRINKS_MS = 600_000;

/** Of what takes minutes one wants to see that it goes on. */
const TELL_EVERY = 25;

/** Some steps need what is not always there: a Pod that runs, a request to come. So many kinds may find none in a whole run. */
const MOST_IDLE = 5;

/** Far enough apart that the seeds of two runs share no sequence. */
const SEED_STRIDE = 1_000_003;

function again(index: number): string {
  return `BERTH_FAULTS_SEQUENCE=${index} npm run test:faults -- --seed ${seed} sequences`;
}

/** Plays sequence `index` of this seed; resolves with what was wrong. */
async function run(index: number, tally: Tally): Promise<string | null> {
  const kind = KINDS[index % KINDS.length] ?? "work:session";
  const ownSeed = (seed * SEED_STRIDE + index) | 0;
  const property = fc.asyncProperty(sequenceWith(kind), async (sequence) => {
    tally.sequences += 1;
    await play(cluster, sequence, Math.abs(ownSeed), tally);
  });
  const found = await fc.check(property, {
    seed: ownSeed,
    numRuns: 1,
    endOnFailure: ONE === undefined,
    ...(ONE === undefined ? {} : { interruptAfterTimeLimit: SHRINKS_MS }),
  });
  if (!found.failed) return null;
  const error = found.errorInstance;
  return `sequence ${index}, ${again(index)}\n${error instanceof Error ? error.message : String(error)}`;
}

test("nothing that befalls an Environment loses a session, runs one twice, or leaves anything behind", async () => {
  const tally = new Tally();
  const failures: string[] = [];
  let played = 0;
  const indices = ONE === undefined ? Array.from({ length: COUNT }, (_, index) => index) : [Number(ONE)];
  const answers = () => cluster.api.get("/api/v1/namespaces/default");
  const peak = await inTurns(indices.length, { most: AT_A_TIME, answers }, async (turn) => {
    const failure = await run(indices[turn] ?? 0, tally);
    played += 1;
    if (played % TELL_EVERY === 0) console.log(`${played} of ${indices.length} sequences played`);
    if (!failure) return;
    console.error(failure);
    failures.push(failure);
  });
  console.log(`at most ${peak} at a time`);
  console.log(tally.text);
  expect(failures.length, `failures, each of which is printed above; the first:\n${failures[0]}`).toBe(0);
  // A run of a few says nothing of the rest.
  if (COUNT < 100 || ONE !== undefined) return;
  expect(tally.untaken, "steps that were never taken").toEqual([]);
  expect(tally.idle.length, `kinds without effect: ${tally.idle.join(", ")}`).toBeLessThanOrEqual(MOST_IDLE);
});
