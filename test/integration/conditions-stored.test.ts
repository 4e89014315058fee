import { join } from "node:path";
import { expect, test } from "vitest";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { startCluster } from "../../testbed/cluster/cluster.ts";
import { DEPLOY_DIR, installBerth, installCrds } from "../../testbed/cluster/install.ts";
import { startWorld } from "../support/world.ts";
import { asTestCluster, takeAnything } from "./own-cluster.ts";
import { printedColumns } from "./printed-columns.ts";

test("an object stored under another schema is reported, left alone, and served after it is fixed", async () => {
  await using own = await startCluster();
  await installBerth(own.api);
  const cluster = await asTestCluster(own);
  await using world = await startWorld(cluster, { sessions: { warm: 20, maxConcurrent: 10 } });

  await takeAnything(own);
  const ref = { namespace: world.namespace, name: world.name };
  const spec = world.spec();
  await world.until("a schema that accepts anything is served", async () => {
    return world.kube.create(ENVIRONMENTS, { metadata: ref, spec } as never).then(
      () => true,
      () => false,
    );
  });
  const held = { namespace: world.namespace, name: "held" };
  const finalizers = ["berth.dev/drain"];
  await world.kube.create(ENVIRONMENTS, { metadata: { ...held, finalizers }, spec } as never);
  await installCrds(own.api, join(DEPLOY_DIR, "crds"));

  const operator = world.startOperator();
  // The API server rejects a status for it, since its spec violates a rule.
  const told = () => world.events("InvalidSpec").filter(({ involvedObject }) => involvedObject.name === world.name);
  const [event] = await world.until("an Event", () => told().length > 0 && told());
  expect(event?.message).toBe(
    "spec.sessions.warm: warm must not be greater than maxConcurrent; lower warm, or raise maxConcurrent",
  );
  expect(event?.type).toBe("Warning");
  expect(world.pods).toEqual([]);
  const labels = { namespace: world.namespace, environment: world.name, type: "Ready" };
  const { values } = await operator.metrics.environmentCondition.get();
  expect(values).toContainEqual({ value: 0, labels });
  // It also rejects the removal of a finalizer from such an object, so its deletion continues only after the fix.
  await world.kube.delete(ENVIRONMENTS, held);
  await world.kube.patch(ENVIRONMENTS, held, { spec: { sessions: { warm: 1 } } }, { type: "merge" });
  await world.until("the deletion completes", async () => {
    return (await world.kube.list(ENVIRONMENTS, { namespace: world.namespace })).items.length === 1;
  });
  expect(told().map(({ count }) => count)).toEqual([1]);

  await world.patchSpec({ sessions: { warm: 1 } });
  await world.untilCondition("Ready", "Ready");
  await world.untilParked(1);
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => !world.environment);
});

test("a served Environment that becomes invalid keeps its sessions, claims nothing, and can be deleted", async () => {
  await using own = await startCluster();
  await installBerth(own.api);
  const cluster = await asTestCluster(own);
  await using world = await startWorld(cluster, { node: { fates: () => ({ kind: "worker", workMs: 3_000 }) } });
  await world.createEnvironment();
  world.startOperator();
  await world.untilParked(1);
  const item = world.simulator.enqueue(world.environmentId);
  await world.until("the session runs", () => world.simulator.item(item.id).state === "active");

  await takeAnything(own);
  await world.until("the schema accepts the field", () =>
    world.patchSpec({ pausd: true }).then(
      () => (world.environment?.spec as { pausd?: boolean } | undefined)?.pausd === true,
      () => false,
    ),
  );
  const ready = await world.untilCondition("Ready", "InvalidSpec");
  expect(ready.status).toBe("False");
  expect(ready.message).toBe("spec.pausd: unknown field; did you mean paused?");
  expect(await printedColumns(cluster, world.namespace, world.name)).toMatchObject({
    Mode: "Sessions",
    Max: 10,
    Ready: "False",
    Reason: "InvalidSpec",
  });
  await world.until("an Event", () => world.events("InvalidSpec").length === 1);
  const second = world.simulator.enqueue(world.environmentId);
  await world.until("the running session is settled", () => {
    return world.simulator.item(item.id).state === "stopped" && world.claims.length === 0;
  });
  expect(world.simulator.item(second.id).state).toBe("queued");
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => !world.environment);
  world.simulator.assertNoViolations();
});
