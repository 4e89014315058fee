import type { Simulator } from "../simulator/simulator.ts";
import { LABEL_ENVIRONMENT, LABEL_PHASE } from "../src/api/names.ts";
import type { KubeClient } from "../src/kube/client.ts";
import { DEPLOYMENTS, type KubeObject, PODS, type Resource, SECRETS } from "../src/kube/resource.ts";
import { workerProcesses } from "./processes.ts";
import type { Mode } from "./sample.ts";

/** The operator does not use ReplicaSets, but the Deployment controller creates them for its Deployments. */
const REPLICA_SETS: Resource = { ...DEPLOYMENTS, plural: "replicasets", kind: "ReplicaSet" } as Resource;

export interface LeftoverQuery {
  readonly kube: KubeClient;
  readonly namespace: string;
  readonly simulator: Simulator;
  readonly environments: readonly { readonly mode: Mode; readonly environmentId: string }[];
  /** The Environments are deleted: their Pods must be gone, and so must the objects that create workers. */
  readonly afterwards: boolean;
  /** A person ended the demo: unclaimed items may stay in the queue. */
  readonly interrupted: boolean;
}

/** What should not exist any more, one per line. Reads from the API server, not from a cache. */
export async function findLeftovers(query: LeftoverQuery): Promise<string[]> {
  const { kube, namespace, simulator, environments, afterwards, interrupted } = query;
  const mayStay = (state: string) => state === "stopped" || (interrupted && state === "queued");
  const items = environments.flatMap(({ environmentId }) =>
    simulator.items(environmentId).filter(({ state }) => !mayStay(state)),
  );
  // Until their Environment is deleted, always-on workers run without a session, and the shells of warm Pods wait.
  const processesOf = (mode: Mode, environmentId: string) => {
    if (afterwards) return workerProcesses(environmentId, "all");
    return mode === "workers" ? [] : workerProcesses(environmentId, "with a session");
  };
  const [secrets, pods, makers, processes] = await Promise.all([
    kube.list(SECRETS, { namespace, labelSelector: LABEL_ENVIRONMENT }),
    kube.list(PODS, { namespace, labelSelector: afterwards ? LABEL_ENVIRONMENT : `${LABEL_PHASE}=running` }),
    afterwards ? workerMakers(kube, namespace) : [],
    Promise.all(environments.map(({ mode, environmentId }) => processesOf(mode, environmentId))),
  ]);
  return [
    ...items.map(({ id, state }) => `work item ${id} is ${state}`),
    ...secrets.items.map(({ metadata }) => `claim Secret ${metadata.name}`),
    ...makers,
    ...pods.items.map(({ metadata }) => `Pod ${metadata.name} (${metadata.labels?.[LABEL_PHASE] ?? "no phase"})`),
    ...processes.flat().map((pid) => `worker process ${pid}`),
  ];
}

/** Ignores labels: nothing else creates such objects in the demo's namespace. */
async function workerMakers(kube: KubeClient, namespace: string): Promise<string[]> {
  const lists = await Promise.all(
    [DEPLOYMENTS as Resource<KubeObject>, REPLICA_SETS].map(async (resource) => {
      const { items } = await kube.list(resource, { namespace });
      return items.map(({ metadata }) => `${resource.kind} ${metadata.name}`);
    }),
  );
  return lists.flat();
}
