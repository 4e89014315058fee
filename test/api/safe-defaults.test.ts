import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { PodTemplate } from "../../src/api/pod-template.ts";
import { DEFAULT_RESOURCES, withSafeDefaults } from "../../src/api/safe-defaults.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, sessionsSpec, stored, workersSpec } from "./environments.ts";

const RESTRICTED = { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } };

const podOf = (spec: Json, container: Json = {}) =>
  withSafeDefaults(
    { spec: { containers: [{ name: "worker", image: "worker:1", ...container }], ...spec } } as PodTemplate,
    "worker",
  ).spec;
const containerOf = (container: Json, spec: Json = {}) => podOf(spec, container).containers[0];
const resourcesOf = (container: Json, spec: Json = {}) => containerOf(container, spec)?.["resources"];
const contextOf = (securityContext: Json, spec: Json = {}) =>
  containerOf({ securityContext }, spec)?.["securityContext"];

describe("a template that names only an image", () => {
  test("gets all that Pod Security restricted requires, resources, and neither a token nor service links", () => {
    expect(podOf({})).toEqual({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 120,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          name: "worker",
          image: "worker:1",
          resources: { requests: { cpu: "100m", memory: "256Mi" }, limits: { memory: "2Gi" } },
          securityContext: RESTRICTED,
          terminationMessagePolicy: "FallbackToLogsOnError",
        },
      ],
    });
    expect(podOf({}, { terminationMessagePolicy: "File" })).toMatchObject({
      containers: [{ terminationMessagePolicy: "File" }],
    });
  });

  test("treats null as missing, for tools that fill in templates", () => {
    const nothing = {
      automountServiceAccountToken: null,
      enableServiceLinks: null,
      securityContext: { runAsNonRoot: null, seccompProfile: null },
      resources: null,
    };
    const container = {
      resources: null,
      securityContext: { allowPrivilegeEscalation: null, capabilities: { drop: null } },
      terminationMessagePolicy: null,
    };
    expect(podOf(nothing, container)).toEqual(podOf({}));
    expect(podOf({ securityContext: null }, { securityContext: null })).toEqual(podOf({}));
    expect(resourcesOf({ resources: { requests: null, limits: { memory: null } } })).toEqual(DEFAULT_RESOURCES);
  });

  test("gets no user and no group: the image's files belong to the image's user", () => {
    expect(JSON.stringify(podOf({}))).not.toMatch(/runAsUser|runAsGroup|fsGroup/);
  });

  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  const withCommand = { spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] } };
  test.each([
    ["a session's Pod", sessionTemplate(parsed(stored(sessionsSpec({ template })))).render("x")],
    ["one that waits in a shell", sessionTemplate(parsed(stored(sessionsSpec({ template: withCommand })))).render("x")],
    ["a worker's Pod", workerTemplate(parsed(stored(workersSpec({ template })))).render("x")],
  ])("%s fits Pod Security restricted in all its containers", (_, { spec }) => {
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    });
    for (const container of [...spec.containers, ...(spec.initContainers ?? [])]) {
      expect(container).toMatchObject({ securityContext: RESTRICTED, resources: DEFAULT_RESOURCES });
    }
  });
});

describe("each field of the template wins", () => {
  test.each<[string, Json, Json]>([
    ["automountServiceAccountToken", { automountServiceAccountToken: true }, { automountServiceAccountToken: true }],
    ["enableServiceLinks", { enableServiceLinks: true }, { enableServiceLinks: true }],
    ["terminationGracePeriodSeconds", { terminationGracePeriodSeconds: 0 }, { terminationGracePeriodSeconds: 0 }],
    [
      "a seccomp profile",
      { securityContext: { seccompProfile: { type: "Localhost", localhostProfile: "a.json" } } },
      {
        securityContext: { runAsNonRoot: true, seccompProfile: { type: "Localhost", localhostProfile: "a.json" } },
      },
    ],
    ["runAsNonRoot", { securityContext: { runAsNonRoot: false } }, { securityContext: { runAsNonRoot: false } }],
    [
      "other fields",
      { securityContext: { runAsUser: 10_001, fsGroup: 7 } },
      { securityContext: { runAsUser: 10_001, fsGroup: 7, runAsNonRoot: true } },
    ],
  ])("of the Pod: %s", (_, spec, expected) => {
    const pod = podOf(spec);
    expect(pod).toMatchObject(expected);
    expect(pod.securityContext).toHaveProperty("seccompProfile");
  });

  test.each<[string, Json, Json]>([
    ["allowPrivilegeEscalation", { allowPrivilegeEscalation: true }, { allowPrivilegeEscalation: true }],
    [
      "a capability that is added",
      { capabilities: { add: ["NET_BIND_SERVICE"] } },
      { capabilities: { add: ["NET_BIND_SERVICE"], drop: ["ALL"] } },
    ],
    ["dropped capabilities", { capabilities: { drop: ["NET_RAW"] } }, { capabilities: { drop: ["NET_RAW"] } }],
    ["no dropped capabilities", { capabilities: { drop: [] } }, { capabilities: { drop: [] } }],
    ["other fields", { readOnlyRootFilesystem: true }, { readOnlyRootFilesystem: true }],
  ])("of a container: %s", (_, own, expected) => expect(contextOf(own)).toEqual({ ...RESTRICTED, ...expected }));

  test("adds no field that contradicts a privileged container, since the API server would refuse it", () => {
    expect(contextOf({ privileged: true })).toEqual({ privileged: true });
    expect(contextOf({ privileged: false })).toEqual({ privileged: false, ...RESTRICTED });
  });

  test("allows escalation for CAP_SYS_ADMIN, for the same reason, and nothing else", () => {
    expect(contextOf({ capabilities: { add: ["CAP_SYS_ADMIN"] } })).toEqual({
      capabilities: { add: ["CAP_SYS_ADMIN"], drop: ["ALL"] },
    });
  });

  test("sets no runAsNonRoot for a Pod that runs as root", () => {
    expect(podOf({ securityContext: { runAsUser: 0 } }).securityContext).toEqual({
      runAsUser: 0,
      seccompProfile: { type: "RuntimeDefault" },
    });
  });

  test("allows root for a container that runs as root, and not for others of the Pod", () => {
    const { securityContext, containers } = withSafeDefaults(
      {
        spec: {
          containers: [
            { name: "worker", image: "worker:1" },
            { name: "root", image: "root:1", securityContext: { runAsUser: 0 } },
          ],
        },
      } as PodTemplate,
      "worker",
    ).spec;
    expect(securityContext).toMatchObject({ runAsNonRoot: true });
    expect(containers.map((container) => container["securityContext"])).toEqual([
      RESTRICTED,
      { runAsUser: 0, runAsNonRoot: false, ...RESTRICTED },
    ]);
  });

  test("keeps the contradiction of a template that both sets and forbids root, so that the kubelet reports it", () => {
    expect(contextOf({ runAsUser: 0 }, { securityContext: { runAsNonRoot: true } })).not.toHaveProperty("runAsNonRoot");
    expect(contextOf({ runAsUser: 0, runAsNonRoot: true })).toMatchObject({ runAsUser: 0, runAsNonRoot: true });
  });

  test("restricts init containers and sidecars in the same way, but adds no resources", () => {
    const { initContainers, containers } = podOf({
      initContainers: [
        { name: "prep", image: "prep:1" },
        { name: "sidecar", image: "s:1", restartPolicy: "Always", securityContext: { runAsUser: 7 } },
      ],
    });
    expect(initContainers).toEqual([
      { name: "prep", image: "prep:1", securityContext: RESTRICTED },
      { name: "sidecar", image: "s:1", restartPolicy: "Always", securityContext: { runAsUser: 7, ...RESTRICTED } },
    ]);
    expect(containers).toHaveLength(1);
  });

  test("gives Windows Pods only what the API server accepts for them", () => {
    const pod = podOf({ os: { name: "windows" } });
    expect(pod.securityContext).toEqual({ runAsNonRoot: true });
    expect(pod.containers[0]).not.toHaveProperty("securityContext");
  });
});

describe("resources", () => {
  test.each<[string, Json, Json]>([
    [
      "a limit of memory: the API server uses it as the request",
      { limits: { memory: "1Gi" } },
      { requests: { cpu: "100m" }, limits: { memory: "1Gi" } },
    ],
    [
      "a request of memory: a default limit could be below it",
      { requests: { memory: "8Gi" } },
      { requests: { cpu: "100m", memory: "8Gi" }, limits: {} },
    ],
    ["CPU", { limits: { cpu: "2" } }, { requests: { memory: "256Mi" }, limits: { cpu: "2", memory: "2Gi" } }],
    [
      "other resources",
      { limits: { "example.com/gpu": 1 }, claims: [{ name: "device" }] },
      {
        requests: { cpu: "100m", memory: "256Mi" },
        limits: { "example.com/gpu": 1, memory: "2Gi" },
        claims: [{ name: "device" }],
      },
    ],
    ["explicitly nothing", {}, {}],
  ])("the template names %s", (_, resources, expected) => expect(resourcesOf({ resources })).toEqual(expected));

  test("resources of the whole Pod bound all of it, so none are added", () => {
    expect(resourcesOf({}, { resources: { limits: { memory: "512Mi" } } })).toBeUndefined();
  });

  test("only the session's container gets any", () => {
    const { containers } = podOf({
      containers: [
        { name: "proxy", image: "proxy:1" },
        { name: "worker", image: "worker:1" },
      ],
    });
    expect(containers.map(({ resources }) => resources)).toEqual([undefined, DEFAULT_RESOURCES]);
  });
});

describe("any template", () => {
  const value = fc.jsonValue({ maxDepth: 3 });
  const context = fc.dictionary(
    fc.constantFrom("runAsUser", "runAsNonRoot", "privileged", "capabilities", "seccompProfile", "other"),
    value,
  );
  const container = fc.record(
    { name: fc.constantFrom("worker", "other"), image: fc.constant("i:1"), securityContext: context, resources: value },
    { requiredKeys: ["name"] },
  );
  const spec = fc.record(
    {
      containers: fc.array(container, { minLength: 1 }),
      initContainers: fc.array(container),
      securityContext: context,
    },
    { requiredKeys: ["containers"] },
  );

  test("keeps all its fields, and gets no more defaults the second time", () => {
    fc.assert(
      fc.property(spec, (own) => {
        const before = JSON.stringify(own);
        const template = { spec: own } as unknown as PodTemplate;
        const once = withSafeDefaults(template, "worker");
        expect(JSON.stringify(own)).toBe(before);
        expect(withSafeDefaults(once, "worker")).toEqual(once);
        for (const [field, said] of Object.entries(own.securityContext ?? {})) {
          if (said !== null) expect(once.spec.securityContext).toHaveProperty([field], said);
        }
        own.containers.forEach(({ securityContext = {} }, index) => {
          for (const field of ["runAsUser", "runAsNonRoot", "privileged", "seccompProfile", "other"]) {
            if ((securityContext[field] ?? null) === null) continue;
            expect(once.spec.containers[index]?.["securityContext"]).toHaveProperty([field], securityContext[field]);
          }
        });
      }),
    );
  });
});
