import { describe, expect, test } from "vitest";
import { DEFAULT_RUNTIME_CLASSES } from "../../src/api/isolation.ts";
import { checkClusterDns, checkLeases, checkReplicas, checkVersion } from "../../src/doctor/operator-checks.ts";
import { type InstalledOperator, type OperatorSettings, operatorOf } from "../../src/doctor/operators.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { Deployment } from "../../src/kube/resource.ts";
import { refusal } from "../reconcile/fake-kube.ts";

const SETTINGS: OperatorSettings = {
  namespaces: [],
  podPolicy: {},
  runtimeClasses: DEFAULT_RUNTIME_CLASSES,
  apiCidrs: [],
  clusterDns: {
    pods: [
      { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 53 },
      { namespace: "dns", label: "app", value: "coredns", port: 8053 },
    ],
    cidrs: undefined,
  },
  originAllowed: () => true,
  leases: { elected: true, namespace: undefined, shards: 1 },
};

const LABELS = { "app.kubernetes.io/version": "0.1.0", "app.kubernetes.io/instance": "berth" };

function operator(
  over: Partial<InstalledOperator> = {},
  replicas = 2,
  available = 2,
  status: Deployment["status"] = {},
): InstalledOperator {
  const deployment: Deployment = {
    metadata: { name: "berth-operator", namespace: "berth-system", labels: LABELS, generation: 2 },
    spec: { replicas, selector: {}, template: { spec: { containers: [] } } },
    status: {
      ...{ availableReplicas: available, replicas, updatedReplicas: replicas, observedGeneration: 2 },
      ...status,
    },
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
  const podsOf = (...items: readonly object[]) => ({ listAll: async () => ({ items }) }) as unknown as KubeClient;
  const pod = (name: string, hash: string, state: object, more: object = {}) => ({
    metadata: { name, labels: { "pod-template-hash": hash }, creationTimestamp: `2026-01-0${hash}T00:00:00Z` },
    status: { containerStatuses: [{ name: "berth", state, ...more }] },
  });
  const PULL = { waiting: { reason: "ImagePullBackOff", message: 'Back-off pulling image "berth:nope"' } };
  const RUNNING = { running: {} };

  test.each([
    [2, 2, "pass"],
    [2, 1, "warn"],
    [2, 0, "fail"],
    [0, 0, "fail"],
  ])("%s wanted and %s available: %s", async (wanted, available, status) => {
    expect(await checkReplicas(podsOf(), operator({}, wanted, available))).toMatchObject({
      check: "operator",
      about: "deployment berth-system/berth-operator",
      status,
    });
  });

  test.each([{ observedGeneration: 1 }, { updatedReplicas: 1 }])(
    "warn while a rollout is under way: %j",
    async (status) => {
      expect(await checkReplicas(podsOf(), operator({}, 2, 2, status))).toMatchObject({
        status: "warn",
        message: "2 of 2 replicas are available, and a rollout is under way",
      });
    },
  );

  test("fail with the reason while a rollout is stuck, although the earlier Pods are available", async () => {
    const pods = podsOf(pod("old", "1", RUNNING), pod("new", "2", PULL));
    expect(await checkReplicas(pods, operator())).toMatchObject({
      status: "fail",
      message:
        '2 of 2 replicas are available, and Pod new waits in ImagePullBackOff: Back-off pulling image "berth:nope"',
    });
    const rolledBack = podsOf(pod("old", "1", PULL), pod("new", "2", RUNNING));
    expect((await checkReplicas(rolledBack, operator())).status).toBe("pass");
  });

  test("say how a crashing program ended, and how to uninstall one that never ran", async () => {
    const lastState = { terminated: { exitCode: 1, message: "no such flag" } };
    const crashing = pod("new", "2", { waiting: { reason: "CrashLoopBackOff", message: "back-off" } }, { lastState });
    expect(await checkReplicas(podsOf(crashing), operator({}, 1, 0))).toMatchObject({
      status: "fail",
      message: expect.stringContaining("it ended last with exit code 1: no such flag"),
      fix: expect.stringContaining("helm uninstall berth -n berth-system --no-hooks"),
    });
  });

  test("pass while new Pods start normally, and without permission to list Pods", async () => {
    const starting = podsOf(pod("new", "2", { waiting: { reason: "ContainerCreating" } }));
    expect((await checkReplicas(starting, operator())).status).toBe("pass");
    const forbidden = { listAll: async () => Promise.reject(refusal(403, "Forbidden", "list pods")) };
    expect((await checkReplicas(forbidden as unknown as KubeClient, operator())).status).toBe("pass");
  });
});

describe("the version of an operator", () => {
  test.each([
    ["registry.example:5000/berth:0.1.0", "pass"],
    ["registry.example:5000/berth:0.1.0@sha256:abc", "pass"],
    ["registry.example:5000/berth:v0.1.0", "pass"],
    ["registry.example:5000/berth:0.0.9", "warn"],
    // No version.
    ["berth:dev", "pass"],
    ["registry.example:5000/berth:latest", "pass"],
    ["registry.example:5000/berth:sha-0a1b2c3", "pass"],
    // Without a tag, the chart's label decides.
    ["registry.example:5000/berth", "pass"],
    ["registry.example:5000/berth@sha256:abc", "pass"],
  ])("with image %s: %s", (image, status) => {
    expect(checkVersion(operator({ image }), "0.1.0").status).toBe(status);
  });

  test("is reported as different if a flag is unknown", () => {
    expect(checkVersion(operator({ settings: null }), "0.1.0").message).toMatch(
      /^its flags are not flags of Berth 0\.1\.0/,
    );
  });
});

describe("the Lease of an operator", () => {
  const NOW = Date.parse("2026-01-02T03:04:05Z");
  const leases = (...items: readonly object[]) =>
    ({ listAll: async () => ({ items }), now: () => NOW }) as unknown as KubeClient;
  const lease = (name: string, holderIdentity: string, secondsAgo: number) => ({
    metadata: { name },
    spec: { holderIdentity, renewTime: new Date(NOW - secondsAgo * 1_000).toISOString() },
  });

  test.each<[string, readonly object[], string, string]>([
    ["is held", [lease("berth", "pod-1", 5)], "pass", "berth: held by pod-1"],
    [
      "could not be renewed",
      [lease("berth", "pod-1", 90)],
      "fail",
      "Lease berth-system/berth: pod-1 renewed it last 90 s ago",
    ],
    ["is free", [lease("berth", "", 5)], "fail", "Lease berth-system/berth: no replica holds it"],
    ["does not exist", [], "fail", "Lease berth-system/berth: does not exist, so no replica has been active yet"],
  ])("that %s", async (_what, items, status, message) => {
    expect(await checkLeases(leases(...items), operator())).toMatchObject({ check: "lease", status, message });
  });

  test("is needed for each shard", async () => {
    const settings = { ...SETTINGS, leases: { ...SETTINGS.leases, shards: 2 } };
    const first = lease("berth-0-of-2", "pod-1", 5);
    const result = await checkLeases(leases(first), operator({ settings }));
    expect(result).toMatchObject({
      status: "fail",
      message: expect.stringMatching(/^Lease berth-system\/\S+: does not exist/),
    });
  });

  test("is not needed without leader election", async () => {
    const settings = { ...SETTINGS, leases: { ...SETTINGS.leases, elected: false } };
    expect(await checkLeases(leases(), operator({ settings }))).toMatchObject({ status: "pass" });
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
      message: "found Pods: dns/app=coredns",
    });
  });

  test("cause a warning with the value to set if there are none", async () => {
    expect(await check(() => [])).toMatchObject({
      status: "warn",
      message: "no Pod has the namespace and label kube-system/k8s-app=kube-dns or dns/app=coredns",
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
