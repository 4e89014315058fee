import type { ContainerStatus, Pod, PodStatus } from "../../src/kube/objects.ts";
import { type ContainerRecord, renderContainer } from "./container-record.ts";
import { conditionsOf, type PodVerdict, type SandboxState } from "./pod-conditions.ts";
import { isTerminalPhase, type Phase, phaseOf } from "./pod-phase.ts";
import { podResources, qosClass } from "./pod-resources.ts";

/** The inputs of a Pod's status. */
export interface PodView {
  readonly pod: Pod;
  readonly records: readonly ContainerRecord[];
  readonly nowMs: number;
  readonly startTimeMs: number;
  /** The address of the Pod's sandbox. It's kept after the sandbox is gone. */
  readonly podIP: string | undefined;
  readonly sandbox: SandboxState;
  readonly verdict: PodVerdict | undefined;
  /**
   * Whether containers may still run. The kubelet holds a terminal phase back until none can, because controllers that
   * see it may reuse the Pod's resources (pkg/kubelet/status/status_manager.go).
   */
  readonly mayRun: boolean;
  /** The kubelet won't find any more containers that weren't seen to end. */
  readonly settled: boolean;
  /** Nothing of the Pod is left on the node, not even its cgroup. */
  readonly gone: boolean;
  /** The previous status. */
  readonly previous: PodStatus | undefined;
}

/** Returns the status that the kubelet reports for what it sees. */
export function renderStatus(view: PodView): PodStatus {
  const { pod, records, previous } = view;
  const render = (record: ContainerRecord) => renderContainer(pod, record);
  const init = records.filter(({ role }) => role === "init" || role === "sidecar").map(render);
  const main = records.filter(({ role }) => role === "main").map(render);
  // They count neither for the phase nor for the conditions. The kubelet sorts them by name.
  const ephemeral = records.filter(({ role }) => role === "ephemeral").map(render);
  ephemeral.sort((a, b) => (a.name < b.name ? -1 : 1));
  const byItself = phaseOf(pod, init, main, !view.mayRun);
  const verdict = view.verdict?.always || byItself !== "Succeeded" ? view.verdict : undefined;
  // The conditions reflect what was seen. The kubelet doesn't recompute them when it counts the rest as lost.
  const seen: Phase = verdict ? "Failed" : byItself;
  const { sandbox } = view;
  const now = timestamp(view.nowMs);
  const conditions = conditionsOf({
    ...{ pod, phase: seen, init, main, sandbox, now, previous: previous?.conditions ?? [] },
    verdict: view.mayRun ? undefined : view.verdict,
  });
  if (view.settled) markUnlocated(pod, init, main);
  const judged: Phase = verdict ? "Failed" : phaseOf(pod, init, main, !view.mayRun);
  const phase: Phase = view.settled && !isTerminalPhase(judged) ? "Failed" : judged;
  const held = view.mayRun && isTerminalPhase(phase);
  // A terminal phase that was reported stays, regardless of what the kubelet finds later (generateAPIPodStatus).
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
    ...(ephemeral.length > 0 ? { ephemeralContainerStatuses: ephemeral } : {}),
    qosClass: qosClass(pod),
    // The kubelet reads the cgroup for the first status after the Pod was seen running, until the cgroup is removed.
    ...podResources(pod, previous?.phase === "Running" && !view.gone),
  };
}

/** Returns the status of a Pod that the kubelet rejected. Nothing of it was created. */
export function renderRefusal(pod: Pod, { reason, message }: PodVerdict, startTimeMs: number): PodStatus {
  const { generation } = pod.metadata;
  return {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    ...{ phase: "Failed", message, reason, startTime: timestamp(startTimeMs), qosClass: qosClass(pod) },
  };
}

/** Formats RFC 3339 with whole seconds, as Kubernetes writes times in a status. */
export function timestamp(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/**
 * Marks containers of an ended Pod whose end the kubelet didn't see: all containers if the Pod was initialized,
 * otherwise the init containers up to the last started one (pkg/kubelet/status/status_manager.go, TerminatePod). A
 * deleted parked Pod therefore ends with 137 although nothing of it ever ran.
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

/** Returns the end of a container that the kubelet can't find any more. */
export function unlocated() {
  return {
    exitCode: 137,
    reason: "ContainerStatusUnknown",
    message: "The container could not be located when the pod was terminated",
    startedAt: null,
    finishedAt: null,
  };
}
