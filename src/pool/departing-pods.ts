import { sleep } from "../core/clock.ts";
import type { Pod } from "../kube/resource.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { RemovalResult, Removals } from "./removal.ts";

/** A plan goes on after so long without the answer to a removal, which still takes room then. */
const REMOVAL_PATIENCE_MS = 2_000;

/** The free Pods that go: from the first try of a removal until the cache no longer shows the Pod. */
export class DepartingPods {
  readonly #context: SessionContext;
  readonly #removals: Removals;
  readonly #onTaken: (name: string) => void;
  readonly #onChange: () => void;
  /** Names of Pods that were removed, until the cache no longer shows them. */
  readonly #removed = new Set<string>();
  /** Removals that are being tried. */
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: {
    context: SessionContext;
    removals: Removals;
    /** A Pod stays, since somebody else has its slot. */
    onTaken: (name: string) => void;
    onChange: () => void;
  }) {
    this.#context = options.context;
    this.#removals = options.removals;
    this.#onTaken = options.onTaken;
    this.#onChange = options.onChange;
  }

  has(name: string): boolean {
    return this.#removals.has(name) || this.#removed.has(name);
  }

  get isEmpty(): boolean {
    return this.#removals.size === 0 && this.#removed.size === 0;
  }

  /** How many are not removed yet, and still take room. */
  get unfinished(): number {
    return this.#removals.size;
  }

  /** When (monotonic) the next removal that failed is due; null when there is none. */
  get nextMs(): number | null {
    return this.#removals.nextMs;
  }

  /** Has a Pod removed. Resolves when it is, or when that takes long. */
  remove(pod: Pod): Promise<void> {
    return this.#goes(pod.metadata.name ?? "", this.#removals.remove(pod));
  }

  /** Tries again what failed and is due. */
  async retryDue(): Promise<void> {
    await Promise.all(this.#removals.retryDue().map(([name, result]) => this.#goes(name, result)));
  }

  /** Takes note of what the cache no longer shows. */
  catchUp(): void {
    for (const name of this.#removed) if (!this.#context.pods.get(name)) this.#removed.delete(name);
  }

  /** Resolves when no removal is being tried any more. */
  async ended(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  /** Waits for a removal, but not long: one that hangs must not keep the others, nor new Pods. */
  async #goes(name: string, removal: Promise<RemovalResult>): Promise<void> {
    const done = removal.then((result) => {
      if (result === "removed") this.#removed.add(name);
      else if (result === "taken" && !this.#removals.has(name)) this.#onTaken(name);
      this.#underWay.delete(done);
      this.#onChange();
    });
    this.#underWay.add(done);
    const waiting = new AbortController();
    await Promise.race([done, sleep(this.#context.clock, REMOVAL_PATIENCE_MS, waiting.signal)]);
    waiting.abort();
  }
}
