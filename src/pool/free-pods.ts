import { ANNOTATION_NEEDS } from "../api/names.ts";
import type { PodStreams } from "../attach/pod-streams.ts";
import type { Pod } from "../kube/resource.ts";
import type { NodeOutlook } from "../pods/node-health.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { stateOf } from "../pods/pod-state.ts";
import { allowsAll, type PodPolicy, readNeeds } from "../policy/pod-policy.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import type { FreePod } from "./capacity.ts";

/** A Pod without a claim, with the input for the capacity plan. */
export interface Free {
  readonly free: FreePod;
  readonly pod: Pod;
}

export interface FreePodsOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  /** Whether an unclaimed Pod is not free: it is being removed, or another client holds its slot. */
  readonly isTaken: (name: string) => boolean;
  readonly streams: Pick<PodStreams, "isReachable" | "unreachableMs" | "isDoubtful">;
}

/** Which Pods of an Environment are free, as the cache shows it now, and which one a claim gets. */
export class FreePods {
  readonly #options: FreePodsOptions;
  readonly #context: PoolContext;

  constructor(options: FreePodsOptions) {
    this.#options = options;
    this.#context = options.context;
  }

  list(): Free[] {
    const all: Free[] = [];
    for (const pod of this.#context.pods.warm()) {
      const free = this.#isUnclaimed(pod) && this.#read(pod);
      if (free) all.push({ free, pod });
    }
    return all;
  }

  /**
   * Pods with the label of free ones that have no claim, reservation or removal; includes those that run or have ended.
   */
  unclaimed(): Pod[] {
    return this.#context.pods.warm().filter((pod) => this.#isUnclaimed(pod));
  }

  /** Running Pods without a claim: their key was added by hand, or their claim was settled before. */
  strays(): Pod[] {
    return this.unclaimed().filter((pod) => stateOf(pod).is === "running");
  }

  /** Whether a claim would find a Pod now. */
  get hasClaimable(): boolean {
    const mayServe = this.#mayServe();
    // Stop at the first match: this runs on every change, and usually the first Pod fits.
    return this.#context.pods.warm().some((pod) => {
      const free = this.#isUnclaimed(pod) && this.#read(pod);
      return free && mayServe(free);
    });
  }

  /** The oldest Pod of the newest template, preferably on a node that stays and answers; null if there is none. */
  next(except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Free | null {
    const mayServe = this.#mayServe();
    let best: Free | null = null;
    let isFirstChoice = false;
    for (const pod of this.#context.pods.warm()) {
      // This runs for each claim over hundreds of Pods: skip Pods younger than a first choice already found.
      if (best && isFirstChoice && createdAtMs(pod) >= best.free.createdAtMs) continue;
      const free = this.#isUnclaimed(pod) && this.#read(pod);
      if (!free || !mayServe(free) || except.has(free.name)) continue;
      const each = { free, pod };
      if ((best !== null && this.#compare(each, best) >= 0) || !fits(pod)) continue;
      best = each;
      isFirstChoice = !this.#isOutdated(each) && !this.#isDoubtful(each);
    }
    return best;
  }

  /** Below 0: claim the first before the second. */
  #compare(a: Free, b: Free): number {
    const outdated = Number(this.#isOutdated(a)) - Number(this.#isOutdated(b));
    const doubtful = Number(this.#isDoubtful(a)) - Number(this.#isDoubtful(b));
    return outdated || doubtful || a.free.createdAtMs - b.free.createdAtMs;
  }

  #isOutdated({ free }: Free): boolean {
    return free.hash !== this.#context.template().hash;
  }

  #isDoubtful({ pod }: Free): boolean {
    return this.#options.streams.isDoubtful(pod) || this.#context.nodeOutlook(pod) === "doubtful";
  }

  #mayServe(): (free: FreePod) => boolean {
    const nowMs = this.#context.clock.monotonic();
    return ({ state, leaving, forbidden, hash }) =>
      state === "warm" && !leaving && !forbidden && this.#context.holds.starts.admits(hash, nowMs);
  }

  #isUnclaimed({ metadata }: Pod): boolean {
    const { name = "", deletionTimestamp } = metadata;
    return !deletionTimestamp && !this.#options.claims.has(name) && !this.#options.isTaken(name);
  }

  /** Pods that wait for a session, reachable or not, in the order in which they are claimed. */
  waiting(): Pod[] {
    const waiting = this.list().filter(({ free }) => free.state === "warm" || free.unreachable === true);
    return waiting.sort((one, other) => this.#compare(one, other)).map(({ pod }) => pod);
  }

  /** A Pod that the operator can't give a session now is being prepared. It may have waited for long before. */
  #read(pod: Pod): FreePod | null {
    const { streams } = this.#options;
    const free = freePodOf(pod, this.#context.nodeOutlook(pod), this.#context.podPolicy);
    if (free?.state !== "warm" || streams.isReachable(pod)) return free;
    const scheduledAtMs = this.#context.kube.now() - streams.unreachableMs(pod);
    return { ...free, state: "preparing", unreachable: true, scheduledAtMs };
  }
}

/** What a Pod says about itself; `free` is null if its container runs or ran. */
interface Read {
  readonly needs: readonly string[] | null;
  free: FreePod | null;
}

/** All free Pods are listed whenever one changes, and a cache never changes an object: read each once. */
const known = new WeakMap<Pod, Read>();

/**
 * When a cached Pod was created, by the API server's clock; 0 if unknown, and for a Pod whose container runs or ran.
 */
export function createdAtMs(pod: Pod): number {
  return readOnce(pod).free?.createdAtMs ?? 0;
}

/**
 * An unclaimed Pod as input for the capacity plan; null if its container runs or ran.
 * @param pod from a cache
 */
export function freePodOf(pod: Pod, outlook: NodeOutlook, policy: PodPolicy): FreePod | null {
  const read = readOnce(pod);
  const { free, needs } = read;
  if (free === null) return null;
  const leaving = outlook === "leaves" || outlook === "silent";
  const forbidden = needs === null || !allowsAll(policy, needs);
  if (free.leaving !== leaving || free.forbidden !== forbidden) read.free = { ...free, leaving, forbidden };
  return read.free;
}

function readOnce(pod: Pod): Read {
  let read = known.get(pod);
  if (read === undefined) {
    read = readFree(pod);
    known.set(pod, read);
  }
  return read;
}

/** A plan only needs to know that gated and unscheduled Pods have no node. */
const FREE_STATES = {
  gated: "unscheduled",
  unscheduled: "unscheduled",
  preparing: "preparing",
  parked: "warm",
} as const;

function readFree(pod: Pod): Read {
  const state = stateOf(pod);
  if (state.is === "ended" || state.is === "running") return { needs: null, free: null };
  const free = {
    name: pod.metadata.name ?? "",
    hash: templateHashOf(pod),
    state: FREE_STATES[state.is],
    createdAtMs: Date.parse(pod.metadata.creationTimestamp ?? "") || 0,
    scheduledAtMs: scheduledAt(pod),
    leaving: false,
    forbidden: false,
  };
  return { needs: readNeeds(pod.metadata.annotations?.[ANNOTATION_NEEDS]), free };
}

function scheduledAt(pod: Pod): number | null {
  const condition = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "True");
  // Once the Pod runs, the cache has no times of conditions. The kubelet starts the Pod when it is bound.
  const at = Date.parse(condition?.lastTransitionTime ?? pod.status?.startTime ?? "");
  return Number.isNaN(at) ? null : at;
}
