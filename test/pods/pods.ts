import { ANNOTATION_SESSION_CONTAINER } from "../../src/api/names.ts";
import type { Condition, ContainerState, ContainerStatus, Pod, PodStatus } from "../../src/kube/resource.ts";
import { recorded } from "../testbed/node/recorded.ts";

// Session Pods for tests: parked ones, recorded ones, and the parts of their statuses.

/** The gated container of the Pods of these tests. */
export const SESSION = "worker";

/** A recorded status as the status of a session Pod; `session` names the container that counts as the session's. */
export function recordedPod(name: string, session?: string): Pod {
  const { metadata, spec, status } = recorded(name);
  const container = session ?? status.containerStatuses?.[0]?.name ?? "c";
  return {
    metadata: {
      ...metadata,
      name: "work-1",
      namespace: "tb",
      annotations: { [ANNOTATION_SESSION_CONTAINER]: container },
    },
    spec: { ...spec, containers: [{ name: container }] },
    status,
  };
}

/** The kubelet's message for a container that waits for a Secret without the key. */
export const MISSING_KEY = "couldn't find key work-secret in Secret agents/berth-research-x";
/** The kubelet's message for a container that waits for a missing Secret. */
export const MISSING_SECRET = 'secret "berth-research-x" not found';

/** A condition of this type that is True. */
export const isTrue = (type: string): Condition => ({ type, status: "True" });

export const PREPARED: Condition[] = [
  isTrue("PodScheduled"),
  isTrue("Initialized"),
  isTrue("PodReadyToStartContainers"),
];

export const waitingFor = (message: string, reason = "CreateContainerConfigError"): ContainerState => ({
  waiting: { reason, message },
});

export const containerStatus = (name: string, state: ContainerState): ContainerStatus => ({ name, state });

/** A session Pod on a node, with `status` on top of a parked Pod's status. */
export function pod(
  status: PodStatus = {},
  more: { metadata?: Pod["metadata"]; spec?: Partial<Pod["spec"]> } = {},
): Pod {
  return {
    metadata: {
      name: "berth-research-x",
      namespace: "agents",
      annotations: { [ANNOTATION_SESSION_CONTAINER]: SESSION },
      ...more.metadata,
    },
    spec: { containers: [{ name: SESSION }], nodeName: "node-1", ...more.spec },
    status: {
      phase: "Pending",
      conditions: PREPARED,
      containerStatuses: [containerStatus(SESSION, waitingFor(MISSING_KEY))],
      ...status,
    },
  };
}
