import type { TestCluster } from "../../../support/cluster.ts";
import { startWorld } from "../../../support/world.ts";
import type { CrashCase } from "./cases.ts";
import { startDoomed } from "./doomed.ts";
import { expectEnd, watchRuns } from "./ends.ts";
import { itemsOf, type Scenario } from "./scenarios.ts";

/** Kills an operator at one point, starts another one, and checks the end. @throws an error that names what is wrong */
export async function crash(cluster: TestCluster, scenario: Scenario, { death }: CrashCase<string>): Promise<void> {
  const options = scenario.world();
  await using world = await startWorld(cluster, options);
  const runs = watchRuns(world);
  await scenario.before?.(world);
  await world.createEnvironment(scenario.spec?.(world));
  for (const item of itemsOf(scenario)) world.simulator.enqueue(world.environmentId, item);
  const doomed = startDoomed(
    world,
    { ...death, ...(scenario.unanswered && { unanswered: scenario.unanswered }) },
    options.timeScale,
  );
  const meanwhile = scenario.meanwhile?.(world, doomed.died);
  await Promise.all([doomed.died, meanwhile]);
  await scenario.between?.(world);
  world.startOperator();
  await expectEnd(world, scenario, runs);
}
