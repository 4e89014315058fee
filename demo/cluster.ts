import { setTimeout as delay } from "node:timers/promises";
import { realClock } from "../src/core/clock.ts";
import { KubeClient } from "../src/kube/client.ts";
import { loadKubeConfig } from "../src/kube/config.ts";
import { isAlreadyExists, isNotFound } from "../src/kube/errors.ts";
import { NAMESPACES, SERVICE_ACCOUNTS } from "../src/kube/resource.ts";
import { startCluster } from "../testbed/cluster/cluster.ts";
import { installBerth } from "../testbed/cluster/install.ts";
import type { Progress } from "../testbed/cluster/progress.ts";
import { announceCluster } from "../testbed/cluster/running.ts";
import { NODE, OPERATOR } from "../testbed/cluster/users.ts";
import { DemoError } from "./errors.ts";

/** Requests by kind, such as `patch pods`. */
export type RequestCounts = ReadonlyMap<string, number>;

/** The cluster that the demo runs in, with the CRD, the operator's permissions, and a namespace. */
export interface DemoCluster {
  /** The Kubernetes version and server, for the title. */
  readonly about: string;
  readonly namespace: string;
  /** The name of the node that the demo adds. */
  readonly nodeName: string;
  /** The demo runs in a cluster that it does not own: Pods of others must not run on its node. */
  readonly foreign: boolean;
  /** Paths, in the format of KUBECONFIG. */
  readonly kubeconfig: string;
  readonly operatorKubeconfig: string;
  readonly nodeKubeconfig: string;
  readonly operatorFlags: readonly string[];
  /** The kubectl command for this cluster. */
  readonly kubectl: string;
  /** A client with all permissions. */
  readonly kube: KubeClient;
  /** The operator's requests so far, as the API server counts them; undefined if its audit log can't be read. */
  operatorRequests(): Promise<RequestCounts | undefined>;
  /** What you must remove by hand if the demo ends abruptly; empty if nothing stays. */
  readonly stays: readonly string[];
  /** Removes everything that the demo added. Returns what could not be removed. */
  leave(): Promise<string[]>;
}

const NAMESPACE = "berth-demo";
const NODE_NAME = "demo-node";
/** The namespace in which deploy/ lets the operator keep its Lease. */
const OPERATOR_NAMESPACE = "berth-system";

/** Starts a control plane for the demo. It ends with this process, however that ends. */
export async function startOwnCluster(progress: Progress, onFailure: (error: Error) => void): Promise<DemoCluster> {
  const cluster = await startCluster({ progress, onFailure });
  try {
    progress.update("installing Berth's CRD and permissions");
    await installBerth(cluster.api);
    const kube = demoClient(cluster.kubeconfig);
    await createNamespace(kube, NAMESPACE);
    const nodeKubeconfig = await cluster.kubeconfigFor(NODE);
    const takeBack = await announceCluster(cluster);
    return {
      about: `Kubernetes ${cluster.version}`,
      namespace: NAMESPACE,
      nodeName: NODE_NAME,
      foreign: false,
      kubeconfig: cluster.kubeconfig,
      operatorKubeconfig: cluster.operatorKubeconfig,
      nodeKubeconfig,
      operatorFlags: ["--leader-elect-namespace", OPERATOR_NAMESPACE],
      kubectl: "npm run cluster -- kubectl",
      kube,
      stays: [],
      async operatorRequests() {
        const counts = await cluster.audit.counts({ user: OPERATOR });
        return sumUp(counts.map(({ verb, resource, count }) => [`${verb} ${resource}`, count] as const));
      },
      async leave() {
        await takeBack();
        await kube.close();
        await cluster.stop();
        return [];
      },
    };
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

/** The demo's own client of the API server. */
export function demoClient(kubeconfig: string): KubeClient {
  return new KubeClient({
    access: loadKubeConfig(undefined, { KUBECONFIG: kubeconfig }),
    clock: realClock,
    userAgent: "berth-demo",
  });
}

/**
 * The controller-manager creates a namespace's default service account shortly after the namespace. Until then no Pod
 * can be created.
 */
const SERVICE_ACCOUNT_TRIES = 300;
const POLL_MS = 100;

/**
 * Creates a namespace and waits until Pods can be created in it.
 * @throws {Error} the namespace does not get ready
 */
export async function createNamespace(
  kube: KubeClient,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<void> {
  try {
    await kube.create(NAMESPACES, { metadata: { name, labels } });
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
  for (let attempt = 0; attempt < SERVICE_ACCOUNT_TRIES; attempt += 1) {
    try {
      await kube.get(SERVICE_ACCOUNTS, { namespace: name, name: "default" });
      return;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    await delay(POLL_MS);
  }
  throw new DemoError(`namespace ${name} has no default service account: check that the controller-manager runs`);
}

/** Adds up the numbers with the same name. */
export function sumUp(entries: Iterable<readonly [string, number]>): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [name, value] of entries) sums.set(name, (sums.get(name) ?? 0) + value);
  return sums;
}
