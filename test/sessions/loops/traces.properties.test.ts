import { expect, test } from "vitest";
import { addUp, type Tally, wordsOf } from "../../faults/traces/check-trace.ts";
import { checkHistory } from "./traced-history.ts";

/** Each about a hundredth of a second per item. The long run of the faults plays more of them (docs/model.md). */
const HISTORIES = 30;
/** A busy machine takes long. */
const PATIENCE_MS = 120_000;

test(
  "in random histories everything that the operator does is a step of the model",
  async () => {
    const tallies: Tally[] = [];
    for (let seed = 1; seed <= HISTORIES; seed += 1) {
      tallies.push(
        await checkHistory(seed).catch((error: unknown) => {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
        }),
      );
    }
    const tally = addUp(tallies);
    process.stdout.write(wordsOf(tally));
    expect(tally.traces).toBeGreaterThan(HISTORIES);
  },
  PATIENCE_MS,
);
