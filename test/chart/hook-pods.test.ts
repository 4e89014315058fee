import { expect, test } from "vitest";
import { type Manifest, type Rendered, render, type Values } from "../support/chart.ts";

interface Labelled {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Metadata of the Pods that helm's hooks start, by purpose. */
function hookPods({ hooks }: Rendered): Readonly<Record<"test" | "uninstall", Labelled>> {
  const one = (kind: string) => hooks.find((object) => object.kind === kind) as Manifest;
  return { test: one("Pod").metadata, uninstall: one("Job").spec.template.metadata };
}

/** Every map of labels that selects Pods, at any depth. */
function selectorsIn(value: unknown): Readonly<Record<string, string>>[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === "matchLabels" ? [inner] : key === "selector" && !("matchLabels" in inner) ? [inner] : selectorsIn(inner),
  );
}

const placed = {
  replicas: 2,
  webhook: { enabled: true, secret: "webhooks" },
  metrics: { serviceMonitor: { enabled: true }, podMonitor: { enabled: true } },
  podLabels: { "sidecar.istio.io/inject": "false" },
  podAnnotations: { "linkerd.io/inject": "disabled" },
  priorityClassName: "system-cluster-critical",
  nodeSelector: { pool: "system" },
  tolerations: [{ key: "system", operator: "Exists" }],
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values: ["amd64"] }] }],
      },
    },
    podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey: "kubernetes.io/hostname" }] },
  },
};

test("hook Pods have the operator's labels, annotations and placement, but may run on the node of an operator Pod", async () => {
  const rendered = await render("berth-system", placed);
  for (const [name, { labels, annotations }] of Object.entries(hookPods(rendered))) {
    expect(labels, name).toMatchObject({ ...placed.podLabels, "app.kubernetes.io/component": name });
    expect(annotations, name).toMatchObject(placed.podAnnotations);
  }
  expect(hookPods(rendered).test.annotations).toMatchObject({ "helm.sh/hook": "test" });
  const { priorityClassName, nodeSelector, tolerations, affinity } = placed;
  expect(rendered.pod).toMatchObject({ priorityClassName, nodeSelector, tolerations, affinity });
  for (const pod of [rendered.testPod, rendered.uninstallPod]) {
    expect(pod).toMatchObject({ priorityClassName, nodeSelector, tolerations });
    // With one node for each operator Pod, none would be left for these.
    expect(pod).toHaveProperty("affinity", { nodeAffinity: affinity.nodeAffinity });
  }
});

test("an uninstall whose image can't be pulled ends within a minute, and its Job names the way out", async () => {
  const { hooks } = await render("berth-system", {});
  const job = hooks.find(({ kind }) => kind === "Job");
  expect(job?.metadata.name).toBe("berth-uninstall-or--no-hooks");
  expect(job?.spec).toHaveProperty("activeDeadlineSeconds", 55);
  const longest = await render("berth-system", { fullnameOverride: "b".repeat(53) });
  expect(longest.hooks.find(({ kind }) => kind === "Job")?.metadata.name).toMatch(/^[a-z-]{63}$/);
});

test.each<[string, Values, Values]>([
  [
    "opted in",
    { "sidecar.istio.io/inject": "true" },
    { "sidecar.istio.io/inject": "true", "linkerd.io/inject": "enabled" },
  ],
  ["left to the namespace", {}, {}],
])("a mesh adds no sidecar, which would never exit, to hook Pods: %s", async (_name, podLabels, podAnnotations) => {
  const rendered = await render("berth-system", { podLabels, podAnnotations });
  for (const [name, { labels, annotations }] of Object.entries(hookPods(rendered))) {
    expect(labels, name).toMatchObject({ "sidecar.istio.io/inject": "false" });
    expect(annotations, name).toMatchObject({ "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled" });
  }
  const { labels, annotations } = rendered.one("Deployment").spec.template.metadata;
  expect(labels).toHaveProperty(["app.kubernetes.io/component"], "operator");
  expect(labels?.["sidecar.istio.io/inject"]).toBe(podLabels["sidecar.istio.io/inject"]);
  expect(annotations).toEqual({ "kubectl.kubernetes.io/default-container": "berth", ...podAnnotations });
});

test("hook Pods have no scrape annotations, since they serve no metrics", async () => {
  const scrape = { "prometheus.io/scrape": "true", "prometheus.io/port": "8080" };
  const rendered = await render("berth-system", { podAnnotations: { ...scrape, team: "agents" } });
  for (const [name, { annotations = {} }] of Object.entries(hookPods(rendered))) {
    expect(annotations, name).toHaveProperty("team", "agents");
    expect(Object.keys(annotations).filter((key) => key.startsWith("prometheus.io/"))).toEqual([]);
  }
  expect(rendered.one("Deployment").spec.template.metadata.annotations).toMatchObject(scrape);
});

test("selectors of the operator's Pods do not select hook Pods", async () => {
  const rendered = await render("berth-system", placed);
  const selectors = rendered.objects.filter(({ kind }) => kind !== "CustomResourceDefinition").flatMap(selectorsIn);
  const operator = rendered.one("Deployment").spec.template.metadata.labels;
  const own = selectors.filter((selector) =>
    Object.entries(selector).every(([key, value]) => operator?.[key] === value),
  );
  // Three Services, two monitors, the disruption budget, the Deployment, and its topology spread.
  expect(own).toHaveLength(8);
  for (const { labels } of Object.values(hookPods(rendered)))
    for (const selector of own) expect(labels).not.toMatchObject(selector);
});
