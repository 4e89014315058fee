import { type Clock, SECOND_MS } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { EnvironmentState } from "./environment-state.ts";

export interface DrainOptions {
  readonly kube: Pick<KubeClient, "now">;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "drainBoundMs" | "retryMaxMs">;
  /** Look at it again after some milliseconds. */
  readonly again: (afterMs: number) => void;
}

/**
 * Drains an Environment that is being deleted, and lets it go when nothing of it is left. False: its time is over, and what
 * is left is to be given up.
 */
export async function drain(
  { environment: { metadata, spec }, runtime }: EnvironmentState,
  { kube, clock, timing, again }: DrainOptions,
): Promise<boolean> {
  const deletedMs = Date.parse(metadata.deletionTimestamp ?? "");
  const overMs = deletedMs + spec.deletionGraceSeconds * SECOND_MS - kube.now();
  runtime.drain(clock.monotonic() + overMs);
  if (runtime.isDrained) {
    // The status says what keeps the finalizer.
    await runtime.releaseHold().catch(() => again(timing.retryMaxMs));
    return true;
  }
  if (overMs + timing.drainBoundMs <= 0) return false;
  again(Math.max(SECOND_MS, Math.min(overMs, 0) + timing.drainBoundMs));
  return true;
}
