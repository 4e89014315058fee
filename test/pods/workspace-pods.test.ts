import { describe, expect, test } from "vitest";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const NAME = "berth-research-bcdfghjk";
const VOLUME = "berth-workspace";
const PER_SESSION = { type: "PerSession", claimTemplate: { resources: { requests: { storage: "1Gi" } } } };

const templateOf = (workspace: Json, template: Json = podTemplate()) =>
  sessionTemplate(parsed(stored(sessionsSpec({ workspace, template }))));
const podOf = (workspace: Json, template?: Json) => templateOf(workspace, template).render(NAME);
const hashOf = (workspace: Json) => templateOf(workspace).hash;

describe("workspace type Pod", () => {
  test("mounts a volume of the Pod in the session container, beside the template's own", () => {
    const template = podTemplate({
      containers: [
        { name: "worker", image: "worker:1", volumeMounts: [{ name: "tmp", mountPath: "/tmp" }] },
        { name: "proxy", image: "proxy:1" },
      ],
      volumes: [{ name: "tmp", emptyDir: {} }],
    });
    const { spec, metadata } = podOf({ type: "Pod", mountPath: "/home/agent" }, template);
    expect(spec["volumes"]).toEqual([
      { name: "tmp", emptyDir: {} },
      { name: VOLUME, emptyDir: {} },
    ]);
    expect(spec.containers.map(({ volumeMounts }) => volumeMounts)).toEqual([
      [
        { name: "tmp", mountPath: "/tmp" },
        { name: VOLUME, mountPath: "/home/agent" },
      ],
      undefined,
    ]);
    // Such a Pod is made for any session.
    expect(metadata.annotations).not.toHaveProperty("berth.dev/workspace");
  });

  test("limits the volume's size if the spec does", () => {
    const { spec } = podOf({ type: "Pod", sizeLimit: "10Gi" });
    expect(spec["volumes"]).toEqual([{ name: VOLUME, emptyDir: { sizeLimit: "10Gi" } }]);
  });

  test.each([
    ["the default group", {}, { fsGroup: 65_532, fsGroupChangePolicy: "OnRootMismatch" }],
    ["the Pod's runAsGroup", { runAsGroup: 7 }, { fsGroup: 7, fsGroupChangePolicy: "OnRootMismatch" }],
    ["the template's fsGroup", { fsGroup: 8, runAsGroup: 7 }, { fsGroup: 8, fsGroupChangePolicy: undefined }],
  ])("gives the volume to %s only with PerSession, where other users could not write to it", (_, given, group) => {
    const contextOf = (workspace: Json) =>
      podOf(workspace, podTemplate({ securityContext: given })).spec["securityContext"] as Json;
    const context = contextOf(PER_SESSION);
    expect({ ...group, ...context }).toEqual(context);
    expect(context["fsGroupChangePolicy"]).toBe(group.fsGroupChangePolicy);
    expect(contextOf({ type: "Pod" })["fsGroup"]).toBe((given as Json)["fsGroup"]);
  });
});

describe("the template's hash", () => {
  test("differs with each field of the workspace that is in the Pod", () => {
    const workspaces = [
      {},
      { type: "Pod" },
      { type: "Pod", mountPath: "/data" },
      { type: "Pod", sizeLimit: "1Gi" },
      PER_SESSION,
      { ...PER_SESSION, mountPath: "/data" },
    ];
    expect(new Set(workspaces.map(hashOf)).size).toBe(workspaces.length);
  });

  test("is the same for workspaces that give the same Pod", () => {
    expect(hashOf({ type: "Ephemeral", mountPath: "/data" })).toBe(hashOf({}));
    expect(hashOf({ ...PER_SESSION, retainSeconds: 60 })).toBe(hashOf(PER_SESSION));
  });
});

describe("a template's own mounts", () => {
  const SEED = { name: "seed", image: "worker:1", volumeMounts: [{ name: VOLUME, mountPath: "/seed" }] };

  test.each([{ type: "Pod" }, PER_SESSION])("may be of the workspace in an init container, with %o", (workspace) => {
    const template = templateOf(workspace, podTemplate({ initContainers: [SEED] }));
    expect(template.mountProblem).toBeNull();
    expect(template.render(NAME).spec.initContainers?.[0]).toMatchObject(SEED);
  });

  test("can't be of the workspace with type Ephemeral, which has none", () => {
    const [tmp, mount] = [{ name: "tmp", mountPath: "/tmp" }, SEED.volumeMounts[0]];
    const initContainers = [
      { name: "prep", image: "prep:1" },
      { ...SEED, volumeMounts: [tmp, mount] },
    ];
    expect(templateOf({}, podTemplate({ initContainers })).mountProblem).toBe(
      "spec.sessions.template.spec.initContainers[1].volumeMounts[1].name: there is no volume berth-workspace with workspace type Ephemeral; set spec.sessions.workspace.type to Pod or PerSession, or remove the mount",
    );
  });

  test("can't be at the workspace's path in the session container", () => {
    const proxy = { name: "proxy", image: "proxy:1", volumeMounts: [{ name: "own", mountPath: "/workspace" }] };
    const template = (session: Json) => ({
      metadata: { annotations: { "kubectl.kubernetes.io/default-container": "worker" } },
      ...podTemplate({
        containers: [proxy, { ...proxy, name: "worker", ...session }],
        volumes: [{ name: "own", emptyDir: {} }],
      }),
    });
    expect(templateOf({ type: "Pod" }, template({})).mountProblem).toBe(
      "spec.sessions.template.spec.containers[1].volumeMounts[0].mountPath: Berth mounts the workspace at /workspace; remove this mount, or set spec.sessions.workspace.mountPath to another path",
    );
    expect(templateOf({ type: "Pod", mountPath: "/data" }, template({})).mountProblem).toBeNull();
    expect(templateOf({ type: "Pod" }, template({ volumeMounts: [] })).mountProblem).toBeNull();
    expect(templateOf({}, template({})).mountProblem).toBeNull();
  });
});
