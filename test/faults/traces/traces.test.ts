import { afterAll, describe, expect, test } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { addUp, type Tally, wordsOf } from "./check-trace.ts";
import { checkScenario, play } from "./run.ts";
import { SCENARIOS } from "./scenarios.ts";

const cluster = useCluster();
const tallies: Tally[] = [];

afterAll(() => {
  process.stdout.write(wordsOf(addUp(tallies)));
});

describe.concurrent("everything that the operator does is a step of the model", () => {
  test.each(SCENARIOS)("$name", async (scenario) => {
    const tally = checkScenario(await play(cluster, scenario), scenario);
    expect(tally.traces).toBeGreaterThan(0);
    tallies.push(tally);
  });
});
