import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { ApiClient } from "../../../testbed/cluster/api.ts";
import { type Manifest, objectPath, type Rendered, render, type Values } from "../../support/chart.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { rightOf, untilInForce } from "./in-force.ts";

/** The kinds of a release that grant rights. */
const KINDS = new Set(["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]);

/** Longer than any test runs. */
const TOKEN_SECONDS = 3_600;

/** A release's service accounts and their rights on the API server, as helm renders them. No operator runs. */
export interface ReleaseRights extends AsyncDisposable {
  /** The release's own namespace. */
  readonly namespace: string;
  /** Names of the service accounts. */
  readonly operator: string;
  readonly uninstall: string;
  /** The chart with the same values. */
  readonly rendered: Rendered;
  /** A client with a token that the API server issued to a service account of the release. */
  as(account: string): Promise<ApiClient>;
}

/**
 * Renders the chart with these values, and applies the objects that grant rights. Each call uses its own names.
 * Resolves when the API server enforces all of them.
 */
export async function applyRights(cluster: TestCluster, values: Values = {}): Promise<ReleaseRights> {
  const namespace = await cluster.createNamespace("rights");
  const name = `berth-${randomBytes(4).toString("hex")}`;
  const rendered = await render(namespace, { fullnameOverride: name, ...values });
  const applied: Manifest[] = [];
  for (const object of rendered.objects.filter(({ kind }) => KINDS.has(kind))) {
    await cluster.api.apply(objectPath(object), object);
    applied.push(object);
  }
  await untilAllInForce(cluster.api, applied);
  const clients: ApiClient[] = [];
  return {
    namespace,
    operator: `${name}-operator`,
    uninstall: `${name}-uninstall`,
    rendered,
    async as(account) {
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
      const { status } = await cluster.api.create<{ status: { token: string } }>(path, {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: { expirationSeconds: TOKEN_SECONDS },
      });
      const client = new ApiClient(cluster.server, readFileSync(cluster.caFile, "utf8"), status.token);
      clients.push(client);
      return client;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(clients.map((client) => client.close()));
      // Namespaces are cleaned up after the test; cluster-scoped roles would stay and be aggregated.
      for (const object of applied) if (object.kind.startsWith("Cluster")) await cluster.api.delete(objectPath(object));
    },
  };
}

/** Each binding grants its service account a right that no other one grants: the first right of its role. */
async function untilAllInForce(api: ApiClient, objects: readonly Manifest[]): Promise<void> {
  for (const { kind, metadata, roleRef, subjects } of objects) {
    if (!kind.endsWith("Binding")) continue;
    const role = objects.find((object) => {
      const isInNamespace = object.kind === "ClusterRole" || object.metadata.namespace === metadata.namespace;
      return object.kind === roleRef.kind && object.metadata.name === roleRef.name && isInNamespace;
    });
    const [rule] = role?.rules ?? [];
    if (!rule) continue;
    for (const { name, namespace } of subjects as readonly { name: string; namespace: string }[]) {
      const user = `system:serviceaccount:${namespace}:${name}`;
      await untilInForce(api, user, metadata.namespace ?? "", rightOf(rule));
    }
  }
}
