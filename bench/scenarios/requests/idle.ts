import { setTimeout as delay } from "node:timers/promises";
import { findCondition } from "../../../src/api/conditions.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { Gate, Table } from "../../scenario.ts";
import { OwnRequests } from "../../support/requests.ts";
import { OPERATOR_NAMESPACE, type Stand } from "../../support/stand.ts";
import { until } from "../../support/until.ts";

/**
 * Counts the requests of several idle Environments that keep no Pods warm.
 * @param times `settleSeconds` is the time after which a start has nothing left to do. Counts follow within 5 s, and
 * each Environment's claim Secrets are listed again after 60.
 */
export async function countIdle(
  stand: Stand,
  environments: number,
  { settleSeconds, seconds }: { settleSeconds: number; seconds: number },
): Promise<{ tables: Table[]; gates: Gate[] }> {
  const namespace = await stand.namespace("idle");
  const simulator = await stand.simulator();
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  for (let made = 1; made <= environments; made += 1) {
    const { id: environmentId } = simulator.createEnvironment();
    await stand.environment(
      { namespace, name: `idle-${made}`, simulator, environmentId },
      { sessions: { maxConcurrent: 10, warm: 0, template } },
    );
  }
  await using operator = await stand.operator(simulator.url, [
    ...["--namespace", namespace],
    ...["--leader-elect-namespace", OPERATOR_NAMESPACE],
  ]);
  await until("all Environments to be ready, with their queues read", async () => {
    const { items } = await stand.kube.listAll(ENVIRONMENTS, { namespace });
    const isReady = ({ status }: (typeof items)[number]) =>
      findCondition(status?.conditions, "Ready")?.status === "True" && status?.queue !== undefined;
    const waiting = items.filter((item) => !isReady(item)).length;
    return waiting === 0 ? null : `${waiting} are not ready`;
  });
  await delay(settleSeconds * 1_000);
  const since = await stand.cluster.audit.mark();
  await delay(seconds * 1_000);
  const requests = await OwnRequests.since(stand.cluster.audit, since);
  await operator.stop();
  const title = `${environments} idle Environments with warm: 0, ${seconds} s`;
  return {
    tables: [
      {
        title,
        columns: ["requests", "count", "per Environment and minute"],
        rows: (
          [
            ["writes", requests.writes],
            ["lists", requests.lists],
            ["reads by name", requests.reads - requests.lists],
            ["writes of Events", requests.events],
            ["Leases, including reads", requests.leases],
            ["watches that ended", requests.watches],
          ] as const
        ).map(([what, count]) => [what, count, count / environments / (seconds / 60)]),
      },
    ],
    gates: [
      { name: `${title}: writes, without Leases`, value: requests.writes + requests.events, atMost: 0, unit: "" },
      { name: `${title}: lists`, value: requests.lists, atMost: 0, unit: "" },
    ],
  };
}
