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

test("there is no NetworkPolicy over the operator unless it is asked for", async () => {
  expect((await render(NAMESPACE)).all("NetworkPolicy")).toEqual([]);
});

test("by itself it lets anybody ask for metrics and health, and the operator out to names, APIs and workers", async () => {
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

test("it lets the operator reach DNS Pods on the port that they are said to listen on", async () => {
  const dnsRules = async (clusterDns: unknown) => (await policyOf({ clusterDns })).egress.slice(1, -2);
  const pods = ["kube-system/k8s-app=kube-dns:8053", "dns/app=coredns:53", "dns/example.org/app=coredns"];
  expect(await dnsRules({ pods })).toEqual([dnsRule("kube-system", { "k8s-app": "kube-dns" }, 8053)]);
  // --reuse-values brings the values of an older chart, without these.
  expect(await dnsRules(null)).toEqual([
    dnsRule("openshift-dns", { "dns.operator.openshift.io/daemonset-dns": "default" }, 5353),
  ]);
});

test("it names who may scrape and who may post webhooks, and always lets replicas pass those on", async () => {
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

test("nobody named may post webhooks means anybody; what does not listen is not let in", async () => {
  const webhook = { enabled: true, secret: "webhooks" };
  const { ingress } = await policyOf({ webhook, metrics: { enabled: false } });
  expect(ingress).toEqual([{ ports: tcp(8081) }, { ports: tcp(8082) }]);
});

test("it selects the operator's Pods, and not those of hooks, which reach what they need", async () => {
  const rendered = await render(NAMESPACE, { networkPolicy: { enabled: true }, podLabels: { team: "agents" } });
  const { matchLabels } = specOf(rendered).podSelector;
  expect(rendered.one("Deployment").spec.template.metadata.labels).toMatchObject(matchLabels);
  const pods = rendered.hooks.filter(({ kind }) => /^(Pod|Job)$/.test(kind));
  expect(pods).toHaveLength(2);
  for (const { kind, metadata, spec } of pods)
    expect(kind === "Job" ? spec.template.metadata.labels : metadata.labels).not.toMatchObject(matchLabels);
});

test("every change of it makes a new Pod, which has to get ready behind it; without one the Pod is as it was", async () => {
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

test("a list of ports without one, which would open all, is refused; so is a peer that is none", async () => {
  expect(await refusal({ networkPolicy: { apiPorts: [] } })).toMatch(/'\/networkPolicy\/apiPorts': minItems/);
  expect(await refusal({ networkPolicy: { metricsFrom: [{ namespace: "monitoring" }] } })).toMatch(
    /'\/networkPolicy\/metricsFrom\/0': additional properties 'namespace' not allowed/,
  );
});
