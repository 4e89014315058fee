import { type ConditionReason, eventType, REASONS } from "../api/condition-reasons.ts";
import { CONDITIONS, isGood } from "../api/condition-types.ts";
import { type ConditionUpdate, conditionFor, type Verdict } from "../api/conditions.ts";
import { type Environment, environmentIdDoubt } from "../api/environment.ts";
import type { RuntimeReport } from "../api/runtime.ts";

/** The inputs of an Environment's conditions. */
export interface ConditionParts {
  readonly environment: Environment;
  readonly report: Pick<RuntimeReport, "verdicts" | "blocked" | "firstPod">;
  /** Why the caches of the namespace lag; null if they don't. */
  readonly lag: string | null;
  /** What is wrong with the environment key in its Secret; null if nothing is. */
  readonly keyProblem: Verdict | null;
  /** Whether the operator may send keys to `spec.api.baseUrl`. */
  readonly originAllowed: boolean;
  /** Null: the template is not checked yet. */
  readonly template: Verdict | null;
  readonly policy: Verdict;
  /** Why another Environment with the same environmentId keeps this one from claiming; null: none does. */
  readonly precedence: Verdict | null;
}

/** All conditions, `Ready` first. Of two updates for the same condition type, the later one in this function wins. */
export function environmentConditions(parts: ConditionParts): ConditionUpdate[] {
  const { environment, report, keyProblem, originAllowed, template, policy } = parts;
  const { generation } = environment.metadata;
  const say = (reason: ConditionReason, message: string) => conditionFor(reason, message, generation);
  const updates = new Map<string, ConditionUpdate>();
  const put = (update: ConditionUpdate) => updates.set(update.type, update);
  const { keySecretRef } = environment.spec.api;
  for (const { reason, message } of report.verdicts) put(say(reason, namingSecret(message, keySecretRef)));
  if (keyProblem) put(say(keyProblem.reason, keyProblem.message));
  if (!originAllowed) put(say("OriginNotAllowed", originNotAllowedMessage(environment.spec.api.baseUrl)));
  if (template && REASONS[template.reason].status === "False" && updates.get("CapacityAvailable")?.status === "True") {
    put(say("CapacityUnchecked", "no Pod is created while the template is refused"));
  }
  put(
    template
      ? say(template.reason, template.message)
      : say("TemplateUnchecked", "the dry run has not been answered yet"),
  );
  put(say(policy.reason, policy.message));
  const all = [...updates.values()].map((update) => withDoubt(update, environment));
  const ready = readyCondition({
    decided: ownDecision(environment),
    lag: parts.lag,
    precedence: parts.precedence,
    blocked: report.blocked,
    preparing: report.firstPod?.serves === false ? report.firstPod : null,
    conditions: all,
    generation,
  });
  return [ready, ...all];
}

/** Adds that the id looks wrong, unless the Work API has accepted it. */
function withDoubt(update: ConditionUpdate, { spec }: Environment): ConditionUpdate {
  const isConcerned = update.reason === "KeyRejected" || (update.type === "QueueReachable" && !isGood(update));
  const doubt = isConcerned ? environmentIdDoubt(spec) : null;
  return doubt === null ? update : { ...update, message: `${update.message}; ${doubt}` };
}

/** The Work API client only knows the field that names the Secret; its name helps a person on call more. */
function namingSecret(message: string, ref: { readonly name: string; readonly key: string }): string {
  return message.replace("the Secret that spec.api.keySecretRef names", `Secret ${ref.name} (key ${ref.key})`);
}

/** Conditions that can block serving, in the order in which a person would fix them; docs/status.md lists them. */
export const IN_THE_WAY = [
  "Authenticated",
  "QueueReachable",
  "TemplateAccepted",
  "NetworkPolicyReady",
  "CapacityAvailable",
  "SessionsStarting",
  "ScalingActive",
  "CredentialMissing",
] as const;

/** `Ready` is not true while one of these is unknown. */
const MUST_BE_KNOWN = new Set(["Authenticated", "QueueReachable", "TemplateAccepted", "NetworkPolicyReady"]);

/** What the spec alone decides about `Ready`: deletion, then pause. */
function ownDecision(environment: Environment): Verdict | null {
  // The operator can't stop busy workers from claiming.
  const begun = environment.spec.workers ? "Berth ends idle workers" : "Berth claims nothing new";
  if (environment.metadata.deletionTimestamp) {
    return {
      reason: "Deleting",
      message: `the Environment is being deleted: ${begun}, and stops running sessions after ${environment.spec.deletionGraceSeconds} s (spec.deletionGraceSeconds)`,
    };
  }
  if (environment.spec.paused) {
    return {
      reason: "Paused",
      message: `spec.paused is true: ${begun}, and running sessions continue; set it to false to serve again`,
    };
  }
  return null;
}

/** The inputs of `Ready`. */
export interface ReadyParts {
  /** The result of `ownDecision`. It overrides everything else. */
  readonly decided: Verdict | null;
  /** Why the caches of the namespace lag; all other conditions are then out of date. */
  readonly lag: string | null;
  /** Why another Environment with the same environmentId keeps this one from claiming. */
  readonly precedence: Verdict | null;
  /** Why the loops can't serve, if no condition covers it. */
  readonly blocked: Verdict | null;
  /** That the first Pod is being prepared, and nothing is served meanwhile. */
  readonly preparing: Verdict | null;
  readonly conditions: readonly ConditionUpdate[];
  readonly generation: number;
}

/**
 * Computes `Ready` from all other conditions. It copies the reason and message of the first blocking condition, so that
 * one condition says what is wrong.
 */
export function readyCondition(parts: ReadyParts): ConditionUpdate {
  const { decided, lag, precedence, blocked, preparing, conditions, generation } = parts;
  if (decided) {
    const also = lag ?? blocked?.message;
    const message = also === undefined ? decided.message : `${decided.message}; ${also}`;
    return conditionFor(decided.reason, message, generation);
  }
  if (lag !== null) return conditionFor("StatusOutdated", lag, generation);
  const byType = new Map(conditions.map((condition) => [condition.type, condition]));
  // Only a client with a valid key is told the name of another Environment.
  const key = byType.get("Authenticated");
  if (precedence && key && isGood(key)) return conditionFor(precedence.reason, precedence.message, generation);
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (condition && !isGood(condition) && isKnown(condition)) return readyBlockedBy(condition, generation);
  }
  if (blocked) return conditionFor(blocked.reason, blocked.message, generation);
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (MUST_BE_KNOWN.has(type) && (!condition || condition.status === "Unknown")) {
      return conditionFor("Pending", condition?.message ?? `${CONDITIONS[type].description}`, generation);
    }
  }
  if (preparing) return conditionFor(preparing.reason, preparing.message, generation);
  return conditionFor("Ready", "Berth serves work", generation);
}

/** An unknown status counts only if a check failed, not if the check has not run yet. */
function isKnown({ status, reason }: ConditionUpdate): boolean {
  return status !== "Unknown" || eventType(reason) === "Warning";
}

function readyBlockedBy(condition: ConditionUpdate, generation: number): ConditionUpdate {
  const { reason, message } = condition;
  const status = condition.status === "Unknown" ? "Unknown" : "False";
  return { type: "Ready", status, reason, message, observedGeneration: generation };
}

/** The message of `OriginNotAllowed`. `berth template` uses it too. */
export function originNotAllowedMessage(baseUrl: string): string {
  return `spec.api.baseUrl: the operator may not send keys to ${baseUrl}; add it to the chart's allowedApiOrigins (--allowed-api-origins), or create the Environment with another address`;
}
