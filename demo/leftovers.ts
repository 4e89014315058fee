import type { Simulator } from "../simulator/simulator.ts";
import { LABEL_ENVIRONMENT, LABEL_PHASE } from "../src/api/names.ts";
import type { KubeClient } from "../src/kube/client.ts";
import { PODS, SECRETS } from "../src/kube/resource.ts";
import { workerProcesses } from "./processes.ts";

export interface LeftoverQuery {
  readonly kube: KubeClient;
  readonly namespace: string;
  readonly simulator: Simulator;
  readonly environmentId: string;
  /** The Environment is gone: parked and finished Pods must be gone with it. */
  readonly afterwards: boolean;
  /** A person ended the demo: what nobody claimed may stay in the queue. */
  readonly interrupted: boolean;
}

/** What is there although nothing should be, a line each; asks the API server, no cache. */
export async function findLeftovers(query: LeftoverQuery): Promise<string[]> {
  const { kube, namespace, simulator, environmentId, afterwards, interrupted } = query;
  const mayStay = (state: string) => state === "stopped" || (interrupted && state === "queued");
  const items = simulator.items(environmentId).filter(({ state }) => !mayStay(state));
  const [secrets, pods, processes] = await Promise.all([
    kube.list(SECRETS, { namespace, labelSelector: LABEL_ENVIRONMENT }),
    kube.list(PODS, { namespace, labelSelector: afterwards ? LABEL_ENVIRONMENT : `${LABEL_PHASE}=assigned` }),
    workerProcesses(environmentId),
  ]);
  return [
    ...items.map(({ id, state }) => `work item ${id} is ${state}`),
    ...secrets.items.map(({ metadata }) => `claim Secret ${metadata.name}`),
    ...pods.items.map(({ metadata }) => `Pod ${metadata.name} (${metadata.labels?.[LABEL_PHASE] ?? "no phase"})`),
    ...processes.map((pid) => `worker process ${pid}`),
  ];
}
