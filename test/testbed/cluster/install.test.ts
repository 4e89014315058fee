import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DEPLOY_DIR } from "../../../testbed/cluster/install.ts";
import { parseManifests, readManifests } from "../../../testbed/cluster/manifests.ts";
import { OPERATOR } from "../../../testbed/cluster/users.ts";
import { temporaryDir } from "./temporary.ts";

describe("manifests", () => {
  it("are read from all files of a folder, by name, without its subfolders", async () => {
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
    ["isn't YAML", "a: [", /^f: /],
    ["isn't an object", "- 1", "f contains an object without kind or name"],
    ["has no name", "kind: A\nmetadata: {}", "f contains an object without kind or name"],
  ])("are rejected if one %s", (_name, text, message) => {
    expect(() => parseManifests(text, "f")).toThrow(message);
  });
});

describe("the operator's permissions", () => {
  it("are shipped for the service account in the operator's kubeconfig", async () => {
    const objects = await readManifests(DEPLOY_DIR);
    const subjects = objects
      .filter(({ kind }) => /^(Cluster)?RoleBinding$/.test(kind ?? ""))
      .flatMap((object) => object["subjects"]);
    const [, , namespace, name] = OPERATOR.split(":");
    expect(subjects.length).toBeGreaterThan(0);
    for (const subject of subjects) expect(subject).toEqual({ kind: "ServiceAccount", namespace, name });
  });
});
