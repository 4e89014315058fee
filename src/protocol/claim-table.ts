import { Notifier } from "../core/notifier.ts";
import { slotName } from "../pods/turns.ts";
import type { Claim } from "./claim.ts";
import { type Memory, newLease } from "./claim-lease.ts";
import { newObserved } from "./claim-observed.ts";
import { newRecord } from "./claim-record.ts";

/**
 * All claims of one Environment, by Pod and by work item. Recovery fills it from the Secrets, and the loops update it.
 */
export class ClaimTable {
  readonly #byName = new Map<string, Claim>();
  /**
   * Two claims may name one item: an earlier process's, and one that was journaled when the item returned. That is
   * rare, and a Set for each of thousands of items would use much memory.
   */
  readonly #byWork = new Map<string, Claim | Set<Claim>>();

  /** Notified after every removal. */
  readonly removed = new Notifier();
  readonly #onRemoved: (claim: Claim) => void;

  /** @param onRemoved called with each claim after its removal. */
  constructor(onRemoved: (claim: Claim) => void = () => {}) {
    this.#onRemoved = onRemoved;
  }

  get size(): number {
    return this.#byName.size;
  }

  /** The claim of this Pod. */
  get(name: string): Claim | undefined {
    return this.#byName.get(name);
  }

  /** The claim of this item. An item that one of our Secrets already names is never journaled again. */
  ofWork(workId: string): Claim | undefined {
    const found = this.#byWork.get(workId);
    return found instanceof Set ? found.values().next().value : found;
  }

  /** Whether a claim's Pod runs this session, or may still start it. */
  runs(sessionId: string): boolean {
    return this.some(
      ({ record: { journal }, observed: { endedMs } }) =>
        journal.use === "session" && journal.sessionId === sessionId && endedMs === null,
    );
  }

  some(isSo: (claim: Claim) => boolean): boolean {
    for (const claim of this.#byName.values()) if (isSo(claim)) return true;
    return false;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  add(claim: Claim): void {
    this.#byName.set(claim.name, claim);
    const { workId } = claim.record.journal;
    const known = this.#byWork.get(workId);
    if (known === undefined) this.#byWork.set(workId, claim);
    else if (known instanceof Set) known.add(claim);
    else if (known !== claim) this.#byWork.set(workId, new Set([known, claim]));
  }

  remove(claim: Claim): void {
    if (this.#byName.get(claim.name) === claim) this.#byName.delete(claim.name);
    const { workId } = claim.record.journal;
    const same = this.#byWork.get(workId);
    if (same instanceof Set) same.delete(claim);
    if (same === claim || (same instanceof Set && same.size === 0)) this.#byWork.delete(workId);
    this.removed.notify();
    this.#onRemoved(claim);
  }

  [Symbol.iterator](): IterableIterator<Claim> {
    return this.#byName.values();
  }
}

/** A new claim: its Secret exists or is about to be written, and nothing else is known. */
export function newClaim(
  from: Pick<Claim, "name" | "lateAckUntilMs" | "templateHash"> &
    Partial<Pick<Claim, "turn" | "othersUntilMs" | "recordedMs">> &
    Parameters<typeof newRecord>[0] & { memory?: Memory },
): Claim {
  const { name, turn = 0, lateAckUntilMs, templateHash, memory, ...more } = from;
  const { othersUntilMs = null, recordedMs = null, ...record } = more;
  return {
    ...{ name, turn, slot: slotName(name, turn), templateHash, lateAckUntilMs, othersUntilMs, recordedMs },
    record: newRecord(record),
    lease: newLease(memory),
    observed: newObserved(),
    failing: null,
  };
}
