import type { Environment, EnvironmentStatus } from "../api/environment.ts";
import { keptFromShell } from "../api/parking-needs.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { apiErrorText, isForbidden, isInvalid, isNotFound } from "../kube/errors.ts";
import { whyKeyOf } from "../pods/parking.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";
import { dryRunName } from "./template-check.ts";

export interface ParkingCheckOptions {
  readonly kube: Pick<KubeClient, "attach">;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "policyCheckMs">;
  /** The status when the loops were created. */
  readonly found: EnvironmentStatus | undefined;
}

/**
 * Finds out whether warm Pods can wait in a shell, for an Environment that leaves the choice to Berth. Without the right
 * to attach, they wait for a key. A fault that only a Pod shows, such as an image without a shell, counts until the spec
 * changes; the status keeps it for the next process.
 */
export class ParkingCheck {
  readonly #options: ParkingCheckOptions;
  /** Why attaching is not allowed; null: no check was refused. */
  #forbidden: string | null;
  #failed: { readonly message: string; readonly generation: number } | null;
  #checkedMs: number | null = null;

  constructor(options: ParkingCheckOptions) {
    const { parking, observedGeneration: generation } = options.found ?? {};
    this.#options = options;
    // Until the first check, the earlier process's one counts: another choice would replace all waiting Pods.
    this.#forbidden = parking?.mode === "Key" && parking.failure === undefined ? whyKeyOf(parking) : null;
    this.#failed =
      parking?.mode === "Key" && parking.failure !== undefined && generation !== undefined
        ? { message: parking.failure, generation }
        : null;
  }

  /** Why Pods can't wait in a shell although their template permits it; null: they can. */
  get refused(): string | null {
    return this.#failed?.message ?? this.#forbidden;
  }

  /** What failed in a Pod, for the status. */
  get failure(): string | null {
    return this.#failed?.message ?? null;
  }

  /** Milliseconds until the next check; infinite: none is needed. */
  nextLookMs(nowMs: number): number {
    return this.#checkedMs === null
      ? Number.POSITIVE_INFINITY
      : this.#checkedMs + this.#options.timing.policyCheckMs - nowMs;
  }

  /**
   * Parking in a shell failed although the template and the rights permit it.
   * @param isForMoment the next check shows whether it still fails
   */
  failed(message: string, { metadata }: Environment, isForMoment = false): void {
    if (!isForMoment) {
      this.#failed = { message, generation: metadata.generation };
      return;
    }
    this.#forbidden = message;
    this.#checkedMs = this.#options.clock.monotonic();
  }

  /** Checks the right to attach if it is time. Never throws. */
  async check({ metadata, spec: { sessions } }: Environment): Promise<void> {
    if (this.#failed && this.#failed.generation !== metadata.generation) this.#failed = null;
    const chooses =
      sessions !== undefined && sessions.parking === undefined && keptFromShell(sessions.template) === null;
    if (!chooses) {
      this.#checkedMs = null;
      this.#forbidden = null;
      return;
    }
    const nowMs = this.#options.clock.monotonic();
    if (this.#checkedMs !== null && this.nextLookMs(nowMs) > 0) return;
    this.#checkedMs = nowMs;
    const { kube, points } = this.#options;
    const { namespace, name } = metadata;
    // No Pod has this name: an operator that may attach gets a 404.
    const attach = () => kube.attach({ namespace, name: dryRunName(name) }, { container: "none" });
    try {
      const stream = await points.run("reconcile.check-attach", {}, attach);
      stream.close();
      this.#forbidden = null;
    } catch (error) {
      // An admission policy may choose its status; 422 is the default.
      if (isForbidden(error) || isInvalid(error))
        this.#forbidden = `the operator may not attach to Pods: ${apiErrorText(error, name)}`;
      else if (isNotFound(error)) this.#forbidden = null;
    }
  }
}
