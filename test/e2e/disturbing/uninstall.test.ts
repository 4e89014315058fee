import { afterEach, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { FINALIZER, GROUP, LABEL_ENVIRONMENT, PLURAL } from "../../../src/api/names.ts";
import type { KubeClient } from "../../../src/kube/client.ts";
import { CRDS, type KubeObject, NAMESPACES } from "../../../src/kube/resource.ts";
import { reinstallBerthChart, SIMULATOR_CA, uninstallBerthChart, upgradeBerthChart } from "../support/install.ts";
import { execIn } from "../support/kubectl.ts";
import { everyObject } from "../support/leaks.ts";
import { e2eCluster, OPERATOR_NAMESPACE } from "../support/provided.ts";
import { serveOne, untilAnswered, untilSettled, untilState } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const CRD = `${PLURAL}.${GROUP}`;
const UNTIL_TOLD = "until [ -e go ]; do sleep 0.2; done; echo done";
/** A worker gives up a command after two minutes, so further commands keep waiting. */
const LONG = bashScript(UNTIL_TOLD, UNTIL_TOLD, UNTIL_TOLD);

afterEach(async (context) => {
  if (context.task.result?.state === "skip") return;
  // Restores the release that all other tests expect, whatever this test left.
  await reinstallBerthChart(e2eCluster());
});

/** The garbage collector deletes owned objects in the background, after helm has deleted their owners. */
const COLLECTED = { timeout: 60_000, interval: 500 };

/** Objects of the release, or of its operators in its namespace, that exist now; their Leases stay. */
async function ofTheRelease(kube: KubeClient): Promise<string[]> {
  const own = ({ metadata: { labels = {}, namespace, name = "" } }: KubeObject) =>
    labels["app.kubernetes.io/name"] === "berth" ||
    // Kubernetes creates two objects in every namespace, and the tests one in this.
    (namespace === OPERATOR_NAMESPACE && !["default", "kube-root-ca.crt", SIMULATOR_CA].includes(name));
  return (await everyObject(kube))
    .filter(({ kind, object }) => kind !== "Event" && own(object))
    .map(({ kind, object: { metadata } }) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`)
    .filter((name) => !name.startsWith("Lease "))
    .sort();
}

const finalizers = (world: E2eWorld) => world.environment?.metadata.finalizers ?? [];

test("helm uninstall under a session: it continues without a finalizer, and a new operator settles it", async () => {
  await using world = await startE2eWorld();
  const served = await serveOne(world, { script: LONG });
  await untilState(world, served.item, "active");
  expect(finalizers(world)).toEqual([FINALIZER]);
  // Both the operators and the hook's Job run in a namespace that allows only restricted Pods.
  const { metadata } = await world.kube.get(NAMESPACES, { name: OPERATOR_NAMESPACE });
  expect(metadata.labels).toMatchObject({ "pod-security.kubernetes.io/enforce": "restricted" });
  const claims = world.claims.map(({ metadata }) => metadata.uid);

  await uninstallBerthChart(world.cluster);

  expect(await world.operators.pods()).toEqual([]);
  await world.until("the finalizer is off", () => finalizers(world).length === 0);
  expect(world.claims.map(({ metadata }) => metadata.uid)).toEqual(claims);
  // The CRD is kept, and the hook's own objects are gone with the rest.
  expect((await world.kube.get(CRDS, { name: CRD })).metadata.name).toBe(CRD);
  await expect.poll(() => ofTheRelease(world.kube), COLLECTED).toEqual([`CustomResourceDefinition /${CRD}`]);
  // The worker is not affected, and ends its item itself.
  expect((await world.simulator.item(served.item.id)).state).toBe("active");
  await execIn(world, served.pod, ["touch", "go"]);
  expect((await untilAnswered(world, served.item, 3)).at(-1)).toEqual(["done", false]);
  await untilState(world, served.item, "stopped");
  expect(world.claims).toHaveLength(1);

  await reinstallBerthChart(world.cluster);

  await untilSettled(world, served, "Completed");
  const next = await world.simulator.enqueue(world.environmentId);
  await untilState(world, next, "stopped");
  await world.untilServed(2);
});

test("helm uninstall under a session, which a newly installed operator finds running and continues", async () => {
  await using world = await startE2eWorld();
  const served = await serveOne(world, { script: LONG });
  await untilState(world, served.item, "active");
  await uninstallBerthChart(world.cluster);
  await reinstallBerthChart(world.cluster);
  await world.until("the finalizer is back", () => finalizers(world).includes(FINALIZER));
  expect(world.pods.find(({ metadata }) => metadata.uid === served.pod.metadata.uid)?.metadata.deletionTimestamp).toBe(
    undefined,
  );
  await execIn(world, served.pod, ["touch", "go"]);
  const { last } = await untilSettled(world, served, "Completed");
  expect(last.acks).toHaveLength(1);
  expect(last.stoppedBy?.as).toBe("sessions-token");
});

test("helm uninstall while nothing runs leaves an Environment that can be deleted without an operator", async () => {
  await using world = await startE2eWorld();
  await world.createEnvironment();
  await world.untilParked(1);
  await uninstallBerthChart(world.cluster);
  expect(world.environment?.metadata.deletionTimestamp).toBeUndefined();
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => world.environment === undefined);
  await world.until("its Pods are collected", () => world.pods.length === 0);
});

test("helm uninstall with crds.keep=false drains all Environments, and leaves only its namespace", async () => {
  await using world = await startE2eWorld({ spec: { deletionGraceSeconds: 60 } });
  const served = await serveOne(world, { script: LONG });
  await untilState(world, served.item, "active");
  await upgradeBerthChart(world.cluster, { crds: { keep: false }, uninstall: { drainSeconds: 60 } });
  const uninstalled = uninstallBerthChart(world.cluster);
  await world.until("the Environment is being deleted", () => world.environment?.metadata.deletionTimestamp);
  await execIn(world, served.pod, ["touch", "go"]);
  await uninstalled;
  expect((await world.simulator.item(served.item.id)).stoppedBy?.as).toBe("sessions-token");
  await world.until("its Pods are collected", () => {
    return !world.pods.some(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT]);
  });
  await world.until("no claim is left", () => world.claims.length === 0);
  await expect.poll(() => ofTheRelease(world.kube), COLLECTED).toEqual([]);
  await reinstallBerthChart(world.cluster);
  await world.createEnvironment();
  await world.untilParked(1);
});
