import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { type KubeObject, NETWORK_POLICIES, type NetworkPolicy, type Resource } from "../../../src/kube/resource.ts";
import { execIn } from "../support/kubectl.ts";
import { hasNodeControl } from "../support/provided.ts";
import { serveOne, untilAnswered, untilSettled, untilState } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const SERVICES: Resource<KubeObject & { readonly spec: { readonly clusterIP: string } }> = {
  group: "",
  version: "v1",
  plural: "services",
  kind: "Service",
  namespaced: true,
};

const policies = async (world: E2eWorld): Promise<NetworkPolicy[]> =>
  (await world.kube.list(NETWORK_POLICIES, { namespace: world.namespace })).items;

/** Every network that a policy allows its Pods to reach on any port. */
const cidrsOf = ({ spec }: NetworkPolicy): string[] =>
  (spec?.egress ?? [])
    .filter(({ ports }) => ports === undefined)
    .flatMap(({ to }) => to as readonly { readonly ipBlock?: { readonly cidr: string } }[])
    .flatMap(({ ipBlock }) => (ipBlock ? [ipBlock.cidr] : []));

test("one policy covers all Pods of an Environment, and is recreated or removed as needed", async () => {
  await using world = await startE2eWorld();
  const served = await serveOne(world, { script: bashScript("until [ -e go ]; do sleep 0.2; done; echo done") });
  await untilState(world, served.item, "active");
  const [policy, ...more] = await policies(world);
  expect(more).toEqual([]);
  if (!policy) throw new Error("no policy");
  expect(policy.spec).toMatchObject({ policyTypes: ["Ingress", "Egress"] });
  expect(policy.spec?.ingress ?? []).toEqual([]);
  expect(cidrsOf(policy)).toEqual(world.cluster.simulator.cidrs);
  // Both parked and running Pods.
  const selected = Object.entries(policy.spec?.podSelector?.matchLabels ?? {});
  expect(selected).not.toEqual([]);
  for (const { metadata } of world.pods)
    expect(Object.entries(metadata.labels ?? {})).toEqual(expect.arrayContaining(selected));
  expect(world.condition("NetworkPolicyReady")).toMatchObject({ status: "True" });

  await world.kube.delete(NETWORK_POLICIES, { namespace: world.namespace, name: policy.metadata.name ?? "" });
  const again = await world.until("another policy", async () => {
    const [found] = await policies(world);
    return found !== undefined && found.metadata.uid !== policy.metadata.uid && found;
  });
  expect(again.spec).toEqual(policy.spec);

  await world.patchSpec({ network: { policy: "None" } });
  await world.until("the policy is gone", async () => (await policies(world)).length === 0);
  await execIn(world, served.pod, ["touch", "go"]);
  expect(await untilAnswered(world, served.item, 1)).toEqual([["done", false]]);
  await untilSettled(world, served, "Completed");
});

// The network of a run's own node enforces no policy; only a given cluster's may. On other runs this test is not
// defined, because a skipped test would look like one that was left out.
const onGivenCluster = hasNodeControl() ? { test: () => {} } : { test };

onGivenCluster.test(
  "the cluster enforces it: sandboxes reach the simulator, but neither API server nor operators",
  async () => {
    await using world = await startE2eWorld();
    const { spec } = await world.kube.get(SERVICES, { namespace: "default", name: "kubernetes" });
    const [operator] = (await world.operators.readyPods()) as { status?: { podIP?: string } }[];
    const reach = (host: string | undefined, port: number) =>
      `timeout 5 bash -c 'exec 3<>/dev/tcp/${host}/${port}' && echo reached || echo held`;
    const { item } = await serveOne(world, {
      script: bashScript(reach(spec.clusterIP, 443), reach(operator?.status?.podIP, 8081)),
    });
    expect(await untilAnswered(world, item, 2)).toEqual([
      ["held", false],
      ["held", false],
    ]);
    await world.untilServed(1);
  },
);
