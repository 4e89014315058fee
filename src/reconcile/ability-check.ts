import type { Environment, EnvironmentStatus } from "../api/environment.ts";
import { keptFromShell } from "../api/parking-needs.ts";
import { keptFromSleep, sleepSecondsOf } from "../api/sleep-needs.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { apiErrorText, isForbidden, isInvalid, isNotFound } from "../kube/errors.ts";
import { PODS } from "../kube/resource.ts";
import { whyAwakeOf, whyKeyOf } from "../pods/parking.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";
import { dryRunName } from "./template-check.ts";

interface Options {
  readonly kube: Pick<KubeClient, "attach" | "patch">;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "policyCheckMs">;
  /** The status when the loops were created. */
  readonly found: EnvironmentStatus | undefined;
}

/** What is checked. */
interface Ability {
  /** What the operator may not do, for a message. */
  readonly act: string;
  /** Why an earlier process went without it; null: it did not. */
  readonly was: string | null;
  /** Whether an earlier process had it. */
  readonly wasAllowed: boolean;
  /** What had failed in a Pod, if that was the reason. */
  readonly failure: string | undefined;
  /** Whether this Environment needs it. */
  readonly isWanted: (environment: Environment) => boolean;
  /** A request about a Pod that does not exist: an operator that may send it gets a 404. */
  readonly request: (ref: { readonly namespace: string; readonly name: string }) => Promise<void>;
}

/**
 * How long a right that was there must be refused before it counts as missing, which replaces all waiting Pods. An API
 * server that starts also refuses what is allowed, until it knows the roles.
 */
const CONFIRM_MS = 10_000;

/**
 * Finds out whether the cluster and the image permit what a template permits. A missing right, or a policy, counts
 * until the next check. A fault that only a Pod shows, such as an image without a shell, counts until the spec changes;
 * the status keeps it for the next process.
 */
export class AbilityCheck {
  readonly #options: Options;
  readonly #ability: Ability;
  /** Why it is not allowed; null: no check was refused. */
  #forbidden: string | null;
  #failed: { readonly message: string; readonly generation: number } | null;
  #checkedMs: number | null = null;
  /** Whether it was allowed when it was last known. */
  #wasAllowed: boolean;
  /** Since when it has been refused, although it was allowed; null: it has not. */
  #doubtedMs: number | null = null;

  constructor(options: Options, ability: Ability) {
    const { observedGeneration: generation } = options.found ?? {};
    const { was, failure } = ability;
    this.#options = options;
    this.#ability = ability;
    // Until the first check, the earlier process's one counts: another choice would replace all waiting Pods.
    this.#forbidden = failure === undefined ? was : null;
    this.#wasAllowed = ability.wasAllowed;
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
    const { metadata } = environment;
    if (this.#failed && this.#failed.generation !== metadata.generation) this.#failed = null;
    if (!this.#ability.isWanted(environment)) {
      this.#checkedMs = null;
      this.#forbidden = null;
      return;
    }
    const nowMs = this.#options.clock.monotonic();
    if (this.#checkedMs !== null && this.nextLookMs(nowMs) > 0) return;
    this.#checkedMs = nowMs;
    const { namespace, name } = metadata;
    try {
      await this.#ability.request({ namespace, name: dryRunName(name) });
      this.#allow();
    } catch (error) {
      // An admission policy may choose its status; 422 is the default.
      if (isForbidden(error) || isInvalid(error))
        this.#refuse(`the operator has no permission to ${this.#ability.act}: ${apiErrorText(error, name)}`);
      else if (isNotFound(error)) this.#allow();
    }
  }

  /** A policy may still refuse it for real Pods, so what they showed stays in doubt. */
  #allow(): void {
    this.#forbidden = null;
    this.#wasAllowed = true;
  }
}

/**
 * Whether warm Pods can wait in a shell, for an Environment that leaves the choice to Berth. Without the right to
 * attach, they wait for a key.
 */
export function parkingCheck(options: Options): AbilityCheck {
  const { kube, points, found } = options;
  return new AbilityCheck(options, {
    act: "attach to Pods",
    was: found?.parking?.mode === "Key" ? whyKeyOf(found.parking) : null,
    wasAllowed: found?.parking?.mode === "Shell",
    failure: found?.parking?.failure,
    isWanted: ({ spec: { sessions } }) =>
      sessions !== undefined && sessions.parking === undefined && keptFromShell(sessions.template) === null,
    request: async (ref) => {
      const attach = () => kube.attach(ref, { container: "none" });
      (await points.run("reconcile.check-attach", {}, attach)).close();
    },
  });
}

/** Whether turns can be added to Pods, for an Environment whose sessions are to sleep. */
export function sleepCheck(options: Options): AbilityCheck {
  const { kube, points, found } = options;
  return new AbilityCheck(options, {
    act: "add ephemeral containers to Pods",
    was: found?.sleep?.enabled === false ? whyAwakeOf(found.sleep) : null,
    wasAllowed: found?.sleep?.enabled === true,
    failure: found?.sleep?.failure,
    isWanted: ({ spec: { sessions } }) =>
      sessions !== undefined && sleepSecondsOf(sessions) > 0 && keptFromSleep(sessions) === null,
    request: async (ref) => {
      const patch = () => kube.patch(PODS, ref, {}, { type: "strategic", subresource: "ephemeralcontainers" });
      await points.run("reconcile.check-turns", {}, patch);
    },
  });
}
