import { expect, test } from "vitest";
import { LABEL_ENVIRONMENT } from "../../../src/api/names.ts";
import { FIELD_MANAGER } from "../../../src/kube/owned-object.ts";
import { type KubeObject, NAMESPACES, PODS } from "../../../src/kube/resource.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import { SIMULATOR_CA } from "../support/install.ts";
import { everyCredential, everyObject } from "../support/leaks.ts";
import { OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "../support/provided.ts";
import { SIMULATOR_NAMESPACE } from "../support/simulator-pod.ts";
import { startE2eWorld } from "../support/world.ts";

/** Namespaces of tests are deleted in the background. */
const GONE_PATIENCE_MS = 180_000;
const OF_A_TEST = /^e2e-/;

/** `kind namespace/name` */
const nameOf = (kind: string, { metadata }: KubeObject) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;

/** Whether Berth created the object, or writes to it. */
function isBerths({ metadata }: KubeObject): boolean {
  const {
    labels = {},
    ownerReferences = [],
    managedFields = [],
  } = metadata as KubeObject["metadata"] & {
    readonly managedFields?: readonly { readonly manager?: string }[];
  };
  return (
    labels[LABEL_ENVIRONMENT] !== undefined ||
    ownerReferences.some(({ kind }) => kind === "Environment") ||
    managedFields.some(({ manager }) => manager === FIELD_MANAGER)
  );
}

/**
 * Whether an object may stay: Events are kept for an hour, and the operators' Leases and helm's objects belong to the
 * release. Namespaces, the simulator and its certificate authority belong to the tests, which use the same client.
 */
function mayStay(kind: string, { metadata: { namespace, name = "", labels = {} } }: KubeObject): boolean {
  if (kind === "Event" || kind === "Namespace" || namespace === SIMULATOR_NAMESPACE) return true;
  const isHelms = labels["app.kubernetes.io/managed-by"] === "Helm";
  return namespace === OPERATOR_NAMESPACE && (kind === "Lease" || isHelms || name === SIMULATOR_CA);
}

test("no Pod, Secret, budget, policy, Deployment or Lease of a served session is left in any namespace", async () => {
  await using world = await startE2eWorld({ key: false });
  await world.until(
    "the namespaces of all other tests are gone",
    async () => {
      const { items } = await world.kube.list(NAMESPACES, {});
      return items.every(({ metadata: { name = "" } }) => !OF_A_TEST.test(name) || name === world.namespace);
    },
    GONE_PATIENCE_MS,
  );
  await world.until("the operators that were replaced are gone", async () => {
    const { items } = await world.kube.list(PODS, { namespace: OPERATOR_NAMESPACE });
    return items.length === OPERATOR_REPLICAS;
  });
  const objects = await everyObject(world.kube);
  const left = objects.filter(({ kind, object }) => isBerths(object) && !mayStay(kind, object));
  expect(left.map(({ kind, object }) => nameOf(kind, object))).toEqual([]);

  // Every kind was listed.
  expect([...new Set(objects.map(({ kind }) => kind))]).toEqual(
    expect.arrayContaining(["Pod", "Secret", "Deployment", "Lease", "CustomResourceDefinition"]),
  );
  const operators = objects.filter(
    ({ kind, object }) => kind === "Pod" && object.metadata.namespace === OPERATOR_NAMESPACE,
  );
  expect(operators).toHaveLength(OPERATOR_REPLICAS);

  // No Secret contains a credential any more, because this test's namespace has none.
  const search = new LeakSearch(await everyCredential(world));
  const secrets = objects.filter(({ kind }) => kind === "Secret");
  const texts = secrets.map(({ kind, object }) => ({ where: nameOf(kind, object), text: JSON.stringify(object) }));
  expect(search.find(texts).map(leakText)).toEqual([]);
});
