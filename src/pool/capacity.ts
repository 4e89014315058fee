import { agedAtMs, boundAtMs } from "./parked-age.ts";

/**
 * How many session Pods to keep ready, and which to remove. Pure: the pool passes in what it observes and carries out
 * the plan.
 */

/** A session Pod without a claim. */
export interface FreePod {
  readonly name: string;
  readonly hash: string;
  readonly state: "unscheduled" | "preparing" | "warm";
  /** Whether it is preparing only until the next successful attach. */
  readonly unreachable?: true;
  readonly createdAtMs: number;
  /** When it was bound to a node; null before. */
  readonly scheduledAtMs: number | null;
  /** Whether its node is being removed: it can't be claimed. */
  readonly leaving: boolean;
  /** Whether the operator's policy forbids what its template needs: it can't be claimed. */
  readonly forbidden: boolean;
}

export interface CapacityInput {
  readonly nowMs: number;
  /** Hash of the template that new Pods are made from. */
  readonly hash: string;
  readonly maxConcurrent: number;
  readonly warm: number;
  /** Work items in the queue; 0 while claims are not allowed. */
  readonly demand: number;
  /** Claimed Pods, from their journal entry to their end. */
  readonly busy: number;
  /** Creations sent that the cache does not show yet. */
  readonly creating: number;
  readonly pods: readonly FreePod[];
  /** Whether Pods of a template with this hash may be claimed at all. */
  readonly trusts: (hash: string) => boolean;
  /** 0: never replaced for their age. */
  readonly parkedMaxAgeMs: number;
  readonly prepareTimeoutMs: number;
  readonly warmScaleDownMs: number;
  /** Since when there have been more Pods than wanted; null if there are not. */
  readonly surplusSinceMs: number | null;
  /** No replacement for age before this time: the last one could not be scheduled. */
  readonly surgeBlockedUntilMs: number;
  /** Whether the Environment is being deleted: keep no Pods. */
  readonly draining: boolean;
}

export type RemovalReason =
  | "Draining"
  | "OverMaximum"
  | "PrepareTimeout"
  | "NodeLeaving"
  | "Forbidden"
  | "Outdated"
  | "Aged"
  | "Surplus"
  | "SurgeGivenUp"
  | "Unclaimed"
  | "VolumeLost";

export interface CapacityPlan {
  /** The number of Pods that the queue and `warm` ask for. */
  readonly wanted: number;
  readonly create: number;
  readonly remove: readonly { readonly name: string; readonly reason: RemovalReason }[];
  readonly surplusSinceMs: number | null;
  /** When to plan again although nothing changed; null: not needed. */
  readonly againAtMs: number | null;
}

/** A replacement that finds no node in this time is removed: the cluster is full, and the old Pod still serves. */
export const SURGE_PATIENCE_MS = 60_000;

/** Plans creations and removals. A removed Pod no longer counts, and a created one counts at once. */
export function planCapacity(input: CapacityInput): CapacityPlan {
  const { nowMs, maxConcurrent, busy } = input;
  const remove: { name: string; reason: RemovalReason }[] = [];
  let pods = [...input.pods].sort((a, b) => a.createdAtMs - b.createdAtMs);
  const drop = (gone: readonly FreePod[], reason: RemovalReason) => {
    remove.push(...gone.map(({ name }) => ({ name, reason })));
    pods = pods.filter((pod) => !gone.includes(pod));
  };
  if (input.draining) {
    drop(pods, "Draining");
    return { wanted: 0, create: 0, remove, surplusSinceMs: null, againAtMs: null };
  }
  const wanted = Math.max(0, Math.min(maxConcurrent - busy, input.warm + input.demand));

  drop(
    pods.filter((pod) => preparesTooLong(pod, input)),
    "PrepareTimeout",
  );
  // They can't serve, so they can go before their successors exist.
  drop(
    pods.filter(({ leaving }) => leaving),
    "NodeLeaving",
  );
  drop(
    pods.filter(({ forbidden }) => forbidden),
    "Forbidden",
  );
  drop(outdatedToGo(pods, input, wanted), "Outdated");
  const current = () => pods.filter(({ hash }) => hash === input.hash);
  const outdated = () => pods.length - current().length;
  const aged = () => current().filter((pod) => pod.state === "warm" && agedAtMs(pod, input) <= nowMs);
  const inProgress = () => input.creating + current().filter(({ state }) => state !== "warm").length;

  // Unneeded Pods are not replaced, so they get no extra room above the maximum.
  if (wanted === 0) drop(aged(), "Aged");
  const most = maxConcurrent - busy + (wanted > 0 && aged().length + outdated() > 0 ? 1 : 0);
  drop(overMaximum(pods, input, most), "OverMaximum");

  const surge = current().find((pod) => pod.state === "unscheduled" && nowMs - pod.createdAtMs >= SURGE_PATIENCE_MS);
  const giveUp = surge !== undefined && aged().length > 0 && current().length > wanted;
  if (giveUp) drop([surge], "SurgeGivenUp");

  let replacing = 0;
  // One at a time, also while the successor of the last one can't be created yet.
  const whole = current().length >= wanted && inProgress() === 0;
  if (aged().length > 0 && whole && !giveUp) {
    const parked = pods.filter(({ state }) => state === "warm").length;
    if (parked >= 2) drop(aged().slice(0, 1), "Aged");
    else if (nowMs >= input.surgeBlockedUntilMs) replacing = 1;
  }

  const missing = wanted + replacing - current().length - input.creating;
  const total = pods.length + input.creating + busy;
  const surging = replacing > 0 || (outdated() > 0 && inProgress() === 0) ? 1 : 0;
  const create = Math.max(0, Math.min(missing, maxConcurrent - total + surging));

  const surplus = create > 0 ? 0 : current().length + input.creating - wanted - (aged().length > 0 ? 1 : 0);
  let surplusSinceMs = surplus > 0 ? (input.surplusSinceMs ?? nowMs) : null;
  if (surplusSinceMs !== null && nowMs - surplusSinceMs >= input.warmScaleDownMs) {
    // Count only existing Pods: one that is still being created replaces nothing yet.
    const there = Math.max(0, current().length - wanted);
    drop(leastUseful(current(), input.hash).slice(0, Math.min(surplus, there)), "Surplus");
    surplusSinceMs = null;
  }
  return { wanted, create, remove, surplusSinceMs, againAtMs: nextChange(pods, input, surplusSinceMs) };
}

/** Whether a Pod with a node missed prepareTimeoutSeconds. Unscheduled Pods may wait: a node may be starting. */
function preparesTooLong(pod: FreePod, input: CapacityInput): boolean {
  return pod.state === "preparing" && preparedByMs(pod, input) <= input.nowMs;
}

/** The deadline by which a Pod with a node must be parked. */
export function preparedByMs(
  pod: FreePod,
  { nowMs, prepareTimeoutMs }: Pick<CapacityInput, "nowMs" | "prepareTimeoutMs">,
): number {
  return boundAtMs(pod, nowMs, prepareTimeoutMs) + prepareTimeoutMs;
}

/**
 * Outdated Pods to remove: at once if they can't serve yet, or if their template is not trusted and they are never
 * claimed. Parked ones keep serving until as many new ones are parked, so a template that can't be prepared leaves the
 * Environment unchanged.
 */
function outdatedToGo(pods: readonly FreePod[], input: CapacityInput, wanted: number): FreePod[] {
  const outdated = pods.filter(({ hash }) => hash !== input.hash);
  // After a restart of the operator, the next attach takes seconds.
  const isBrief = (pod: FreePod) => pod.unreachable === true && input.nowMs - (pod.scheduledAtMs ?? 0) < 30_000;
  const serves = (pod: FreePod) => (pod.state === "warm" || isBrief(pod)) && input.trusts(pod.hash);
  const parked = outdated.filter(serves);
  const renewed = pods.filter(({ hash, state }) => hash === input.hash && state === "warm").length;
  const keep = Math.max(0, wanted - renewed);
  return [...outdated.filter((pod) => !serves(pod)), ...parked.slice(0, Math.max(0, parked.length - keep))];
}

/**
 * Pods beyond `most`. Creations that the cache does not show yet take room too, but no parked Pod is removed for them:
 * they may themselves be removed once they exist.
 */
function overMaximum(pods: readonly FreePod[], input: CapacityInput, most: number): FreePod[] {
  const excess = pods.length - most;
  return leastUseful(pods, input.hash).filter(
    ({ state }, rank) => rank < (state === "warm" ? excess : excess + input.creating),
  );
}

/**
 * The Pods to remove first: unscheduled, then preparing, then parked of an older template, then the youngest parked.
 */
function leastUseful(pods: readonly FreePod[], hash: string): FreePod[] {
  const rank = { unscheduled: 0, preparing: 1, warm: 2 } as const;
  return [...pods].sort(
    (a, b) =>
      rank[a.state] - rank[b.state] ||
      Number(a.hash === hash) - Number(b.hash === hash) ||
      b.createdAtMs - a.createdAtMs,
  );
}

function nextChange(pods: readonly FreePod[], input: CapacityInput, surplusSinceMs: number | null): number | null {
  const times = pods.map((pod) => {
    if (pod.state === "preparing") return preparedByMs(pod, input);
    if (pod.state === "unscheduled") return pod.createdAtMs + SURGE_PATIENCE_MS;
    return agedAtMs(pod, input);
  });
  if (surplusSinceMs !== null) times.push(surplusSinceMs + input.warmScaleDownMs);
  if (input.surgeBlockedUntilMs > input.nowMs) times.push(input.surgeBlockedUntilMs);
  const next = Math.min(...times.filter((at) => at > input.nowMs));
  return Number.isFinite(next) ? next : null;
}
