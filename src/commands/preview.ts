import { type ConditionReason, REASONS } from "../api/condition-reasons.ts";
import { type Environment, environmentIdDoubt, isolated, parseEnvironment } from "../api/environment.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import { API_VERSION, KIND } from "../api/names.ts";
import { problemList } from "../api/problems.ts";
import { isRecord } from "../core/json.ts";
import type { KubeClient } from "../kube/client.ts";
import type { KubeObject } from "../kube/resource.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import { originNotAllowedMessage } from "../reconcile/environment-conditions.ts";
import { templateOf } from "../reconcile/modes.ts";
import { type NetworkFacts, renderNetworkPolicy } from "../reconcile/network-policy.ts";
import { accepted, checkTemplate, dryRunName, ownProblems, type TemplateVerdict } from "../reconcile/template-check.ts";
import { workerTemplate } from "../workers/template.ts";

/** The settings of an operator that determine which objects it creates for an Environment. */
export interface OperatorFacts {
  readonly podPolicy: PodPolicy;
  readonly runtimeClasses: RuntimeClasses;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly network: NetworkFacts;
}

/** What the operator would report in a condition: the reason, the message, and how to fix it. */
export interface Finding {
  readonly reason: ConditionReason;
  readonly message: string;
  readonly fix: string;
}

/** The objects that an operator would create for an Environment, or why it would refuse it. */
export type Preview =
  | { readonly ok: true; readonly objects: readonly KubeObject[]; readonly warnings: readonly Finding[] }
  | { readonly ok: false; readonly problems: readonly Finding[] };

/** The uid of an Environment that the API server has not stored. Names of Deployments derive from it. */
const NO_UID = "00000000-0000-0000-0000-000000000000";

/**
 * Renders the objects that an operator creates for an Environment: a Pod in sessions mode, the Deployment in workers
 * mode, and the NetworkPolicy. Uses the operator's own code for the objects, and the messages of its conditions for
 * refusals.
 * @param raw an object of the API server, or one completed by `asStored`
 * @param kube for a dry run of the Pod; null: only Berth's own rules are checked
 */
export async function previewOf(
  raw: unknown,
  factsFor: (namespace: string) => OperatorFacts,
  kube: KubeClient | null,
): Promise<Preview> {
  const parsed = parseEnvironment(raw);
  if (!parsed.ok) return { ok: false, problems: [finding("InvalidSpec", problemList(parsed.problems))] };
  const facts = factsFor(parsed.environment.metadata.namespace);
  const environment = isolated(parsed.environment, facts.runtimeClasses);
  const { baseUrl } = environment.spec.api;
  const problems = facts.originAllowed(baseUrl) ? [] : [finding("OriginNotAllowed", originNotAllowedMessage(baseUrl))];
  const verdict = await judge(environment, facts, kube);
  const isRefused = !verdict.accepted && verdict.reason !== "TemplateUnchecked";
  if (isRefused) problems.push(finding(verdict.reason, verdict.message));
  if (problems.length > 0) return { ok: false, problems };
  const doubt = environmentIdDoubt(environment.spec);
  const policy = renderNetworkPolicy(environment, facts.network);
  return {
    ok: true,
    objects: [servingObject(environment), ...(policy ? [policy] : [])],
    warnings: [
      // What an operator would report after its first request.
      ...(doubt === null ? [] : [finding("EnvironmentNotFound", doubt)]),
      ...(verdict.reason === "Accepted" ? [] : [finding(verdict.reason, verdict.message)]),
    ],
  };
}

async function judge(
  environment: Environment,
  { podPolicy }: OperatorFacts,
  kube: KubeClient | null,
): Promise<TemplateVerdict> {
  const template = templateOf(environment);
  if (kube !== null) return await checkTemplate(kube, environment.metadata.name, template, podPolicy);
  const { reason, problems } = ownProblems(template, podPolicy);
  return problems.length > 0
    ? { accepted: false, final: true, reason, message: problemList(problems) }
    : accepted(template, null);
}

/** A Pod gets the name of the operator's dry run; real names end in eight random letters. */
function servingObject(environment: Environment): KubeObject {
  const { workers } = environment.spec;
  if (workers) return workerTemplate(environment).deployment(workers.minReplicas);
  return templateOf(environment).render(dryRunName(environment.metadata.name));
}

/** Adds the metadata that the API server would add to a manifest, if it is missing. */
export function asStored(manifest: unknown, namespace: string): unknown {
  if (!isRecord(manifest)) return manifest;
  const metadata = isRecord(manifest["metadata"]) ? manifest["metadata"] : {};
  const added = { namespace, uid: NO_UID, generation: 1, resourceVersion: "0", creationTimestamp: "" };
  return { ...manifest, metadata: { ...added, ...metadata } };
}

/** Whether a manifest is an Environment, of any version. */
export function isEnvironment(manifest: unknown): boolean {
  if (!isRecord(manifest) || manifest["kind"] !== KIND) return false;
  const [group] = API_VERSION.split("/");
  return String(manifest["apiVersion"]).startsWith(`${group}/`);
}

function finding(reason: ConditionReason, message: string): Finding {
  return { reason, message, fix: REASONS[reason].fix };
}
