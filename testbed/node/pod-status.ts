import type { ContainerStatus, Pod, PodStatus } from "../../src/kube/objects.ts";
import { type ContainerRecord, renderContainer } from "./container-record.ts";
import { conditionsOf, type PodVerdict } from "./pod-conditions.ts";
import { isTerminalPhase, type Phase, phaseOf } from "./pod-phase.ts";
import { podResources, qosClass } from "./pod-resources.ts";

/** What a Pod's status is made from. */
export interface PodView {
  readonly pod: Pod;
  readonly records: readonly ContainerRecord[];
  readonly nowMs: number;
  readonly startTimeMs: number;
  /** Of the Pod's sandbox; kept when the sandbox is gone. */
  readonly podIP: string | undefined;
  readonly sandboxReady: boolean;
  readonly verdict: PodVerdict | undefined;
  /**
   * Whether containers may still run. A terminal phase is held back until none can: whoever sees it may give the
   * Pod's resources away (pkg/kubelet/status/status_manager.go).
   */
  readonly mayRun: boolean;
  /** Nobody will find a container any more that was not seen to end. */
  readonly settled: boolean;
  /** Nothing is left of the Pod on the node: its cgroup, too, is removed. */
  readonly gone: boolean;
  /** The last status made. */
  readonly previous: PodStatus | undefined;
}

/** The status that kubelet reports for what it sees. */
export function renderStatus(view: PodView): PodStatus {
  const { pod, records, previous } = view;
  const render = (record: ContainerRecord) => renderContainer(pod, record);
  const init = records.filter(({ role }) => role !== "main").map(render);
  const main = records.filter(({ role }) => role === "main").map(render);
  const byItself = phaseOf(pod, init, main, !view.mayRun);
  const verdict = view.verdict?.always || byItself !== "Succeeded" ? view.verdict : undefined;
  // The conditions are made from what was seen, and not made anew when the rest is taken for lost.
  const seen: Phase = verdict ? "Failed" : byItself;
  const { sandboxReady } = view;
  const now = timestamp(view.nowMs);
  const conditions = conditionsOf({
    ...{ pod, phase: seen, init, main, sandboxReady, now, previous: previous?.conditions ?? [] },
    verdict: view.mayRun ? undefined : view.verdict,
  });
  if (view.settled) markUnlocated(pod, init, main);
  const judged: Phase = verdict ? "Failed" : phaseOf(pod, init, main, !view.mayRun);
  const phase: Phase = view.settled && !isTerminalPhase(judged) ? "Failed" : judged;
  const held = view.mayRun && isTerminalPhase(phase);
  // Whatever is found out later: a phase that was told to be the last one is (generateAPIPodStatus).
  const isOver = isTerminalPhase(previous?.phase);
  const { generation } = pod.metadata;
  return {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    phase: held || isOver ? (previous?.phase ?? "Pending") : phase,
    conditions,
    ...(verdict && !held ? { message: verdict.message, reason: verdict.reason } : {}),
    ...(view.podIP === undefined ? {} : { podIP: view.podIP, podIPs: [{ ip: view.podIP }] }),
    startTime: timestamp(view.startTimeMs),
    ...(init.length > 0 ? { initContainerStatuses: init } : {}),
    containerStatuses: main,
    qosClass: qosClass(pod),
    // The cgroup is read back with the first status after the Pod was seen running, and no longer once it is removed.
    ...podResources(pod, previous?.phase === "Running" && !view.gone),
  };
}

/** The status of a Pod that kubelet does not take: nothing was made of it. */
export function renderRefusal(pod: Pod, { reason, message }: PodVerdict, startTimeMs: number): PodStatus {
  const { generation } = pod.metadata;
  return {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    ...{ phase: "Failed", message, reason, startTime: timestamp(startTimeMs), qosClass: qosClass(pod) },
  };
}

/** RFC 3339 with whole seconds, as Kubernetes writes times of status. */
export function timestamp(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/**
 * Containers of a Pod that has ended and that nobody saw end: all of them once the Pod was initialized, else the init
 * containers up to the last that was started (pkg/kubelet/status/status_manager.go, TerminatePod). A parked Pod that
 * is deleted so ends with 137 although nothing of it ever ran.
 */
function markUnlocated(pod: Pod, init: ContainerStatus[], main: ContainerStatus[]): void {
  const started = (status: ContainerStatus) =>
    status.state?.running ?? status.state?.terminated ?? status.lastState?.terminated;
  const lastInit = init.at(-1);
  const initialized =
    (pod.spec.initContainers ?? []).length === 0 ||
    main.some(started) ||
    (lastInit?.state?.terminated ?? lastInit?.lastState?.terminated)?.exitCode === 0 ||
    lastInit?.state?.running !== undefined;
  const reached = initialized ? init.length : init.findLastIndex(started) + 1;
  for (const status of [...init.slice(0, reached), ...(initialized ? main : [])]) {
    if (!status.state?.terminated) status.state = { terminated: unlocated() };
  }
}

/** The end of a container that kubelet cannot find any more. */
export function unlocated() {
  return {
    exitCode: 137,
    reason: "ContainerStatusUnknown",
    message: "The container could not be located when the pod was terminated",
    startedAt: null,
    finishedAt: null,
  };
}
