import type { NetworkPolicy } from "../kube/resource.ts";
import { forgetEnvironmentMetrics } from "../observe/environment-metrics.ts";
import type { Metrics } from "../observe/metrics.ts";
import { EnvironmentReconciler } from "../reconcile/environment-reconciler.ts";
import type { EnvironmentObserver } from "../reconcile/environment-runtime.ts";
import type { ReconcilerOptions } from "../reconcile/reconciler-options.ts";

/**
 * One shard that this process holds, from acquiring its Lease to losing or releasing it. It has its own reconciler,
 * whose every write checks the guard of that Lease. A later term of the same shard starts from scratch, as another
 * process would.
 */
export class ShardTerm {
  readonly #reconciler: EnvironmentReconciler;
  readonly #metrics: Metrics;
  readonly #observer: EnvironmentObserver | undefined;
  readonly #underWay = new Set<Promise<void>>();
  /** Every Environment that this term has reconciled. */
  readonly #keys = new Set<string>();

  constructor(options: ReconcilerOptions) {
    this.#reconciler = new EnvironmentReconciler(options);
    this.#metrics = options.metrics;
    this.#observer = options.observer;
  }

  /** Whether this term has reconciled the Environment, or an earlier one of that name. */
  knows(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Throws as EnvironmentReconciler.reconcile does. */
  async reconcile(key: string): Promise<void> {
    this.#keys.add(key);
    const work = this.#reconciler.reconcile(key);
    const quiet = work.catch(() => {}).finally(() => this.#underWay.delete(quiet));
    this.#underWay.add(quiet);
    await work;
  }

  podChanged(key: string, podName: string): void {
    this.#reconciler.podChanged(key, podName);
  }

  policyChanged(key: string, policy: NetworkPolicy | undefined): void {
    this.#reconciler.policyChanged(key, policy);
  }

  /** Ends all loops at once and waits for pending requests and reconciles. */
  async stop(): Promise<void> {
    await this.#reconciler.stop();
    await Promise.all(this.#underWay);
  }

  /** Removes its Environments' metrics and console entries: from now on, another replica's are the right ones. */
  forgetShown(): void {
    for (const key of this.#keys) {
      const [namespace = "", environment = ""] = key.split("/");
      forgetEnvironmentMetrics(this.#metrics, { namespace, environment });
      this.#observer?.cannotServe(key, null);
    }
  }
}
