import { REASONS } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
import { errorText } from "../core/errors.ts";
import { reasonOfKind } from "../queue/api-health.ts";
import { askWorkApi, type WorkAccess } from "../queue/reading-client.ts";
import { originNotAllowedMessage } from "../reconcile/environment-conditions.ts";
import { WorkApiError } from "../work/errors.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { aboutEnvironment } from "./environment-checks.ts";

/**
 * Whether the Work API accepts the key, by requesting the queue's statistics. The request comes from this machine,
 * which may reach other addresses than the operator's Pod.
 * @param key null if it could not be read, which another check reports
 */
export async function checkWorkApi(
  environment: Environment,
  key: string | null,
  access: WorkAccess,
): Promise<CheckResult> {
  const results = resultsOf("work-api", aboutEnvironment(environment));
  const { baseUrl } = environment.spec.api;
  if (key === null) return results.skip("the environment key");
  if (!access.originAllowed(baseUrl)) {
    return results.fail(originNotAllowedMessage(baseUrl), REASONS.OriginNotAllowed.fix, "OriginNotAllowed");
  }
  try {
    const { value } = await askWorkApi(environment, key, access, (client) => client.stats());
    return results.pass(`${baseUrl} accepts the key: ${value.depth} items wait, ${value.pending} are polled`);
  } catch (error) {
    if (!(error instanceof WorkApiError)) throw error;
    const reason = reasonOfKind(error.kind);
    return results.fail(`${reason}: ${errorText(error)}`, REASONS[reason].fix, reason);
  }
}
