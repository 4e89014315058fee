import { ANNOTATION_NEEDS, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { allowsAll, type PodPolicy, readNeeds } from "../api/pod-policy.ts";
import type { Pod } from "../kube/resource.ts";
import type { NodeOutlook } from "../pods/node-health.ts";
import { stateOf } from "../pods/pod-state.ts";
import type { Breaker } from "../protocol/breaker.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { FreePod } from "./capacity.ts";

/** A Pod that no claim has, and what capacity is planned with. */
export interface Free {
  readonly free: FreePod;
  readonly pod: Pod;
}

/** Which Pods of an Environment are free, as the cache shows it now, and which of them a claim gets. */
export class FreePods {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #breaker: Breaker;
  readonly #isTaken: (name: string) => boolean;

  constructor(options: {
    context: SessionContext;
    claims: ClaimTable;
    breaker: Breaker;
    /** Whether a Pod that no claim has is not free all the same: it goes, or its slot is somebody else's. */
    isTaken: (name: string) => boolean;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#breaker = options.breaker;
    this.#isTaken = options.isTaken;
  }

  list(): Free[] {
    const all: Free[] = [];
    for (const pod of this.#context.pods.parked()) {
      const free = this.#isUnclaimed(pod) && this.#read(pod);
      if (free) all.push({ free, pod });
    }
    return all;
  }

  /** Pods with the label of free ones that no claim, reservation or removal has; also those that run or have ended. */
  unclaimed(): Pod[] {
    return this.#context.pods.parked().filter((pod) => this.#isUnclaimed(pod));
  }

  /** Pods that run although no claim has them: somebody gave them a key by hand, or their claim was settled before. */
  strays(): Pod[] {
    return this.unclaimed().filter((pod) => stateOf(pod).is === "running");
  }

  /** Whether a claim would find a Pod now. */
  get hasClaimable(): boolean {
    const mayServe = this.#mayServe();
    // Not all of them: it is asked whenever anything changes, and most often the first one will do.
    return this.#context.pods.parked().some((pod) => {
      const free = this.#isUnclaimed(pod) && this.#read(pod);
      return free && mayServe(free);
    });
  }

  /** The oldest of the newest template, on a node that may go only where there is no other; null when there is none. */
  next(except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Free | null {
    const mayServe = this.#mayServe();
    let best: Free | null = null;
    let isFirstChoice = false;
    for (const pod of this.#context.pods.parked()) {
      // Asked for each claim, of hundreds of Pods: most are younger than one that was found, and need no closer look.
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

  /** Below 0: the first is to be claimed before the second. */
  #compare(a: Free, b: Free): number {
    const outdated = Number(this.#isOutdated(a)) - Number(this.#isOutdated(b));
    const doubtful = Number(this.#isDoubtful(a)) - Number(this.#isDoubtful(b));
    return outdated || doubtful || a.free.createdAtMs - b.free.createdAtMs;
  }

  #isOutdated({ free }: Free): boolean {
    return free.hash !== this.#context.template().hash;
  }

  #isDoubtful({ pod }: Free): boolean {
    return this.#context.nodeOutlook(pod) === "doubtful";
  }

  #mayServe(): (free: FreePod) => boolean {
    const nowMs = this.#context.clock.monotonic();
    return ({ state, leaving, forbidden, hash }) =>
      state === "parked" && !leaving && !forbidden && this.#breaker.admits(hash, nowMs);
  }

  #isUnclaimed({ metadata }: Pod): boolean {
    const { name = "", deletionTimestamp } = metadata;
    return !deletionTimestamp && !this.#claims.has(name) && !this.#isTaken(name);
  }

  #read(pod: Pod): FreePod | null {
    return freePodOf(pod, this.#context.nodeOutlook(pod), this.#context.podPolicy);
  }
}

/** What a Pod says of itself; `free` is null for one whose container runs, or ran. */
interface Read {
  readonly needs: readonly string[] | null;
  free: FreePod | null;
}

/** All free Pods are looked at whenever one of them changes, and a cache never changes an object: each is read once. */
const known = new WeakMap<Pod, Read>();

/** When a Pod of a cache was made, by the API server's clock; 0 where that is not said, and for one whose container runs, or ran. */
export function createdAtMs(pod: Pod): number {
  return readOnce(pod).free?.createdAtMs ?? 0;
}

/**
 * A Pod that no claim has, as capacity is planned with it; null for one whose container runs, or ran.
 * @param pod of a cache
 */
export function freePodOf(pod: Pod, outlook: NodeOutlook, policy: PodPolicy): FreePod | null {
  const read = readOnce(pod);
  const { free, needs } = read;
  if (free === null) return null;
  const leaving = outlook === "leaves";
  // One that does not say is of an earlier version.
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

function readFree(pod: Pod): Read {
  const state = stateOf(pod);
  if (state.is === "ended" || state.is === "running") return { needs: null, free: null };
  const free = {
    name: pod.metadata.name ?? "",
    hash: pod.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    state: state.is,
    createdAtMs: Date.parse(pod.metadata.creationTimestamp ?? "") || 0,
    scheduledAtMs: scheduledAt(pod),
    leaving: false,
    forbidden: false,
  };
  return { needs: readNeeds(pod.metadata.annotations?.[ANNOTATION_NEEDS]), free };
}

function scheduledAt(pod: Pod): number | null {
  const condition = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "True");
  const at = Date.parse(condition?.lastTransitionTime ?? "");
  return Number.isNaN(at) ? null : at;
}
