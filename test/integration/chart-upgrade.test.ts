import { afterEach, beforeEach, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { type Cluster, startCluster } from "../../testbed/cluster/cluster.ts";
import { CHART } from "../../tools/helm.ts";
import type { TestCluster } from "../support/cluster.ts";
import { operatorLogs, operatorNode, Release, serve } from "../support/release.ts";
import { startWorld, type World } from "../support/world.ts";
import { asNamingCluster } from "./own-cluster.ts";

/** Everything happens in real time: operators that start and stop, and Pods of helm's hooks. */
const TIMEOUT_MS = 300_000;

/** Each test starts its own cluster, since the objects are cluster-wide. */
let cluster: Cluster;
let shared: TestCluster;

beforeEach(async () => {
  cluster = await startCluster();
  shared = await asNamingCluster(cluster);
});
afterEach(() => cluster?.stop());

/** A world whose node runs the operator, and whose sessions run until they are stopped. */
function worldWithOperator(): Promise<World> {
  return startWorld(shared, { node: operatorNode(cluster, () => ({ kind: "worker", end: "hang" })) });
}

/** The names of the release's cluster-wide objects, except the CRD. */
async function clusterWide(): Promise<string[]> {
  const paths = [
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
  ];
  const query = "labelSelector=app.kubernetes.io/managed-by%3DHelm";
  const lists = paths.map((path) => cluster.api.get<{ items: { metadata: { name: string } }[] }>(`${path}?${query}`));
  const names = (await Promise.all(lists)).flatMap(({ items }) => items.map(({ metadata }) => metadata.name));
  return [...new Set(names)].sort();
}

test(
  "a session survives an upgrade, the rollback, and a second upgrade",
  async () => {
    await using world = await worldWithOperator();
    const release = new Release(cluster, world, "release-before");
    await release.install();
    await world.createEnvironment();
    const { uid } = (await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name })).metadata;
    const items = [(await serve(world)).item];
    const before = await clusterWide();

    const goesOn = async () => {
      items.push((await serve(world)).item);
      expect(items.map(({ id }) => world.simulator.item(id).state)).toEqual(items.map(() => "active"));
      const environment = await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
      expect(environment.metadata.uid).toBe(uid);
      expect(await clusterWide()).toEqual(before);
    };
    // A new operator replaces the old one.
    await release.upgrade({ podLabels: { revision: "2" } });
    await goesOn();
    expect(await release.tryTest()).toMatchObject({ code: 0 });

    await release.rollback();
    await goesOn();

    await release.upgrade({ podLabels: { revision: "3" } }, CHART, ["--reuse-values"]);
    await goesOn();
    for (const { id } of items) world.simulator.stopItem(id);
    await world.untilServed(items.length);
    for (const { id } of items) expect(world.simulator.item(id).acks).toHaveLength(1);
    world.simulator.assertNoViolations();
  },
  TIMEOUT_MS,
);

test(
  "two releases with one name coexist, and each can be tested and uninstalled separately",
  async () => {
    await using world = await worldWithOperator();
    const first = new Release(cluster, world, "release-one");
    const second = new Release(cluster, world, "release-two");
    await first.install({ namespaces: [world.namespace] });
    await second.install({ namespaces: [second.namespace], crds: { enabled: false }, replicas: 0 });
    expect(await clusterWide()).toEqual(
      expect.arrayContaining([first, second].map(({ namespace }) => `berth-pod-policy.${namespace}`)),
    );

    expect(await first.tryTest()).toMatchObject({ code: 0 });
    const { code } = await second.tryTest();
    expect(code).not.toBe(0);
    expect(await operatorLogs(world)).toMatch(/FAIL operator +it is scaled to 0 replicas/);

    await second.uninstall();
    expect((await clusterWide()).filter((name) => name.endsWith(`.${second.namespace}`))).toEqual([]);
    await world.createEnvironment();
    await serve(world);
  },
  TIMEOUT_MS,
);
