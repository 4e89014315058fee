import type { ContainerStateTerminated, Pod } from "../../src/kube/objects.ts";
import type { ContainerRecord } from "./container-record.ts";
import type { ReferencedObjects } from "./environment.ts";
import { goDuration } from "./restart-backoff.ts";

/** The kubelet's own default, for Pods that the API server didn't default. */
const DEFAULT_GRACE_SECONDS = 30;

/**
 * Whether a change matters to the kubelet. It ignores changes of the status alone, because most of them are its own
 * (pkg/kubelet/config/config.go).
 */
export function differsForKubelet(before: Pod, after: Pod): boolean {
  return visiblePart(before) !== visiblePart(after);
}

/**
 * Whether the conditions of the Pod's readiness gates differ. They're the only part of the status that the kubelet
 * reads, because Ready depends on them (pkg/kubelet/status/status_manager.go, NeedToReconcilePodReadiness).
 */
export function gatesDiffer(before: Pod, after: Pod): boolean {
  const gates = (after.spec["readinessGates"] ?? []) as { conditionType: string }[];
  const said = ({ status }: Pod, wanted: string) => status?.conditions?.find(({ type }) => type === wanted)?.status;
  return gates.some(({ conditionType }) => said(before, conditionType) !== said(after, conditionType));
}

function visiblePart({ metadata, spec }: Pod): string {
  const { labels, annotations, deletionTimestamp, deletionGracePeriodSeconds } = metadata;
  return JSON.stringify([labels, annotations, deletionTimestamp, deletionGracePeriodSeconds, spec]);
}

/** The seconds from SIGTERM to SIGKILL by the Pod's spec: at least one. */
export function ownGraceSeconds(pod: Pod): number {
  return Math.max(1, pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS);
}

/**
 * The seconds from SIGTERM to SIGKILL. A force-deleted Pod (grace 0) still gets the grace of its spec: its object is
 * gone, but its containers are not (pkg/kubelet/pod_workers.go, calculateEffectiveGracePeriod).
 */
export function graceSecondsOf(pod: Pod): number {
  const { deletionGracePeriodSeconds } = pod.metadata;
  return deletionGracePeriodSeconds ? Math.max(1, deletionGracePeriodSeconds) : ownGraceSeconds(pod);
}

/** Whether the kubelet restarts a container that ended this way. */
export function restarts(pod: Pod, record: ContainerRecord, end: ContainerStateTerminated): boolean {
  if (record.role === "sidecar") return true;
  if (record.role === "ephemeral") return false;
  const { restartPolicy = "Always" } = pod.spec;
  if (restartPolicy === "Never") return false;
  return end.exitCode !== 0 || (restartPolicy === "Always" && record.role === "main");
}

/** Whether nothing of the Pod will run again without outside action. */
export function isDone(pod: Pod, records: readonly ContainerRecord[]): boolean {
  const over = ({ state, ...record }: ContainerRecord) =>
    state.terminated !== undefined && !restarts(pod, { state, ...record }, state.terminated);
  const failed = (record: ContainerRecord) => over(record) && record.state.terminated?.exitCode !== 0;
  const main = records.filter(({ role }) => role === "main");
  return records.some((record) => record.role === "init" && failed(record)) || main.every(over);
}

/** Whether a main container was ever started. After that, init containers don't run again. */
export function hasBegun(records: readonly ContainerRecord[]): boolean {
  return records.some(({ role, state, last }) => role === "main" && (state.running ?? state.terminated ?? last));
}

/** The kubelet's message about a container that waits for its next restart. */
export function crashLoopMessage({ metadata }: Pod, container: string, seconds: number): string {
  const pod = `${metadata.name}_${metadata.namespace}(${metadata.uid})`;
  return `back-off ${goDuration(seconds)} restarting failed container=${container} pod=${pod}`;
}

/** Returns the names of the Secrets and ConfigMaps without which the Pod's volumes can't be mounted. */
export function requiredVolumes({ spec }: Pod): { secrets: string[]; configMaps: string[] } {
  const volumes = (spec.volumes ?? []) as {
    secret?: { secretName?: string; optional?: boolean };
    configMap?: { name?: string; optional?: boolean };
  }[];
  const secrets = volumes.flatMap(({ secret }) => (secret && !secret.optional ? [secret.secretName ?? ""] : []));
  const configMaps = volumes.flatMap(({ configMap }) =>
    configMap && !configMap.optional ? [configMap.name ?? ""] : [],
  );
  return { secrets, configMaps };
}

/**
 * Returns the kubelet's message about the first volume whose objects are missing from `found`, or undefined if none
 * are.
 */
export function volumeFault({ spec }: Pod, found: ReferencedObjects): string | undefined {
  const volumes = (spec.volumes ?? []) as {
    name: string;
    secret?: { secretName?: string; optional?: boolean };
    configMap?: { name?: string; optional?: boolean };
  }[];
  for (const { name, secret, configMap } of volumes) {
    const failed = `MountVolume.SetUp failed for volume "${name}" : `;
    const { secretName = "" } = secret ?? {};
    if (secret && !secret.optional && !found.secret(secretName)) return `${failed}secret "${secretName}" not found`;
    const { name: mapName = "" } = configMap ?? {};
    if (configMap && !configMap.optional && !found.configMap(mapName)) {
      return `${failed}configmap "${mapName}" not found`;
    }
  }
  return undefined;
}
