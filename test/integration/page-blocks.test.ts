import { beforeAll, describe, expect, test } from "vitest";
import type { ApiObject } from "../../testbed/cluster/api.ts";
import { useCluster } from "../support/cluster.ts";
import { yamlExamples } from "../support/page-blocks.ts";

const cluster = useCluster();
let namespace = "";
beforeAll(async () => {
  namespace = await cluster.createNamespace("pages");
});

/** The collection path of each kind, namespaced or cluster-wide. */
const COLLECTIONS: Readonly<Record<string, (namespace: string) => string>> = {
  Deployment: (name) => `/apis/apps/v1/namespaces/${name}/deployments`,
  Environment: (name) => `/apis/berth.dev/v1alpha1/namespaces/${name}/environments`,
  NetworkPolicy: (name) => `/apis/networking.k8s.io/v1/namespaces/${name}/networkpolicies`,
  PriorityClass: () => "/apis/scheduling.k8s.io/v1/priorityclasses",
  RuntimeClass: () => "/apis/node.k8s.io/v1/runtimeclasses",
};
/** Kinds of other projects, whose CRDs no test installs, and config files of kind. */
const OTHERS = new Set(["CiliumNetworkPolicy", "Cluster", "NodePool"]);

const objects = (await yamlExamples()).filter(
  ({ value }) => value.kind !== undefined && !OTHERS.has(String(value.kind)),
);

describe("the API server accepts the examples of the pages", () => {
  test.each(objects.map(({ where, value }) => [String(value.kind), where, value] as const))(
    "%s at %s, with every field known",
    async (kind, where, value) => {
      const collection = COLLECTIONS[kind];
      if (collection === undefined)
        throw new Error(`${where}: say in this test where objects of kind ${kind} are made`);
      const object = value as ApiObject;
      const isNamespaced = collection("") !== collection("x");
      const body = isNamespaced ? { ...object, metadata: { ...object.metadata, namespace } } : object;
      const answer = await cluster.api.create<ApiObject>(
        `${collection(namespace)}?dryRun=All&fieldValidation=Strict`,
        body,
      );
      expect(answer.metadata?.uid).toBeDefined();
    },
  );
});
