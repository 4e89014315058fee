import type { ClusterDns } from "../api/cluster-dns.ts";
import { type ConditionReason, eventType, REASONS } from "../api/condition-reasons.ts";
import { isGood } from "../api/condition-types.ts";
import { type Condition, findCondition, ownConditions } from "../api/conditions.ts";
import { type Environment, environmentIdDoubt, parseEnvironment } from "../api/environment.ts";
import type { RuntimeClasses } from "../api/isolation.ts";
import { problemList } from "../api/problems.ts";
import type { KubeClient } from "../kube/client.ts";
import { isAsWanted } from "../kube/owned-object.ts";
import { NETWORK_POLICIES, type NetworkPolicy, type Pod } from "../kube/resource.ts";
import type { PodPolicy } from "../policy/pod-policy.ts";
import { readEnvironmentKey } from "../reconcile/key-keeper.ts";
import { templateOf } from "../reconcile/modes.ts";
import {
  addressesTold,
  dnsAddressesOf,
  type NetworkFacts,
  policyName,
  renderNetworkPolicy,
} from "../reconcile/network-policy.ts";
import { checkTemplate } from "../reconcile/template-check.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { look, unseen } from "./look.ts";

/** What a check needs whose failure is only an effect. */
export const RUNNING = "a running operator";

/** `environment NS/NAME`. */
export function aboutEnvironment({ metadata }: { metadata: { namespace?: string; name?: string } }): string {
  return `environment ${metadata.namespace}/${metadata.name}`;
}

/** Parses the Environment. It is null if the spec is invalid; then the result says why. */
export function checkSpec(
  raw: { metadata: { namespace?: string; name?: string } },
  classes?: RuntimeClasses,
): { readonly environment: Environment | null; readonly result: CheckResult } {
  const results = resultsOf("spec", aboutEnvironment(raw));
  const parsed = parseEnvironment(raw, classes);
  if (!parsed.ok) {
    return {
      environment: null,
      result: results.fail(problemList(parsed.problems), REASONS.InvalidSpec.fix, "InvalidSpec"),
    };
  }
  const { environment } = parsed;
  const doubt = environmentIdDoubt(environment.spec);
  const result =
    doubt === null ? results.pass("it fits the schema") : results.warn(doubt, REASONS.EnvironmentNotFound.fix);
  return { environment, result };
}

/** Returns one result for each of the Environment's own conditions that reports a problem. */
export function checkConditions(environment: Environment): CheckResult[] {
  const results = resultsOf("conditions", aboutEnvironment(environment));
  const { status, metadata } = environment;
  const ready = findCondition(status?.conditions, "Ready");
  if (!ready) {
    const fix = "Wait a moment. If this stays, check that an operator runs that serves this namespace.";
    return [results.fail("no operator has reconciled the Environment yet", fix)];
  }
  if (ready.observedGeneration < metadata.generation) {
    const fix = "Wait a moment. If this stays, check that the operator runs.";
    return [results.warn("the conditions are of an earlier spec", fix)];
  }
  const others = ownConditions(status?.conditions).filter((condition) => isTrouble(condition) && condition !== ready);
  const own = isGood(ready) ? [] : [ready];
  const shown = [...own, ...others.filter(({ reason }) => reason !== ready.reason)];
  if (shown.length === 0) return [results.pass(`Ready: ${ready.message}`)];
  return shown.map((condition) => {
    const message = `${condition.type}=${condition.status} ${condition.reason}: ${condition.message}`;
    const { reason } = condition;
    const isFailure = condition === ready && isWarning(reason);
    return results[isFailure ? "fail" : "warn"](message, fixFor(reason), reason);
  });
}

/** A condition that was not evaluated yet is not a problem. */
function isTrouble(condition: Condition): boolean {
  if (condition.status === "Unknown") return isWarning(condition.reason);
  return !isGood(condition) || isWarning(condition.reason);
}

/** An unknown reason, of a newer operator, counts as a warning. */
function isWarning(reason: string): boolean {
  return !Object.hasOwn(REASONS, reason) || eventType(reason as ConditionReason) === "Warning";
}

function fixFor(reason: string): string {
  return Object.hasOwn(REASONS, reason) ? REASONS[reason as ConditionReason].fix : "See docs/troubleshooting.md.";
}

/** Whether the environment key exists where the spec says. Also returns the key if the user may read it. */
export async function checkKey(
  kube: KubeClient,
  environment: Environment,
): Promise<{ readonly key: string | null; readonly result: CheckResult }> {
  const results = resultsOf("key", aboutEnvironment(environment));
  const { namespace } = environment.metadata;
  const ref = environment.spec.api.keySecretRef;
  const reading = await readEnvironmentKey(kube, namespace, ref);
  if (reading.ok) return { key: reading.key, result: results.pass(`Secret ${ref.name} has the key ${ref.key}`) };
  const { reason, message } = reading.verdict;
  if (reason === "KeySecretUnreadable") return { key: null, result: results.skip(`get secrets in ${namespace}`) };
  return { key: null, result: results.fail(message, REASONS[reason].fix, reason) };
}

/** How warm Pods wait, and why; null if the operator has not reported it. */
export function checkParking({ metadata, status }: Environment): CheckResult | null {
  const results = resultsOf("parking", aboutEnvironment({ metadata }));
  if (!status?.parking) return null;
  const { mode, message, failure } = status.parking;
  if (failure === undefined) return results.pass(`${mode}: ${message}`);
  const fix =
    "Fix the cause, then change the spec: Berth tries again when the spec changes. Or set spec.sessions.parking: Key.";
  return results.warn(`${mode}: ${message}`, fix);
}

/** Whether sessions sleep in their Pods, and why not; null if the spec doesn't ask for it, or if it is not known yet. */
export function checkSleep({ metadata, status }: Environment): CheckResult | null {
  const results = resultsOf("sleep", aboutEnvironment({ metadata }));
  if (!status?.sleep) return null;
  const { enabled, message, failure } = status.sleep;
  if (enabled) return results.pass(message);
  const again = failure === undefined ? "" : ", then change the spec: Berth tries again when the spec changes";
  return results.warn(message, `Fix the cause${again}. Or set spec.sessions.workspace.sleepSeconds: 0.`);
}

/** Whether the API server accepts a Pod of the template, with Pod Security and other admission. */
export async function checkDryRun(kube: KubeClient, environment: Environment, policy: PodPolicy): Promise<CheckResult> {
  const results = resultsOf("template", aboutEnvironment(environment));
  const { name, namespace } = environment.metadata;
  const verdict = await checkTemplate(kube, name, templateOf(environment), policy);
  const { fix } = REASONS[verdict.reason];
  if (verdict.reason === "AcceptedWithWarning") return results.warn(verdict.message, fix, verdict.reason);
  if (verdict.accepted) return results.pass(verdict.message);
  // The permission is missing for the user of this command, not for the operator.
  if (verdict.reason === "TemplateUnchecked" && / cannot create resource "pods"/.test(verdict.message)) {
    return results.skip(`create pods in ${namespace} (for a dry run)`);
  }
  return results.fail(`${verdict.reason}: ${verdict.message}`, fix, verdict.reason);
}

/** The operator's network settings, as far as its flags show them. */
export interface SeenNetworkFacts extends Omit<NetworkFacts, "dns"> {
  readonly dns: ClusterDns;
}

/** Only the operator knows the name servers of its Pod, so the single addresses in the policy count as these. */
function dnsOf({ dns }: SeenNetworkFacts, found: NetworkPolicy): NetworkFacts["dns"] {
  return { pods: dns.pods, cidrs: dns.cidrs ?? dnsAddressesOf(found) };
}

/**
 * Whether the NetworkPolicy exists and matches the spec.
 * @param facts the operator's network settings; null if unknown, and then the rules are not compared
 * @param pods the session Pods, which may use an earlier address of the Work API; null if unknown
 * @param isServed whether an operator runs: only then is a missing policy a separate problem
 */
export async function checkNetworkPolicy(
  kube: KubeClient,
  environment: Environment,
  facts: SeenNetworkFacts | null,
  pods: readonly Pod[] | null,
  isServed: boolean,
): Promise<CheckResult> {
  const results = resultsOf("network-policy", aboutEnvironment(environment));
  const { name, namespace } = environment.metadata;
  if (environment.spec.network.policy === "None") return results.pass("network.policy is None");
  const policy = policyName(name);
  const found = await look(() => kube.get(NETWORK_POLICIES, { namespace, name: policy }));
  const { fix } = REASONS.PolicyFailing;
  if (found.is === "absent" && !isServed) return results.skip(RUNNING);
  if (found.is === "absent") return results.fail(`NetworkPolicy ${policy} is missing`, fix, "PolicyFailing");
  if (found.is !== "seen") return unseen(results, found, `get networkpolicies in ${namespace}`);
  const known = facts && { ...facts, dns: dnsOf(facts, found.value) };
  const wanted = known && pods ? renderNetworkPolicy(environment, known, addressesTold(pods)) : null;
  if (wanted === null) return results.pass(`NetworkPolicy ${policy} exists; its rules were not compared`);
  if (isAsWanted(found.value, wanted)) return results.pass(`NetworkPolicy ${policy} matches the spec`);
  return results.fail(`NetworkPolicy ${policy} differs from the spec`, fix, "PolicyFailing");
}
