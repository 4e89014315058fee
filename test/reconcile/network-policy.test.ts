import { describe, expect, test } from "vitest";
import { isAsWanted } from "../../src/kube/owned-object.ts";
import type { NetworkPolicy } from "../../src/kube/resource.ts";
import { defaultDnsCidrs, type NetworkFacts, renderNetworkPolicy } from "../../src/reconcile/network-policy.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored, workersSpec } from "../api/environments.ts";

const FACTS: NetworkFacts = {
  apiCidrs: ["160.79.104.0/23", "2607:6bc0::/48"],
  operatorNamespace: "berth-system",
  dns: {
    pods: [
      { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 53 },
      { namespace: "kube-system", label: "k8s-app", value: "node-local-dns", port: 53 },
      { namespace: "openshift-dns", label: "dns.operator.openshift.io/daemonset-dns", value: "default", port: 5353 },
    ],
    cidrs: ["169.254.20.10/32", "10.96.0.10/32"],
  },
};

const environmentOf = (spec: Json) => parsed(stored(spec));
function policyOf(spec: Json, facts = FACTS): NetworkPolicy {
  const policy = renderNetworkPolicy(environmentOf(spec), facts);
  if (!policy) throw new Error("no policy");
  return policy;
}
const egressOf = (spec: Json, facts = FACTS) => policyOf(spec, facts).spec?.egress ?? [];
const at = (baseUrl: string, network: Json): Json =>
  sessionsSpec({}, { api: { baseUrl, keySecretRef: { name: "key" } }, network });
const blocks = (...cidrs: string[]) => cidrs.map((cidr) => ({ ipBlock: { cidr } }));
const dns = (port: number) => [
  { protocol: "UDP", port },
  { protocol: "TCP", port },
];

const dnsPods = (namespace: string, matchLabels: Record<string, string>) => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
  podSelector: { matchLabels },
});

describe("the NetworkPolicy of an Environment", () => {
  test("is owned by the Environment and selects exactly its Pods", () => {
    expect(policyOf(sessionsSpec())).toMatchObject({
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: {
        name: "berth-research",
        namespace: "agents",
        labels: { "app.kubernetes.io/managed-by": "berth", "berth.dev/environment": "research" },
        ownerReferences: [
          {
            apiVersion: "berth.dev/v1alpha1",
            kind: "Environment",
            name: "research",
            uid: "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11",
            controller: true,
          },
        ],
      },
      spec: {
        podSelector: { matchLabels: { "berth.dev/environment": "research" } },
        policyTypes: ["Ingress", "Egress"],
      },
    });
  });

  test("admits no ingress to sessions, and only the operator's busy probes to workers", () => {
    expect(policyOf(sessionsSpec()).spec?.ingress).toEqual([]);
    expect(policyOf(workersSpec()).spec?.ingress).toEqual([
      {
        from: [
          {
            namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "berth-system" } },
            podSelector: { matchLabels: { "berth.dev/role": "operator" } },
          },
        ],
        ports: [{ protocol: "TCP" }],
      },
    ]);
  });

  test("permits DNS only to the cluster's DNS, and HTTPS only to the API's published networks", () => {
    const [resolvers, openshift, api, ...more] = egressOf(sessionsSpec());
    expect(resolvers).toEqual({
      to: [
        dnsPods("kube-system", { "k8s-app": "kube-dns" }),
        dnsPods("kube-system", { "k8s-app": "node-local-dns" }),
        ...blocks("169.254.20.10/32", "10.96.0.10/32"),
      ],
      ports: dns(53),
    });
    expect(openshift).toEqual({
      to: [dnsPods("openshift-dns", { "dns.operator.openshift.io/daemonset-dns": "default" })],
      ports: dns(5353),
    });
    expect(api).toEqual({ to: blocks(...FACTS.apiCidrs), ports: [{ protocol: "TCP", port: 443 }] });
    expect(more).toEqual([]);
  });

  const gardener = { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 8053 };
  const ofGardener = { to: [dnsPods("kube-system", { "k8s-app": "kube-dns" })], ports: dns(8053) };
  test.each<[string, NetworkFacts["dns"], unknown[]]>([
    [
      "Pods that listen elsewhere, and an address",
      { pods: [gardener], cidrs: ["10.0.0.10/32"] },
      [{ to: blocks("10.0.0.10/32"), ports: dns(53) }, ofGardener],
    ],
    ["Pods that listen elsewhere alone", { pods: [gardener], cidrs: [] }, [ofGardener]],
    ["addresses alone", { pods: [], cidrs: ["10.0.0.10/32"] }, [{ to: blocks("10.0.0.10/32"), ports: dns(53) }]],
  ])("permits DNS as the operator's flags say: %s", (_what, clusterDns, rules) => {
    expect(egressOf(sessionsSpec(), { ...FACTS, dns: clusterDns }).slice(0, -1)).toEqual(rules);
  });

  test("permits the Environment's own CIDRs in addition to the API", () => {
    const egress = egressOf(sessionsSpec({}, { network: { egress: { cidrs: ["10.20.0.0/16", "::/0"] } } }));
    expect(egress.slice(2)).toEqual([
      { to: blocks(...FACTS.apiCidrs), ports: [{ protocol: "TCP", port: 443 }] },
      { to: blocks("10.20.0.0/16", "::/0") },
    ]);
  });

  test("has no networks for any other address", () => {
    expect(egressOf(at("https://proxy.example", { egress: { cidrs: ["203.0.113.7/32"] } })).slice(2)).toEqual([
      { to: blocks("203.0.113.7/32") },
    ]);
    expect(egressOf(at("http://127.0.0.1:7420", {})).slice(2)).toEqual([]);
  });

  test.each([
    ["no networks are named", egressOf(at("https://proxy.example", { egress: { cidrs: [] } }))],
    ["no networks of the API are known", egressOf(sessionsSpec(), { ...FACTS, apiCidrs: [] })],
    ["no DNS is known", egressOf(sessionsSpec(), { ...FACTS, dns: { pods: [], cidrs: [] } })],
    ["all is as usual", egressOf(sessionsSpec())],
  ])("has no rule without destinations, which would permit all egress, if %s", (_, egress) => {
    for (const rule of egress) expect(rule["to"]).not.toEqual([]);
    for (const rule of egress) expect(rule["to"]).toBeDefined();
  });

  test("permits DNS to the template's own name servers if they are addresses", () => {
    const nameservers = ["1.1.1.1", "2606:4700:4700::1111", "not-an-address"];
    const [resolvers] = egressOf(sessionsSpec({ template: podTemplate({ dnsConfig: { nameservers } }) }));
    expect(resolvers?.["to"]).toEqual(expect.arrayContaining(blocks("1.1.1.1/32", "2606:4700:4700::1111/128")));
    expect(JSON.stringify(resolvers)).not.toContain("not-an-address");
  });

  test("is null if the spec wants none", () => {
    expect(renderNetworkPolicy(environmentOf(sessionsSpec({}, { network: { policy: "None" } })), FACTS)).toBeNull();
  });
});

describe("addresses of the cluster's DNS", () => {
  test.each<[string, string[], string[]]>([
    ["no name server is known", [], ["169.254.20.10/32"]],
    [
      "name servers are known",
      ["10.96.0.10", "fd00::a", "169.254.20.10"],
      ["169.254.20.10/32", "10.96.0.10/32", "fd00::a/128"],
    ],
    [
      "a name server serves this machine or one interface alone",
      ["127.0.0.53", "::1", "fe80::1%eth0", "10.0.0.1:5353"],
      ["169.254.20.10/32"],
    ],
  ])("include a node-local cache and the operator's name servers if %s", (_what, nameServers, cidrs) => {
    expect(defaultDnsCidrs(nameServers)).toEqual(cidrs);
  });
});

describe("a stored policy", () => {
  const wanted = policyOf(workersSpec());
  const changed = (change: (policy: NetworkPolicy) => void, of = wanted) => {
    const policy = structuredClone(of);
    change(policy);
    return isAsWanted(policy, of);
  };

  test("matches with its own metadata, more labels, and without empty lists", () => {
    expect(changed((policy) => Object.assign(policy.metadata, { uid: "u", resourceVersion: "7" }))).toBe(true);
    expect(changed((policy) => Object.assign(policy.metadata.labels ?? {}, { team: "blue" }))).toBe(true);
    expect(changed((policy) => void delete policy.spec?.ingress, policyOf(sessionsSpec()))).toBe(true);
  });

  test.each<[string, (policy: NetworkPolicy) => void]>([
    ["a rule more", ({ spec }) => void spec?.egress?.push({})],
    ["a rule less", ({ spec }) => void spec?.egress?.pop()],
    ["a way in", ({ spec }) => void spec?.ingress?.push({})],
    ["other Pods", ({ spec }) => Object.assign(spec ?? {}, { podSelector: { matchLabels: { app: "x" } } })],
    ["no word on what goes out", ({ spec }) => Object.assign(spec ?? {}, { policyTypes: ["Ingress"] })],
    ["no spec", (policy) => void delete policy.spec],
    ["another owner", ({ metadata }) => Object.assign(metadata.ownerReferences?.[0] ?? {}, { uid: "other" })],
    ["no owner", ({ metadata }) => void delete metadata.ownerReferences],
    ["no label to find it by", ({ metadata }) => void delete metadata.labels],
  ])("does not match with %s", (_, change) => expect(changed(change)).toBe(false));
});
