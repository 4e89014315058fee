import type { Verdict } from "../api/conditions.ts";
import { sessionContainerPath } from "../api/parking-needs.ts";
import { pathText, problemList } from "../api/problems.ts";
import { reservedLimits } from "../api/safe-defaults.ts";
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
import { PODS, type Pod, type PodSpec } from "../kube/resource.ts";
import {
  answeredProblems,
  type FieldProblem,
  pathInTemplate,
  REQUIRED,
  templateProblems,
  withoutFields,
} from "../pods/template-problems.ts";
import { forbiddenIn, type PodPolicy } from "../policy/pod-policy.ts";
import type { CheckedTemplate } from "./environment-runtime.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/** What the API server says about a template. `final`: the verdict holds until the template changes. */
export interface TemplateVerdict extends Verdict {
  readonly accepted: boolean;
  readonly final: boolean;
}

function alwaysPulls({ written }: CheckedTemplate): string {
  return `${sessionContainerPath(written)}.imagePullPolicy: with Always, the kubelet contacts the registry every few seconds while a Pod waits; use IfNotPresent and a fixed tag`;
}

/**
 * Checks a template against the operator's own rules, and by dry runs of its Pod. Strict validation turns a typo in the
 * template into a refusal that names the field. The verdict names every problem that both find. Never throws.
 */
export async function checkTemplate(
  kube: KubeClient,
  environment: string,
  template: CheckedTemplate,
  policy: PodPolicy,
): Promise<TemplateVerdict> {
  const own = ownProblems(template, policy);
  const answer = await dryRuns(kube, template, template.render(dryRunName(environment)));
  if (own.problems.length === 0) return answer.verdict;
  const isNew = (problem: string) => !own.problems.some((known) => fieldOf(known) === fieldOf(problem));
  const problems = [...own.problems, ...answer.problems.filter(isNew)];
  return { accepted: false, final: true, reason: own.reason, message: problemList(problems) };
}

const fieldOf = (problem: string) => problem.split(": ", 1)[0];

/** The problems of a template that need no API server, with the reason for them. */
export function ownProblems(
  template: CheckedTemplate,
  policy: PodPolicy,
): { readonly reason: "TemplateForbidden" | "Refused"; readonly problems: readonly string[] } {
  const { written, field, mountProblem } = template;
  const forbidden = forbiddenIn(policy, written, field);
  const wrong = templateProblems(written).map(({ path, words }) => `${field}.${pathText(path)}: ${words}`);
  return {
    reason: forbidden.length > 0 ? "TemplateForbidden" : "Refused",
    problems: [...forbidden, ...(mountProblem ? [mountProblem] : []), ...wrong],
  };
}

/**
 * The API server names problems of one kind at a time, so each further dry run leaves out the fields that the last one
 * named. This is the most for one template.
 */
const MAX_DRY_RUNS = 10;

/** The verdict of dry runs. `problems`: what only a change of the template fixes. */
async function dryRuns(
  kube: KubeClient,
  template: CheckedTemplate,
  rendered: Pod,
): Promise<{ readonly verdict: TemplateVerdict; readonly problems: readonly string[] }> {
  const first = await answerTo(kube, rendered);
  if ("created" in first) return { verdict: accepted(template, first.created), problems: [] };
  const { name = "", namespace = "" } = rendered.metadata;
  const verdictOn = (error: unknown) => refused(error, apiErrorText(error, name), namespace, template);
  const found: FieldProblem[] = [];
  let { error } = first;
  let pod: Pod | null = rendered;
  for (let run = 1; run < MAX_DRY_RUNS; run += 1) {
    const named: FieldProblem[] = isPolicy(error) ? [] : answeredProblems(error, pod);
    found.push(...named.filter((problem) => !isConsequence(problem, found)));
    pod = isInvalid(error) ? null : withoutFields(pod, named);
    if (pod === null) break;
    const next = await answerTo(kube, pod);
    if ("created" in next) break;
    error = next.error;
  }
  const verdict = verdictOn(first.error);
  const problems = found.map((problem) => problemText(problem, rendered, template));
  if (problems.length === 0) return { verdict, problems };
  const last = verdictOn(error);
  if (last.reason === "AdmissionRefused") problems.push(last.message);
  return { verdict: { ...verdict, message: problemList(problems) }, problems };
}

/** The Pod that the API server would create; null: only the quota has no room for it. */
async function answerTo(
  kube: KubeClient,
  pod: Pod,
): Promise<{ readonly created: Pod | null } | { readonly error: unknown }> {
  try {
    return { created: await kube.create(PODS, pod, { dryRun: true, fieldValidation: "Strict" }) };
  } catch (error) {
    // Quota is checked after validation, so the template is valid. Creating Pods will report a full quota.
    return isQuotaExceeded(error) ? { created: null } : { error };
  }
}

/** Whether a field is only missing because it was left out of a dry run. */
function isConsequence({ path, words }: FieldProblem, leftOut: readonly FieldProblem[]): boolean {
  const field = pathText(path);
  return words === REQUIRED && leftOut.some((problem) => field.startsWith(pathText(problem.path)));
}

/** With the path in the spec. A field that only the rendered Pod has is one of Berth's own. */
function problemText({ path, words }: FieldProblem, rendered: Pod, { written, field }: CheckedTemplate): string {
  const own = pathInTemplate(path, rendered, written);
  return own ? `${field}.${pathText(own)}: ${words}` : `${field}: field ${pathText(path)} of its Pod: ${words}`;
}

/**
 * The name is the same on every try, so that the API server's error text is too. No real Pod can have it: the random
 * ends of Pod names have no vowels (`newPodName`).
 */
export function dryRunName(environment: string): string {
  return `berth-${environment.replaceAll(".", "-")}-template`;
}

/** @param pod the Pod that the API server would create; null: not known */
export function accepted(template: CheckedTemplate, pod: Pod | null): TemplateVerdict {
  // Whatever answers must not stop the reconciler, so nothing of the answer is taken for granted.
  const { containers = [] }: Partial<PodSpec> = (pod as Partial<Pod> | null)?.spec ?? {};
  const made = containers.find(({ name }) => name === template.container);
  // Admission may set it (AlwaysPullImages).
  const pullsAlways = template.pullsAlways || (template.pullsAgain && made?.imagePullPolicy === "Always");
  const reserved = template.field === "spec.sessions.template" ? reservedLimits(template.written, template.field) : [];
  const warnings = [...(pullsAlways ? [alwaysPulls(template)] : []), ...reserved];
  const verdict = { accepted: true, final: true };
  if (warnings.length > 0) return { ...verdict, reason: "AcceptedWithWarning", message: problemList(warnings) };
  return { ...verdict, reason: "Accepted", message: "the API server accepts Pods of the template" };
}

function refused(error: unknown, words: string, namespace: string, template: CheckedTemplate): TemplateVerdict {
  const { field } = template;
  const verdict = { accepted: false, final: false };
  if (isNamespaceTerminating(error)) {
    return { ...verdict, reason: "TemplateUnchecked", message: `${field}: not checked: ${words}` };
  }
  if (mayNotCreate(error)) {
    const fix = `give the operator permission to create Pods in namespace ${namespace}`;
    return { ...verdict, reason: "TemplateUnchecked", message: `${field}: not checked: ${words}; ${fix}` };
  }
  const [, missing] = isForbidden(error) ? (NO_RUNTIME_CLASS.exec(words) ?? []) : [];
  if (missing !== undefined) {
    return { ...verdict, reason: "AdmissionRefused", message: noRuntimeClass(missing, template) };
  }
  if (isForbidden(error) || isPolicy(error)) {
    const message = `${field}: a policy of the cluster refuses its Pods: ${words}; change the template, or ask the cluster's administrator to change the policy`;
    return { ...verdict, reason: "AdmissionRefused", message };
  }
  if (isBadRequest(error) || isInvalid(error)) {
    return {
      ...verdict,
      reason: "Refused",
      message: `${field}: the API server refuses its Pods: ${words}; correct it`,
    };
  }
  return { ...verdict, reason: "TemplateUnchecked", message: `${field}: not checked yet: ${words}; Berth tries again` };
}

/** The API server's text for a Pod whose RuntimeClass does not exist. */
const NO_RUNTIME_CLASS = /pod rejected: RuntimeClass "([^"]+)" not found/;

/** The message about a RuntimeClass that does not exist. */
function noRuntimeClass(name: string, { field, isolation }: CheckedTemplate): string {
  const missing = `the cluster has no RuntimeClass ${name}; create it`;
  return isolation === undefined
    ? `${field}.spec.runtimeClassName: ${missing}, or correct the name`
    : `${field.replace(/template$/, "isolation")}: ${missing}, or set the chart's runtimeClasses.${isolation} to one that exists (--runtime-classes)`;
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
