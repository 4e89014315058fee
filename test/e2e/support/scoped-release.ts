import { CHART } from "../../../tools/helm.ts";
import { chartValues, helmFor } from "./install.ts";
import { kubectl } from "./kubectl.ts";
import { restoreDeployment } from "./operator-process.ts";
import { operatorUser } from "./operators.ts";
import { makeNamespace, removeNamespace } from "./simulator-pod.ts";
import type { E2eWorld } from "./world.ts";

const HELM_TIMEOUT = "180s";

/** A second release of the chart, in its own namespace. */
export interface ScopedRelease extends AsyncDisposable {
  readonly namespace: string;
  /** The user name of its service account. */
  readonly user: string;
  /** The log of its operator so far. */
  log(): Promise<string>;
}

/**
 * Installs the chart a second time, only for these namespaces, while the cluster-wide release has no replicas. At the
 * end it uninstalls that release, removes its namespace and restores the other one. Don't use it concurrently with
 * other tests.
 */
export async function installScoped(
  world: E2eWorld,
  name: string,
  namespaces: readonly string[],
): Promise<ScopedRelease> {
  const { cluster, kube } = world;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => restoreDeployment(world));
  await world.operators.scale(0);
  await world.until("the operators' Pods are gone", async () => (await world.operators.pods()).length === 0);
  stack.defer(() => removeNamespace(kube, name));
  await makeNamespace(kube, name, { "pod-security.kubernetes.io/enforce": "restricted" });
  const where = ["--namespace", name, "--wait", "--timeout", HELM_TIMEOUT];
  stack.defer(() => helmFor(cluster, ["uninstall", name, "--ignore-not-found", ...where]));
  const values = {
    ...chartValues(cluster),
    ...{
      namespaces,
      caBundle: {},
      replicas: 1,
      crds: { enabled: false },
      features: { nodes: false, aggregate: false },
    },
  };
  await helmFor(cluster, ["install", name, CHART, ...where], values);
  const rest = stack.move();
  return {
    namespace: name,
    user: await operatorUser(kube, name),
    log: () =>
      kubectl(cluster, [
        "logs",
        "--namespace",
        name,
        "--selector",
        "app.kubernetes.io/component=operator",
        "--tail=-1",
      ]),
    [Symbol.asyncDispose]: () => rest.disposeAsync(),
  };
}
