import { expect, test } from "vitest";
import { type Rendered, refusal, render, type Values } from "../support/chart.ts";

interface Rule {
  readonly from?: readonly unknown[];
  readonly to?: readonly unknown[];
  readonly ports?: readonly { readonly protocol: string; readonly port?: number }[];
}
interface Policy {
  readonly podSelector: { readonly matchLabels: Readonly<Record<string, string>> };
  readonly policyTypes: readonly string[];
  readonly ingress: readonly Rule[];
  readonly egress: readonly Rule[];
}

const NAMESPACE = "berth-system";
const specOf = (rendered: Rendered) => rendered.one("NetworkPolicy").spec as unknown as Policy;
const policyOf = async (values: Values = {}) =>
  specOf(
    await render(NAMESPACE, { ...values, networkPolicy: { enabled: true, ...(values["networkPolicy"] as object) } }),
  );

const tcp = (...ports: readonly number[]) => ports.map((port) => ({ protocol: "TCP", port }));
const OPERATOR = {
  podSelector: {
    matchLabels: {
      "app.kubernetes.io/name": "berth",
      "app.kubernetes.io/instance": "berth",
      "app.kubernetes.io/component": "operator",
    },
  },
};
const DNS = [
  { protocol: "UDP", port: 53 },
  { protocol: "TCP", port: 53 },
];
const dnsRule = (namespace: string, matchLabels: Readonly<Record<string, string>>, port: number) => ({
  to: [
    {
      namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
      podSelector: { matchLabels },
    },
  ],
  ports: DNS.map(({ protocol }) => ({ protocol, port })),
});
const WORKERS = { namespaceSelector: {}, podSelector: { matchLabels: { "berth.dev/role": "worker" } } };

test("the operator has no NetworkPolicy by default", async () => {
  expect((await render(NAMESPACE)).all("NetworkPolicy")).toEqual([]);
});

test("by default it allows metrics and health from anywhere, and the operator's requests to DNS, APIs and workers", async () => {
  const policy = await policyOf();
  expect(policy).toMatchObject({ ...OPERATOR, policyTypes: ["Ingress", "Egress"] });
  expect(policy.ingress).toEqual([{ ports: tcp(8081) }, { ports: tcp(8080) }]);
  expect(policy.egress).toEqual([
    { ports: DNS },
    dnsRule("openshift-dns", { "dns.operator.openshift.io/daemonset-dns": "default" }, 5353),
    { ports: tcp(443, 6443) },
    { to: [WORKERS], ports: [{ protocol: "TCP" }] },
  ]);
});

test("it allows requests to DNS Pods on their configured port", async () => {
  const dnsRules = async (clusterDns: unknown) => (await policyOf({ clusterDns })).egress.slice(1, -2);
  const pods = ["kube-system/k8s-app=kube-dns:8053", "dns/app=coredns:53", "dns/example.org/app=coredns"];
  expect(await dnsRules({ pods })).toEqual([dnsRule("kube-system", { "k8s-app": "kube-dns" }, 8053)]);
  // --reuse-values keeps the values of an older chart, which has none of these.
  expect(await dnsRules(null)).toEqual([
    dnsRule("openshift-dns", { "dns.operator.openshift.io/daemonset-dns": "default" }, 5353),
  ]);
});

test("it restricts scrapes and webhooks to the configured peers, and always allows replicas to pass webhooks on", async () => {
  const monitoring = { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "monitoring" } } };
  const gateway = { podSelector: { matchLabels: { app: "gateway" } } };
  const policy = await policyOf({
    replicas: 2,
    metrics: { port: 9090 },
    health: { port: 9091 },
    webhook: { enabled: true, secret: "webhooks", port: 9092 },
    networkPolicy: {
      metricsFrom: [monitoring],
      webhookFrom: [gateway],
      apiPorts: [8443],
      extraEgress: [{ ports: tcp(3128) }],
    },
  });
  expect(policy.ingress).toEqual([
    { ports: tcp(9091) },
    { from: [monitoring], ports: tcp(9090) },
    { from: [OPERATOR, gateway], ports: tcp(9092) },
  ]);
  expect(policy.egress.slice(2)).toEqual([
    { ports: tcp(8443) },
    { to: [WORKERS], ports: [{ protocol: "TCP" }] },
    { to: [OPERATOR], ports: tcp(9092) },
    { ports: tcp(3128) },
  ]);
});

test("it allows webhooks from anywhere when no peers are configured, and blocks disabled ports", async () => {
  const webhook = { enabled: true, secret: "webhooks" };
  const { ingress } = await policyOf({ webhook, metrics: { enabled: false } });
  expect(ingress).toEqual([{ ports: tcp(8081) }, { ports: tcp(8082) }]);
});

test("it selects the operator's Pods, and not hook Pods, which need other destinations", async () => {
  const rendered = await render(NAMESPACE, { networkPolicy: { enabled: true }, podLabels: { team: "agents" } });
  const { matchLabels } = specOf(rendered).podSelector;
  expect(rendered.one("Deployment").spec.template.metadata.labels).toMatchObject(matchLabels);
  const pods = rendered.hooks.filter(({ kind }) => /^(Pod|Job)$/.test(kind));
  expect(pods).toHaveLength(2);
  for (const { kind, metadata, spec } of pods)
    expect(kind === "Job" ? spec.template.metadata.labels : metadata.labels).not.toMatchObject(matchLabels);
});

test("each change of it leads to a new Pod, which must get ready under it; when it is disabled the Pod does not change", async () => {
  const annotationsWith = async (values: Values) =>
    (await render(NAMESPACE, values)).one("Deployment").spec.template.metadata.annotations;
  const off = await annotationsWith({});
  expect(await annotationsWith({ networkPolicy: { enabled: false, apiPorts: [443] } })).toEqual(off);
  const blocks = [{}, { apiPorts: [443] }, { extraEgress: [{ ports: tcp(3128) }] }];
  const on = await Promise.all(
    blocks.map((block) =>
      annotationsWith({ networkPolicy: { enabled: true, ...block }, podAnnotations: { team: "a" } }),
    ),
  );
  for (const annotations of on) expect(annotations).toMatchObject({ ...off, team: "a" });
  expect(new Set([off, ...on].map((annotations) => JSON.stringify(annotations))).size).toBe(1 + blocks.length);
  expect(await annotationsWith({ networkPolicy: { enabled: true }, podAnnotations: { team: "a" } })).toEqual(on[0]);
});

test("it refuses an empty list of ports, which would open all, and a malformed peer", async () => {
  expect(await refusal({ networkPolicy: { apiPorts: [] } })).toMatch(/'\/networkPolicy\/apiPorts': minItems/);
  expect(await refusal({ networkPolicy: { metricsFrom: [{ namespace: "monitoring" }] } })).toMatch(
    /'\/networkPolicy\/metricsFrom\/0': additional properties 'namespace' not allowed/,
  );
});
