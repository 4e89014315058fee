import type { PodPolicy } from "../api/pod-policy.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { CheckedTemplate } from "./environment-runtime.ts";
import type { ReconcilePoint } from "./points.ts";
import { checkTemplate, type TemplateVerdict } from "./template-check.ts";

export interface TemplateCheckerOptions {
  readonly kube: KubeClient;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "templateRetryBaseMs" | "templateRetryMaxMs">;
  readonly podPolicy: PodPolicy;
  /** The Environment's name. */
  readonly name: string;
}

/** Has one Environment's template checked when it changes, and again with backoff until the verdict is final. */
export class TemplateChecker {
  readonly #options: TemplateCheckerOptions;
  #last: (TemplateVerdict & { readonly hash: string; readonly checkedMs: number; readonly attempts: number }) | null =
    null;

  constructor(options: TemplateCheckerOptions) {
    this.#options = options;
  }

  /** The last one; null: there is none yet. */
  get verdict(): TemplateVerdict | null {
    return this.#last;
  }

  /** Milliseconds until it is to be checked again; infinite: not until it changes. */
  nextLookMs(nowMs: number): number {
    const last = this.#last;
    if (!last || last.final) return Number.POSITIVE_INFINITY;
    return last.checkedMs + this.#pauseMs(last.attempts) - nowMs;
  }

  /** Checks it, where it is time to. */
  async check(template: CheckedTemplate): Promise<void> {
    const { kube, points, clock, podPolicy, name } = this.#options;
    const last = this.#last;
    const sameHash = last?.hash === template.hash;
    if (sameHash && last && (last.final || clock.monotonic() < last.checkedMs + this.#pauseMs(last.attempts))) return;
    const check = () => checkTemplate(kube, name, template, podPolicy);
    const verdict = await points.run("reconcile.check-template", {}, check, ({ accepted }) => ({ accepted }));
    const attempts = sameHash && last ? last.attempts + 1 : 1;
    this.#last = { ...verdict, hash: template.hash, checkedMs: clock.monotonic(), attempts };
  }

  #pauseMs(attempts: number): number {
    const { templateRetryBaseMs: baseMs, templateRetryMaxMs: maxMs } = this.#options.timing;
    return backoffCeiling({ baseMs, maxMs }, attempts - 1);
  }
}
