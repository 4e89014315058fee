import type { Environment, EnvironmentStatus } from "../api/environment.ts";
import { keptFromSleep, sleepSecondsOf } from "../api/sleep-needs.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { apiErrorText, isForbidden, isInvalid, isNotFound } from "../kube/errors.ts";
import { PODS } from "../kube/resource.ts";
import { whyAwakeOf } from "../pods/sleep-choice.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";
import { dryRunName } from "./template-check.ts";

interface Options {
  readonly kube: Pick<KubeClient, "patch">;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "policyCheckMs">;
  /** The status when the loops were created. */
  readonly found: EnvironmentStatus | undefined;
}

/**
 * How long a right that was there must be refused before it counts as missing, which replaces all waiting Pods. An API
 * server that starts also refuses what is allowed, until it knows the roles.
 */
const CONFIRM_MS = 10_000;

/**
 * Finds out whether turns can be added to Pods, for an Environment whose sessions are to sleep. A missing right, or a
 * policy, counts until the next check. A fault that only a Pod shows, such as an image without a shell, counts until the
 * spec changes; the status keeps it for the next process.
 */
export class SleepCheck {
  readonly #options: Options;
  /** Why it is not allowed; null: no check was refused. */
  #forbidden: string | null;
  #failed: { readonly message: string; readonly generation: number } | null;
  #checkedMs: number | null = null;
  /** Whether it was allowed when it was last known. */
  #wasAllowed: boolean;
  /** Since when it has been refused, although it was allowed; null: it has not. */
  #doubtedMs: number | null = null;

  constructor(options: Options) {
    const { observedGeneration: generation, sleep } = options.found ?? {};
    const was = sleep?.enabled === false ? whyAwakeOf(sleep) : null;
    const failure = sleep?.failure;
    this.#options = options;
    // Until the first check, the earlier process's one counts: another choice would replace all waiting Pods.
    this.#forbidden = failure === undefined ? was : null;
    this.#wasAllowed = sleep?.enabled === true;
    this.#failed =
      was !== null && failure !== undefined && generation !== undefined ? { message: failure, generation } : null;
  }

  /** Why it is impossible although the template permits it; null: it is possible. */
  get refused(): string | null {
    return this.#failed?.message ?? this.#forbidden;
  }

  /** What failed in a Pod, for the status. */
  get failure(): string | null {
    return this.#failed?.message ?? null;
  }

  /** Milliseconds until the next check; infinite: none is needed. */
  nextLookMs(nowMs: number): number {
    if (this.#checkedMs === null) return Number.POSITIVE_INFINITY;
    const isOpen = this.#doubtedMs !== null && this.#checkedMs < this.#doubtedMs + CONFIRM_MS;
    return this.#checkedMs + (isOpen ? CONFIRM_MS : this.#options.timing.policyCheckMs) - nowMs;
  }

  /**
   * It failed although the template and the rights permit it.
   * @param isForMoment the next check shows whether it still fails
   */
  failed(message: string, { metadata }: Environment, isForMoment = false): void {
    if (!isForMoment) {
      this.#failed = { message, generation: metadata.generation };
      return;
    }
    this.#refuse(message);
    if (this.#forbidden !== null) this.#checkedMs = this.#options.clock.monotonic();
  }

  #refuse(message: string): void {
    const nowMs = this.#options.clock.monotonic();
    const isOld = this.#doubtedMs !== null && nowMs - this.#doubtedMs > this.#options.timing.policyCheckMs;
    if (this.#doubtedMs === null || isOld) this.#doubtedMs = nowMs;
    if (this.#wasAllowed && nowMs - this.#doubtedMs < CONFIRM_MS) return;
    this.#forbidden = message;
    this.#wasAllowed = false;
    this.#doubtedMs = null;
  }

  /** Checks the right if it is time. Never throws. */
  async check(environment: Environment): Promise<void> {
    const { metadata, spec } = environment;
    if (this.#failed && this.#failed.generation !== metadata.generation) this.#failed = null;
    if (!spec.sessions || sleepSecondsOf(spec.sessions) === 0 || keptFromSleep(spec.sessions) !== null) {
      this.#checkedMs = null;
      this.#forbidden = null;
      return;
    }
    const nowMs = this.#options.clock.monotonic();
    if (this.#checkedMs !== null && this.nextLookMs(nowMs) > 0) return;
    this.#checkedMs = nowMs;
    const { namespace, name } = metadata;
    const { kube, points } = this.#options;
    // An operator that may send it gets a 404: no Pod has this name.
    const ref = { namespace, name: dryRunName(name) };
    const patch = () => kube.patch(PODS, ref, {}, { type: "strategic", subresource: "ephemeralcontainers" });
    try {
      await points.run("reconcile.check-turns", {}, patch);
      this.#allow();
    } catch (error) {
      // An admission policy may choose its status; 422 is the default.
      if (isForbidden(error) || isInvalid(error))
        this.#refuse(
          `the operator has no permission to add ephemeral containers to Pods: ${apiErrorText(error, name)}`,
        );
      else if (isNotFound(error)) this.#allow();
    }
  }

  /** A policy may still refuse it for real Pods, so what they showed stays in doubt. */
  #allow(): void {
    this.#forbidden = null;
    this.#wasAllowed = true;
  }
}
