/**
 * The checks of `berth doctor`, a closed list, with what passes, for docs/cli.md. In the order of causes: a check that
 * fails may explain those after it.
 */
export const CHECKS = {
  "api-server": "it answers, with a supported version",
  crd: "it is installed and serves this build's version",
  operator: "it is installed, with all replicas available, and no rollout is stuck or under way",
  lease: "a replica holds and renews each Lease",
  "operator-rights": "the operator has all permissions of the chart",
  "crd-schema": "the CRD has this build's fields",
  "operator-version": "the operator has this build's version",
  "cluster-dns": "a Pod matches --cluster-dns-pods, or --cluster-dns-cidrs is set",
  conditions: "they report no problem",
  "runtime-class": "nodes have its runtime",
  "work-api-reach": "it answers a request without a key",
} as const;

export type CheckId = keyof typeof CHECKS;

/** `skip`: not checked; the message says what the check needs. */
export type CheckStatus = "pass" | "warn" | "fail" | "skip";

/** The result of a check of one object. */
export interface CheckResult {
  readonly check: CheckId;
  /** `cluster`, `deployment NS/NAME`, `namespace NS`, or `environment NS/NAME`. */
  readonly about: string;
  readonly status: CheckStatus;
  readonly message: string;
  /** How to fix it; null if nothing is wrong. */
  readonly fix: string | null;
  /** The reason of the condition; null for other checks. */
  readonly reason: string | null;
}

/** Creates results of one check for one object. */
export function resultsOf(check: CheckId, about: string) {
  type Detail = string | null;
  const result = (status: CheckStatus, message: string, fix: Detail = null, reason: Detail = null): CheckResult => ({
    check,
    about,
    status,
    message,
    fix,
    reason,
  });
  return {
    pass: (message: string) => result("pass", message),
    warn: (message: string, fix: string, reason?: string) => result("warn", message, fix, reason),
    fail: (message: string, fix: string, reason?: string) => result("fail", message, fix, reason),
    skip: (needs: string) => result("skip", `not checked: needs ${needs}`),
  };
}

export type Results = ReturnType<typeof resultsOf>;
