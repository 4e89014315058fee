import { describe, expect, test } from "vitest";
import type { Deployment } from "../../src/kube/resource.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, stored, workersSpec } from "../api/environments.ts";

const CONTAINER = { name: "worker", image: "worker:1" };
const templateOf = (podSpec: Json = {}, metadata?: Json, spec: Json = {}) => {
  const template = { ...(metadata ? { metadata } : {}), spec: { containers: [CONTAINER], ...podSpec } };
  return workerTemplate(parsed(stored({ ...workersSpec({ template }), ...spec })));
};
const deploymentOf = (...input: Parameters<typeof templateOf>): Deployment => templateOf(...input).deployment(3);
const envOf = (...input: Parameters<typeof templateOf>) => deploymentOf(...input).spec.template.spec.containers[0]?.env;

describe("a worker's template", () => {
  test("belongs to its Environment, and selects only its own Pods", () => {
    const { metadata, spec } = deploymentOf();
    expect(metadata.ownerReferences).toEqual([
      expect.objectContaining({ kind: "Environment", name: "research", controller: true, blockOwnerDeletion: true }),
    ]);
    const selecting = {
      "berth.dev/environment": "research",
      "berth.dev/role": "worker",
      "berth.dev/template-hash": templateOf().hash,
    };
    expect(spec.selector).toEqual({ matchLabels: selecting });
    const general = { "app.kubernetes.io/name": "berth-worker", "app.kubernetes.io/part-of": "berth" };
    expect(spec.template.metadata?.labels).toMatchObject({ ...selecting, ...general });
    expect(spec.selector.matchLabels).not.toMatchObject(general);
    expect(metadata.labels).toMatchObject(selecting);
    expect(spec.replicas).toBe(3);
  });

  test("gives the worker its identity, the API and the key", () => {
    expect(envOf()).toEqual([
      { name: "ANTHROPIC_BASE_URL", value: "https://api.anthropic.com" },
      { name: "ANTHROPIC_WORKER_ID", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "ANTHROPIC_ENVIRONMENT_ID", value: expect.stringMatching(/^env_/) },
      {
        name: "ANTHROPIC_ENVIRONMENT_KEY",
        valueFrom: { secretKeyRef: { name: "key", key: "environment-key" } },
      },
    ]);
  });

  test("keeps the template's variables, including base URL and worker id, but never the key", () => {
    const own = [
      { name: "ANTHROPIC_BASE_URL", value: "http://proxy" },
      { name: "ANTHROPIC_WORKER_ID", value: "mine" },
      { name: "LABEL", value: "$(ANTHROPIC_ENVIRONMENT_ID)" },
    ];
    const env = envOf({ containers: [{ ...CONTAINER, env: own }] }) ?? [];
    expect(env.map(({ name }) => name)).toEqual([
      "ANTHROPIC_ENVIRONMENT_ID",
      "ANTHROPIC_BASE_URL",
      "ANTHROPIC_WORKER_ID",
      "LABEL",
      "ANTHROPIC_ENVIRONMENT_KEY",
    ]);
    expect(env).toEqual(expect.arrayContaining(own));
  });

  test("contains no key", () => {
    expect(JSON.stringify(deploymentOf())).not.toContain("sk-ant");
  });

  test("gives the variables only to the worker's container, even if another comes first", () => {
    const { containers } = deploymentOf(
      { containers: [{ name: "proxy", image: "proxy:1" }, CONTAINER] },
      { annotations: { "kubectl.kubernetes.io/default-container": "worker" } },
    ).spec.template.spec;
    expect(containers.map(({ env }) => env?.length ?? 0)).toEqual([0, 4]);
  });

  test("has safe defaults", () => {
    expect(deploymentOf().spec.template.spec).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 3600,
      containers: [{ imagePullPolicy: "IfNotPresent" }],
    });
    const own = { automountServiceAccountToken: true, enableServiceLinks: true, terminationGracePeriodSeconds: 5 };
    const containers = [{ ...CONTAINER, imagePullPolicy: "Always" }];
    expect(deploymentOf({ ...own, containers }).spec.template.spec).toMatchObject({ ...own, containers });
  });

  test("keeps everything else", () => {
    const podSpec = { nodeSelector: { gpu: "yes" }, newField: { of: ["a", "later", "cluster"] } };
    const metadata = { labels: { team: "a" }, annotations: { note: "b" }, finalizers: ["example.com/hold"] };
    const { template } = deploymentOf(podSpec, metadata).spec;
    expect(template.spec).toMatchObject(podSpec);
    expect(template.metadata).toMatchObject(metadata);
  });

  test("has the RuntimeClass of isolation, which is in the hash", () => {
    const isolatedBy = (isolation?: string) => workerTemplate(parsed(stored(workersSpec({ isolation }))));
    expect(isolatedBy("Kata").deployment(1).spec.template.spec).toMatchObject({ runtimeClassName: "kata" });
    expect(isolatedBy().deployment(1).spec.template.spec).not.toHaveProperty("runtimeClassName");
    expect(new Set([isolatedBy("Kata").hash, isolatedBy("gVisor").hash, isolatedBy().hash]).size).toBe(3);
  });

  test("renders the same Pod for a dry run as for the Deployment", () => {
    const template = templateOf();
    const pod = template.render("berth-research-template");
    const { metadata, spec } = template.deployment(1).spec.template;
    expect(pod).toMatchObject({ metadata: { ...metadata, name: "berth-research-template" }, spec });
  });

  test("has a hash of everything that a worker is made from, including the Environment", () => {
    const hashes = [
      templateOf().hash,
      templateOf({ nodeSelector: { gpu: "yes" } }).hash,
      templateOf({}, undefined, { api: { keySecretRef: { name: "another" } } }).hash,
      templateOf({}, undefined, {
        api: { baseUrl: "https://example.com", keySecretRef: { name: "key" } },
        network: { egress: { cidrs: [] } },
      }).hash,
      templateOf({}, undefined, { environmentId: "env_another" }).hash,
      workerTemplate({
        ...parsed(stored(workersSpec())),
        metadata: { ...parsed(stored(workersSpec())).metadata, uid: "another" },
      }).hash,
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(templateOf().hash).toBe(templateOf().hash);
  });

  test("includes the probe in the hash, and its address in the Pods", () => {
    const probed = (port: number) => {
      const workers = { busyProbe: { httpGet: { path: "/busy", port } } };
      return workerTemplate(parsed(stored(workersSpec(workers))));
    };
    expect(probed(9000).hash).not.toBe(probed(9001).hash);
    const { annotations } = probed(9000).deployment(1).spec.template.metadata ?? {};
    expect(annotations).toMatchObject({ "berth.dev/busy-probe": "9000/busy" });
    expect(deploymentOf().spec.template.metadata?.annotations).not.toHaveProperty(["berth.dev/busy-probe"]);
  });

  test("leaves the scale out of the hash", () => {
    const sized = (workers: Json) => {
      const spec = { template: { spec: { containers: [CONTAINER] } }, ...workers };
      return workerTemplate(parsed(stored(workersSpec(spec)))).hash;
    };
    expect(sized({ maxReplicas: 5 })).toBe(sized({ maxReplicas: 6, minReplicas: 2, sessionsPerReplica: 3 }));
  });

  test("derives valid names from the longest Environment name", () => {
    const environment = parsed(stored(workersSpec()));
    const name = `${"a".repeat(20)}.${"b".repeat(25)}`;
    const { deploymentName, hash } = workerTemplate({ ...environment, metadata: { ...environment.metadata, name } });
    expect(deploymentName).toMatch(/^[a-z0-9-]{1,63}$/);
    expect(deploymentName.endsWith(hash)).toBe(true);
  });
});
