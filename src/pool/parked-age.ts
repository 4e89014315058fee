import { SECOND_MS } from "../core/clock.ts";
import type { Parking } from "../pods/parking.ts";

/** Below the 15 minutes after which common alerts take a Pod that waits for a key for a fault. */
const KEY_MAX_AGE_SECONDS = 600;

/** The age at which parked Pods are replaced, in milliseconds; 0: never. Only Pods that look broken age by default. */
export function parkedMaxAgeMs(seconds: number | undefined, parking: Parking): number {
  return (seconds ?? (parking === "Key" ? KEY_MAX_AGE_SECONDS : 0)) * SECOND_MS;
}

/** A Pod's name and times, by the API server's clock; `scheduledAtMs` is null without a node. */
interface AgingPod {
  readonly name: string;
  readonly scheduledAtMs: number | null;
  readonly createdAtMs: number;
}

/** Maximum ages vary over the last part of their span, so that Pods made together are not replaced together. */
const AGE_SPREAD = 0.2;

/**
 * When a Pod was bound to a node, or created if it was not. The time comes from the Pod's status, which anyone with the
 * permission can change: a time far in the future would make the Pod wait until then.
 * @param withinMs the duration counted from that time, and the most that the clock may be ahead
 */
export function boundAtMs(
  { scheduledAtMs, createdAtMs }: Omit<AgingPod, "name">,
  nowMs: number,
  withinMs: number,
): number {
  return scheduledAtMs !== null && scheduledAtMs - nowMs <= withinMs ? scheduledAtMs : createdAtMs;
}

/**
 * When a parked Pod has reached its maximum age and is replaced; never with 0. Age counts from the binding to a node: where nodes take long to start, a Pod would otherwise be old before it
 * is ready.
 */
export function agedAtMs(
  pod: AgingPod,
  { nowMs, parkedMaxAgeMs }: { readonly nowMs: number; readonly parkedMaxAgeMs: number },
): number {
  if (parkedMaxAgeMs === 0) return Number.POSITIVE_INFINITY;
  return boundAtMs(pod, nowMs, parkedMaxAgeMs) + parkedMaxAgeMs * (1 - AGE_SPREAD * spread(pod.name));
}

/**
 * A number in [0, 1) that is always the same for a name: planning stays pure, and maximum ages do not vary between
 * plans.
 */
function spread(name: string): number {
  let hash = 2_166_136_261;
  for (const char of name) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 16_777_619);
  return (hash >>> 0) / 2 ** 32;
}
