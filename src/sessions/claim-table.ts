import type { Claim } from "./claim.ts";
import type { Journal } from "./journal.ts";

/** All claims of one Environment, by slot and by work item. Filled from its Secrets at the start, kept by its loops. */
export class ClaimTable {
  readonly #byName = new Map<string, Claim>();
  readonly #byWork = new Map<string, Claim>();

  get size(): number {
    return this.#byName.size;
  }

  /** The claim that took this slot. */
  get(name: string): Claim | undefined {
    return this.#byName.get(name);
  }

  /** The claim of this item: one that a Secret of ours names already is never journaled again. */
  ofWork(workId: string): Claim | undefined {
    return this.#byWork.get(workId);
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  add(claim: Claim): void {
    this.#byName.set(claim.name, claim);
    this.#byWork.set(claim.journal.workId, claim);
  }

  remove(claim: Claim): void {
    if (this.#byName.get(claim.name) === claim) this.#byName.delete(claim.name);
    if (this.#byWork.get(claim.journal.workId) === claim) this.#byWork.delete(claim.journal.workId);
  }

  [Symbol.iterator](): IterableIterator<Claim> {
    return this.#byName.values();
  }
}

/** A claim as it begins: with its Secret, and nothing else known. */
export function newClaim(from: {
  name: string;
  journal: Journal;
  secretVersion: string;
  secretUid: string;
  lateAckUntilMs: number;
  templateHash: string;
}): Claim {
  return {
    ...from,
    recordGone: false,
    credential: null,
    memory: { is: "none" },
    acknowledgedAt: from.journal.acknowledgedAt,
    item: null,
    claiming: false,
    openedMs: null,
    touches: 0,
    touchedMs: null,
    deadlineSeconds: null,
    startedAtMs: null,
    firstBeatSeen: false,
    neverBeaten: false,
    stoppingSinceMs: null,
    lostSinceMs: null,
    gracefulStopMs: null,
    ending: null,
    end: null,
    endedMs: null,
  };
}
