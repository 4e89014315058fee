import { afterAll, describe, test, vi } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { caseName, chosen } from "./support/cases.ts";
import { crash } from "./support/crash.ts";
import { WORKERS_CASES, WORKERS_SCENARIOS } from "./support/workers-scenarios.ts";

vi.setConfig({ maxConcurrency: 4 });

const cluster = useCluster();

const cases = chosen(WORKERS_CASES);
let survived = 0;

describe.concurrent("an operator in workers mode killed by SIGKILL loses, repeats and leaves behind nothing", () => {
  test.each(cases.map((each) => [caseName(each), each] as const))("%s", async (_name, each) => {
    await crash(cluster, WORKERS_SCENARIOS[each.scenario], each);
    survived += 1;
  });
});

afterAll(() => console.log(`crash points, workers: ${survived} of ${cases.length} survived`));
