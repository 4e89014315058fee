import { isMaybeApplied, isNotFound } from "../kube/errors.ts";
import { PODS } from "../kube/resource.ts";
import type { PoolContext } from "../protocol/context.ts";

/** Reads of overdue Pods in flight at the same time. */
const CONCURRENCY = 16;

/**
 * Creations sent that the cache does not show yet. They count as Pods: otherwise a lagging cache would cause the same
 * Pods to be created again and again.
 */
export class Expectations {
  readonly #context: PoolContext;
  /** Names of Pods, with the monotonic time of their creation or of the last check for them. */
  readonly #expected = new Map<string, number>();
  /** The sessions of Pods that were made for one. */
  readonly #sessions = new Map<string, string>();

  constructor(context: PoolContext) {
    this.#context = context;
  }

  get size(): number {
    return this.#expected.size;
  }

  /** Sessions that Pods are being created for. */
  get sessions(): Set<string> {
    for (const name of this.#sessions.keys()) if (!this.#expected.has(name)) this.#sessions.delete(name);
    return new Set(this.#sessions.values());
  }

  /** Whether the creation of this Pod was sent, and the cache does not show it yet. */
  has(name: string): boolean {
    return this.#expected.has(name);
  }

  /** Notes a creation that is about to be sent. */
  add(name: string, sessionId: string | null = null): void {
    this.#expected.set(name, this.#context.clock.monotonic());
    if (sessionId !== null) this.#sessions.set(name, sessionId);
  }

  /**
   * Notes that a creation failed. One without an answer may have taken effect, so it still counts until the cache shows
   * the Pod or a check finds none.
   */
  failed(name: string, error: unknown): void {
    if (!isMaybeApplied(error)) this.#expected.delete(name);
  }

  /** Drops what the cache shows, and checks for Pods that it should show by now. Never throws. */
  async settle(): Promise<void> {
    const { pods, clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    const overdue: string[] = [];
    for (const [name, sinceMs] of this.#expected) {
      if (pods.get(name)) this.#expected.delete(name);
      else if (nowMs - sinceMs > timing.expectationMs) overdue.push(name);
    }
    for (let from = 0; from < overdue.length; from += CONCURRENCY) {
      await Promise.all(overdue.slice(from, from + CONCURRENCY).map((name) => this.#lookFor(name)));
    }
  }

  /** Stops counting a Pod that does not exist. One that exists, or whose check failed, still counts. */
  async #lookFor(name: string): Promise<void> {
    const { kube, points, namespace, clock } = this.#context;
    try {
      await points.run("prepare.read-pod", { pod: name }, () => kube.get(PODS, { namespace, name }));
    } catch (error) {
      if (isNotFound(error)) {
        this.#expected.delete(name);
        return;
      }
    }
    this.#expected.set(name, clock.monotonic());
  }
}
