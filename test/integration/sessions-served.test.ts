import { expect, test } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

test("a parked Pod serves a queued item, which is settled and leaves nothing behind", async () => {
  await using world = await startWorld(cluster);
  await world.createEnvironment();
  world.startOperator();
  const [parked] = await world.untilParked(1);
  const item = world.simulator.enqueue(world.environmentId);

  await world.untilServed(1);

  world.simulator.assertNoViolations();
  const [event] = await world.until(
    "the Event Completed",
    () => world.events("Completed").length > 0 && world.events("Completed"),
  );
  expect(event?.message).toContain(item.id);
  await world.until(
    "the Pod of the session is gone",
    () => !world.pods.some(({ metadata }) => metadata.uid === parked?.metadata.uid),
  );
  await world.untilCondition("Ready", "Ready");
});
