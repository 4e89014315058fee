import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { type Footprint, footprints } from "../support/footprint.ts";
import { restoreDeployment } from "../support/operator-process.ts";
import { startE2eWorld } from "../support/world.ts";

/** As many sessions as a small node can run next to its own programs, and the same number again afterwards. */
const AT_A_TIME = 10;
const SESSIONS = 20;

function show(when: string, found: readonly Footprint[]): void {
  for (const { pod, memoryMiB, cpuSeconds } of found) {
    console.log(
      `operator ${pod}, ${when}: ${memoryMiB.toFixed(0)} MiB, ${cpuSeconds.toFixed(1)} s of CPU since its start`,
    );
  }
}

/** Longer than for other tests: dozens of sessions take time on a busy node. */
const TIMEOUT_MS = 600_000;

const most = (found: readonly Footprint[]) => Math.max(...found.map(({ memoryMiB }) => memoryMiB));

test("the operator fits into the chart's requests, idle and while sessions come and go", {
  timeout: TIMEOUT_MS,
}, async () => {
  await using world = await startE2eWorld({ sessions: { maxConcurrent: AT_A_TIME, warm: 2 } });
  // New processes, so that earlier tests don't affect their memory.
  await world.operators.scale(0);
  await world.until("the operators' Pods are gone", async () => (await world.operators.pods()).length === 0);
  await restoreDeployment(world);
  show("without Environments", await footprints(world));
  await world.createEnvironment();
  await world.untilParked(2);
  const idle = await footprints(world);
  show("one Environment, idle", idle);
  for (let n = 0; n < SESSIONS; n += 1) {
    await world.simulator.enqueue(world.environmentId, { script: bashScript("sleep 2; echo done") });
  }
  let busy = idle;
  await world.until(
    "all are served",
    async () => {
      const now = await footprints(world);
      if (most(now) > most(busy)) busy = now;
      const items = await world.simulator.items();
      return items.every(({ state }) => state === "stopped") && world.claims.length === 0;
    },
    TIMEOUT_MS / 2,
  );
  show(`at most while ${SESSIONS} sessions ran, ${AT_A_TIME} at a time`, busy);
  const after = await footprints(world);
  show("after them", after);
  for (const { memoryMiB, requestMiB } of [...idle, ...busy, ...after]) expect(memoryMiB).toBeLessThan(requestMiB);
  expect(after.map(({ restarts }) => restarts)).toEqual(after.map(() => 0));
});
