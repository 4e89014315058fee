import type { ContainerStateTerminated, Pod } from "../../src/kube/objects.ts";
import type { ContainerRecord } from "./container-record.ts";
import type { ReferencedObjects } from "./environment.ts";
import { goDuration } from "./restart-backoff.ts";

/** kubelet's own default, where the API server has not filled it in. */
const DEFAULT_GRACE_SECONDS = 30;

/** kubelet ignores changes of the status alone: most of them are its own (pkg/kubelet/config/config.go). */
export function differsForKubelet(before: Pod, after: Pod): boolean {
  return visiblePart(before) !== visiblePart(after);
}

/**
 * What others say of the Pod's readiness gates is the one part of the status that kubelet looks at: Ready follows it
 * (pkg/kubelet/status/status_manager.go, NeedToReconcilePodReadiness).
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

/** Seconds from SIGTERM to SIGKILL where nobody asked for others: at least one. */
export function ownGraceSeconds(pod: Pod): number {
  return Math.max(1, pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS);
}

/**
 * Seconds from SIGTERM to SIGKILL. A Pod that was deleted by force (grace 0) still gets the grace of its spec: its
 * object is gone, its containers are not (pkg/kubelet/pod_workers.go, calculateEffectiveGracePeriod).
 */
export function graceSecondsOf(pod: Pod): number {
  const { deletionGracePeriodSeconds } = pod.metadata;
  return deletionGracePeriodSeconds ? Math.max(1, deletionGracePeriodSeconds) : ownGraceSeconds(pod);
}

/** Whether a container that ended so is to be started again. */
export function restarts(pod: Pod, record: ContainerRecord, end: ContainerStateTerminated): boolean {
  if (record.role === "sidecar") return true;
  const { restartPolicy = "Always" } = pod.spec;
  if (restartPolicy === "Never") return false;
  return end.exitCode !== 0 || (restartPolicy === "Always" && record.role === "main");
}

/** Whether nothing of the Pod will run any more by itself. */
export function isDone(pod: Pod, records: readonly ContainerRecord[]): boolean {
  const over = ({ state, ...record }: ContainerRecord) =>
    state.terminated !== undefined && !restarts(pod, { state, ...record }, state.terminated);
  const failed = (record: ContainerRecord) => over(record) && record.state.terminated?.exitCode !== 0;
  const main = records.filter(({ role }) => role === "main");
  return records.some((record) => record.role === "init" && failed(record)) || main.every(over);
}

/** Whether a main container was ever started: init containers are not run again then. */
export function hasBegun(records: readonly ContainerRecord[]): boolean {
  return records.some(({ role, state, last }) => role === "main" && (state.running ?? state.terminated ?? last));
}

/** What kubelet says of a container that waits before its next restart. */
export function crashLoopMessage({ metadata }: Pod, container: string, seconds: number): string {
  const pod = `${metadata.name}_${metadata.namespace}(${metadata.uid})`;
  return `back-off ${goDuration(seconds)} restarting failed container=${container} pod=${pod}`;
}

/** Names of the Secrets and ConfigMaps whose absence keeps the Pod's volumes from being mounted. */
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

/** kubelet's words for the first volume that what `found` holds is not enough for; undefined: it is. */
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
