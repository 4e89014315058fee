import { expect, test } from "vitest";
import { FIELD_MANAGER, LABEL_ENVIRONMENT } from "../../../src/api/names.ts";
import { type KubeObject, NAMESPACES, PODS } from "../../../src/kube/resource.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import { everyCredential, everyObject } from "../support/leaks.ts";
import { OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "../support/provided.ts";
import { SIMULATOR_NAMESPACE } from "../support/simulator-pod.ts";
import { startE2eWorld } from "../support/world.ts";

/** Namespaces of tests go in the background. */
const GONE_PATIENCE_MS = 180_000;
const OF_A_TEST = /^e2e-/;

/** `kind namespace/name` */
const nameOf = (kind: string, { metadata }: KubeObject) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;

/** Whether Berth made it, or writes into it. */
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
 * Events tell of it for an hour; the operators' Leases stay with them, as does what helm made. Namespaces and the
 * simulator are the tests' own: they write by the same client.
 */
function mayStay(kind: string, { metadata: { namespace, labels = {} } }: KubeObject): boolean {
  if (kind === "Event" || kind === "Namespace" || namespace === SIMULATOR_NAMESPACE) return true;
  const isHelms = labels["app.kubernetes.io/managed-by"] === "Helm";
  return namespace === OPERATOR_NAMESPACE && (kind === "Lease" || isHelms);
}

test("nothing is left of all that was served: no Pod, Secret, budget, policy, Deployment or Lease, in any namespace", async () => {
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

  // Every kind was looked at.
  expect([...new Set(objects.map(({ kind }) => kind))]).toEqual(
    expect.arrayContaining(["Pod", "Secret", "Deployment", "Lease", "CustomResourceDefinition"]),
  );
  const operators = objects.filter(
    ({ kind, object }) => kind === "Pod" && object.metadata.namespace === OPERATOR_NAMESPACE,
  );
  expect(operators).toHaveLength(OPERATOR_REPLICAS);

  // And no Secret holds a credential any more: this test's namespace has none.
  const search = new LeakSearch(await everyCredential(world));
  const secrets = objects.filter(({ kind }) => kind === "Secret");
  const texts = secrets.map(({ kind, object }) => ({ where: nameOf(kind, object), text: JSON.stringify(object) }));
  expect(search.find(texts).map(leakText)).toEqual([]);
});
