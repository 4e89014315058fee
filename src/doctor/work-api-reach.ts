import { REASONS } from "../api/condition-reasons.ts";
import type { Environment } from "../api/environment.ts";
import { errorText } from "../core/errors.ts";
import { reasonOfKind } from "../queue/api-health.ts";
import { reachWorkApi, type WorkAccess } from "../queue/reading-client.ts";
import { WorkApiError } from "../work/errors.ts";
import type { UnkeyedAnswer } from "../work/without-key.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { aboutEnvironment } from "./environment-checks.ts";

const UNAUTHORIZED = 401;
const TRY_IN_POD = "Also run berth doctor in the operator's Pod, which may have another route (docs/cli.md).";

/** Requests a Work API without a key; one request serves all Environments with the same API. */
export type Reach = (environment: Environment, access: WorkAccess) => Promise<UnkeyedAnswer>;

/** Shares requests, because a cluster may have a thousand Environments with the same slow address. */
export function reachOnce(): Reach {
  const asked = new Map<string, Promise<UnkeyedAnswer>>();
  return (environment, access) => {
    const { baseUrl } = environment.spec.api;
    const answer = asked.get(baseUrl) ?? reachWorkApi(environment, access);
    asked.set(baseUrl, answer);
    return answer;
  };
}

/**
 * Whether the Work API answers a request without a key. Never fails: the operator's Pod may have another route than
 * this machine, and the Environment's own conditions report whether it works.
 */
export async function checkWorkApiReach(
  environment: Environment,
  access: WorkAccess,
  reach: Reach,
): Promise<CheckResult> {
  const results = resultsOf("work-api-reach", aboutEnvironment(environment));
  const { baseUrl } = environment.spec.api;
  if (!access.originAllowed(baseUrl)) {
    return results.skip(`an operator that may send keys to ${baseUrl} (--allowed-api-origins)`);
  }
  try {
    const answer = await reach(environment, access);
    const refused = `${answer.status} to a request without a key`;
    if (answer.status === UNAUTHORIZED && answer.isOfApi) {
      return results.pass(`${baseUrl} answers this machine: ${refused}, as expected`);
    }
    return results.warn(`${baseUrl} answers this machine with ${refused}${sourceText(answer)}`, fixFor(answer));
  } catch (error) {
    if (!(error instanceof WorkApiError)) throw error;
    const reason = reasonOfKind(error.kind);
    return results.warn(`from this machine: ${errorText(error)}`, `${REASONS[reason].fix} ${TRY_IN_POD}`);
  }
}

function sourceText({ isOfApi, isWebPage }: UnkeyedAnswer): string {
  if (isOfApi) return "";
  return isWebPage ? ", a web page" : ", not an answer of the Work API";
}

function fixFor({ isOfApi }: UnkeyedAnswer): string {
  return isOfApi
    ? `The Work API is reachable, but failing or busy. Run the command again. ${TRY_IN_POD}`
    : `Check spec.api.baseUrl, and whether a proxy or login page answers instead. ${TRY_IN_POD}`;
}
