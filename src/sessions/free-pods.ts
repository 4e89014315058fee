import type { Pod } from "../kube/resource.ts";
import { stateOf } from "../pods/pod-state.ts";
import type { Breaker } from "../protocol/breaker.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { FreePod } from "./capacity.ts";
import { createdAtMs, freePodOf } from "./free-pod.ts";

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
