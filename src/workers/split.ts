/** A Deployment of one template hash, as input for the split. */
export interface HashGroup {
  readonly hash: string;
  /** `spec.replicas`. */
  readonly replicas: number;
  /** Workers that are or may be busy: never ended. */
  readonly kept: number;
  /** Workers that are Ready. */
  readonly ready: number;
  readonly createdAtMs: number;
  /** Whether the operator's policy forbids what its template needs: no idle worker of it stays. */
  readonly isForbidden: boolean;
}

export interface SplitInput {
  /** The number of workers wanted in total. */
  readonly total: number;
  readonly maxReplicas: number;
  /** Hash of the template that new workers are made from. */
  readonly hash: string;
  /** Whether new workers may be created: the API server accepts the template. */
  readonly mayGrow: boolean;
  readonly groups: readonly HashGroup[];
}

/**
 * The largest share of the workers that a template change replaces at a time (at least one), as in a Deployment's
 * default rolling update.
 */
const STEP = 1 / 4;

/**
 * How many workers each Deployment should have. Only the current template's Deployment grows. Earlier ones shrink as
 * their workers become idle, in steps: idle old workers stay until as many new ones are Ready, so that a template that
 * does not start costs at most one step. New workers run beside the old ones if `maxReplicas` leaves room, otherwise
 * instead of them.
 *
 * A step of starting workers stays even if old workers that seemed idle may be busy again. An old worker in a crash
 * loop alternates between the two, and would otherwise cause new workers to be ended and recreated each time.
 *
 * The plan never exceeds `maxReplicas`, unless more workers exist already and are wanted. It never goes below the kept
 * workers.
 */
export function splitReplicas(input: SplitInput): Map<string, number> {
  const { total, maxReplicas, hash, mayGrow, groups } = input;
  const current = groups.find((group) => group.hash === hash);
  const old = groups.filter((group) => group.hash !== hash && group.replicas > 0);
  const oldKept = sum(old.map(keptOf));
  const oldIdle = sum(old.map(idleOf));
  const wanted = Math.max(current ? keptOf(current) : 0, total - oldKept);
  const { newReplicas, idleLeft } = handOver({ ...input, current, oldKept, oldIdle, wanted });
  const targets = new Map<string, number>();
  targets.set(hash, mayGrow ? newReplicas : Math.min(current?.replicas ?? 0, newReplicas));
  let left = idleLeft;
  for (const group of old.toSorted((a, b) => b.createdAtMs - a.createdAtMs)) {
    const idle = Math.min(left, idleOf(group));
    left -= idle;
    targets.set(group.hash, keptOf(group) + idle);
  }
  for (const group of groups) if (!targets.has(group.hash)) targets.set(group.hash, 0);
  // Old workers may use all of `maxReplicas`, which leaves no room beside them.
  const others = sum([...targets].filter(([each]) => each !== hash).map(([, replicas]) => replicas));
  const most = Math.max(maxReplicas, Math.min(total, sum(groups.map(({ replicas }) => replicas))));
  const room = Math.max(current ? keptOf(current) : 0, most - others);
  targets.set(hash, Math.min(targets.get(hash) ?? 0, room));
  return targets;
}

function handOver(input: {
  readonly total: number;
  readonly maxReplicas: number;
  readonly mayGrow: boolean;
  readonly current: HashGroup | undefined;
  readonly oldKept: number;
  readonly oldIdle: number;
  readonly wanted: number;
}): { newReplicas: number; idleLeft: number } {
  const { total, maxReplicas, mayGrow, current, oldKept, oldIdle, wanted } = input;
  const step = Math.max(1, Math.ceil(total * STEP));
  const surge = Math.min(step, Math.max(0, maxReplicas - total));
  if (oldIdle === 0) {
    const isStarting = oldKept > 0 && current !== undefined && current.ready < current.replicas;
    const spared = isStarting ? Math.min(current.replicas, wanted + surge) : 0;
    return { newReplicas: Math.max(wanted, spared), idleLeft: 0 };
  }
  if (!mayGrow)
    return { newReplicas: wanted, idleLeft: Math.min(oldIdle, Math.max(0, wanted - (current?.replicas ?? 0))) };
  const ready = Math.min(current?.ready ?? 0, wanted);
  const idleLeft = Math.min(oldIdle, Math.max(0, wanted - ready - (surge > 0 ? 0 : step)));
  const newReplicas = Math.min(wanted, Math.max(current ? keptOf(current) : 0, wanted + surge - idleLeft));
  return { newReplicas, idleLeft };
}

function keptOf({ kept, replicas }: HashGroup): number {
  return Math.min(kept, replicas);
}

/** Idle workers that may serve until their replacements are Ready. */
function idleOf(group: HashGroup): number {
  return group.isForbidden ? 0 : group.replicas - keptOf(group);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
