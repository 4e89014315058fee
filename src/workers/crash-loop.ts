import type { ContainerStatus, Pod } from "../kube/resource.ts";

/** A program that was started so often crashes again and again; one crash is no fault of the template's. */
const RESTARTS_OF_A_LOOP = 2;

/** One that has run so long does not, unless it ran for as long before it ended the last time. */
const STEADY_MS = 60_000;

/** A program has recovered when it has run so many times longer than it did the last time. */
const RECOVERY = 2;

/** kubelet starts a program at once that ran for so long, and forgets what was before (twice its longest back-off). */
const FORGOTTEN_MS = 600_000;

/**
 * What is said of a container that ends again and again; null: none of the Pod's does. The same words while it waits for
 * its next start, runs for a moment and has just ended: to a person that is one fault, until it has run for long enough.
 * @param nowMs the wall clock's time.
 */
export function crashLoop({ status }: Pod, nowMs: number): string | null {
  const inits = (status?.initContainerStatuses ?? []).filter(({ state }) => state?.terminated?.exitCode !== 0);
  for (const container of [...inits, ...(status?.containerStatuses ?? [])]) {
    if (!isLooping(container, nowMs)) continue;
    const { exitCode } = lastEnd(container) ?? {};
    const how = exitCode === undefined ? "" : `, last with exit code ${exitCode}`;
    return `container ${container.name} ends again and again (CrashLoopBackOff)${how}`;
  }
  return null;
}

function isLooping(container: ContainerStatus, nowMs: number): boolean {
  const { state, restartCount = 0 } = container;
  if (state?.waiting?.reason === "CrashLoopBackOff") return true;
  const end = lastEnd(container);
  if (restartCount < RESTARTS_OF_A_LOOP || !end) return false;
  const ranMs = between(end.startedAt, end.finishedAt) ?? 0;
  if (ranMs >= FORGOTTEN_MS) return false;
  if (!state?.running) return state?.terminated !== undefined;
  const runsMs = between(state.running.startedAt, nowMs);
  // One whose start nobody tells says nothing.
  return runsMs !== null && runsMs < Math.min(FORGOTTEN_MS, Math.max(STEADY_MS, RECOVERY * ranMs));
}

function lastEnd({ state, lastState }: ContainerStatus) {
  return state?.terminated ?? lastState?.terminated;
}

/** Null when one of the two is not known: of a container that never ran the runtime says that it began with the epoch. */
function between(from: string | null | undefined, to: string | number | null | undefined): number | null {
  const toMs = typeof to === "number" ? to : Date.parse(to ?? "");
  const fromMs = Date.parse(from ?? "");
  return Number.isNaN(toMs - fromMs) || fromMs === 0 ? null : toMs - fromMs;
}
