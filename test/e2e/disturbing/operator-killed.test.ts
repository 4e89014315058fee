import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { leaderIdentity, untilLed, untilLedByAnother } from "../support/leader.ts";
import { killContainersOf } from "../support/node-state.ts";
import { hasNodeControl, OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "../support/provided.ts";
import { enqueueOne, podOf, type Served, untilAnswered, untilSettled, untilState } from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** The longest pause between two answered heartbeats of an item, in seconds. */
async function longestSilence(world: E2eWorld, item: ItemRecord): Promise<number> {
  const beats = (await world.simulator.requests())
    .filter(({ call, workId, status }) => call === "heartbeat" && workId === item.id && status === 200)
    .map(({ at }) => at);
  return Math.max(0, ...beats.map((at, i) => (i === 0 ? 0 : at - (beats[i - 1] ?? at)))) / 1_000;
}

/** Ways in which a leader ends without releasing its Lease. */
const WAYS: readonly [string, (world: E2eWorld, leader: Pod) => Promise<void>][] = [
  [
    "its Pod is deleted with a grace of 0",
    async (world, { metadata: { name = "" } }) => {
      const path = `/api/v1/namespaces/${OPERATOR_NAMESPACE}/pods/${name}`;
      await world.kube.raw("DELETE", path, { gracePeriodSeconds: 0 });
    },
  ],
  ...(hasNodeControl() ? [["its process is killed", killContainersOf] as [string, typeof killContainersOf]] : []),
];

/** The SDK's session tool runner works until it is told to end, and sends no heartbeats. */
const RUNNER = { command: ["node", "/app/tool-runner.mjs"], env: [{ name: "MAX_IDLE_MS", value: String(NEVER) }] };

describe.each(WAYS)("the leading operator ends: %s", (_, end) => {
  test.each(["Worker", "Operator"])(
    "sessions with lease: %s continue, and one that arrives meanwhile is served",
    async (lease) => {
      await using world = await startE2eWorld({
        maxIdleMs: NEVER,
        sessions: { lease, warm: 2, maxConcurrent: 3 },
        // A worker receives a stop with its next heartbeat. The operator's leases must outlast its absence.
        ...(lease === "Operator" ? { container: RUNNER } : { ttlSeconds: 8 }),
      });
      // Under lease: Operator, the operator receives the user's stop, and deletes the Pod.
      const reason = lease === "Operator" ? "StoppedByUser" : "Completed";
      await world.createEnvironment();
      await world.untilParked(2);
      const leader = await untilLed(world);
      const identity = await leaderIdentity(world);
      const running = await enqueueOne(world, { script: bashScript("echo before") });
      await untilState(world, running.item, "active");
      await world.untilParked(2);
      // In progress: the leader is handling it, at whatever step, when the leader ends.
      const opening = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo on its way") });
      await world.until("it is claimed", async () => (await world.simulator.item(opening.id)).acks.length > 0);
      const at = performance.now();
      await end(world, leader);
      const meanwhile = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo meanwhile") });
      await untilLedByAnother(world, identity);
      const ledAfter = performance.now() - at;
      await untilAnswered(world, meanwhile, 1);
      const servedAfter = performance.now() - at;
      await untilAnswered(world, opening, 1);
      if (lease === "Operator") {
        await world.until("the leases are taken over", async () => {
          return ((await world.metric("berth_heartbeats_total", { result: "taken" })) ?? 0) >= 3;
        });
      }
      const all: Served[] = [];
      for (const item of [running.item, opening, meanwhile]) {
        const pod = podOf(world, item);
        if (!pod) throw new Error(`item ${item.id} has no Pod`);
        all.push({ item, pod });
        await world.simulator.stopItem(item.id);
      }
      await world.untilServed(3);
      const silences = await Promise.all(all.map(({ item }) => longestSilence(world, item)));
      console.log(
        `lease: ${lease}, ${_}: another leader after ${(ledAfter / 1_000).toFixed(1)} s, ` +
          `the next session served after ${(servedAfter / 1_000).toFixed(1)} s; ` +
          `longest silence of the leases ${silences.map((s) => s.toFixed(1)).join(", ")} s`,
      );
      for (const served of all) {
        const { last } = await untilSettled(world, served, reason);
        expect(last.acks).toHaveLength(1);
        expect(last.refusedBeats).toBe(0);
        expect(
          world.views.everyPod.filter(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === served.item.id),
        ).toHaveLength(1);
      }
      await world.until(
        "all replicas are back",
        async () => (await world.operators.readyPods()).length === OPERATOR_REPLICAS,
      );
    },
  );
});
