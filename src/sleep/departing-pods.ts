import { sleep } from "../core/clock.ts";
import type { Pod } from "../kube/resource.ts";
import type { PoolContext } from "../protocol/context.ts";
import type { EndingSleep, RemovalResult, Removals } from "./removal.ts";

/** How long a plan waits for a removal. An unfinished removal still takes room. */
const REMOVAL_PATIENCE_MS = 2_000;

export interface DepartingPodsOptions {
  readonly context: PoolContext;
  readonly removals: Removals;
  /** Called for a Pod that stays, since another client holds its slot, or since it has changed. */
  readonly onStays: (name: string, why: "taken" | "kept") => void;
  readonly onChange: () => void;
}

/** The free and sleeping Pods being removed: from the first try until the cache no longer shows the Pod. */
export class DepartingPods {
  readonly #options: DepartingPodsOptions;
  /** Names of removed Pods, until the cache no longer shows them. */
  readonly #removed = new Set<string>();
  /** Removals in flight. */
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: DepartingPodsOptions) {
    this.#options = options;
  }

  has(name: string): boolean {
    return this.isRemoving(name) || this.#removed.has(name);
  }

  /** Whether the removal of this Pod began, and its deletion was not answered yet. */
  isRemoving(name: string): boolean {
    return this.#options.removals.has(name);
  }

  get isEmpty(): boolean {
    return this.#options.removals.size === 0 && this.#removed.size === 0;
  }

  /** The number of Pods not removed yet, which still take room. */
  get unfinished(): number {
    return this.#options.removals.size;
  }

  /** When (monotonic) to retry the next failed removal; null: none failed. */
  get nextMs(): number | null {
    return this.#options.removals.nextMs;
  }

  /**
   * Removes a Pod. Resolves when it is removed, or when that takes long.
   * @param sleep the sleep that ends with the Pod, if a session sleeps in it
   */
  remove(pod: Pod, sleep?: EndingSleep): Promise<void> {
    return this.#waitBriefly(pod.metadata.name ?? "", this.#options.removals.remove(pod, sleep));
  }

  /** Retries the failed removals that are due. */
  async retryDue(): Promise<void> {
    await Promise.all(this.#options.removals.retryDue().map(([name, result]) => this.#waitBriefly(name, result)));
  }

  /** Drops the Pods that the cache no longer shows. */
  catchUp(): void {
    for (const name of this.#removed) if (!this.#options.context.pods.get(name)) this.#removed.delete(name);
  }

  /** Resolves when no removal is in flight. */
  async ended(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  /** Waits a short time for a removal: one that hangs must block neither the others nor new Pods. */
  async #waitBriefly(name: string, removal: Promise<RemovalResult>): Promise<void> {
    const done = removal.then((result) => {
      if (result === "removed") this.#removed.add(name);
      else if (result !== "failed" && !this.#options.removals.has(name)) this.#options.onStays(name, result);
      this.#underWay.delete(done);
      this.#options.onChange();
    });
    this.#underWay.add(done);
    const waiting = new AbortController();
    await Promise.race([done, sleep(this.#options.context.clock, REMOVAL_PATIENCE_MS, waiting.signal)]);
    waiting.abort();
  }
}
