import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isForbidden, isUnauthorized } from "../kube/errors.ts";
import type { KubeObject } from "../kube/resource.ts";
import type { Informer } from "../watch/informer.ts";

/**
 * How long caches may lag before a condition reports it: a restart of the API server takes seconds. Longer than a
 * reflector trusts a watch without events (ANSWERED_MS of reflector.ts).
 */
export const CACHE_PATIENCE_MS = 45_000;

/** How often the caches are checked. */
const CHECK_MS = 5_000;

/** The caches of one namespace, or of all namespaces. */
export interface LaggingCaches {
  /** Undefined: all namespaces. */
  readonly namespace: string | undefined;
  readonly environments: Pick<Informer<KubeObject>, "behindMs" | "lastError">;
  readonly pods: Pick<Informer<KubeObject>, "behindMs" | "lastError">;
}

/** Checks whether the caches follow the API server, and says what is wrong if they don't. */
export class CacheLag<C extends LaggingCaches> {
  readonly #caches: readonly C[];
  readonly #clock: Clock;

  constructor(caches: readonly C[], clock: Clock) {
    this.#caches = caches;
    this.#clock = clock;
  }

  /** Why the caches of a namespace lag, and how to fix it; null if they don't lag. */
  of(namespace: string): string | null {
    const caches = this.#caches.find((each) => each.namespace === undefined || each.namespace === namespace);
    return caches ? this.#message(caches) : null;
  }

  /** Calls `onChange` with the caches that started or stopped lagging, until the signal aborts. */
  async run(signal: AbortSignal, onChange: (caches: C) => void): Promise<void> {
    const shown = new Map<C, string | null>();
    while (await sleep(this.#clock, CHECK_MS, signal)) {
      for (const caches of this.#caches) {
        const now = this.#message(caches);
        if (now === (shown.get(caches) ?? null)) continue;
        shown.set(caches, now);
        onChange(caches);
      }
    }
  }

  #message({ pods, environments }: LaggingCaches): string | null {
    if (pods.behindMs >= CACHE_PATIENCE_MS) return lagMessage("Pods", pods);
    return environments.behindMs >= CACHE_PATIENCE_MS ? lagMessage("Environments", environments) : null;
  }
}

function lagMessage(what: string, { lastError }: LaggingCaches["pods"]): string {
  const fix =
    isForbidden(lastError) || isUnauthorized(lastError)
      ? `give the operator permission to list and watch ${what}`
      : "check that the API server is healthy";
  const cause = lastError === undefined ? "no answer yet" : errorText(lastError);
  return `Berth misses changes of ${what}, because it cannot list or watch them: ${cause}; ${fix}`;
}
