import {
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_BUSY_PROBE,
  ANNOTATION_CREDENTIAL,
  ANNOTATION_DELETION_COST,
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_ENDED_AT,
  ANNOTATION_ENDED_TURN,
  ANNOTATION_LEASE,
  ANNOTATION_NEEDS,
  ANNOTATION_PARKING,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_SESSION_ID,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  ANNOTATION_TURN_CONTAINER,
  ANNOTATION_WORK_ID,
  ANNOTATION_WORKSPACE,
  LABEL_ENVIRONMENT,
  LABEL_PHASE,
  LABEL_ROLE,
  LABEL_SESSION_ID,
  LABEL_TEMPLATE_HASH,
  LABEL_WORK_ID,
  RESERVED_ENV,
} from "../api/names.ts";
import { defined } from "../core/json.ts";
import { Shared } from "../core/shared.ts";
import type { Condition, ContainerStatus, PodStatus } from "../kube/objects.ts";
import type { Container, Pod } from "../kube/resource.ts";
import { endedTurn, newestTurn, turnName, turnNumber } from "./turns.ts";

/** The labels and annotations that the loops read; `berth.dev/about` is for people only. */
const LABELS = [
  LABEL_ENVIRONMENT,
  LABEL_ROLE,
  LABEL_PHASE,
  LABEL_WORK_ID,
  LABEL_SESSION_ID,
  LABEL_TEMPLATE_HASH,
] as const;
const ANNOTATIONS = [
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_BUSY_PROBE,
  ANNOTATION_CREDENTIAL,
  ANNOTATION_DELETION_COST,
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_ENDED_TURN,
  ANNOTATION_ENDED_AT,
  ANNOTATION_LEASE,
  ANNOTATION_NEEDS,
  ANNOTATION_PARKING,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_SESSION_ID,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  ANNOTATION_TURN_CONTAINER,
  ANNOTATION_WORK_ID,
  ANNOTATION_WORKSPACE,
] as const;
/** Values unique to a session. In the shared pool they would push out values that many Pods share. */
const OWN: ReadonlySet<string> = new Set([
  LABEL_WORK_ID,
  LABEL_SESSION_ID,
  ANNOTATION_WORK_ID,
  ANNOTATION_SESSION_ID,
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_ENDED_AT,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  ANNOTATION_TURN_CONTAINER,
]);
const VARIABLES: ReadonlySet<string> = new Set(RESERVED_ENV);

/** Conditions that the loops read. Equal texts of thousands of Pods are stored once. */
const CONDITIONS: ReadonlySet<string> = new Set([
  "PodScheduled",
  "Initialized",
  "PodReadyToStartContainers",
  "Ready",
  "DisruptionTarget",
]);
const shared = new Shared();

/** Longer than any value that Berth writes: ids have at most 1,000 characters, and messages are cut. */
const MAX_VALUE = 4_096;
/** More than a template may have (32), plus what admission adds. */
const MAX_CONTAINERS = 64;
const MAX_GATES = 16;
const MAX_TOLERATIONS = 256;

/**
 * The part of a Pod that the loops read, for caches. Anyone who may create Pods can put Berth's labels on large ones, a
 * megabyte each, and all Environments share the operator's memory.
 */
export function cachedPod({ apiVersion, kind, metadata, spec, status }: Pod): Pod {
  const { labels, annotations, ownerReferences, ...rest } = metadata;
  const owner = ownerReferences?.find(({ controller }) => controller);
  const { name, namespace, uid, resourceVersion, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds } =
    rest;
  const { nodeName, activeDeadlineSeconds, terminationGracePeriodSeconds, initContainers, containers } = spec;
  const { runtimeClassName, schedulingGates, ["tolerations"]: tolerations } = spec;
  const newest = newestTurn({ spec });
  return defined({
    apiVersion: shared.text(apiVersion),
    kind: shared.text(kind),
    metadata: defined({
      ...{
        name,
        namespace: shared.text(namespace),
        uid,
        resourceVersion,
        creationTimestamp,
        deletionTimestamp,
        deletionGracePeriodSeconds,
      },
      labels: labels && picked(labels, LABELS),
      annotations: annotations && picked(annotations, ANNOTATIONS),
      ownerReferences: owner && shared.value([owner]),
    }),
    spec: defined({
      ...{ nodeName: shared.text(nodeName), activeDeadlineSeconds, terminationGracePeriodSeconds },
      initContainers: shared.value(initContainers?.slice(0, MAX_CONTAINERS).map(containerOf)),
      containers: shared.value(containers?.slice(0, MAX_CONTAINERS).map(containerOf)),
      ephemeralContainers: shared.value(newest > 0 ? [{ name: turnName(newest) }] : undefined),
      runtimeClassName: shared.text(runtimeClassName),
      schedulingGates: shared.value(schedulingGates?.slice(0, MAX_GATES)),
      tolerations: shared.value(Array.isArray(tolerations) ? tolerations.slice(0, MAX_TOLERATIONS) : undefined),
    }),
    status: status && statusOf(status, Math.min(newest, endedTurn({ metadata }))),
  }) as unknown as Pod;
}

function containerOf({ name, env, restartPolicy }: Container): Record<string, unknown> {
  const told = env?.filter((variable) => VARIABLES.has(variable.name)).map((variable) => ({ name: variable.name }));
  return defined({ name, restartPolicy, env: told?.length ? told : undefined });
}

/** @param ended the last turn that ended. Earlier ones are kept only if they run again. */
function statusOf({ phase, reason, message, startTime, podIP, ...of }: PodStatus, ended: number): PodStatus {
  const turns = of.ephemeralContainerStatuses?.filter(
    ({ name, state }) => turnNumber(name) >= Math.max(1, ended) || (turnNumber(name) > 0 && state?.running),
  );
  const conditions = of.conditions
    ?.filter(({ type }) => CONDITIONS.has(type))
    .map((condition) => conditionOf(condition, phase === "Running"));
  return defined({
    ...{ phase: shared.text(phase), reason, message, startTime, podIP },
    conditions: conditions?.some(({ lastTransitionTime }) => lastTransitionTime)
      ? conditions
      : shared.value(conditions),
    initContainerStatuses: of.initContainerStatuses?.map(containerStatusOf),
    containerStatuses: of.containerStatuses?.map(containerStatusOf),
    ephemeralContainerStatuses: turns?.length ? turns.map(turnStatusOf) : undefined,
  });
}

/**
 * Drops the time of conditions, and the reason and message of true ones, which no loop reads. A disruption keeps them,
 * and PodScheduled does until the Pod runs: for a running Pod that time is unique and would prevent sharing.
 */
function conditionOf(condition: Condition, isRunning: boolean): Condition {
  const { type, status, reason, message, lastTransitionTime } = condition;
  const sinceWhen = type === "DisruptionTarget" || (type === "PodScheduled" && !isRunning);
  if (sinceWhen) return defined({ type, status, reason, message, lastTransitionTime }) as Condition;
  return status === "True" ? { type, status } : (defined({ type, status, reason, message }) as Condition);
}

function containerStatusOf({ name, state, lastState, restartCount }: ContainerStatus): ContainerStatus {
  const last = lastState && Object.keys(lastState).length > 0 ? lastState : undefined;
  const restarts = restartCount || undefined;
  return defined({ name: shared.text(name), state, lastState: last, restartCount: restarts }) as ContainerStatus;
}

/** With the id of its container, which changes if the kubelet starts the turn again. */
function turnStatusOf(status: ContainerStatus): ContainerStatus {
  return defined({ ...containerStatusOf(status), containerID: status.containerID }) as unknown as ContainerStatus;
}

function picked(all: Readonly<Record<string, string>>, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = all[name];
      if (value === undefined || value.length > MAX_VALUE) return [];
      return [[name, OWN.has(name) ? value : shared.text(value)]];
    }),
  );
}
