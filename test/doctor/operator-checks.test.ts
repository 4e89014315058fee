import { describe, expect, test } from "vitest";
import { checkReplicas, checkVersion } from "../../src/doctor/operator-checks.ts";
import { type InstalledOperator, operatorOf } from "../../src/doctor/operators.ts";
import type { Deployment } from "../../src/kube/resource.ts";

const SETTINGS = {
  namespaces: [],
  podPolicy: {},
  apiCidrs: [],
  originAllowed: () => true,
  mayBeInner: () => false,
  leases: { elected: true, namespace: undefined, shards: 1 },
};

function operator(over: Partial<InstalledOperator> = {}, replicas = 2, available = 2): InstalledOperator {
  const deployment: Deployment = {
    metadata: { name: "berth-operator", namespace: "berth-system", labels: { "app.kubernetes.io/version": "0.1.0" } },
    spec: { replicas, selector: {}, template: { spec: { containers: [] } } },
    status: { availableReplicas: available },
  };
  const image = "registry.example:5000/berth:0.1.0";
  return {
    namespace: "berth-system",
    deployment,
    image,
    serviceAccount: "berth-operator",
    settings: SETTINGS,
    ...over,
  };
}

describe("the replicas of an operator", () => {
  test.each([
    [2, 2, "pass"],
    [2, 1, "warn"],
    [2, 0, "fail"],
    [0, 0, "fail"],
  ])("%s wanted and %s available: %s", (wanted, available, status) => {
    expect(checkReplicas(operator({}, wanted, available))).toMatchObject({
      check: "operator",
      about: "deployment berth-system/berth-operator",
      status,
    });
  });
});

describe("the version of an operator", () => {
  test.each([
    ["registry.example:5000/berth:0.1.0", "pass"],
    ["registry.example:5000/berth:0.1.0@sha256:abc", "pass"],
    ["registry.example:5000/berth:0.0.9", "warn"],
    // Without a tag, the chart's label says it.
    ["registry.example:5000/berth", "pass"],
    ["registry.example:5000/berth@sha256:abc", "pass"],
  ])("of image %s: %s", (image, status) => {
    expect(checkVersion(operator({ image }), "0.1.0").status).toBe(status);
  });

  test("is another one where a flag is not known", () => {
    expect(checkVersion(operator({ settings: null }), "0.1.0").message).toMatch(
      /^its flags are not those of Berth 0\.1\.0/,
    );
  });
});

test("the operator of a namespace is one that serves it", () => {
  const some = operator({ settings: { ...SETTINGS, namespaces: ["agents"] } });
  const unknown = operator({ settings: null });
  expect(operatorOf([unknown, some], "agents")).toBe(some);
  expect(operatorOf([unknown, some], "other")).toBeUndefined();
  expect(operatorOf([some, operator()], "other")?.settings).toBe(SETTINGS);
});
