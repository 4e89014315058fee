import type { ConditionReason } from "../api/condition-reasons.ts";
import { type ConditionUpdate, conditionFor } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import type { Verdict } from "../queue/api-health.ts";
import type { RuntimeReport } from "./environment-runtime.ts";
import { ownDecision, readyCondition } from "./ready.ts";
import { originNotAllowedMessage } from "./refusals.ts";

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
  readonly report: Pick<RuntimeReport, "verdicts" | "hindrance">;
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
    hindrance: report.hindrance,
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
