import type { ContainerStatus, Pod } from "../../src/kube/objects.ts";
import { isRestartable } from "./container-record.ts";

export type Phase = "Pending" | "Running" | "Succeeded" | "Failed";

export function isTerminalPhase(phase: string | undefined): boolean {
  return phase === "Succeeded" || phase === "Failed";
}

/**
 * Returns the phase that the containers' states imply (pkg/kubelet/kubelet_pods.go, getPhase).
 * @param ended nothing of the Pod is restarted any more, regardless of its restartPolicy
 */
export function phaseOf(
  pod: Pod,
  init: readonly ContainerStatus[],
  main: readonly ContainerStatus[],
  ended: boolean,
): Phase {
  const never = pod.spec.restartPolicy === "Never";
  const restartable = new Set((pod.spec.initContainers ?? []).filter(isRestartable).map(({ name }) => name));
  const plainInit = init.filter(({ name }) => !restartable.has(name));
  const sidecars = init.filter(({ name }) => restartable.has(name));

  if (never && plainInit.some((status) => (endOf(status)?.exitCode ?? 0) !== 0)) return "Failed";
  const initialized = hasStarted(main);
  const initPending = plainInit.some((status) => endOf(status) === undefined);
  const sidecarPending = sidecars.some((status) => status.started !== true && endOf(status) === undefined);
  if (initPending || (!initialized && sidecarPending)) return "Pending";
  const waiting = main.filter((status) => status.state?.waiting && !status.lastState?.terminated);
  if (waiting.length > 0) return "Pending";
  if ([...main, ...sidecars].some((status) => status.state?.running)) return "Running";

  const succeeded = main.every((status) => endOf(status)?.exitCode === 0);
  if (!ended && pod.spec.restartPolicy !== "Never" && !(pod.spec.restartPolicy === "OnFailure" && succeeded)) {
    return "Running";
  }
  return succeeded ? "Succeeded" : "Failed";
}

/** Whether any of these was started at least once. From then on, the Pod stays initialized. */
export function hasStarted(statuses: readonly ContainerStatus[]): boolean {
  return statuses.some(({ state, lastState }) => state?.running ?? state?.terminated ?? lastState?.terminated);
}

function endOf({ state, lastState }: ContainerStatus) {
  return state?.terminated ?? (state?.waiting ? lastState?.terminated : undefined);
}
