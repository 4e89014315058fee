import type { Verdict } from "../api/conditions.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import {
  apiErrorText,
  isBadRequest,
  isForbidden,
  isInvalid,
  isNamespaceTerminating,
  isQuotaExceeded,
  KubeApiError,
} from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { type PodPolicy, whyForbidden } from "../policy/pod-policy.ts";
import type { CheckedTemplate } from "./environment-runtime.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/** What the API server says about a template. `final`: the verdict holds until the template changes. */
export interface TemplateVerdict extends Verdict {
  readonly accepted: boolean;
  readonly final: boolean;
}

/** The message of `AcceptedWithWarning`. */
export const ALWAYS_PULLS =
  "the session container pulls its image with Always: the registry is asked every few seconds while a Pod is parked; IfNotPresent and a fixed tag avoid that";

/**
 * Checks a template against the operator's own rules, which needs no request, and then by a dry-run creation.
 * Strict validation turns a typo in the template into a refusal that names the field. Never throws.
 */
export async function checkTemplate(
  kube: KubeClient,
  environment: string,
  template: CheckedTemplate,
  policy: PodPolicy,
): Promise<TemplateVerdict> {
  const forbidden = whyForbidden(policy, template.written, template.field);
  if (forbidden !== null) return { accepted: false, final: true, reason: "TemplateForbidden", message: forbidden };
  if (template.mountProblem) {
    return { accepted: false, final: true, reason: "Refused", message: template.mountProblem };
  }
  const rendered = template.render(dryRunName(environment));
  const { name = "", namespace = "" } = rendered.metadata;
  try {
    const pod = await kube.create(PODS, rendered, { dryRun: true, fieldValidation: "Strict" });
    return accepted(template, pod);
  } catch (error) {
    // Quota is checked after validation: the template is valid and the namespace is full. Creating Pods will report
    // that.
    if (isQuotaExceeded(error)) return accepted(template, null);
    return refused(error, apiErrorText(error, name), { namespace, field: template.field });
  }
}

/**
 * The name is the same on every try, so that the API server's error text is too. No real Pod can have it: the random
 * ends of Pod names have no vowels (`newPodName`).
 */
export function dryRunName(environment: string): string {
  return `berth-${environment.replaceAll(".", "-")}-template`;
}

function accepted(template: CheckedTemplate, pod: Pod | null): TemplateVerdict {
  const made = pod?.spec.containers.find(({ name }) => name === template.container);
  // Admission may set it (AlwaysPullImages).
  const pullsAlways = template.pullsAlways || (template.pullsAgain && made?.imagePullPolicy === "Always");
  return {
    accepted: true,
    final: true,
    reason: pullsAlways ? "AcceptedWithWarning" : "Accepted",
    message: pullsAlways ? ALWAYS_PULLS : "the API server takes Pods of the template",
  };
}

function refused(
  error: unknown,
  words: string,
  { namespace, field }: { readonly namespace: string; readonly field: string },
): TemplateVerdict {
  const verdict = { accepted: false, final: false };
  if (isNamespaceTerminating(error)) return { ...verdict, reason: "TemplateUnchecked", message: words };
  if (mayNotCreate(error)) {
    const fix = `give the operator permission to create Pods in namespace ${namespace}`;
    return {
      ...verdict,
      reason: "TemplateUnchecked",
      message: `the template could not be checked: ${fix} (${words})`,
    };
  }
  if (isForbidden(error) || isPolicy(error)) {
    const message = `Pods of ${field} are refused by a policy of the cluster: ${words}; fix the template, or have the policy changed`;
    return { ...verdict, reason: "AdmissionRefused", message };
  }
  if (isBadRequest(error) || isInvalid(error)) {
    return { ...verdict, reason: "Refused", message: `fix ${field}: ${words}` };
  }
  const message = `the template could not be checked yet, it is tried again: ${words}`;
  return { ...verdict, reason: "TemplateUnchecked", message };
}

/** Matches RBAC's text: admission uses the same status with another text. */
function mayNotCreate(error: unknown): boolean {
  return (
    isForbidden(error) && error instanceof KubeApiError && error.message.includes(' cannot create resource "pods"')
  );
}

/** An admission policy may choose the status that it answers with. */
function isPolicy(error: unknown): boolean {
  return (
    error instanceof KubeApiError &&
    error.status >= 400 &&
    error.status < 500 &&
    /ValidatingAdmissionPolicy '|admission webhook "[^"]*" denied/.test(error.message)
  );
}

export interface TemplateCheckerOptions {
  readonly kube: KubeClient;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly timing: Pick<Timing, "templateRetryBaseMs" | "templateRetryMaxMs">;
  readonly podPolicy: PodPolicy;
  /** The Environment's name. */
  readonly name: string;
}

/** Checks one Environment's template when it changes, and again with backoff until the verdict is final. */
export class TemplateChecker {
  readonly #options: TemplateCheckerOptions;
  #last: (TemplateVerdict & { readonly hash: string; readonly checkedMs: number; readonly attempts: number }) | null =
    null;

  constructor(options: TemplateCheckerOptions) {
    this.#options = options;
  }

  /** The last verdict; null: there is none yet. */
  get verdict(): TemplateVerdict | null {
    return this.#last;
  }

  /** Milliseconds until the next check; infinite: none until the template changes. */
  nextLookMs(nowMs: number): number {
    const last = this.#last;
    if (!last || last.final) return Number.POSITIVE_INFINITY;
    return last.checkedMs + this.#pauseMs(last.attempts) - nowMs;
  }

  /** Checks the template if it is time. */
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
