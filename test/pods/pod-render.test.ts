import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Environment, MAX_ENVIRONMENT_NAME } from "../../src/api/environment.ts";
import { hashOf } from "../../src/core/json.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { NO_DEADLINE_SECONDS, newPodName, sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const NAME = "berth-research-bcdfghjk";

const environmentOf = (sessions: Json = {}, spec: Json = {}): Environment =>
  parsed(stored(sessionsSpec(sessions, spec)));
const render = (template: Json, spec: Json = {}): Pod =>
  sessionTemplate(environmentOf({ template }, spec)).render(NAME);
const containerOf = (pod: Pod, name = "worker") => pod.spec.containers.find((container) => container.name === name);

describe("the user's template", () => {
  const template: Json = {
    metadata: {
      labels: { team: "blue", "app.kubernetes.io/name": "agent" },
      annotations: { "prometheus.io/scrape": "true" },
      finalizers: ["example.com/keep"],
    },
    spec: {
      containers: [
        {
          name: "worker",
          image: "worker:1",
          command: ["/bin/run"],
          env: [
            { name: "A", value: "1" },
            { name: "B", valueFrom: { configMapKeyRef: { name: "c", key: "b" } } },
          ],
          resources: { limits: { memory: "1Gi", "example.com/gpu": 1 } },
          fieldOfTomorrow: { deep: [1, { deeper: null }] },
        },
        { name: "proxy", image: "proxy:1", ports: [{ containerPort: 80 }] },
      ],
      initContainers: [{ name: "prep", image: "prep:1", restartPolicy: "Always" }],
      volumes: [{ name: "v", emptyDir: { sizeLimit: "1Gi" } }],
      tolerations: [{ operator: "Exists" }],
      runtimeClassName: "gvisor",
      anotherFieldOfTomorrow: true,
      terminationGracePeriodSeconds: 7,
    },
  };
  const pod = render(template);

  test("keeps its spec, including unknown fields", () => {
    const { containers, ...rest } = template["spec"] as { containers: Json[] };
    expect(pod.spec).toMatchObject(rest);
    expect(pod.spec.containers[1]).toMatchObject(containers[1] as Json);
    // A container with a command waits in a shell, which runs that command.
    const { env, command, ...session } = containers[0] as { env: Json[]; command: string[] };
    expect(pod.spec.containers[0]).toMatchObject(session);
    expect(pod.spec.containers[0]?.command?.slice(-command.length)).toEqual(command);
    expect(pod.spec.containers[0]?.env).toEqual(expect.arrayContaining(env));
  });

  test("keeps its labels, annotations and finalizers, as every controller does", () => {
    expect(pod.metadata.labels).toMatchObject({ team: "blue", "app.kubernetes.io/name": "agent" });
    expect(pod.metadata.annotations).toMatchObject({ "prometheus.io/scrape": "true" });
    expect(pod.metadata.finalizers).toEqual(["example.com/keep"]);
  });

  test("has the RuntimeClass of isolation, and keeps a user namespace", () => {
    const isolated = environmentOf({ isolation: "gVisor", template: podTemplate({ hostUsers: false }) });
    expect(sessionTemplate(isolated).render(NAME).spec).toMatchObject({ runtimeClassName: "gvisor", hostUsers: false });
    expect(render(podTemplate()).spec).not.toHaveProperty("runtimeClassName");
  });

  test("does not change the template object", () => {
    const environment = environmentOf({ template });
    const before = JSON.stringify(environment);
    sessionTemplate(environment).render(NAME);
    expect(JSON.stringify(environment)).toBe(before);
  });

  test("lets the template's autoscaler and service account settings win", () => {
    const own = render({
      metadata: { annotations: { "cluster-autoscaler.kubernetes.io/safe-to-evict": "false" } },
      ...podTemplate({ automountServiceAccountToken: true, enableServiceLinks: true }),
    });
    expect(own.metadata.annotations).toMatchObject({ "cluster-autoscaler.kubernetes.io/safe-to-evict": "false" });
    expect(own.spec).toMatchObject({ automountServiceAccountToken: true, enableServiceLinks: true });
  });
});

describe("defaults", () => {
  const pod = render(podTemplate());

  test("name the program and what it is part of", () => {
    const labels = { "app.kubernetes.io/name": "berth-session", "app.kubernetes.io/part-of": "berth" };
    expect(pod.metadata.labels).toMatchObject(labels);
  });

  test("sets no restarts, a grace period, no API token, and the longest deadline", () => {
    expect(pod.spec).toMatchObject({
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 120,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      activeDeadlineSeconds: NO_DEADLINE_SECONDS,
    });
    expect(NO_DEADLINE_SECONDS).toBe(2_147_483_647);
  });

  test("accepts a grace period of zero", () => {
    const environment = environmentOf({ template: podTemplate({ terminationGracePeriodSeconds: 0 }) });
    expect(sessionTemplate(environment).graceSeconds).toBe(0);
    expect(sessionTemplate(environment).render(NAME).spec.terminationGracePeriodSeconds).toBe(0);
  });

  test("sets IfNotPresent on the session container, also for :latest, and leaves other containers unchanged", () => {
    const two = render({
      spec: {
        containers: [
          { name: "worker", image: "worker:latest" },
          { name: "proxy", image: "proxy:latest" },
        ],
      },
    });
    expect(containerOf(two)?.imagePullPolicy).toBe("IfNotPresent");
    expect(containerOf(two, "proxy")?.imagePullPolicy).toBeUndefined();
  });

  test("keeps an explicit policy, and reports Always", () => {
    const template = { spec: { containers: [{ name: "worker", image: "w:1", imagePullPolicy: "Always" }] } };
    const session = sessionTemplate(environmentOf({ template }));
    expect(session.pullsAlways).toBe(true);
    expect(containerOf(session.render(NAME))?.imagePullPolicy).toBe("Always");
    expect(sessionTemplate(environmentOf()).pullsAlways).toBe(false);
  });

  test("makes the Environment the controller, so that kubectl drain accepts the Pod", () => {
    expect(pod.metadata.ownerReferences).toEqual([
      {
        apiVersion: "berth.dev/v1alpha1",
        kind: "Environment",
        name: "research",
        uid: "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11",
        controller: true,
        blockOwnerDeletion: true,
      },
    ]);
  });

  test("describes the Pod to the operator and to people", () => {
    expect(pod.metadata).toMatchObject({
      name: NAME,
      namespace: "agents",
      labels: {
        "app.kubernetes.io/managed-by": "berth",
        "berth.dev/environment": "research",
        "berth.dev/role": "session",
        "berth.dev/phase": "warm",
        "berth.dev/template-hash": sessionTemplate(environmentOf()).hash,
      },
      annotations: {
        "berth.dev/session-container": "worker",
        "kubectl.kubernetes.io/default-container": "worker",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
        "berth.dev/about": expect.stringContaining("no fault"),
      },
    });
  });

  test("overrides a label of Berth's in a template that bypassed validation", () => {
    const environment = environmentOf();
    const { sessions } = environment.spec;
    if (!sessions) throw new Error("no sessions");
    sessions.template.metadata = {
      labels: { "berth.dev/phase": "ended", "berth.dev/template-hash": "x" },
      annotations: { "berth.dev/session-container": "other" },
    };
    const { metadata } = sessionTemplate(environment).render(NAME);
    expect(metadata.labels).toMatchObject({ "berth.dev/phase": "warm" });
    expect(metadata.labels?.["berth.dev/template-hash"]).not.toBe("x");
    expect(metadata.annotations).toMatchObject({ "berth.dev/session-container": "worker" });
  });
});

describe("the gate", () => {
  const own = [{ name: "MINE", valueFrom: { secretKeyRef: { name: "mine", key: "k" } } }];
  const template = {
    spec: {
      containers: [
        { name: "worker", image: "w:1", env: own },
        { name: "proxy", image: "p:1", env: [{ name: "X", value: "y" }] },
      ],
    },
  };
  const env = containerOf(render(template))?.env ?? [];

  test("puts the gating variable last, after all other references were resolved", () => {
    expect(env.at(-1)).toEqual({
      name: "ANTHROPIC_WORK_SECRET",
      valueFrom: { secretKeyRef: { name: NAME, key: "work-secret" } },
    });
  });

  test("holds back exactly one container", () => {
    expect(containerOf(render(template), "proxy")?.env).toEqual([{ name: "X", value: "y" }]);
  });

  test("makes no reference to the Pod's Secret optional", () => {
    const ours = env.filter(({ valueFrom }) => valueFrom?.secretKeyRef?.name === NAME);
    expect(ours.map(({ name }) => name)).toEqual([
      "ANTHROPIC_WORK_ID",
      "ANTHROPIC_SESSION_ID",
      "ANTHROPIC_WORK_SECRET",
    ]);
    expect(ours.some(({ valueFrom }) => valueFrom?.secretKeyRef?.optional)).toBe(false);
  });

  test("tells the program its environment and API, and keeps the template's base URL", () => {
    expect(env).toEqual(expect.arrayContaining([{ name: "ANTHROPIC_ENVIRONMENT_ID", value: "env_1" }]));
    expect(env).toEqual(expect.arrayContaining([{ name: "ANTHROPIC_BASE_URL", value: "https://api.anthropic.com" }]));
    const proxied = render({
      spec: {
        containers: [{ name: "worker", image: "w:1", env: [{ name: "ANTHROPIC_BASE_URL", value: "http://proxy" }] }],
      },
    });
    expect(containerOf(proxied)?.env?.filter(({ name }) => name === "ANTHROPIC_BASE_URL")).toEqual([
      { name: "ANTHROPIC_BASE_URL", value: "http://proxy" },
    ]);
  });

  test("gates the container that the default-container annotation chooses", () => {
    const chosen = render({
      metadata: { annotations: { "kubectl.kubernetes.io/default-container": "proxy" } },
      ...template,
    });
    expect(containerOf(chosen, "proxy")?.env?.at(-1)?.name).toBe("ANTHROPIC_WORK_SECRET");
    expect(containerOf(chosen)?.env).toEqual(own);
    expect(chosen.metadata.annotations).toMatchObject({
      "berth.dev/session-container": "proxy",
      "kubectl.kubernetes.io/default-container": "proxy",
    });
  });

  test("puts nothing secret into the Pod: all secrets are references", () => {
    expect(JSON.stringify(render(template))).not.toMatch(/sk-ant/);
  });
});

describe("names", () => {
  const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
  const part = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?$/);
  const environmentName = fc
    .array(part, { minLength: 1, maxLength: 6 })
    .map((parts) => parts.join(".").slice(0, MAX_ENVIRONMENT_NAME))
    .filter((name) => /[a-z0-9]$/.test(name));

  test("makes every name a valid host name, also for long names and names with dots", () => {
    fc.assert(
      fc.property(environmentName, fc.uint8Array({ minLength: 8, maxLength: 8 }), (name, bytes) => {
        expect(newPodName(name, () => bytes)).toMatch(LABEL);
      }),
      {
        examples: [
          [`a${"-".repeat(44)}b`, new Uint8Array(8)],
          ["x".repeat(46), new Uint8Array(8).fill(255)],
        ],
      },
    );
  });

  test("begins every name with berth-<environment>-, so that one pattern matches all", () => {
    expect(newPodName("research.eu")).toMatch(/^berth-research-eu-[a-z0-9]{8}$/);
  });

  test("never repeats a name", () => {
    const names = new Set(Array.from({ length: 1_000 }, () => newPodName("research")));
    expect(names.size).toBe(1_000);
  });
});

describe("hash", () => {
  const hash = (sessions: Json = {}, spec: Json = {}) => sessionTemplate(environmentOf(sessions, spec)).hash;
  const api = (more: Json) => ({ api: { keySecretRef: { name: "key" }, ...more } });

  test.each<[string, Json, Json]>([
    ["warm", { warm: 3 }, {}],
    ["maxConcurrent", { maxConcurrent: 9 }, {}],
    ["maxDurationSeconds", { maxDurationSeconds: 60 }, {}],
    ["retention", { retainEndedSeconds: 1 }, {}],
    ["pause", {}, { paused: true }],
    ["the key's Secret", {}, api({ keySecretRef: { name: "other" } })],
    ["the workspace of requests", {}, api({ workspaceId: "wrkspc_1" })],
  ])("does not change with what does not affect a Pod: %s", (_, sessions, spec) =>
    expect(hash(sessions, spec)).toBe(hash()),
  );

  test.each<[string, Json, Json]>([
    ["the image", { template: { spec: { containers: [{ name: "worker", image: "worker:2" }] } } }, {}],
    ["a label", { template: { metadata: { labels: { a: "b" } }, ...podTemplate() } }, {}],
    ["an unknown field", { template: podTemplate({ fieldOfTomorrow: 1 }) }, {}],
    ["the grace", { template: podTemplate({ terminationGracePeriodSeconds: 1 }) }, {}],
    ["the environment", {}, { environmentId: "env_2" }],
    ["the API's URL", {}, api({ baseUrl: "http://127.0.0.1:8080" })],
    ["the credential", { credential: "EnvironmentKey" }, {}],
    ["the isolation", { isolation: "Kata" }, {}],
  ])("changes with what a Pod is made from: %s", (_, sessions, spec) => expect(hash(sessions, spec)).not.toBe(hash()));

  test("is valid as a label", () => expect(hash()).toMatch(/^[a-f0-9]{12}$/));

  test("does not depend on the order of fields, but on the order of lists", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        expect(hashOf(reversed(value))).toBe(hashOf(value));
      }),
    );
    expect(hashOf([1, 2])).not.toBe(hashOf([2, 1]));
    expect(hashOf({ a: 1 })).not.toBe(hashOf({ a: "1" }));
  });
});

/** The same value with the fields of its objects in reverse order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, part]) => [key, reversed(part)]),
  );
}
