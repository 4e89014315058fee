import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { OWN_PACE } from "../support/operator-lease-pace.ts";
import { serveOne, untilAssigned, untilEnded, untilState } from "../support/session-life.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const RUNNER = fileURLToPath(new URL("../../examples/worker/tool-runner.mjs", import.meta.url));

/** A session works longer than the next process needs to take its lease: 35 s from the start of that process. */
const TAKEN_OVER_MS = 55_000;
/** The timeout of waits that include taking a lease. LONG is the timeout of their tests. */
const PATIENCE_MS = 150_000;
const LONG = 300_000;

function runnerWorld({ sessions, ...options }: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, {
    ...OWN_PACE,
    node: { runtime: "process", fates: () => undefined },
    container: { command: [process.execPath, RUNNER], env: [{ name: "MAX_IDLE_MS", value: "300" }] },
    podSpec: { terminationGracePeriodSeconds: 30 },
    sessions: { lease: "Operator", ...sessions },
    ...options,
  });
}

/** Works, pauses for `thinksMs`, then works again. */
function longScript(first: string, thinksMs: number, second: string) {
  const { turns: [one] = [] } = bashScript(first);
  const { turns: [two] = [] } = bashScript(second);
  return { turns: [one ?? {}, { ...two, delayMs: thinksMs }] };
}

describe.concurrent("an operator that restarts while it keeps leases", () => {
  test(
    "kill -9: the next process takes the leases whose values stay unchanged, and no session is lost",
    async () => {
      await using world = await runnerWorld({ sessions: { warm: 3, maxConcurrent: 4 } });
      await world.createEnvironment();
      const first = await world.startOperatorProcess();
      await world.untilParked(3);
      const items = [1, 2, 3].map((n) =>
        world.simulator.enqueue(world.environmentId, {
          script: longScript(`echo ${n} before`, TAKEN_OVER_MS, `echo ${n} after`),
        }),
      );
      for (const item of items) await untilState(world, item, "active");
      await world.until("all sessions have begun", () =>
        items.every(({ sessionId = "" }) => world.simulator.session(sessionId).toolCalls[0]?.answeredAt),
      );
      await first.process.kill();
      const second = world.startOperator();
      await world.until(
        "all leases are adopted",
        async () => (await metricValue(second.metrics.heartbeats, { result: "taken" })) >= 3,
        PATIENCE_MS,
      );
      // The new process serves new work from its start.
      const later = world.simulator.enqueue(world.environmentId, { script: bashScript("echo later") });
      const served = () => items.concat(later).every(({ id }) => world.simulator.item(id).state === "stopped");
      await world.until("all items are served", () => served() && world.claims.length === 0, PATIENCE_MS);
      for (const [n, { id, sessionId = "" }] of items.entries()) {
        const { acks, refusedBeats, stoppedBy } = world.simulator.item(id);
        expect({ acks: acks.length, refusedBeats, by: stoppedBy?.as }).toEqual({
          acks: 1,
          refusedBeats: 0,
          by: "environment-key",
        });
        const outputs = world.simulator.session(sessionId).toolCalls.map(({ output }) => output);
        expect(outputs).toEqual([`${n + 1} before`, `${n + 1} after`]);
      }
      expect(await metricValue(second.metrics.leasesLost, {})).toBe(0);
      world.simulator.assertNoViolations();
    },
    LONG,
  );

  test(
    "a spec that changed to Worker meanwhile leaves a running session's lease with the operator",
    async () => {
      await using world = await startWorld(cluster, {
        ...OWN_PACE,
        node: { fates: () => ({ kind: "exit", code: 0, afterMs: TAKEN_OVER_MS + 10_000 }) },
        sessions: { lease: "Operator", maxConcurrent: 1 },
      });
      const served = await serveOne(world);
      await world.until("the container runs", () => world.events("SessionStarted").length > 0);
      await world.patchSpec({ sessions: { lease: "Worker" } });
      await served.operator.stop();
      const operator = world.startOperator();
      await world.until(
        "the lease is adopted",
        async () => (await metricValue(operator.metrics.leasesHeld, {})) === 1,
        PATIENCE_MS,
      );
      await world.until(
        "the item is stopped",
        () => world.simulator.item(served.item.id).state === "stopped",
        PATIENCE_MS,
      );
      const { last } = await untilEnded(world, { ...served, operator }, "Completed");
      const events = last.history.map(({ event }) => event).filter((event) => event !== "offered");
      expect(events).toEqual(["created", "acknowledged", "first heartbeat", "stopped by force"]);
    },
    LONG,
  );

  test(
    "the next operator settles a container that ended while none was running",
    async () => {
      await using world = await startWorld(cluster, {
        ...OWN_PACE,
        node: { fates: () => ({ kind: "exit", code: 0, afterMs: 1_000 }) },
        sessions: { lease: "Operator", maxConcurrent: 1 },
      });
      await world.createEnvironment();
      const first = await world.startOperatorProcess();
      await world.untilParked(1);
      const item = world.simulator.enqueue(world.environmentId);
      const pod = await untilAssigned(world, item);
      await first.process.kill();
      await world.until("the container has ended", () =>
        world.pods.some(({ status }) => status?.containerStatuses?.some(({ state }) => state?.terminated)),
      );
      const operator = world.startOperator();
      await world.until("the item is stopped", () => world.simulator.item(item.id).state === "stopped", PATIENCE_MS);
      const { last } = await untilEnded(world, { operator, item, pod }, "Completed");
      expect(last.stoppedBy?.as).toBe("environment-key");
    },
    LONG,
  );
});
