import { afterAll, describe, test, vi } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { caseName, chosen, SESSION_CASES } from "./support/cases.ts";
import { crash } from "./support/crash.ts";
import { scenarioOf } from "./support/scenarios.ts";

/** Most of a case is waiting for leases, windows and grace periods, so two cores can run this many at a time. */
vi.setConfig({ maxConcurrency: 12 });

const cluster = useCluster();

const cases = chosen(SESSION_CASES);
let survived = 0;

describe.concurrent("an operator in sessions mode killed by SIGKILL loses, repeats and leaves behind nothing", () => {
  test.each(cases.map((each) => [caseName(each), each] as const))("%s", async (_name, each) => {
    await crash(cluster, scenarioOf(each.scenario, each.lease), each);
    survived += 1;
  });
});

afterAll(() => console.log(`crash points, sessions: ${survived} of ${cases.length} survived`));
