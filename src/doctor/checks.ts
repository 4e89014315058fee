/**
 * The checks of `berth doctor`, a closed list: what passes, and the permission that the check needs. In the order of
 * causes: a check that fails may explain those after it.
 */
export const CHECKS = {
  "api-server": { well: "The API server answers, and Berth supports its version.", needs: "nothing" },
  crd: { well: "The CRD is installed and serves the version of this build.", needs: "nothing" },
  operator: {
    well: "The operator is installed, and all of its replicas are available.",
    needs: "list deployments",
  },
  lease: {
    well: "A replica holds and renews the Lease, or the Lease of each shard.",
    needs: "list leases in the operator's namespace",
  },
  "operator-rights": {
    well: "The operator's service account has every permission that the chart gives it.",
    needs: "create subjectaccessreviews",
  },
  "crd-schema": {
    well: "The CRD has the same fields as this build.",
    needs: "get customresourcedefinitions",
  },
  "operator-version": { well: "The operator has the same version as this build.", needs: "list deployments" },
  "cluster-dns": {
    well: "A Pod of the cluster's DNS has the namespace and label that the operator's flags name.",
    needs: "list pods in the namespace of the DNS",
  },
  spec: { well: "The Environment fits the schema of this build.", needs: "list environments" },
  key: { well: "The Secret with the environment key exists and has the key.", needs: "get secrets" },
  "work-api": { well: "The Work API accepts the key (with --check-key).", needs: "get secrets" },
  "runtime-class": {
    well: "The RuntimeClass that isolation or the template sets exists, and nodes have its runtime.",
    needs: "get runtimeclasses, list nodes",
  },
  template: {
    well: "The API server and its admission accept Pods of the template in a dry run.",
    needs: "create pods",
  },
  conditions: { well: "The conditions of the Environment report no problem.", needs: "list environments" },
  "network-policy": {
    well: "The NetworkPolicy of the Pods exists and matches the spec.",
    needs: "get networkpolicies",
  },
  pods: { well: "No Pod takes too long to get ready or to be deleted.", needs: "list pods" },
  "work-api-reach": {
    well: "The Work API answers this machine: it refuses a request without a key.",
    needs: "nothing",
  },
  parking: {
    well: "Warm Pods wait in the way that the spec sets, or in the fastest way that the template allows.",
    needs: "list environments",
  },
  sleep: {
    well: "Sessions sleep in their Pods between work items, if the spec enables it.",
    needs: "list environments",
  },
  "pod-security": { well: "The namespace enforces a Pod Security level.", needs: "get namespaces" },
  claims: { well: "Every claim Secret belongs to an Environment that exists.", needs: "list secrets" },
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
  /** The reason of the condition that reports the same problem; null if there is none. */
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
