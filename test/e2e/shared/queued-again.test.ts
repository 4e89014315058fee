import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import type { EndReason } from "../../../src/api/reasons.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import {
  expectCounted,
  podOf,
  sayMore,
  serveOne,
  untilAnswered,
  untilAssigned,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { NEVER, SOON } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/**
 * The stock worker in a shell that stays a while after the worker exits, as one that tears down a large workspace does.
 */
const LINGERS = ["sh", "-c", "node /app/worker.mjs; sleep 5"];
/** The same for a signal: the worker receives it and stops its item, and the shell stays. */
const LINGERS_WHEN_TOLD = [
  "sh",
  "-c",
  "node /app/worker.mjs & child=$!; trap 'kill -TERM $child; wait $child; sleep 5; exit 0' TERM; wait $child",
];

/** The kubelet's report of a container's end; its times are whole seconds. */
const endOf = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0]?.state?.terminated;

/**
 * Checks that each item was served once, in its own Pod, and that two Pods of the session never ran at the same time.
 */
async function expectServedInTurn(world: E2eWorld, first: ItemRecord, second: ItemRecord, reason: EndReason) {
  for (const { id } of [first, second]) {
    const { state, acks, generation } = await world.simulator.item(id);
    expect({ state, acks: acks.length, generation }).toEqual({ state: "stopped", acks: 1, generation: 1 });
  }
  const { toolCalls } = await world.simulator.session(first.sessionId ?? "");
  expect(toolCalls.map(({ output, answeredBy }) => [output, answeredBy])).toEqual([
    ["first", first.id],
    ["second", second.id],
  ]);
  await world.until("an end of both Pods", () =>
    [first, second].every((item) => endOf(podOf(world, item)) !== undefined),
  );
  const [one, two] = [podOf(world, first), podOf(world, second)];
  expect(two?.metadata.uid).not.toBe(one?.metadata.uid);
  // Its container waited in a shell before.
  const startedMs = Date.parse(two?.metadata.annotations?.["berth.dev/assigned-at"] ?? "");
  expect(startedMs).toBeGreaterThanOrEqual(Date.parse(endOf(one)?.finishedAt ?? ""));
  for (const [item, pod] of [
    [first, one],
    [second, two],
  ] as const) {
    if (!pod) throw new Error(`item ${item.id} has no Pod`);
    await untilSettled(world, { item, pod }, reason);
  }
  expect(await world.metric("berth_claims_total", { result: "claimed" })).toBe(2);
  await expectCounted(world, { [reason]: 2 });
}

describe.concurrent("a session that is queued again while its first Pod is ending", () => {
  test("waits for that Pod, not a free one, when the worker has exited and its container has not", async () => {
    await using world = await startE2eWorld({
      container: { command: LINGERS },
      maxIdleMs: SOON,
      sessions: { warm: 2 },
    });
    const first = await serveOne(world, { script: bashScript("echo first") });
    await untilState(world, first.item, "stopped");
    const again = await sayMore(world, first, bashScript("echo second"));
    await untilAssigned(world, again);
    await world.untilServed(2);
    await expectServedInTurn(world, first.item, again, "Completed");
  });

  test("waits for that Pod, not a free one, when another client deletes that Pod", async () => {
    await using world = await startE2eWorld({
      container: { command: LINGERS_WHEN_TOLD },
      maxIdleMs: NEVER,
      sessions: { warm: 2 },
      podSpec: { terminationGracePeriodSeconds: 60 },
    });
    const first = await serveOne(world, { script: bashScript("echo first") });
    await untilAnswered(world, first.item, 1);
    const ref = { namespace: world.namespace, name: first.pod.metadata.name ?? "" };
    await world.kube.raw("DELETE", `/api/v1/namespaces/${ref.namespace}/pods/${ref.name}`);
    await untilState(world, first.item, "stopped");
    const again = await sayMore(world, first, bashScript("echo second"));
    const { metadata } = await untilAssigned(world, again);
    await untilAnswered(world, again, 2);
    await world.kube.raw("DELETE", `/api/v1/namespaces/${ref.namespace}/pods/${metadata.name}`);
    await world.untilServed(2);
    await expectServedInTurn(world, first.item, again, "PodDeleted");
  });
});
