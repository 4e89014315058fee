import { type ConditionReason, eventType } from "../api/condition-reasons.ts";
import { CONDITIONS, isGood } from "../api/condition-types.ts";
import { type ConditionUpdate, conditionFor } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import type { Verdict } from "../queue/api-health.ts";
import type { RuntimeReport } from "./environment-runtime.ts";

/** Another Environment with the same environmentId. */
export interface SharingEnvironment {
  /** `namespace/name`. */
  readonly name: string;
  /** It is in `workers` mode: nothing of the operator's decides what its workers claim. */
  readonly hasWorkers: boolean;
}

/** What an Environment's conditions are made of. */
export interface ConditionParts {
  readonly environment: Environment;
  readonly report: Pick<RuntimeReport, "verdicts" | "blockedReason">;
  /** Why changes in the namespace are not seen; null: they are. */
  readonly lag: string | null;
  /** What is wrong with the environment key as its Secret has it; null: nothing. */
  readonly keyProblem: Verdict | null;
  /** Whether the operator may send keys to the address that the spec names. */
  readonly originAllowed: boolean;
  /** Null: the template was not checked yet. */
  readonly template: Verdict | null;
  readonly policy: Verdict;
  readonly sharers: readonly SharingEnvironment[];
}

/** All conditions, `Ready` first. Of one type, what is said later here is said in the place of what was said before. */
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
  put(template ? say(template.reason, template.message) : say("TemplateUnchecked", "the dry run got no answer yet"));
  put(say(policy.reason, policy.message));
  put(
    parts.sharers.length > 0
      ? say("EnvironmentIdShared", sharedMessage(environment, parts.sharers))
      : say("EnvironmentIdUnique", "no other Environment that this operator serves has this environmentId"),
  );
  const all = [...updates.values()];
  const ready = readyCondition({
    decided: ownDecision(environment),
    lag: parts.lag,
    blockedReason: report.blockedReason,
    conditions: all,
    generation,
  });
  return [ready, ...all];
}

function sharedMessage({ spec }: Environment, sharers: readonly SharingEnvironment[]): string {
  const names = sharers.map(({ name }) => name).sort();
  const hasWorkers = spec.workers !== undefined || sharers.some((sharer) => sharer.hasWorkers);
  const twice = hasWorkers ? "; workers claim without the operator, so a session can run in two of them at once" : "";
  return `spec.environmentId: ${names.join(", ")} ${names.length > 1 ? "have" : "has"} the same environmentId ${spec.environmentId}, so these Environments take from one queue${twice}; keep one of them and delete the others, or create each with an environmentId of its own`;
}

/** The client knows the field that names the Secret; a person on call wants the Secret's name. */
function namingSecret(message: string, ref: { readonly name: string; readonly key: string }): string {
  return message.replace("the Secret that spec.api.keySecretRef names", `Secret ${ref.name} (key ${ref.key})`);
}

/** Conditions that stand in the way of serving, in the order in which a person would mend them; docs/status.md has it. */
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

/** Without these known, nobody can say that work is served. */
const MUST_BE_KNOWN = new Set(["Authenticated", "QueueReachable", "TemplateAccepted", "NetworkPolicyReady"]);

/** A reason of `Ready` itself, in words. */
export interface ReadyReason {
  readonly reason: ConditionReason;
  readonly message: string;
}

/** What the operator decided by itself, before anything else may be said of readiness. */
export function ownDecision(environment: Environment): ReadyReason | null {
  // Workers claim by themselves for as long as they are there.
  const begun = environment.spec.workers ? "idle workers go" : "nothing new is claimed";
  if (environment.metadata.deletionTimestamp) {
    return {
      reason: "Deleting",
      message: `${begun}; running sessions may go on for ${environment.spec.deletionGraceSeconds} s (deletionGraceSeconds), then they are stopped`,
    };
  }
  if (environment.spec.paused) {
    return {
      reason: "Paused",
      message: `spec.paused is true: ${begun}, running sessions go on; set it to false to serve again`,
    };
  }
  return null;
}

/** What `Ready` is made of. */
export interface ReadyParts {
  /** What the operator decided itself: it comes before everything else. */
  readonly decided: ReadyReason | null;
  /** Why changes in the namespace are not seen: then all conditions are old. */
  readonly lag: string | null;
  /** What keeps the loops from serving and is no matter of any condition. */
  readonly blockedReason: string | null;
  readonly conditions: readonly ConditionUpdate[];
  readonly generation: number;
}

/**
 * `Ready` out of all others: the first condition that stands in the way lends it its reason and words, so that one look
 * says what is wrong.
 */
export function readyCondition({ decided, lag, blockedReason, conditions, generation }: ReadyParts): ConditionUpdate {
  const blocked = lag ?? blockedReason;
  if (decided) {
    const message = blocked === null ? decided.message : `${decided.message}; ${blocked}`;
    return conditionFor(decided.reason, message, generation);
  }
  if (lag !== null) return conditionFor("StepFailing", lag, generation);
  const byType = new Map(conditions.map((condition) => [condition.type, condition]));
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (condition && !isGood(condition) && isKnown(condition)) return inTheWay(condition, generation);
  }
  if (blockedReason !== null) return conditionFor("StepFailing", blockedReason, generation);
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (MUST_BE_KNOWN.has(type) && (!condition || condition.status === "Unknown")) {
      return conditionFor("Pending", condition?.message ?? `${CONDITIONS[type].description}`, generation);
    }
  }
  return conditionFor("Ready", "work is served", generation);
}

/** Not yet looked at is no news; could not be looked at is. */
function isKnown({ status, reason }: ConditionUpdate): boolean {
  return status !== "Unknown" || eventType(reason) === "Warning";
}

function inTheWay(condition: ConditionUpdate, generation: number): ConditionUpdate {
  const { reason, message } = condition;
  const status = condition.status === "Unknown" ? "Unknown" : "False";
  return { type: "Ready", status, reason, message, observedGeneration: generation };
}

/** Words of conditions that need nobody's answer: `berth template` says the same before there is an Environment. */

/** Of `InvalidSpec`. @param problems each with the field's path and the mend */
export function invalidSpecMessage(problems: readonly string[]): string {
  return problems.join("; ");
}

/** Of `OriginNotAllowed`. */
export function originNotAllowedMessage(baseUrl: string): string {
  return `the operator may not send keys to ${baseUrl}: mend spec.api.baseUrl, or start the operator with ${baseUrl} in --allowed-api-origins`;
}
