import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { KUBE_ROWS, WORK_ROWS } from "./calls.ts";
import { runCell } from "./cell.ts";

/** Rights that no Environment with `sessions` needs, each with the tests that cover its faults. */
const ELSEWHERE = new Set([
  // Always-on workers: test/faults/sequences and test/workers.
  "create deployments",
  "patch deployments",
  "delete deployments",
  // The leader's Lease: test/faults/replicas.
  ...["get", "list", "create", "update", "delete"].map((verb) => `${verb} leases`),
  // The request of `get pods/attach`; the API server checks two rights.
  "create pods/attach",
  // Not a request: the API server checks this right when an owner reference is set.
  "update environments/finalizers",
]);

/** Rows whose worlds differ in the calls they send. */
const FAIR = [
  "poll",
  "list",
  "get environments",
  "get secrets (claim)",
  "create secrets (removal)",
  "list secrets",
  "get pods/log",
  "patch pods/ephemeralcontainers",
  "patch poddisruptionbudgets",
  "delete poddisruptionbudgets",
  "patch networkpolicies",
  "delete networkpolicies",
  "patch persistentvolumeclaims",
];

describe.each(["Worker", "Operator"] as const)("lease: %s", (lease) => {
  test.each(FAIR)(
    "the world of the row %s works without a fault, and sends only calls that have a row",
    async (call) => {
      const api = Object.hasOwn(WORK_ROWS, call) ? "work" : "kube";
      const { failures, sent } = await runCell({ api, call, answer: null, lease }, 1);
      expect(failures).toEqual([]);
      expect([...sent].filter((each) => !Object.hasOwn(KUBE_ROWS, each) && !Object.hasOwn(WORK_ROWS, each))).toEqual(
        [],
      );
    },
  );
});

test("every right of the operator's Roles has a row", async () => {
  const documents = parseAllDocuments(await readFile("deploy/rbac.yaml", "utf8")).map((each) => each.toJS() as Rbac);
  const bound = new Set(documents.map(({ roleRef }) => roleRef?.name));
  const rules = documents.filter(({ metadata }) => bound.has(metadata.name)).flatMap((role) => role.rules ?? []);
  const rights = rules.flatMap(({ resources, verbs }) =>
    resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}`)),
  );
  expect(rights.length).toBeGreaterThan(20);
  const rows = new Set(Object.keys(KUBE_ROWS).map((row) => row.replace(/ \(.*\)$/, "")));
  expect(rights.filter((right) => !rows.has(right) && !ELSEWHERE.has(right))).toEqual([]);
});

interface Rbac {
  readonly metadata: { readonly name: string };
  readonly roleRef?: { readonly name: string };
  readonly rules?: readonly { readonly resources: readonly string[]; readonly verbs: readonly string[] }[];
}
