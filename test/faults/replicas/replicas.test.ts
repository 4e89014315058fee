import { afterAll, describe, expect, test, vi } from "vitest";
import { seededRandom } from "../../../testbed/node/latency.ts";
import { useCluster } from "../../support/cluster.ts";
import { readFaultSettings } from "../support/settings.ts";
import { CLOCKS } from "./clocks.ts";
import { TWO_CLUSTERS } from "./clusters.ts";
import { PARTITIONS } from "./partitions.ts";
import { PAUSES } from "./pauses.ts";
import type { Scenario } from "./scenario.ts";
import { THEFTS_OF_LEASES } from "./thefts.ts";
import { ROLLING_UPGRADES } from "./upgrades.ts";

/**
 * Most of a scenario is waiting for a Lease to expire, so several run in parallel. Two cores can't bear more: the
 * protocol's limits are seconds of real time, and on a slower machine items are lost that no operator can save.
 */
vi.setConfig({ maxConcurrency: 4 });

const { seed, long } = readFaultSettings();
const cluster = useCluster();

const ALL: readonly Scenario[] = [
  ...PAUSES,
  ...THEFTS_OF_LEASES,
  ...PARTITIONS,
  ...ROLLING_UPGRADES,
  ...TWO_CLUSTERS,
  ...CLOCKS,
];
const SCENARIOS = ALL.filter((scenario) => long || !scenario.long);

let held = 0;

describe.concurrent(`several replicas (seed ${seed})`, () => {
  test.each(SCENARIOS.map(({ name, run }) => [name, run] as const))("%s", async (name, run) => {
    await run(cluster, seededRandom(seed, name));
    held += 1;
  });
});

afterAll(() => {
  console.log(`replica scenarios: ${held} of ${SCENARIOS.length}`);
  expect(new Set(SCENARIOS.map(({ name }) => name)).size).toBe(SCENARIOS.length);
});
