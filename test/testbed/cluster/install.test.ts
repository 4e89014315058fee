import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bindingForUser, DEPLOY_DIR } from "../../../testbed/cluster/install.ts";
import { parseManifests, readManifests } from "../../../testbed/cluster/manifests.ts";
import { temporaryDir } from "./temporary.ts";

describe("manifests", () => {
  it("are read from all files of a folder, by name, without folders in it", async () => {
    const dir = await temporaryDir();
    await writeFile(join(dir, "b.yml"), "kind: B\nmetadata: {name: b}\n");
    await writeFile(
      join(dir, "a.yaml"),
      "# first\n---\nkind: A\nmetadata: {name: a1}\n---\nkind: A\nmetadata: {name: a2}\n",
    );
    await writeFile(join(dir, "notes.txt"), "kind: C");
    await mkdir(join(dir, "crds"));
    await writeFile(join(dir, "crds", "c.yaml"), "kind: C\nmetadata: {name: c}\n");
    expect((await readManifests(dir)).map((object) => object.metadata?.name)).toEqual(["a1", "a2", "b"]);
  });

  it.each([
    ["is no YAML", "a: [", /^f: /],
    ["is no object", "- 1", "f holds something without kind and name"],
    ["has no name", "kind: A\nmetadata: {}", "f holds something without kind and name"],
  ])("are refused when one %s", (_name, text, message) => {
    expect(() => parseManifests(text, "f")).toThrow(message);
  });
});

describe("the operator's rights", () => {
  it("are given to its user beside its service account", () => {
    const binding = {
      kind: "RoleBinding",
      metadata: { name: "leader", namespace: "berth-system" },
      roleRef: { kind: "Role", name: "leader" },
      subjects: [{ kind: "ServiceAccount", name: "berth-operator", namespace: "berth-system" }],
    };
    expect(bindingForUser(binding)).toEqual({
      ...binding,
      metadata: { name: "leader-user", namespace: "berth-system" },
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "berth-operator" }],
    });
  });

  it.each([
    ["no binding", { kind: "ClusterRole", metadata: { name: "r" } }],
    ["somebody else's", { kind: "ClusterRoleBinding", subjects: [{ kind: "ServiceAccount", name: "other" }] }],
    ["a group's", { kind: "ClusterRoleBinding", subjects: [{ kind: "Group", name: "berth-operator" }, null] }],
  ])("are not in %s", (_name, object) => {
    expect(bindingForUser(object)).toBeUndefined();
  });

  it("are in the manifests that are shipped", async () => {
    const objects = await readManifests(DEPLOY_DIR);
    const kinds = objects.filter((object) => bindingForUser(object)).map((object) => object.kind);
    expect(kinds).toContain("ClusterRoleBinding");
  });
});
