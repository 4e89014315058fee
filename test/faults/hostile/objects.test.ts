import fc from "fast-check";
import { expect, test } from "vitest";
import { NODES, PODS, SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { renderJournal } from "../../../src/protocol/journal.ts";
import { ApiError } from "../../../testbed/cluster/api.ts";
import { anyStatus } from "../../pods/arbitrary-pod-status.ts";
import { useCluster } from "../../support/cluster.ts";
import { startWorld, TEST_TIME_SCALE, type World } from "../../support/world.ts";
import { StrictServer } from "../../work/strict-server.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { readFaultSettings } from "../support/settings.ts";
import { WatchedOperator } from "./watched-operator.ts";

const cluster = useCluster();
const { seed, long } = readFaultSettings();
const SECRETS_MADE_UP = long ? 400 : 60;
const STATUSES = long ? 600 : 80;
const ITEMS = 4;

const operatorOf = (world: World) => WatchedOperator.start(world.flags(), TEST_TIME_SCALE);

/** Checks that work continues: new items are served. */
async function expectServed(world: World, operator: WatchedOperator): Promise<void> {
  const fresh = Array.from({ length: ITEMS }, () => world.simulator.enqueue(world.environmentId));
  const areServed = () => {
    operator.assertAlive();
    return fresh.every(({ id }) => world.simulator.item(id).state === "stopped");
  };
  await world.until("new items are served", areServed, PATIENCE_MS);
}

test("Secrets that imitate claim records harm no Pod but a claim's own, and attract no key", async () => {
  await using elsewhere = await StrictServer.start();
  await using world = await startWorld(cluster, {
    sessions: { warm: 2, maxConcurrent: 6 },
    spec: { deletionGraceSeconds: 0 },
  });
  const bystander = await world.kube.create(PODS, {
    metadata: { name: "bystander", namespace: world.namespace },
    spec: { containers: [{ name: "c", image: "worker:1" }], nodeSelector: { "no.such/node": "x" } },
  });
  await world.createEnvironment();
  // An item that a forged record names is blocked until the record is removed. A user who may write Secrets here can do
  // that only to their own queue.
  const queued = world.simulator.enqueue(world.environmentId);
  const field = fc.oneof(
    fc.string({ unit: "binary", maxLength: 50 }),
    fc.constantFrom("", "-1", "1e400", "NaN", "x".repeat(2_000)),
  );
  const madeUp = fc.record({
    use: fc.constantFrom("session", "refusal", "too-long", "stop", "removal", "nonsense"),
    lease: fc.constantFrom("Worker", "Operator", "Nobody"),
    podUid: fc.oneof(fc.constant(bystander.metadata.uid ?? ""), field),
    environmentUid: field,
    api: fc.constantFrom(world.simulator.url, elsewhere.origin, "http://169.254.169.254", "nonsense", ""),
    workId: fc.oneof(fc.constant(queued.id), field),
    sessionId: field,
    queuedAt: field,
    from: field,
    until: field,
    opened: fc.boolean(),
  });
  const secrets = fc.sample(madeUp, { seed, numRuns: SECRETS_MADE_UP });
  for (const [i, { from, until, opened, ...journal }] of secrets.entries()) {
    const name = i === 0 ? "bystander" : `berth-${world.name}-made-up-${i}`;
    const where = { name, namespace: world.namespace, environment: world.name };
    const secret = renderJournal(where, { ...journal, polledFromMs: 0, polledUntilMs: 0 } as never, "a credential");
    const stringData = { ...(secret.stringData as Record<string, string>), "polled-from": from, "polled-until": until };
    const more = opened ? { "work-secret": "x", "acknowledged-at": from } : {};
    await world.kube.create(SECRETS, { ...secret, stringData: { ...stringData, ...more } } as Secret);
  }
  await using operator = await operatorOf(world);
  await expectServed(world, operator);
  expect((await world.kube.get(PODS, { namespace: world.namespace, name: "bystander" })).metadata.uid).toBe(
    bystander.metadata.uid,
  );
  expect(elsewhere.connections).toBe(0);
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => !world.environment);
  expect(
    (await world.kube.get(PODS, { namespace: world.namespace, name: "bystander" })).metadata.deletionTimestamp,
  ).toBe(undefined);
  await operator.assertWell();
  console.log(`hostile inputs: ${secrets.length} tried: made-up records of claims`);
});

test("new sessions are served after arbitrary Pod statuses and malformed Node taints", async () => {
  await using world = await startWorld(cluster, { sessions: { warm: 2, maxConcurrent: 6 } });
  const names = ["a", "b"].map((end) => `odd-${world.namespace}-${end}`);
  await Promise.all(
    names.map((name) =>
      world.kube.create(NODES, {
        metadata: { name, labels: { "kubernetes.io/hostname": "" } },
        spec: {
          unschedulable: true,
          taints: [
            { key: "node.kubernetes.io/unreachable", effect: "NoExecute", timeAdded: "9999-12-31T23:59:59Z" },
            { key: "odd", value: "", effect: "PreferNoSchedule" },
          ],
        },
      } as never),
    ),
  );
  await world.createEnvironment();
  await using operator = await operatorOf(world);
  await world.untilParked(2);
  const { simulator, environmentId } = world;
  let taken = 0;
  for (const status of fc.sample(anyStatus, { seed, numRuns: STATUSES })) {
    if (simulator.items(environmentId).filter(({ state }) => state !== "stopped").length < 3)
      simulator.enqueue(environmentId);
    const pods = await world.until("a Pod", () => world.pods.length > 0 && world.pods);
    const { name } = pods[taken % pods.length]?.metadata ?? {};
    const path = `/api/v1/namespaces/${world.namespace}/pods/${name}/status`;
    const body = { status };
    try {
      await cluster.api.request("PATCH", path, { body, contentType: "application/merge-patch+json" });
      taken += 1;
    } catch (error) {
      if (!(error instanceof ApiError) || ![400, 404, 409, 422].includes(error.status)) throw error;
    }
    operator.assertAlive();
  }
  await expectServed(world, operator);
  await operator.assertWell();
  await Promise.all(names.map((name) => world.kube.delete(NODES, { name })));
  expect(taken).toBeGreaterThan(0);
  console.log(`hostile inputs: ${STATUSES} tried: statuses of Pods, of which the API server took ${taken}`);
});
