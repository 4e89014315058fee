import { ANNOTATION_ASSIGNED_AT, ANNOTATION_SESSION_CONTAINER } from "../../src/api/names.ts";
import type { Condition, ContainerState, ContainerStatus, Pod, PodStatus } from "../../src/kube/resource.ts";
import { recorded } from "../testbed/node/recorded.ts";

// Session Pods for tests: parked ones, recorded ones, and the parts of their statuses.

/** The gated container of the Pods of these tests. */
export const SESSION = "worker";

/**
 * A recorded status as the status of a session Pod that was assigned as its container started; `session` names the container that counts as the
 * session's.
 */
export function recordedPod(name: string, session?: string): Pod {
  const { metadata, spec, status } = recorded(name);
  const container = session ?? status.containerStatuses?.[0]?.name ?? "c";
  const { running, terminated } = status.containerStatuses?.find((each) => each.name === container)?.state ?? {};
  const startedAt = running?.startedAt ?? terminated?.startedAt;
  return {
    metadata: {
      ...metadata,
      name: "work-1",
      namespace: "tb",
      annotations: {
        [ANNOTATION_SESSION_CONTAINER]: container,
        ...(startedAt && { [ANNOTATION_ASSIGNED_AT]: startedAt }),
      },
    },
    spec: { ...spec, containers: [{ name: container }] },
    status,
  };
}

/** A condition of this type that is True. */
export const isTrue = (type: string): Condition => ({ type, status: "True" });

export const PREPARED: Condition[] = [
  isTrue("PodScheduled"),
  isTrue("Initialized"),
  isTrue("PodReadyToStartContainers"),
];

export const waitingFor = (message: string, reason = "CreateContainerError"): ContainerState => ({
  waiting: { reason, message },
});

export const containerStatus = (name: string, state: ContainerState): ContainerStatus => ({ name, state });

/** The state of a container that runs. */
export const RUNNING: ContainerState = { running: { startedAt: "2026-01-01T00:00:00Z" } };

/** A session Pod on a node, with `status` on top of a warm Pod's status. */
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
      phase: "Running",
      conditions: PREPARED,
      containerStatuses: [containerStatus(SESSION, RUNNING)],
      ...status,
    },
  };
}

/** The same once it was assigned to a session, which began on the first day of 2026. */
export function assignedPod(status: PodStatus = {}, metadata: Pod["metadata"] = {}): Pod {
  const made = pod(status);
  const annotations = { ...made.metadata.annotations, [ANNOTATION_ASSIGNED_AT]: "2026-01-01T00:00:00Z" };
  return { ...made, metadata: { ...made.metadata, annotations, ...metadata } };
}
