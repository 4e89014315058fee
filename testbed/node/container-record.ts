import { createHash } from "node:crypto";
import type {
  Container,
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
  Pod,
} from "../../src/kube/objects.ts";
import { containerResources } from "./pod-resources.ts";

/** `sidecar` is an init container with restartPolicy Always. */
export type ContainerRole = "init" | "sidecar" | "main";

/** What kubelet knows of one container: not what is, but what it has seen. */
export interface ContainerRecord {
  readonly spec: Container;
  readonly role: ContainerRole;
  state: ContainerState;
  last: ContainerStateTerminated | undefined;
  restartCount: number;
  /** Of the last container made; undefined while there was none. */
  containerID: string | undefined;
}

/** The records of a Pod's containers before anything was done: init containers first, in their order. */
export function newRecords(pod: Pod): ContainerRecord[] {
  const { initContainers = [], containers } = pod.spec;
  const waiting = initContainers.length > 0 ? "PodInitializing" : "ContainerCreating";
  const make = (spec: Container, role: ContainerRole): ContainerRecord => ({
    spec,
    role,
    state: { waiting: { reason: waiting } },
    last: undefined,
    restartCount: 0,
    containerID: undefined,
  });
  return [
    ...initContainers.map((spec) => make(spec, isRestartable(spec) ? "sidecar" : "init")),
    ...containers.map((spec) => make(spec, "main")),
  ];
}

/** An init container that runs on beside the others (KEP-753). */
export function isRestartable(container: Container): boolean {
  return container["restartPolicy"] === "Always";
}

/** Takes up what an earlier kubelet reported, so that a new one goes on from there. */
export function adoptStatus(record: ContainerRecord, status: ContainerStatus | undefined): void {
  if (status?.state === undefined) return;
  record.restartCount = status.restartCount ?? 0;
  record.containerID = status.containerID;
  record.last = status.lastState?.terminated;
  record.state = status.state;
}

/** One entry of containerStatuses or initContainerStatuses, as kubelet writes it. */
export function renderContainer(pod: Pod, record: ContainerRecord): ContainerStatus {
  const { spec, role, state, last, restartCount, containerID } = record;
  const running = state.running !== undefined;
  const status: ContainerStatus = {
    name: spec.name,
    state,
    lastState: last === undefined ? {} : { terminated: last },
    ready: role === "init" ? state.terminated?.exitCode === 0 : running,
    restartCount,
    image: spec.image ?? "",
    imageID: containerID === undefined ? "" : imageId(spec.image ?? ""),
    started: running,
    ...mountsOf(spec),
  };
  if (containerID === undefined) return status;
  return { ...status, containerID, ...containerResources(spec), user: userOf(pod, spec) };
}

/** A content address that stays the same for the same image. */
function imageId(image: string): string {
  return `sha256:${createHash("sha256").update(image).digest("hex")}`;
}

interface SecurityContext {
  runAsUser?: number;
  runAsGroup?: number;
  runAsNonRoot?: boolean;
  fsGroup?: number;
  supplementalGroups?: number[];
}

/** The security context that holds for a container: its own fields win over the Pod's. */
export function securityOf(pod: Pod, container: Container): SecurityContext {
  return {
    ...(pod.spec["securityContext"] as SecurityContext | undefined),
    ...(container["securityContext"] as SecurityContext | undefined),
  };
}

/** Every image of the simulated node brings a numeric user, unless a fate says that it is root. */
const IMAGE_USER = 65_532;

function userOf(pod: Pod, container: Container): Record<string, unknown> {
  const { runAsNonRoot } = securityOf(pod, container);
  const {
    runAsUser = runAsNonRoot ? IMAGE_USER : 0,
    runAsGroup = 0,
    fsGroup,
    supplementalGroups = [],
  } = securityOf(pod, container);
  const groups = [runAsGroup, ...(fsGroup === undefined ? [] : [fsGroup]), ...supplementalGroups];
  return { linux: { uid: runAsUser, gid: runAsGroup, supplementalGroups: [...new Set(groups)].sort((a, b) => a - b) } };
}

interface VolumeMount {
  name: string;
  mountPath: string;
  readOnly?: boolean;
}

function mountsOf(container: Container): { volumeMounts?: Record<string, unknown>[] } {
  const mounts = (container["volumeMounts"] ?? []) as VolumeMount[];
  if (mounts.length === 0) return {};
  return {
    volumeMounts: mounts.map(({ name, mountPath, readOnly }) =>
      readOnly === true ? { name, mountPath, readOnly, recursiveReadOnly: "Disabled" } : { name, mountPath },
    ),
  };
}
