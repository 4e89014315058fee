/** The checks of `berth doctor`, a closed list: what passes, and the permission that the check needs. */
export const CHECKS = {
  "api-server": { well: "The API server answers, and its version is one that Berth works with.", needs: "nothing" },
  crd: { well: "The CRD is installed and serves the version that this build speaks.", needs: "nothing" },
  "crd-schema": {
    well: "Every field that this build knows is in the CRD as it knows it.",
    needs: "get customresourcedefinitions",
  },
  operator: {
    well: "The operator's Deployment is there, and as many of its replicas as it should have are available.",
    needs: "list deployments",
  },
  "operator-version": { well: "The operator is of the same version as this build.", needs: "list deployments" },
  lease: {
    well: "Somebody holds the Lease, or each of the shards', and has renewed it.",
    needs: "list leases in the operator's namespace",
  },
  "operator-rights": {
    well: "The operator's service account has every right that the chart gives it.",
    needs: "create subjectaccessreviews",
  },
  "cluster-dns": {
    well: "A Pod of the cluster's DNS is where the operator's flags say: sandboxes may ask it for names.",
    needs: "list pods in the namespace of the DNS",
  },
  "pod-security": { well: "The namespace enforces a Pod Security level.", needs: "get namespaces" },
  claims: { well: "No record of a claim is left whose Environment is gone.", needs: "list secrets" },
  spec: { well: "The Environment fits the schema of this build.", needs: "list environments" },
  conditions: { well: "The Environment is Ready, by its own conditions.", needs: "list environments" },
  key: { well: "The Secret with the environment key is there and has the key.", needs: "get secrets" },
  "work-api-reach": {
    well: "The Work API answers the machine that the command runs on: it refuses a request without a key.",
    needs: "nothing",
  },
  "work-api": { well: "The Work API can be reached and takes the key (with --check-key).", needs: "get secrets" },
  template: {
    well: "The API server takes Pods of the template, with all its admission, on a dry run.",
    needs: "create pods",
  },
  parking: {
    well: "Warm Pods wait in the way that the spec names, or in the fastest way that the template allows.",
    needs: "list environments",
  },
  sleep: {
    well: "Sessions sleep in their Pods between work items, if the spec asks for it.",
    needs: "list environments",
  },
  "network-policy": {
    well: "The NetworkPolicy over the Pods is there and as the spec wants it.",
    needs: "get networkpolicies",
  },
  pods: { well: "No Pod is stuck on its way to being parked, or to its end.", needs: "list pods" },
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
}

/** Creates results of one check for one object. */
export function resultsOf(check: CheckId, about: string) {
  return {
    pass: (message: string): CheckResult => ({ check, about, status: "pass", message, fix: null }),
    warn: (message: string, fix: string): CheckResult => ({ check, about, status: "warn", message, fix }),
    fail: (message: string, fix: string): CheckResult => ({ check, about, status: "fail", message, fix }),
    skip: (needs: string): CheckResult => ({
      check,
      about,
      status: "skip",
      message: `not checked: needs ${needs}`,
      fix: null,
    }),
  };
}

export type Results = ReturnType<typeof resultsOf>;

/** The results of all checks. */
export interface DoctorReport {
  /** Version of this build. */
  readonly berth: string;
  /** Address of the API server. */
  readonly server: string;
  /** No check failed. */
  readonly ok: boolean;
  readonly counts: Readonly<Record<CheckStatus, number>>;
  readonly checks: readonly CheckResult[];
}

/** Counts the results by status. */
export function reportOf(berth: string, server: string, checks: readonly CheckResult[]): DoctorReport {
  const count = (status: CheckStatus) => checks.filter((each) => each.status === status).length;
  const counts = { pass: count("pass"), warn: count("warn"), fail: count("fail"), skip: count("skip") };
  return { berth, server, ok: counts.fail === 0, counts, checks };
}
