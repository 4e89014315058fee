import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { parseSettings } from "../../src/settings/config.ts";
import { installCrds } from "../../testbed/cluster/install.ts";
import { CHART, helm } from "../../tools/helm.ts";
import { dryRun, type Manifest, type Rendered, refusal, render, type Values } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

/** The namespace of the release, and two namespaces that it may serve. */
let home: string;
let served: [string, string];

beforeAll(async () => {
  home = await cluster.createNamespace("chart");
  served = [await cluster.createNamespace("served"), await cluster.createNamespace("served")];
  await installCrds(cluster.api, join(import.meta.dirname, "..", "fixtures", "monitoring-crds"));
});

/**
 * Objects (as JSON) that the API server has accepted. Most options change few objects, so the others need no second
 * request.
 */
const taken = new Set<string>();

/** Renders the chart, and sends every new object, including hooks, to the API server as a dry run. */
async function accepted(values: Values = {}): Promise<Rendered> {
  const rendered = await render(home, values);
  for (const object of rendered.objects) {
    const json = JSON.stringify(object);
    if (taken.has(json)) continue;
    await dryRun(cluster.api, object);
    taken.add(json);
  }
  return rendered;
}

test("the API server refuses an object with an unknown field", async () => {
  const rendered = await render(home, { livenessProbe: { failureTreshold: 3 } });
  await expect(dryRun(cluster.api, rendered.one("Deployment"))).rejects.toThrow(/failureTreshold/);
});

describe("the chart with its defaults", () => {
  test("passes helm lint", async () => {
    const { code, stdout } = await helm(["lint", "--strict", CHART]);
    expect(stdout).toContain("1 chart(s) linted, 0 chart(s) failed");
    expect(code).toBe(0);
  });

  test("is one operator for all namespaces, with its CRD and without a disruption budget", async () => {
    const { names } = await accepted();
    expect(names).toEqual(
      [
        `ClusterRole berth-environment-editor.${home}`,
        `ClusterRole berth-environment-viewer.${home}`,
        `ClusterRole berth-operator.${home}`,
        `ClusterRole berth-operator-nodes.${home}`,
        `ClusterRoleBinding berth-operator.${home}`,
        `ClusterRoleBinding berth-operator-nodes.${home}`,
        "CustomResourceDefinition environments.berth.dev",
        `Deployment ${home}/berth-operator`,
        `Role ${home}/berth-operator-leader`,
        `RoleBinding ${home}/berth-operator-leader`,
        `Service ${home}/berth-operator-metrics`,
        `ServiceAccount ${home}/berth-operator`,
        `ValidatingAdmissionPolicy berth-attach-policy.${home}`,
        `ValidatingAdmissionPolicy berth-pod-policy.${home}`,
        `ValidatingAdmissionPolicy berth-turn-policy.${home}`,
        `ValidatingAdmissionPolicyBinding berth-attach-policy.${home}`,
        `ValidatingAdmissionPolicyBinding berth-pod-policy.${home}`,
        `ValidatingAdmissionPolicyBinding berth-turn-policy.${home}`,
      ].sort(),
    );
  });

  test("runs where a namespace enforces the restricted Pod security standard", async () => {
    const { pod, container } = await accepted();
    expect(pod.securityContext).toEqual({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      readOnlyRootFilesystem: true,
    });
    const namespace = await cluster.createNamespace("restricted");
    await cluster.api.request("PATCH", `/api/v1/namespaces/${namespace}`, {
      body: { metadata: { labels: { "pod-security.kubernetes.io/enforce": "restricted" } } },
      contentType: "application/merge-patch+json",
    });
    const { uninstallPod, testPod } = await render(namespace);

    for (const [name, spec] of Object.entries({ operator: pod, uninstall: uninstallPod, test: testPod })) {
      await cluster.api.create(`/api/v1/namespaces/${namespace}/pods?dryRun=All&fieldValidation=Strict`, {
        metadata: { name },
        spec: { ...spec, serviceAccountName: "default" },
      });
    }
  });

  test("sets no user, group or SELinux options in any Pod, since OpenShift's restricted-v2 sets them", async () => {
    const { pod, uninstallPod, testPod } = await render(home, { caBundle: { secret: "ca" } });
    for (const { securityContext, containers, volumes } of [pod, uninstallPod, testPod]) {
      const words = JSON.stringify([securityContext, containers.map((container) => container.securityContext)]);
      expect(words).not.toMatch(/runAsUser|runAsGroup|fsGroup|supplementalGroups|seLinuxOptions/);
      expect(words).toContain('"type":"RuntimeDefault"');
      // The kinds of volumes that restricted-v2 allows.
      for (const { name: _name, ...source } of volumes)
        expect(["configMap", "secret"]).toContain(Object.keys(source)[0]);
    }
  });

  test("gives the operator time for an orderly shutdown, and configures its probes", async () => {
    const { pod, container } = await accepted();
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(31);
    expect(container.args).toEqual([
      "run",
      "--metrics-bind-address=:8080",
      "--health-probe-bind-address=:8081",
      "--log-level=info",
      "--allowed-api-origins=https://api.anthropic.com",
      "--runtime-classes=Kata=kata",
      "--runtime-classes=gVisor=gvisor",
      "--api-cidrs=160.79.104.0/23,2607:6bc0::/48",
      "--cluster-dns-pods=kube-system/k8s-app=kube-dns,kube-system/k8s-app=node-local-dns,openshift-dns/dns.operator.openshift.io/daemonset-dns=default:5353",
    ]);
    expect(container.livenessProbe.httpGet).toEqual({ path: "/healthz", port: "health" });
    expect(container.readinessProbe.httpGet).toEqual({ path: "/readyz", port: "health" });
    expect(container.ports).toEqual([
      { name: "health", containerPort: 8081 },
      { name: "metrics", containerPort: 8080 },
    ]);
  });

  test("selects its Pods by labels that an upgrade does not change", async () => {
    const rendered = await accepted({ labels: { team: "agents" }, podLabels: { tier: "control" } });
    const { selector, template } = rendered.one("Deployment").spec;
    expect(selector.matchLabels).toEqual({
      "app.kubernetes.io/name": "berth",
      "app.kubernetes.io/instance": "berth",
      "app.kubernetes.io/component": "operator",
    });
    expect(template.metadata.labels).toMatchObject({ ...selector.matchLabels, team: "agents", tier: "control" });
    // NetworkPolicies of Environments allow the operator's ingress to workers by this label.
    expect(template.metadata.labels).toMatchObject({ "berth.dev/role": "operator" });
    expect(rendered.one("Service").spec.selector).toEqual(selector.matchLabels);
    for (const object of rendered.objects) {
      expect(object.metadata.labels, `${object.kind} ${object.metadata.name}`).toMatchObject({ team: "agents" });
    }
  });
});

describe("permissions", () => {
  const secretsAndPods = (roles: readonly Manifest[]) =>
    roles.filter(({ rules }) => rules?.some(({ resources }) => resources.some((name) => /secrets|pods/.test(name))));

  test("are Roles in the named namespaces, without a ClusterRole for Pods or Secrets", async () => {
    const rendered = await accepted({ namespaces: served });
    expect(secretsAndPods(rendered.all("ClusterRole"))).toEqual([]);
    const roles = secretsAndPods(rendered.all("Role"));
    expect(roles.map(({ metadata }) => metadata.namespace).sort()).toEqual([...served].sort());
    expect(rendered.container.args).toEqual(expect.arrayContaining(served.map((name) => `--namespace=${name}`)));
    for (const { roleRef, subjects } of rendered.all("RoleBinding")) {
      expect(subjects).toEqual([{ kind: "ServiceAccount", name: "berth-operator", namespace: home }]);
      expect(roleRef.kind).toBe("Role");
    }
  });

  test("are not cluster-wide when the roles for nodes and users are turned off too", async () => {
    const rendered = await accepted({ namespaces: served, features: { nodes: false, aggregate: false } });
    expect([...rendered.all("ClusterRole"), ...rendered.all("ClusterRoleBinding")]).toEqual([]);
    expect(rendered.hooks.filter(({ kind }) => kind.startsWith("Cluster"))).toEqual([]);
  });

  test("are the same in a Role as in the ClusterRole", async () => {
    const everywhere = await render(home);
    const rules = everywhere
      .all("ClusterRole")
      .find(({ metadata }) => metadata.name === `berth-operator.${home}`)?.rules;
    const somewhere = await render(home, { namespaces: [served[0]] });
    const own = somewhere.all("Role").find(({ metadata }) => metadata.namespace === served[0]);
    expect(rules).not.toEqual([]);
    expect(own).toMatchObject({ rules });
  });

  test.each([
    ["by default", {}, true],
    ["with values of an older chart", { attach: null }, true],
    ["not with rbac.attach=false", { attach: false }, false],
  ])("allow the operator to attach and to read logs: %s", async (_name, rbac, isAllowed) => {
    for (const rendered of [await accepted({ rbac }), await accepted({ rbac, namespaces: served })]) {
      const rules = secretsAndPods([...rendered.all("ClusterRole"), ...rendered.all("Role")]).map(({ rules }) => rules);
      expect(rules.length).toBeGreaterThan(0);
      for (const given of rules) {
        const verbs = (resource: string) => given?.find(({ resources }) => resources.includes(resource))?.verbs;
        expect(verbs("pods/attach")).toEqual(isAllowed ? ["get", "create"] : undefined);
        expect(verbs("pods/log")).toEqual(isAllowed ? ["get"] : undefined);
      }
    }
  });

  test("never allow watching Secrets, and contain no wildcard", async () => {
    const { objects } = await render(home, { namespaces: served, crds: { keep: false } });
    for (const object of [...objects, ...(await render(home)).objects]) {
      for (const rule of object.rules ?? []) {
        expect([...rule.resources, ...rule.verbs, ...rule.apiGroups]).not.toContain("*");
        if (rule.resources.includes("secrets")) expect(rule.verbs).not.toContain("watch");
      }
    }
  });

  test("are left to you with rbac.create=false, and the service account with serviceAccount.create=false", async () => {
    const rendered = await accepted({
      rbac: { create: false },
      features: { aggregate: false },
      serviceAccount: { create: false, name: "mine" },
    });
    expect(rendered.names).toEqual([
      "CustomResourceDefinition environments.berth.dev",
      `Deployment ${home}/berth-operator`,
      `Service ${home}/berth-operator-metrics`,
      `ValidatingAdmissionPolicy berth-attach-policy.${home}`,
      `ValidatingAdmissionPolicy berth-pod-policy.${home}`,
      `ValidatingAdmissionPolicy berth-turn-policy.${home}`,
      `ValidatingAdmissionPolicyBinding berth-attach-policy.${home}`,
      `ValidatingAdmissionPolicyBinding berth-pod-policy.${home}`,
      `ValidatingAdmissionPolicyBinding berth-turn-policy.${home}`,
    ]);
    expect(rendered.hooks).toEqual([]);
    expect(rendered.pod.serviceAccountName).toBe("mine");
  });
});

interface Option {
  readonly name: string;
  readonly values: Values;
  readonly check: (rendered: Rendered) => void;
}

const options: readonly Option[] = [
  {
    name: "several replicas get a disruption budget and are spread over nodes",
    values: { replicas: 3 },
    check: (rendered) => {
      expect(rendered.one("Deployment").spec.replicas).toBe(3);
      expect(rendered.one("PodDisruptionBudget").spec).toMatchObject({
        maxUnavailable: 1,
        selector: rendered.one("Deployment").spec.selector,
      });
      expect(rendered.pod.topologySpreadConstraints).toMatchObject([
        { topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway" },
      ]);
    },
  },
  {
    name: "several replicas forward webhooks to each other through a headless Service",
    values: { replicas: 2, webhook: { enabled: true, port: 9000, secret: "webhooks" } },
    check: (rendered) => {
      const name = "berth-operator-webhook-peers";
      const service = rendered.all("Service").find(({ metadata }) => metadata.name === name);
      expect(service?.spec).toEqual({
        clusterIP: "None",
        selector: rendered.one("Deployment").spec.selector.matchLabels,
        ports: [{ name: "webhook", port: 9000, targetPort: "webhook" }],
      });
      expect(rendered.container.args).toContain(`--webhook-peers=${name}.${home}.svc:9000`);
    },
  },
  {
    name: "a single replica forwards no webhooks",
    values: { webhook: { enabled: true, secret: "webhooks" } },
    check: (rendered) => {
      expect(rendered.names.filter((name) => name.includes("webhook"))).toEqual([
        `Service ${home}/berth-operator-webhook`,
      ]);
      expect(rendered.container.args.join(" ")).not.toContain("--webhook-peers");
    },
  },
  {
    name: "podDisruptionBudget.enabled=false leaves it out",
    values: { replicas: 3, podDisruptionBudget: { enabled: false } },
    check: (rendered) => expect(rendered.all("PodDisruptionBudget")).toEqual([]),
  },
  {
    name: "shards, log level, origins, networks and extra arguments become flags",
    values: {
      shards: 4,
      logLevel: "debug",
      allowedApiOrigins: ["https://a.example", "http://b.example:8080"],
      apiCidrs: ["203.0.113.0/24", "2001:db8::/32"],
      clusterDns: { pods: ["kube-system/k8s-app=kube-dns:8053"], cidrs: ["10.0.0.10/32", "fd00::a/128"] },
      extraArgs: ["--kubeconfig=/etc/berth/kubeconfig"],
    },
    check: ({ container }) =>
      expect(container.args).toEqual([
        "run",
        "--shards=4",
        "--metrics-bind-address=:8080",
        "--health-probe-bind-address=:8081",
        "--log-level=debug",
        "--allowed-api-origins=https://a.example",
        "--allowed-api-origins=http://b.example:8080",
        "--runtime-classes=Kata=kata",
        "--runtime-classes=gVisor=gvisor",
        "--api-cidrs=203.0.113.0/24,2001:db8::/32",
        "--cluster-dns-pods=kube-system/k8s-app=kube-dns:8053",
        "--cluster-dns-cidrs=10.0.0.10/32,fd00::a/128",
        "--kubeconfig=/etc/berth/kubeconfig",
      ]),
  },
  {
    name: "a Pod policy becomes flags, and the admission policy matches it",
    values: {
      podPolicy: {
        privileged: true,
        capabilities: ["NET_ADMIN", "SYS_PTRACE"],
        hostPaths: ["/data"],
        runtimeClasses: ["*"],
      },
    },
    check: (rendered) => {
      expect(rendered.container.args.filter((word) => word.startsWith("--allowed-in-templates"))).toEqual([
        "--allowed-in-templates=capabilities=NET_ADMIN",
        "--allowed-in-templates=capabilities=SYS_PTRACE",
        "--allowed-in-templates=hostPaths=/data",
        "--allowed-in-templates=privileged",
        "--allowed-in-templates=runtimeClasses=*",
      ]);
      expect(allowedAtAdmission(rendered)).toEqual({
        privileged: ["*"],
        capabilities: ["NET_ADMIN", "SYS_PTRACE"],
        hostPaths: ["/data"],
        runtimeClasses: ["gvisor", "kata", "*"],
      });
    },
  },
  {
    name: "values of a chart without a Pod policy allow only the runtime classes of isolation",
    values: { podPolicy: null, admissionPolicy: null, runtimeClasses: null },
    check: (rendered) => {
      expect(rendered.container.args.join(" ")).not.toMatch(/--(allowed-in-templates|runtime-classes)/);
      expect(allowedAtAdmission(rendered)).toEqual({ runtimeClasses: ["gvisor", "kata"] });
    },
  },
  {
    name: "a runtime class of isolation becomes a flag, and the admission policy allows it",
    values: { runtimeClasses: { Kata: "kata-qemu" }, podPolicy: { runtimeClasses: ["gvisor", "other"] } },
    check: (rendered) => {
      expect(rendered.container.args).toContain("--runtime-classes=Kata=kata-qemu");
      expect(allowedAtAdmission(rendered)).toEqual({ runtimeClasses: ["gvisor", "kata-qemu", "other"] });
    },
  },
  {
    name: "admissionPolicy.enabled=false leaves all admission policies out",
    values: { admissionPolicy: { enabled: false } },
    check: (rendered) =>
      expect(rendered.names.filter((name) => name.startsWith("ValidatingAdmissionPolicy"))).toEqual([]),
  },
  {
    name: "values of a chart without networks, as with --reuse-values, leave them to the operator",
    values: { apiCidrs: null, clusterDns: null },
    check: ({ container }) => expect(container.args?.join(" ")).not.toMatch(/--(api-cidrs|cluster-dns)/),
  },
  {
    name: "a tag is used for the image",
    values: { image: { repository: "registry.example/team/berth", tag: "1.2.3", pullPolicy: "Always" } },
    check: ({ container }) =>
      expect(container).toMatchObject({ image: "registry.example/team/berth:1.2.3", imagePullPolicy: "Always" }),
  },
  {
    name: "a digest overrides the tag, also in the uninstall Job",
    values: { image: { repository: "registry.example/berth", tag: "1.2.3", digest: DIGEST } },
    check: ({ container, uninstallContainer }) => {
      expect(container.image).toBe(`registry.example/berth@${DIGEST}`);

      expect(uninstallContainer.image).toBe(container.image);
    },
  },
  {
    name: "a registry prefixes the repository in every Pod, and that of a parent chart takes precedence",
    values: {
      global: {
        imageRegistry: "mirror.example:5000/all",
        imagePullSecrets: [{ name: "mirror" }],
        storageClass: "fast",
      },
      image: { registry: "registry.example", repository: "team/berth", tag: "1.2.3" },
      imagePullSecrets: [{ name: "registry" }, { name: "mirror" }],
    },
    check: ({ pod, uninstallPod, testPod }) => {
      for (const { containers, ...rest } of [pod, uninstallPod, testPod]) {
        expect(containers.map(({ image }) => image)).toEqual(["mirror.example:5000/all/team/berth:1.2.3"]);
        expect(rest).toMatchObject({ imagePullSecrets: [{ name: "mirror" }, { name: "registry" }] });
      }
    },
  },
  {
    name: "the chart's own registry is used if no parent chart sets one",
    values: { image: { registry: "registry.example", repository: "team/berth", digest: DIGEST } },
    check: ({ container }) => expect(container.image).toBe(`registry.example/team/berth@${DIGEST}`),
  },
  {
    name: "metrics.enabled=false removes the port and the Service",
    values: { metrics: { enabled: false } },
    check: (rendered) => {
      expect(rendered.all("Service")).toEqual([]);
      expect(rendered.container.args).toContain("--metrics-bind-address=0");
      expect(rendered.container.ports).toEqual([{ name: "health", containerPort: 8081 }]);
    },
  },
  {
    name: "a ServiceMonitor selects the Service",
    values: { metrics: { serviceMonitor: { enabled: true, interval: "30s", labels: { release: "prometheus" } } } },
    check: (rendered) => {
      const { metadata, spec } = rendered.one("ServiceMonitor");
      expect(metadata.labels?.["release"]).toBe("prometheus");
      expect(spec.endpoints).toEqual([{ port: "metrics", interval: "30s", honorLabels: true }]);
      expect(rendered.one("Service").metadata.labels).toMatchObject(spec.selector.matchLabels ?? {});
    },
  },
  {
    name: "a PodMonitor selects the Pods",
    values: { metrics: { podMonitor: { enabled: true, interval: "30s", labels: { release: "prometheus" } } } },
    check: (rendered) => {
      const { metadata, spec } = rendered.one("PodMonitor");
      expect(metadata.labels?.["release"]).toBe("prometheus");
      expect(spec.podMetricsEndpoints).toEqual([{ port: "metrics", interval: "30s", honorLabels: true }]);
      const { template } = rendered.one("Deployment").spec;
      expect(template.metadata.labels).toMatchObject(spec.selector.matchLabels ?? {});
    },
  },
  {
    name: "monitors pass on labels and TLS",
    values: {
      metrics: {
        serviceMonitor: { enabled: true, scheme: "https", tlsConfig: { serverName: "berth" } },
        podMonitor: {
          enabled: true,
          relabelings: [{ targetLabel: "cluster", replacement: "west" }],
          metricRelabelings: [{ action: "drop", sourceLabels: ["__name__"], regex: "nodejs_.*" }],
        },
      },
    },
    check: (rendered) => {
      expect(rendered.one("ServiceMonitor").spec.endpoints).toEqual([
        { port: "metrics", honorLabels: true, scheme: "https", tlsConfig: { serverName: "berth" } },
      ]);
      expect(rendered.one("PodMonitor").spec.podMetricsEndpoints).toEqual([
        {
          port: "metrics",
          honorLabels: true,
          relabelings: [{ targetLabel: "cluster", replacement: "west" }],
          metricRelabelings: [{ action: "drop", sourceLabels: ["__name__"], regex: "nodejs_.*" }],
        },
      ]);
    },
  },
  {
    name: "a PrometheusRule contains the alerts, and with parkedPods those of parked Pods",
    values: { prometheusRule: { enabled: true, parkedPods: true, labels: { release: "prometheus" } } },
    check: (rendered) => {
      const { metadata, spec } = rendered.one("PrometheusRule");
      expect(metadata.labels?.["release"]).toBe("prometheus");
      const alerts = spec.groups?.flatMap(({ rules }) => rules.map(({ alert }) => alert));
      expect(alerts).toEqual(expect.arrayContaining(["BerthOperatorDown", "BerthPodParked"]));
    },
  },
  {
    name: "a ConfigMap holds the dashboard for Grafana's sidecar",
    values: { grafanaDashboards: { enabled: true, folder: "Berth", annotations: { team: "agents" } } },
    check: (rendered) => {
      const { metadata, data } = rendered.one("ConfigMap");
      expect(metadata.labels?.["grafana_dashboard"]).toBe("1");
      expect(metadata.annotations).toEqual({ grafana_folder: "Berth", team: "agents" });
      expect(JSON.parse(data?.["berth.json"] ?? "")).toMatchObject({ uid: "berth" });
    },
  },
  {
    name: "a NetworkPolicy for the operator accepts peers and rules in Kubernetes syntax",
    values: {
      networkPolicy: {
        enabled: true,
        metricsFrom: [{ namespaceSelector: {}, podSelector: { matchLabels: { app: "prometheus" } } }],
        webhookFrom: [{ ipBlock: { cidr: "10.0.0.0/8" } }],
        extraEgress: [{ to: [{ ipBlock: { cidr: "203.0.113.7/32" } }], ports: [{ protocol: "TCP", port: 3128 }] }],
      },
      replicas: 2,
      webhook: { enabled: true, secret: "webhooks" },
    },
    check: (rendered) =>
      expect(rendered.one("NetworkPolicy").spec).toMatchObject({
        podSelector: rendered.one("Deployment").spec.selector,
      }),
  },
  {
    name: "the console is listening only on loopback, without a Service",
    values: { console: { enabled: true } },
    check: (rendered) => {
      expect(rendered.container.args).toContain("--console-bind-address=127.0.0.1:8083");
      expect(JSON.stringify([rendered.container.ports, rendered.all("Service")])).not.toContain("8083");
    },
  },
  {
    name: "ports can be changed",
    values: { metrics: { port: 9090 }, health: { port: 9091 } },
    check: ({ container }) => {
      expect(container.args).toEqual(
        expect.arrayContaining(["--metrics-bind-address=:9090", "--health-probe-bind-address=:9091"]),
      );
    },
  },
  {
    name: "a proxy is used, except for the API server",
    values: { proxy: { https: "http://proxy.example:3128", noProxy: ".corp.example" } },
    check: ({ container }) =>
      expect(container.env).toEqual([
        { name: "HTTPS_PROXY", value: "http://proxy.example:3128" },
        { name: "NO_PROXY", value: "$(KUBERNETES_SERVICE_HOST),kubernetes.default.svc,.corp.example" },
      ]),
  },
  ...(["configMap", "secret"] as const).map((kind) => ({
    name: `a CA bundle comes from a ${kind}`,
    values: { caBundle: { [kind]: "corp-ca", key: "ca.pem" } },
    check: ({ container, pod, uninstallPod }: Rendered) => {
      expect(container.env).toEqual([{ name: "NODE_EXTRA_CA_CERTS", value: "/etc/berth/ca/ca.pem" }]);
      expect(container.volumeMounts).toEqual([{ name: "ca-bundle", mountPath: "/etc/berth/ca", readOnly: true }]);
      const source = kind === "secret" ? { secret: { secretName: "corp-ca" } } : { configMap: { name: "corp-ca" } };
      expect(pod.volumes).toMatchObject([{ name: "ca-bundle", ...source }]);

      expect(uninstallPod.volumes).toEqual(pod.volumes);
    },
  })),
  {
    name: "environment variables, volumes and mounts are added",
    values: {
      extraEnv: [{ name: "NODE_OPTIONS", value: "--max-old-space-size=1024" }],
      extraVolumes: [{ name: "kubeconfig", secret: { secretName: "kubeconfig" } }],
      extraVolumeMounts: [{ name: "kubeconfig", mountPath: "/etc/berth/kubeconfig" }],
      caBundle: { secret: "corp-ca" },
    },
    check: ({ container, pod }) => {
      expect(container.env.map(({ name }: { name: string }) => name)).toEqual(["NODE_EXTRA_CA_CERTS", "NODE_OPTIONS"]);
      expect(pod.volumes).toHaveLength(2);
      expect(container.volumeMounts).toHaveLength(2);
    },
  },
  {
    name: "scheduling fields of the Pod are passed through",
    values: {
      nodeSelector: { pool: "system" },
      tolerations: [{ key: "system", operator: "Exists" }],
      affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } },
      topologySpreadConstraints: [{ maxSkew: 1, topologyKey: "zone", whenUnsatisfiable: "DoNotSchedule" }],
      priorityClassName: "system-cluster-critical",
      imagePullSecrets: [{ name: "registry" }],
      dnsPolicy: "None",
      dnsConfig: { nameservers: ["10.0.0.53"] },
      hostAliases: [{ ip: "10.0.0.7", hostnames: ["work.example"] }],
      resources: { limits: { cpu: "1", memory: "1Gi" } },
      replicas: 2,
    },
    check: ({ pod, container }) => {
      expect(pod).toMatchObject({
        nodeSelector: { pool: "system" },
        tolerations: [{ key: "system", operator: "Exists" }],
        affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } },
        topologySpreadConstraints: [{ topologyKey: "zone", whenUnsatisfiable: "DoNotSchedule", maxSkew: 1 }],
        priorityClassName: "system-cluster-critical",
        imagePullSecrets: [{ name: "registry" }],
        dnsPolicy: "None",
        dnsConfig: { nameservers: ["10.0.0.53"] },
        hostAliases: [{ ip: "10.0.0.7", hostnames: ["work.example"] }],
      });
      expect(container.resources.limits).toEqual({ cpu: "1", memory: "1Gi" });
    },
  },
  {
    name: "annotations, probes and security contexts are merged with the chart's own",
    values: {
      annotations: { a: "1" },
      podAnnotations: { b: "2", "kubectl.kubernetes.io/default-container": "mesh" },
      serviceAccount: { annotations: { c: "3" } },
      livenessProbe: { failureThreshold: 10 },
      readinessProbe: { periodSeconds: 1 },
      podSecurityContext: { fsGroup: 1234 },
      securityContext: { runAsUser: 1234 },
    },
    check: (rendered) => {
      expect(rendered.one("Deployment").metadata.annotations).toEqual({ a: "1" });
      expect(rendered.one("Deployment").spec.template.metadata.annotations).toEqual({
        b: "2",
        "kubectl.kubernetes.io/default-container": "mesh",
      });
      expect(rendered.one("ServiceAccount").metadata.annotations).toEqual({ c: "3" });
      expect(rendered.container.livenessProbe).toMatchObject({ failureThreshold: 10, httpGet: { path: "/healthz" } });
      expect(rendered.container.readinessProbe).toMatchObject({ periodSeconds: 1, httpGet: { path: "/readyz" } });
      expect(rendered.pod.securityContext).toMatchObject({ fsGroup: 1234, runAsNonRoot: true });
      expect(rendered.container.securityContext).toMatchObject({ runAsUser: 1234, readOnlyRootFilesystem: true });
    },
  },
  {
    name: "extra objects are templates, given as maps or as text",
    values: {
      extraObjects: [
        {
          apiVersion: "v1",
          kind: "ConfigMap",
          metadata: { name: "{{ .Release.Name }}-map", namespace: "{{ .Release.Namespace }}" },
        },
        `apiVersion: v1
kind: ConfigMap
metadata:
  name: text
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "berth.labels" . | nindent 4 }}`,
      ],
    },
    check: (rendered) => {
      const found = new Map(rendered.all("ConfigMap").map(({ metadata }) => [metadata.name, metadata]));
      expect([...found.keys()].sort()).toEqual(["berth-map", "text"]);
      expect(found.get("text")?.labels).toMatchObject({ "app.kubernetes.io/instance": "berth" });
    },
  },
  {
    name: "helmTest.enabled=false leaves out the Pod of helm test",
    values: { helmTest: { enabled: false } },
    check: (rendered) => expect(rendered.hooks.filter(({ kind }) => kind === "Pod")).toEqual([]),
  },
  {
    name: "values of a chart without a test render none",
    values: { helmTest: null, global: null, extraObjects: null },
    check: (rendered) => expect(rendered.hooks.filter(({ kind }) => kind === "Pod")).toEqual([]),
  },
  {
    name: "names can be replaced",
    values: { fullnameOverride: "sandbox" },
    check: (rendered) => {
      expect(rendered.one("Deployment").metadata.name).toBe("sandbox-operator");
      expect(rendered.pod.serviceAccountName).toBe("sandbox-operator");
    },
  },
  {
    name: "crds.enabled=false leaves the CRD to you",
    values: { crds: { enabled: false } },
    check: (rendered) => expect(rendered.all("CustomResourceDefinition")).toEqual([]),
  },
  {
    name: "an uninstall keeps the CRD by default",
    values: {},
    check: (rendered) => {
      const { metadata } = rendered.one("CustomResourceDefinition");
      expect(metadata.annotations).toEqual({ "helm.sh/resource-policy": "keep" });

      expect(rendered.uninstallContainer.args).toEqual(["uninstall", `--deployment=${home}/berth-operator`]);
    },
  },
  {
    name: "crds.keep=false makes the uninstall delete Environments, with the permission to do so",
    values: { crds: { keep: false }, uninstall: { drainSeconds: 30 } },
    check: (rendered) => {
      expect(rendered.one("CustomResourceDefinition").metadata.annotations).toBeUndefined();

      expect(rendered.uninstallContainer.args).toEqual(
        expect.arrayContaining(["--delete-environments", "--drain-seconds=30"]),
      );
      const role = rendered.hooks.find(({ kind }) => kind === "ClusterRole");
      expect(role?.rules?.[0]?.verbs).toContain("delete");
    },
  },
  {
    name: "uninstall.enabled=false leaves only the hooks of helm test",
    values: { uninstall: { enabled: false } },
    check: ({ hooks }) =>
      expect(new Set(hooks.map(({ metadata }) => metadata.annotations?.["helm.sh/hook"]))).toEqual(new Set(["test"])),
  },
];

/** What the admission policy allows templates, by rule; rules that allow nothing are left out. */
function allowedAtAdmission(rendered: Rendered): Record<string, readonly string[]> {
  const { variables } = rendered.one("ValidatingAdmissionPolicy", "-pod-policy").spec;
  const { expression = "" } = variables?.find(({ name }) => name === "allowed") ?? {};
  const allowed = Object.entries<readonly string[]>(JSON.parse(expression));
  return Object.fromEntries(allowed.filter(([, items]) => items.length > 0));
}

describe("an option", () => {
  test.each(options)("$name", async ({ values, check }) => {
    const rendered = await accepted(values);
    check(rendered);
    if (!rendered.names.some((name) => name.startsWith("ValidatingAdmissionPolicy "))) return;
    const { podPolicy } = parseSettings(rendered.container.args.slice(1), {});
    expect(allowedAtAdmission(rendered), "the operator's own policy").toEqual(podPolicy);
  });

  test("that is a name may consist of digits, and stays a string", async () => {
    const rendered = await render("70001", {
      namespaces: ["70002"],
      nameOverride: "70003",
      serviceAccount: { name: "70004" },
      priorityClassName: "70005",
      caBundle: { secret: "70006", key: "70007" },
      webhook: { enabled: true, secret: "70008" },
      imagePullSecrets: [{ name: "70009" }],
      labels: { a: "70010" },
    });
    const leaves = leavesOf(rendered.objects);
    for (let name = 70_001; name <= 70_010; name += 1) {
      expect(leaves).toContain(String(name));
      expect(leaves).not.toContain(name);
    }
  });

  test("for the name keeps the labels by which berth doctor finds the operator", async () => {
    const { metadata, spec } = (await render("berth-system", { nameOverride: "sandboxes" })).one("Deployment");
    expect(metadata.labels).toMatchObject({
      "app.kubernetes.io/name": "sandboxes",
      "app.kubernetes.io/component": "operator",
    });
    expect(spec.template.metadata.labels).toMatchObject({ "berth.dev/role": "operator" });
  });

  test("for namespaces limits the admission policy for Environments to them", async () => {
    const rendered = await accepted({ namespaces: served });
    const matchExpressions = [{ key: "kubernetes.io/metadata.name", operator: "In", values: served }];
    expect(rendered.one("ValidatingAdmissionPolicyBinding", "-pod-policy").spec.matchResources).toEqual({
      namespaceSelector: { matchExpressions },
    });
  });

  test("works in combination with any two others", async () => {
    const toggles: readonly ((on: boolean) => Values)[] = [
      (on) => ({ namespaces: on ? served : [] }),
      (on) => ({ replicas: on ? 3 : 1 }),
      (on) => ({ crds: { enabled: on, keep: !on } }),
      (on) => ({ features: { nodes: on, aggregate: !on }, networkPolicy: { enabled: on } }),
      (on) => ({ admissionPolicy: { enabled: on }, podPolicy: { privileged: on, capabilities: on ? ["*"] : [] } }),
      (on) => ({
        metrics: { enabled: on, serviceMonitor: { enabled: on }, podMonitor: { enabled: on } },
        prometheusRule: { enabled: on },
        grafanaDashboards: { enabled: on },
      }),
      (on) => ({ caBundle: { secret: on ? "ca" : "" }, proxy: { http: on ? "" : "http://proxy.example:3128" } }),
    ];
    // Any three of the seven toggles meet in all of their eight combinations: rows of a Hadamard matrix of order
    // eight, and their complements.
    for (let row = 0; row < 16; row += 1) {
      const values = Object.assign({}, ...toggles.map((toggle, index) => toggle(isOdd(row & (index + 1)) !== row > 7)));
      await accepted(values).catch((error: unknown) => {
        throw new Error(`${JSON.stringify(values)}: ${error}`);
      });
    }
  });
});

/** Whether an odd number of its bits is set. */
function isOdd(bits: number): boolean {
  return bits !== 0 && !isOdd(bits & (bits - 1));
}

/** All values in it that are not objects or arrays. */
function leavesOf(value: unknown): unknown[] {
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(leavesOf) : [value];
}

describe("invalid values", () => {
  test.each<[string, Values, RegExp]>([
    ["a removed key", { protocolTimeout: "2s" }, /'\/protocolTimeout': value must be 'removed; the timeout is /],
    ["a number that is a string", { replicas: "two" }, /'\/replicas': got string, want integer/],
    ["too few replicas", { replicas: -1 }, /'\/replicas': minimum: got -1, want 0/],
    ["no shards", { shards: 0 }, /'\/shards': minimum: got 0, want 1/],
    ["namespaces that are not a list", { namespaces: "agents" }, /'\/namespaces': got string, want array/],
    ["an invalid namespace name", { namespaces: ["Agents_1"] }, /'\/namespaces\/0': 'Agents_1' does not match/],
    ["an unknown log level", { logLevel: "loud" }, /'\/logLevel': value must be one of 'trace', 'debug', 'info'/],
    ["no origins", { allowedApiOrigins: [] }, /'\/allowedApiOrigins': minItems/],
    ["an origin with a path", { allowedApiOrigins: ["https://a.example/v1"] }, /'\/allowedApiOrigins\/0'/],
    ["no networks of the API", { apiCidrs: [] }, /'\/apiCidrs': minItems: got 0, want 1/],
    ["an invalid network", { apiCidrs: ["api.example"] }, /'\/apiCidrs\/0': 'api.example' does not match/],
    [
      "Pods of the cluster's DNS without a label",
      { clusterDns: { pods: ["kube-system"] } },
      /'\/clusterDns\/pods\/0': 'kube-system' does not match/,
    ],
    ["no Pods of the cluster's DNS", { clusterDns: { pods: [] } }, /'\/clusterDns\/pods': minItems: got 0, want 1/],
    [
      "an address of the cluster's DNS that is not a network",
      { clusterDns: { cidrs: ["10.0.0.10"] } },
      /'\/clusterDns\/cidrs\/0': '10.0.0.10' does not match/,
    ],
    ["a capability with CAP_", { podPolicy: { capabilities: ["CAP_NET_ADMIN"] } }, /'\/podPolicy\/capabilities\/0'/],
    [
      "a relative host path",
      { podPolicy: { hostPaths: ["data"] } },
      /'\/podPolicy\/hostPaths\/0': 'data' does not match/,
    ],
    ["a host path with a trailing slash", { podPolicy: { hostPaths: ["/data/"] } }, /'\/podPolicy\/hostPaths\/0'/],
    ["a policy that is set twice", { extraArgs: ["--allowed-in-templates=privileged"] }, /set podPolicy instead/],
    ["an invalid digest", { image: { digest: "sha256:12" } }, /'\/image\/digest': 'sha256:12' does not match/],
    ["too short a grace period", { terminationGracePeriodSeconds: 10 }, /minimum: got 10, want 35/],
    [
      "the console on the port of the metrics",
      { console: { enabled: true, port: 8080 } },
      /console.port and metrics.port are both 8080; use two ports/,
    ],
    ["one port twice", { metrics: { port: 8081 } }, /metrics.port and health.port are both 8081; use two ports/],
    [
      "two CA bundles",
      { caBundle: { configMap: "a", secret: "b" } },
      /caBundle.configMap and caBundle.secret are both set; remove one/,
    ],
    [
      "no service account",
      { serviceAccount: { create: false } },
      /serviceAccount.create is false and serviceAccount.name is empty; set serviceAccount.name/,
    ],
    ["a flag with its own chart value", { extraArgs: ["--namespace=a"] }, /extraArgs has --namespace; set namespaces/],
    [
      "a ServiceMonitor without metrics",
      { metrics: { enabled: false, serviceMonitor: { enabled: true } } },
      /metrics.serviceMonitor.enabled needs metrics.enabled; set it to true/,
    ],
    [
      "a PodMonitor without metrics",
      { metrics: { enabled: false, podMonitor: { enabled: true } } },
      /metrics.podMonitor.enabled needs metrics.enabled; set it to true/,
    ],
    [
      "alerts about metrics that are off",
      { metrics: { enabled: false }, prometheusRule: { enabled: true } },
      /prometheusRule.enabled needs metrics.enabled; set it to true/,
    ],
    [
      "an alert that does not exist",
      { prometheusRule: { enabled: true, alerts: { BerthSessionWaits: { enabled: false } } } },
      /prometheusRule.alerts.BerthSessionWaits: there is no such alert; use one of BerthOperatorDown, /,
    ],
    [
      "a threshold of an alert without one",
      { prometheusRule: { enabled: true, alerts: { BerthNoLeader: { threshold: 2 } } } },
      /prometheusRule.alerts.BerthNoLeader has a threshold, but its expression does not end with one; set expr/,
    ],
    [
      "an unknown key of an alert",
      { prometheusRule: { alerts: { BerthNoLeader: { sevrity: "info" } } } },
      /'\/prometheusRule\/alerts\/BerthNoLeader': additional properties 'sevrity'/,
    ],
    [
      "a label that the chart sets",
      { podLabels: { "app.kubernetes.io/name": "x" } },
      /podLabels has app.kubernetes.io\/name, which the chart sets; remove it/,
    ],
    [
      "the label by which NetworkPolicies select the operator",
      { podLabels: { "berth.dev/role": "session" } },
      /podLabels has berth.dev\/role, which the chart sets; remove it/,
    ],
    [
      "a proxy twice",
      { proxy: { http: "http://a.example" }, extraEnv: [{ name: "NO_PROXY", value: "b" }] },
      /extraEnv sets NO_PROXY, which proxy or caBundle also sets; remove one of them/,
    ],
  ])("are refused by helm with an explanation: %s", async (_name, values, message) => {
    expect(await refusal(values)).toMatch(message);
  });
});
