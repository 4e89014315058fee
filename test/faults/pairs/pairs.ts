import { afterAll, expect, test } from "vitest";
import { seededRandom } from "../../../simulator/ids.ts";
import { readFaultSettings } from "../support/settings.ts";
import { type History, play } from "./play.ts";
import { FEATURES, type Feature } from "./promises.ts";

const { long: isLong, sample: isSample, seed } = readFaultSettings();

/** All pairs, in a fixed order. */
export const PAIRS: readonly (readonly [Feature, Feature])[] = FEATURES.flatMap((one, index) =>
  FEATURES.slice(index + 1).map((other) => [one, other] as const),
);

/** The share of the pairs in a sampled run. All of them take three minutes of one core. */
const SAMPLED = 1 / 2;
const LOG_LINES = Number(process.env["BERTH_FAULTS_LOG"] ?? 0);

/** The tests of one lease. */
export function describePairs(lease: History["lease"]): void {
  const random = seededRandom(seed);
  const drawn = PAIRS.map((pair) => ({ pair, draw: random(), hasVolumes: random() < 1 / 4 }));
  const both = drawn.flatMap(({ pair, draw, hasVolumes }) => {
    const name = pair.join(" and ");
    if (isLong) return [false, true].map((each) => ({ name, pair, hasVolumes: each }));
    // Each pair with one lease.
    const rank = lease === "Worker" ? draw * 2 : draw * 2 - 1;
    return rank >= 0 && rank < (isSample ? SAMPLED : 1) ? [{ name, pair, hasVolumes }] : [];
  });
  let held = 0;
  test.each(both)(`lease ${lease}: $name, hasVolumes: $hasVolumes`, async ({ pair, hasVolumes }) => {
    await holds({ features: pair, lease, seed, hasVolumes });
    held += 1;
  });
  afterAll(() => console.log(`pairs of features, lease: ${lease}: ${held} of ${both.length} hold`));
}

/** Plays a history. @throws if a promise was broken */
export async function holds(history: History): Promise<void> {
  const { wrongs, log } = await play(history);
  if (wrongs.length > 0 && LOG_LINES > 0) console.log(log.slice(-LOG_LINES).join("\n"));
  expect(wrongs, JSON.stringify(history)).toEqual([]);
}
