import { isMaybeApplied, isNotFound } from "../kube/errors.ts";
import { PODS } from "../kube/resource.ts";
import type { SessionContext } from "../protocol/context.ts";

/** Look-ups of overdue Pods under way at the same time. */
const CONCURRENCY = 16;

/**
 * Creations that were sent and that the cache does not show yet: they count as Pods, since a cache that lags behind would
 * else have the same Pods made again and again.
 */
export class Expectations {
  readonly #context: SessionContext;
  /** Names of Pods, with the monotonic time of their creation or of the last look for them. */
  readonly #expected = new Map<string, number>();
  /** The sessions of those that were made for one. */
  readonly #sessions = new Map<string, string>();

  constructor(context: SessionContext) {
    this.#context = context;
  }

  get size(): number {
    return this.#expected.size;
  }

  /** Sessions that Pods are being made for. */
  get sessions(): Set<string> {
    for (const name of this.#sessions.keys()) if (!this.#expected.has(name)) this.#sessions.delete(name);
    return new Set(this.#sessions.values());
  }

  /** The creation of a Pod is about to be sent. */
  add(name: string, sessionId: string | null = null): void {
    this.#expected.set(name, this.#context.clock.monotonic());
    if (sessionId !== null) this.#sessions.set(name, sessionId);
  }

  /** The creation failed. One without an answer may have taken effect: it stands until the cache shows it or it is old. */
  failed(name: string, error: unknown): void {
    if (!isMaybeApplied(error)) this.#expected.delete(name);
  }

  /** Strikes out what the cache shows, and looks for what it should have shown by now. Never throws. */
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

  /** Not there: it was lost. There, or no answer: it counts on. */
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
