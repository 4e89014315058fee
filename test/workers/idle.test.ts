import { expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { FleetWorld } from "./fleet-world.ts";

const STEP_MS = 250;
const LONG_MS = 900_000;

test("an Environment that was idle for long makes workers at once when work comes, and never says that it cannot read", async () => {
  const world = new FleetWorld(seededRandom(11), {
    maxReplicas: 4,
    busyProbe: { httpGet: { path: "/busy", port: 9000 } },
  });
  world.start();
  const said = new Set<string>();
  const run = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += STEP_MS) {
      await world.run(STEP_MS);
      for (const reason of world.verdicts) said.add(reason);
    }
  };
  await run(LONG_MS);
  expect(world.walks, "walks while nothing waits and no worker is there").toBe(0);
  said.delete("DemandUnread");
  world.enqueue(3);
  // Statistics are read every 10 s in this world.
  await run(12_000);
  expect(Object.values(world.replicas)).toEqual([3]);
  expect(world.walks).toBeGreaterThan(0);
  await run(LONG_MS);
  const walks = world.walks;
  expect({ served: world.served, replicas: Object.values(world.replicas) }).toEqual({ served: 3, replicas: [0] });
  await run(LONG_MS);
  expect(world.walks, "walks after the last worker has gone").toBe(walks);
  expect([...said].filter((reason) => ["DemandUnread", "ReadingStale"].includes(reason))).toEqual([]);
  await world.stop();
});
