import { describe, expect, test } from "vitest";
import type { Container, Pod } from "../../src/kube/resource.ts";
import { credentialOf, GATE_CONTAINER, isGatedByInit, WORK_SECRET_FILE } from "../../src/pods/pod-gate.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const NAME = "berth-research-bcdfghjk";
const KEY_OF = (key: string) => ({ secretKeyRef: { name: NAME, key } });

function render(sessions: Json, container: Json = {}, podSpec: Json = {}): Pod {
  const template = { spec: { ...podSpec, containers: [{ name: "worker", image: "worker:1", ...container }] } };
  return sessionTemplate(parsed(stored(sessionsSpec({ template, ...sessions })))).render(NAME);
}
const INIT = { parking: "Init" };
const FILE = { parking: "Init", secretDelivery: "File" };
const gateOf = (pod: Pod): Container | undefined => pod.spec.initContainers?.at(-1);
const session = (pod: Pod) => pod.spec.containers[0];
const variables = (pod: Pod) => Object.fromEntries((session(pod)?.env ?? []).map(({ name, ...from }) => [name, from]));
const volume = (pod: Pod) => pod.spec.volumes?.at(-1) as { name: string; secret: Json };

describe("parking: Key", () => {
  const pod = render({});

  test("adds no container and no volume, and no group for volumes", () => {
    expect(pod.spec.initContainers).toBeUndefined();
    expect(pod.spec.volumes).toBeUndefined();
    expect(pod.spec["securityContext"]).not.toHaveProperty("fsGroup");
    expect(isGatedByInit(pod)).toBe(false);
  });
});

describe("parking: Init", () => {
  const own = { name: "prep", image: "prep:1" };
  const pod = render(INIT, {}, { initContainers: [own], volumes: [{ name: "v", emptyDir: {} }] });

  test("adds the gate as the last init container, and keeps the template's volumes", () => {
    expect(pod.spec.initContainers?.map(({ name }) => name)).toEqual(["prep", GATE_CONTAINER]);
    expect(pod.spec.initContainers?.[0]).toMatchObject(own);
    expect(pod.spec.volumes?.[0]).toEqual({ name: "v", emptyDir: {} });
    expect(isGatedByInit(pod)).toBe(true);
  });

  test("makes the gate wait for the key that comes with the opening, without access to other keys", () => {
    expect(volume(pod).secret).toEqual({
      secretName: NAME,
      optional: true,
      defaultMode: 0o440,
      items: [{ key: "acknowledged-at", path: "acknowledged-at", mode: 0o440 }],
    });
    const [mount] = (gateOf(pod)?.["volumeMounts"] ?? []) as Json[];
    expect(mount).toMatchObject({ name: volume(pod).name, readOnly: true });
    expect(gateOf(pod)?.command?.at(-1)).toBe(`${mount?.["mountPath"]}/acknowledged-at`);
  });

  test("gives the session container its secret in the environment as usual, without a mount", () => {
    expect(variables(pod)["ANTHROPIC_WORK_SECRET"]).toEqual({ valueFrom: KEY_OF("work-secret") });
    expect(session(pod)).not.toHaveProperty("volumeMounts");
  });

  test("copies the session container for the gate, so that its faults show before a session is claimed", () => {
    const copied = {
      securityContext: { runAsUser: 10_001, runAsNonRoot: true },
      env: [{ name: "A", valueFrom: { configMapKeyRef: { name: "settings", key: "a" } } }],
      envFrom: [{ secretRef: { name: "tools" } }],
      workingDir: "/workspace",
      volumeDevices: [{ name: "disk", devicePath: "/dev/disk" }],
    };
    const mounts = [{ name: "w", mountPath: "/workspace", subPath: "agents" }];
    const gate = gateOf(
      render(INIT, { ...copied, volumeMounts: mounts, command: ["/run-it"], args: ["--now"], ports: [{}] }),
    );
    expect(gate).toMatchObject({ ...copied, image: "worker:1", imagePullPolicy: "IfNotPresent" });
    expect(gate?.["volumeMounts"]).toEqual(expect.arrayContaining(mounts));
    expect(gate?.command?.[0]).toBe("/bin/sh");
    expect(gate).not.toHaveProperty("args");
    // Not allowed in an init container, or of no use there.
    for (const field of ["ports", "lifecycle", "readinessProbe", "restartPolicy"])
      expect(gate).not.toHaveProperty(field);
  });

  test("leaves out a mount whose path needs a session's variables", () => {
    const volumeMounts = [
      { name: "w", mountPath: "/w", subPathExpr: "$(ANTHROPIC_SESSION_ID)" },
      { name: "x", mountPath: "/x" },
    ];
    const mounts = gateOf(render(INIT, { volumeMounts }))?.["volumeMounts"] as Json[];
    expect(mounts.map(({ mountPath }) => mountPath)).toEqual(["/x", "/var/run/secrets/berth.dev"]);
  });

  test("gives the gate the session's requests, but no device", () => {
    const resources = {
      requests: { cpu: "1", memory: "1Gi", "example.com/gpu": 1 },
      limits: { cpu: "2", memory: "1Gi", "ephemeral-storage": "1Gi", "example.com/gpu": 1 },
      claims: [{ name: "device" }],
    };
    expect(gateOf(render(INIT, { resources }))?.["resources"]).toEqual({
      requests: { cpu: "1", memory: "1Gi" },
      limits: { cpu: "2", memory: "1Gi", "ephemeral-storage": "1Gi" },
    });
    expect(gateOf(pod)?.["resources"]).toEqual(session(pod)?.["resources"]);
    expect(gateOf(render(INIT, { resources: {} }))?.["resources"] ?? {}).toEqual({});
  });

  test("copies the container that the default-container annotation chooses", () => {
    const template = {
      metadata: { annotations: { "kubectl.kubernetes.io/default-container": "second" } },
      spec: {
        containers: [
          { name: "first", image: "first:1" },
          { name: "second", image: "second:1" },
        ],
      },
    };
    const chosen = sessionTemplate(parsed(stored(sessionsSpec({ template, ...INIT })))).render(NAME);
    expect(gateOf(chosen)?.image).toBe("second:1");
  });

  test("mentions the init container in the annotation for people", () => {
    expect(pod.metadata.annotations?.["berth.dev/about"]).toContain(GATE_CONTAINER);
  });

  test("does not warn about Always, which contacts the registry only once for each start", () => {
    const template = { spec: { containers: [{ name: "worker", image: "w:1", imagePullPolicy: "Always" }] } };
    const always = sessionTemplate(parsed(stored(sessionsSpec({ template, ...INIT }))));
    expect([always.pullsAlways, always.pullsAgain]).toEqual([false, false]);
    expect(gateOf(always.render(NAME))?.imagePullPolicy).toBe("Always");
  });

  test("puts nothing secret into the Pod", () => {
    expect(JSON.stringify(render(FILE))).not.toMatch(/sk-ant/);
  });
});

describe("secretDelivery: File", () => {
  const pod = render(FILE, { volumeMounts: [{ name: "w", mountPath: "/w" }] });

  test("makes the secret a file for owner and group, and not a variable", () => {
    expect(volume(pod).secret).toMatchObject({
      optional: true,
      items: [{ key: "work-secret", path: "work-secret", mode: 0o440 }],
    });
    expect(variables(pod)["ANTHROPIC_WORK_SECRET_FILE"]).toEqual({ value: WORK_SECRET_FILE });
    expect(variables(pod)).not.toHaveProperty("ANTHROPIC_WORK_SECRET");
    const mounts = session(pod)?.["volumeMounts"] as Json[];
    expect(mounts).toEqual([
      { name: "w", mountPath: "/w" },
      { name: volume(pod).name, mountPath: "/var/run/secrets/berth.dev", readOnly: true },
    ]);
  });

  test("makes the gate wait for the file that is delivered", () => {
    expect(gateOf(pod)?.command?.at(-1)).toBe(WORK_SECRET_FILE);
  });

  test("holds the container back with a variable even if the gate ends too early", () => {
    expect(session(pod)?.env?.at(-1)).toEqual({
      name: "BERTH_ACKNOWLEDGED_AT",
      valueFrom: KEY_OF("acknowledged-at"),
    });
  });

  const contextOf = (container: Json, podSpec: Json) => render(FILE, container, podSpec).spec["securityContext"];
  const ON_MISMATCH = { fsGroupChangePolicy: "OnRootMismatch" };

  test.each<[string, Json, Json, Json]>([
    ["nothing", {}, {}, { ...ON_MISMATCH, fsGroup: 65_532 }],
    ["a user", { securityContext: { runAsUser: 7 } }, {}, { ...ON_MISMATCH, fsGroup: 65_532 }],
    ["the container's group", { securityContext: { runAsGroup: 8 } }, {}, { ...ON_MISMATCH, fsGroup: 8 }],
    ["the Pod's group", {}, { securityContext: { runAsGroup: 9 } }, { ...ON_MISMATCH, runAsGroup: 9, fsGroup: 9 }],
    ["both", { securityContext: { runAsGroup: 8 } }, { securityContext: { runAsGroup: 9 } }, { fsGroup: 8 }],
    ["an fsGroup", {}, { securityContext: { fsGroup: 10 } }, { fsGroup: 10 }],
    ["group root", {}, { securityContext: { fsGroup: 0 } }, { fsGroup: 0 }],
    [
      "a policy for group changes",
      {},
      { securityContext: { fsGroupChangePolicy: "Always" } },
      { fsGroupChangePolicy: "Always", fsGroup: 65_532 },
    ],
  ])("sets the file's group if the template names %s", (_, container, podSpec, expected) => {
    expect(contextOf(container, podSpec)).toMatchObject(expected);
  });

  test("keeps the template's fsGroup and all fields next to it", () => {
    const securityContext = { fsGroup: 10, seccompProfile: { type: "RuntimeDefault" } };
    expect(contextOf({}, { securityContext })).toEqual({ runAsNonRoot: true, ...securityContext });
  });
});

describe("credential", () => {
  test("EnvironmentKey sets the key's own variable, and no work secret", () => {
    const pod = render({ credential: "EnvironmentKey" });
    expect(session(pod)?.env?.at(-1)).toEqual({ name: "ANTHROPIC_ENVIRONMENT_KEY", valueFrom: KEY_OF("work-secret") });
    expect(variables(pod)).not.toHaveProperty("ANTHROPIC_WORK_SECRET");
    expect(credentialOf(pod, "worker")).toBe("EnvironmentKey");
  });

  test.each([{}, INIT, FILE])("reads WorkSecret from the Pod: %o", (sessions) => {
    expect(credentialOf(render(sessions), "worker")).toBe("WorkSecret");
  });

  test("ignores another container's variable of that name", () => {
    const pod = render({});
    pod.spec.containers.push({ name: "other", env: [{ name: "ANTHROPIC_ENVIRONMENT_KEY", value: "x" }] });
    expect(credentialOf(pod, "worker")).toBe("WorkSecret");
  });
});

test("gives each way of parking and delivery its own hash", () => {
  const hash = (sessions: Json) =>
    sessionTemplate(parsed(stored(sessionsSpec({ template: podTemplate(), ...sessions })))).hash;
  const hashes = [{}, INIT, FILE, { credential: "EnvironmentKey" }].map(hash);
  expect(new Set(hashes).size).toBe(hashes.length);
});
