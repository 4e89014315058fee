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
export type ContainerRole = "init" | "sidecar" | "main" | "ephemeral";

/** What the kubelet knows about a container. It reflects what the kubelet has seen, not the current state. */
export interface ContainerRecord {
  readonly spec: Container;
  readonly role: ContainerRole;
  state: ContainerState;
  last: ContainerStateTerminated | undefined;
  restartCount: number;
  /** The id of the last container that was created, or undefined before the first. */
  containerID: string | undefined;
}

/** The state of a container before anything has happened to it. */
export function initialState({ spec: { initContainers = [] } }: Pod): ContainerState {
  return { waiting: { reason: initContainers.length > 0 ? "PodInitializing" : "ContainerCreating" } };
}

/** Creates the records of a Pod's containers. Init containers come first, in order; ephemeral ones may be added. */
export function newRecords(pod: Pod): ContainerRecord[] {
  const { initContainers = [], containers, ephemeralContainers = [] } = pod.spec;
  const make = (spec: Container, role: ContainerRole): ContainerRecord => ({
    ...{ spec, role, state: initialState(pod), last: undefined, restartCount: 0, containerID: undefined },
  });
  return [
    ...initContainers.map((spec) => make(spec, isRestartable(spec) ? "sidecar" : "init")),
    ...containers.map((spec) => make(spec, "main")),
    ...ephemeralContainers.map((spec) => make(spec, "ephemeral")),
  ];
}

/** Whether it's an init container that keeps running next to the others (KEP-753). */
export function isRestartable(container: Container): boolean {
  return container["restartPolicy"] === "Always";
}

/** Adopts the status that an earlier kubelet reported, so that a new kubelet continues from there. */
export function adoptStatus(record: ContainerRecord, status: ContainerStatus | undefined): void {
  if (status?.state === undefined) return;
  record.restartCount = status.restartCount ?? 0;
  record.containerID = status.containerID;
  record.last = status.lastState?.terminated;
  record.state = status.state;
}

/**
 * Renders an entry of containerStatuses, initContainerStatuses or ephemeralContainerStatuses as the kubelet writes it.
 * The kubelet never judges whether an ephemeral container is ready.
 */
export function renderContainer(pod: Pod, record: ContainerRecord): ContainerStatus {
  const { spec, role, state, last, restartCount, containerID } = record;
  const running = state.running !== undefined;
  const status: ContainerStatus = {
    name: spec.name,
    state,
    lastState: last === undefined ? {} : { terminated: last },
    ready: role === "init" ? state.terminated?.exitCode === 0 : running && role !== "ephemeral",
    restartCount,
    image: spec.image ?? "",
    imageID: containerID === undefined ? "" : imageId(spec.image ?? ""),
    ...(role === "ephemeral" ? {} : { started: running }),
    ...mountsOf(spec),
  };
  if (containerID === undefined) return status;
  return { ...status, containerID, ...containerResources(spec), user: userOf(pod, spec) };
}

/** Returns a digest that stays the same for the same image. */
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

/** Returns the effective security context of a container. Its own fields override the Pod's. */
export function securityOf(pod: Pod, container: Container): SecurityContext {
  return {
    ...(pod.spec["securityContext"] as SecurityContext | undefined),
    ...(container["securityContext"] as SecurityContext | undefined),
  };
}

/** Every image of the simulated node has a numeric user, unless a fate makes it root. */
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
