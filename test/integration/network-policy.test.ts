import { describe, expect, test } from "vitest";
import { isNotFound } from "../../src/kube/errors.ts";
import { isAsWanted } from "../../src/kube/owned-object.ts";
import { NETWORK_POLICIES, type NetworkPolicy, PODS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne } from "../support/session-life.ts";
import { oneWorkerSpec } from "../support/workers-world.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const NAME = "berth-served";
const refOf = (world: World) => ({ namespace: world.namespace, name: NAME });

async function policyOf(world: World): Promise<NetworkPolicy | undefined> {
  try {
    return await world.kube.get(NETWORK_POLICIES, refOf(world));
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

const untilPolicy = (world: World, what: string, predicate: (policy: NetworkPolicy) => boolean) =>
  world.until(what, async () => {
    const policy = await policyOf(world);
    return policy && predicate(policy) && policy;
  });
/** A new control plane's garbage collector takes half a minute to learn of the Environment resource. */
const COLLECTED_MS = 100_000;

const untilGone = (world: World) =>
  world.until("the policy is gone", async () => (await policyOf(world)) === undefined, COLLECTED_MS);

const cidrsOf = (policy: NetworkPolicy | undefined): string[] =>
  JSON.stringify(policy?.spec?.egress ?? []).match(/203\.0\.113\.\d+\/\d+/g) ?? [];

describe.concurrent("the NetworkPolicy of an Environment", () => {
  test("is created before the first Pod, and deleted with its Environment", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    const mark = await cluster.audit.mark();
    await world.createEnvironment({ network: { egress: { cidrs: ["203.0.113.0/24"] } } });
    world.startOperator();
    await world.untilParked(1);
    const entries = await cluster.audit.entries({ since: mark, user: OPERATOR, namespace: world.namespace });
    const creations = entries
      .filter(({ verb, name }) => verb === "create" && !name.endsWith("-template"))
      .map(({ resource }) => resource)
      .filter((resource) => resource !== "events");
    expect(creations.slice(0, 2)).toEqual(["networkpolicies", "pods"]);

    const policy = await policyOf(world);
    expect(policy?.metadata.ownerReferences).toEqual([
      expect.objectContaining({ kind: "Environment", name: world.name, controller: true }),
    ]);
    expect(policy?.spec).toMatchObject({
      podSelector: { matchLabels: { "berth.dev/environment": world.name } },
      policyTypes: ["Ingress", "Egress"],
    });
    expect(policy?.spec?.ingress ?? []).toEqual([]);
    expect(cidrsOf(policy)).toEqual(["203.0.113.0/24"]);
    expect((await world.untilCondition("NetworkPolicyReady", "PolicyInPlace")).status).toBe("True");

    await world.deleteEnvironment();
    await untilGone(world);
  });

  test("is restored immediately when another client deletes it, or removes its labels", async () => {
    // In real time: the periodic check would only come after ten minutes.
    await using world = await startWorld(cluster, { timeScale: 1 });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    const first = await policyOf(world);

    await world.kube.delete(NETWORK_POLICIES, refOf(world));
    await untilPolicy(world, "another policy", ({ metadata }) => metadata.uid !== first?.metadata.uid);

    // Without its labels, the watch no longer shows it.
    await world.kube.patch(NETWORK_POLICIES, refOf(world), { metadata: { labels: null } }, { type: "merge" });
    await untilPolicy(
      world,
      "the labels are restored",
      ({ metadata }) => metadata.labels?.["berth.dev/environment"] === world.name,
    );
  });

  // Three changes in a row are reverted at once; after more, Berth slows down.
  test.each([
    [
      "rules",
      { op: "add", path: "/spec/ingress", value: [{}] },
      { op: "add", path: "/spec/egress/-", value: {} },
      { op: "add", path: "/spec/egress/0/to/-", value: { ipBlock: { cidr: "0.0.0.0/0" } } },
    ],
    [
      "ports and types",
      { op: "add", path: "/spec/egress/0/ports", value: [{ port: 1 }] },
      { op: "replace", path: "/spec/policyTypes", value: ["Ingress"] },
      { op: "replace", path: "/spec/policyTypes", value: ["Egress"] },
    ],
    [
      "selectors and the owner",
      { op: "add", path: "/spec/podSelector/matchLabels/nobody", value: "has-it" },
      { op: "add", path: "/spec/podSelector/matchExpressions", value: [{ key: "nobody", operator: "Exists" }] },
      { op: "remove", path: "/metadata/ownerReferences" },
    ],
  ])("is restored immediately when another client changes %s", async (_, ...changes) => {
    // In real time: the periodic check would only come after ten minutes.
    await using world = await startWorld(cluster, { timeScale: 1 });
    await world.createEnvironment({ network: { egress: { cidrs: ["203.0.113.0/24"] } } });
    world.startOperator();
    await world.untilParked(1);
    const made = await untilPolicy(world, "the policy", () => true);
    for (const change of changes) {
      const changed = await world.kube.patch(NETWORK_POLICIES, refOf(world), [change], { type: "json" });
      expect(isAsWanted(changed, made)).toBe(false);
      await untilPolicy(world, "the change is reverted", (policy) => isAsWanted(policy, made));
    }
  });

  test("is neither read nor written while nothing changes", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilCondition("Ready", "Ready");
    const mark = await cluster.audit.mark();
    const before = (await policyOf(world))?.metadata.resourceVersion;
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const entries = await cluster.audit.entries({ since: mark, user: OPERATOR, namespace: world.namespace });
    // The periodic check comes every 30 s here, since time runs 20 times as fast.
    const asked = entries.filter(({ resource }) => resource === "networkpolicies");
    expect(asked.filter(({ verb }) => verb !== "get")).toEqual([]);
    expect(asked.length).toBeLessThanOrEqual(3);
    expect((await policyOf(world))?.metadata.resourceVersion).toBe(before);
    await operator.stop();
  });

  test("follows the spec, also during a session, and is deleted with policy: None", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { fates: () => ({ kind: "worker", end: "hang" }) },
    });
    const served = await serveOne(world);
    await world.patchSpec({ network: { egress: { cidrs: ["203.0.113.7/32"] } } });
    await untilPolicy(world, "the policy allows the network", (policy) => cidrsOf(policy).includes("203.0.113.7/32"));

    await world.patchSpec({ network: { policy: "None" } });
    await untilGone(world);
    await world.untilCondition("NetworkPolicyReady", "PolicyNotWanted");

    await world.patchSpec({ network: { policy: "Managed" } });
    await untilPolicy(world, "the policy again", () => true);
    const pod = await world.kube.get(PODS, { namespace: world.namespace, name: served.pod.metadata.name ?? "" });
    expect(pod.metadata.uid).toBe(served.pod.metadata.uid);
    expect(pod.metadata.deletionTimestamp).toBeUndefined();
  });

  test("allows the operator's ingress to workers", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, node: { fates: () => ({ kind: "run" }) } });
    await world.createEnvironment(oneWorkerSpec(world));
    world.startOperator();
    const policy = await untilPolicy(world, "the policy", () => true);
    expect(policy.spec?.ingress).toEqual([
      {
        from: [expect.objectContaining({ podSelector: { matchLabels: { "berth.dev/role": "operator" } } })],
        ports: [{ protocol: "TCP" }],
      },
    ]);
  });

  test("is not created over another owner's policy of that name, which blocks Pods until it is deleted", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    const theirs = { metadata: refOf(world), spec: { podSelector: {}, policyTypes: ["Ingress"] } };
    await world.kube.create(NETWORK_POLICIES, theirs);
    await world.createEnvironment();
    world.startOperator();
    const { message } = await world.untilCondition("NetworkPolicyReady", "PolicyFailing");
    expect(message).toContain("has another owner; delete or rename it");
    await world.untilCondition("Ready", "PolicyFailing");
    expect(world.pods).toEqual([]);
    expect((await policyOf(world))?.spec?.policyTypes).toEqual(["Ingress"]);
    await world.kube.delete(NETWORK_POLICIES, refOf(world));
    await world.untilParked(1);
    await world.untilCondition("Ready", "Ready");
  });

  test("an Environment at another address without networks is refused, and the error names the fix", async () => {
    await using world = await startWorld(cluster);
    const api = { baseUrl: "https://proxy.example", keySecretRef: { name: "key" } };
    await expect(world.createEnvironment({ api })).rejects.toThrow(
      /network\.egress must name your Work API if api\.baseUrl is not .*, or set network\.policy: None/,
    );
    await world.createEnvironment({ api, network: { policy: "None" } });
    await world.kube.delete(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
  });

  test("selects Pods by their labels, and is not written again while nothing changes", async () => {
    await using world = await startWorld(cluster);
    const pods = [
      { namespaceSelector: { matchLabels: { team: "platform" } }, podSelector: { matchLabels: { app: "work-api" } } },
      { podSelector: { matchLabels: {}, matchExpressions: [{ key: "app", operator: "Exists", values: [] }] } },
      { namespaceSelector: {} },
    ];
    await world.createEnvironment({ network: { egress: { pods } } });
    world.startOperator();
    await world.untilParked(1);
    const policy = await policyOf(world);
    expect(policy?.spec?.egress).toContainEqual({
      to: [pods[0], { podSelector: { matchExpressions: [{ key: "app", operator: "Exists" }] } }, pods[2]],
    });
    await world.patchSpec({ network: { egress: { cidrs: ["203.0.113.0/24"] } } });
    const changed = await untilPolicy(world, "the network", (found) => cidrsOf(found).length > 0);
    await world.patchSpec({ sessions: { maxConcurrent: 7 } });
    await world.until("the change is observed", () => world.environment?.status?.max === 7);
    expect((await policyOf(world))?.metadata.resourceVersion).toBe(changed.metadata.resourceVersion);
  });

  test("reports a policy that the API server refuses", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment({ network: { egress: { cidrs: ["1:2:3::4:5::6/64"] } } });
    world.startOperator();
    const { message } = await world.untilCondition("NetworkPolicyReady", "PolicyFailing");
    expect(message).toContain("1:2:3::4:5::6/64");
    expect(message).toContain("correct spec.network.egress");
    expect(world.pods).toEqual([]);
  });
});
