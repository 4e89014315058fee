import { expect, test } from "vitest";
import { addUp, type Tally, wordsOf } from "../../faults/traces/check-trace.ts";
import { checkHistory } from "./traced-history.ts";

/** Each history takes about 0.01 s per item. The long run of the fault tests plays more of them (docs/model.md). */
const HISTORIES = 30;
/** Long enough for a busy machine. */
const PATIENCE_MS = 120_000;

test(
  "in random histories every act of the operator is a step of the model",
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
