import { describe, expect, test } from "vitest";
import { checkClusterDns, checkReplicas, checkVersion } from "../../src/doctor/operator-checks.ts";
import { type InstalledOperator, type OperatorSettings, operatorOf } from "../../src/doctor/operators.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { Deployment } from "../../src/kube/resource.ts";
import { refusal } from "../reconcile/fake-kube.ts";

const SETTINGS: OperatorSettings = {
  namespaces: [],
  podPolicy: {},
  apiCidrs: [],
  clusterDns: {
    pods: [
      { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 53 },
      { namespace: "dns", label: "app", value: "coredns", port: 8053 },
    ],
    cidrs: undefined,
  },
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
    // Without a tag, the chart's label decides.
    ["registry.example:5000/berth", "pass"],
    ["registry.example:5000/berth@sha256:abc", "pass"],
  ])("with image %s: %s", (image, status) => {
    expect(checkVersion(operator({ image }), "0.1.0").status).toBe(status);
  });

  test("is reported as different if a flag is unknown", () => {
    expect(checkVersion(operator({ settings: null }), "0.1.0").message).toMatch(
      /^its flags are not those of Berth 0\.1\.0/,
    );
  });
});

describe("the Pods of the cluster's DNS", () => {
  const forbidden = refusal(403, "Forbidden", "list pods");
  const check = (answer: (namespace: string) => unknown[] | Error, settings: Partial<OperatorSettings> = {}) => {
    const list = async (_resource: unknown, { namespace }: { namespace: string }) => {
      const items = answer(namespace);
      if (items instanceof Error) throw items;
      return { items };
    };
    const kube = { list } as unknown as KubeClient;
    return checkClusterDns(kube, operator({ settings: { ...SETTINGS, ...settings } }));
  };

  test("pass if one selector finds a Pod", async () => {
    expect(await check((namespace) => (namespace === "dns" ? [{}] : forbidden))).toMatchObject({
      check: "cluster-dns",
      status: "pass",
      message: "Pods are there: dns/app=coredns",
    });
  });

  test("cause a warning with the value to set if there are none", async () => {
    expect(await check(() => [])).toMatchObject({
      status: "warn",
      message: "no Pod has the namespace and label of kube-system/k8s-app=kube-dns or dns/app=coredns",
      fix: expect.stringContaining("clusterDns.pods"),
    });
  });

  test("are not required if addresses are set", async () => {
    const clusterDns = { ...SETTINGS.clusterDns, cidrs: ["169.254.169.254/32"] };
    expect(await check(() => [], { clusterDns })).toMatchObject({
      status: "pass",
      message: "no Pods; addresses: 169.254.169.254/32",
    });
  });

  test("are skipped without permission to list them", async () => {
    expect(await check((namespace) => (namespace === "dns" ? forbidden : []))).toMatchObject({
      status: "skip",
      message: "not checked: needs list pods in namespace dns",
    });
  });
});

test("operatorOf returns an operator that serves the namespace", () => {
  const some = operator({ settings: { ...SETTINGS, namespaces: ["agents"] } });
  const unknown = operator({ settings: null });
  expect(operatorOf([unknown, some], "agents")).toBe(some);
  expect(operatorOf([unknown, some], "other")).toBeUndefined();
  expect(operatorOf([some, operator()], "other")?.settings).toBe(SETTINGS);
});
