import { expect, test } from "vitest";
import { checkHistory } from "../../sessions/loops/traced-history.ts";
import { readFaultSettings } from "../support/settings.ts";
import { addUp, type Tally, wordsOf } from "./check-trace.ts";

// Runs the whole controller on fakes. A trace costs a hundredth of one on a real API server.

const { seed, long } = readFaultSettings();
const HISTORIES = long ? 1_000 : 50;
/** The first seed. Each run's seed selects its own range of them. */
const FIRST = (seed * 1_000) % 2 ** 31;

test(`in ${HISTORIES} random histories everything that the operator does is a step of the model`, async () => {
  const tallies: Tally[] = [];
  for (let history = FIRST; history < FIRST + HISTORIES; history += 1) {
    tallies.push(
      await checkHistory(history).catch((error: unknown) => {
        throw new Error(`history ${history}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }),
    );
  }
  const tally = addUp(tallies);
  process.stdout.write(`${HISTORIES} histories: ${wordsOf(tally)}`);
  expect(tally.traces).toBeGreaterThan(HISTORIES);
});
