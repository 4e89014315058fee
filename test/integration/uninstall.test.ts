import { describe, expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { type UninstallReport, uninstall } from "../../src/commands/uninstall.ts";
import type { UninstallSettings } from "../../src/commands/uninstall-settings.ts";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { DEPLOYMENTS, type Deployment } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

/** How much faster time passes: a timeout of 50 seconds takes six. */
const HASTE = 9;
/** The grace period of a Pod that ignores SIGTERM, longer than the accelerated uninstall waits for it. */
const GRACE_SECONDS = 45;
const hasty: Clock = {
  now: () => realClock.now(),
  monotonic: () => realClock.monotonic() * HASTE,
  setTimer: (fn, delayMs) => realClock.setTimer(fn, delayMs / HASTE),
};

/** Runs `berth uninstall` for one world's namespace only. */
function uninstallOf(world: World, over: Partial<UninstallSettings> = {}, clock = realClock): Promise<UninstallReport> {
  const settings: UninstallSettings = {
    kubeconfig: cluster.kubeconfig,
    kubeEnvironment: {},
    proxy: {},
    namespaces: [world.namespace],
    deployment: undefined,
    deleteEnvironments: false,
    drainSeconds: 1,
    output: "text",
    ...over,
  };
  return uninstall(settings, { clock, logger: silentLogger });
}

function worldOf(): Promise<World> {
  return startWorld(cluster, { ...SHORT_LEASE, node: { fates: () => ({ kind: "worker", end: "hang" }) } });
}

/** A running session whose operator is gone. */
async function abandoned(): Promise<World> {
  const world = await worldOf();
  const { item, operator } = await serveOne(world);
  await untilState(world, item, "active");
  await operator.stop();
  await world.caughtUp("environments", "pods", "secrets");
  expect(finalizers(world)).toEqual([FINALIZER]);
  return world;
}

const finalizers = (world: World) => world.environment?.metadata.finalizers ?? [];

describe.concurrent("an uninstall", () => {
  test("removes the finalizer, and leaves sessions and their claims alone", async () => {
    await using world = await abandoned();
    const pods = world.pods.map(({ metadata }) => metadata.uid);
    // A Deployment that was already deleted does not matter.
    const report = await uninstallOf(world, { deployment: { namespace: world.namespace, name: "absent" } });
    const released = [`${world.namespace}/${world.name}`];
    expect(report).toEqual({ ok: true, stopped: false, deleted: [], undrained: [], released, problem: null });
    await world.until("the finalizer is gone", () => finalizers(world).length === 0);
    await world.caughtUp("pods", "secrets");
    expect(world.claims).toHaveLength(1);
    expect(world.pods.map(({ metadata }) => metadata.uid)).toEqual(pods);
    // Another operator continues the session.
    world.startOperator();
    await world.until("the finalizer is back", () => finalizers(world).includes(FINALIZER));
    world.simulator.assertNoViolations();
  });

  test("keeps other finalizers", async () => {
    await using world = await worldOf();
    await world.createEnvironment();
    const ref = { namespace: world.namespace, name: world.name };
    const both = { metadata: { finalizers: ["example.com/other", FINALIZER] } };
    await world.kube.patch(ENVIRONMENTS, ref, both, { type: "merge" });
    await uninstallOf(world);
    expect((await world.kube.get(ENVIRONMENTS, ref)).metadata.finalizers).toEqual(["example.com/other"]);
    await world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: [] } }, { type: "merge" });
  });

  test("that deletes Environments removes the claims of undrained ones", async () => {
    await using world = await abandoned();
    const names = [`${world.namespace}/${world.name}`];
    const report = await uninstallOf(world, { deleteEnvironments: true });
    expect(report).toMatchObject({ ok: true, stopped: false, deleted: names, undrained: names, released: names });
    await world.until("the Environment is gone", () => world.environment === undefined);
    await world.until("no claim is left", () => world.claims.length === 0);
  });

  test("releases nothing while the operator's Pods still run, and names them", async () => {
    await using world = await startWorld(cluster, { node: { fates: () => ({ kind: "run", onTerm: "ignore" }) } });
    await world.createEnvironment();
    const environment = { namespace: world.namespace, name: world.name };
    await world.kube.patch(ENVIRONMENTS, environment, { metadata: { finalizers: [FINALIZER] } }, { type: "merge" });
    const ref = { namespace: world.namespace, name: "operator" };
    await world.kube.create(DEPLOYMENTS, operatorDeployment(world, ref));
    await world.until("the operator runs", () => world.pods.some(({ status }) => status?.phase === "Running"));
    const [pod] = world.pods;

    const stillRuns = `still runs in ${world.namespace}/${pod?.metadata.name}; delete these Pods`;
    expect(await uninstallOf(world, { deployment: ref }, hasty)).toMatchObject({
      ok: false,
      stopped: false,
      released: [],
      problem: expect.stringContaining(stillRuns),
    });
    expect((await world.kube.get(DEPLOYMENTS, ref)).spec.replicas).toBe(0);
    expect(finalizers(world)).toEqual([FINALIZER]);

    // Simulates a lost node: the Pod is deleted by hand, and the uninstall repeated.
    await world.kube.delete(
      { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true },
      { namespace: world.namespace, name: pod?.metadata.name ?? "" },
      { gracePeriodSeconds: 0 },
    );
    expect(await uninstallOf(world, { deployment: ref })).toMatchObject({ stopped: true, deleted: [] });
    await world.until("the finalizer is gone", () => finalizers(world).length === 0);
  });
});

/** An operator Deployment whose Pod ignores SIGTERM. */
function operatorDeployment(world: World, metadata: { namespace: string; name: string }): Deployment {
  const labels = { app: metadata.name };
  return {
    metadata,
    spec: {
      replicas: 1,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          nodeSelector: world.nodeSelector,
          terminationGracePeriodSeconds: GRACE_SECONDS,
          containers: [{ name: "operator", image: "operator:1" }],
        },
      },
    },
  };
}
