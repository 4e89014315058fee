import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import type { ApiObject } from "../../testbed/cluster/api.ts";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import { parseManifests, readManifests } from "../../testbed/cluster/manifests.ts";
import { dryRun } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const SAMPLES = join(import.meta.dirname, "..", "..", "examples", "environments");

describe("the plain manifests", () => {
  test("are each accepted by the API server", async () => {
    const objects = [...(await readManifests(DEPLOY_DIR)), ...(await readManifests(join(DEPLOY_DIR, "crds")))];
    expect(objects.map(({ kind }) => kind)).toContain("Deployment");
    for (const object of objects) await dryRun(cluster.api, object);
  });

  test("have no helm label, which would mark them as helm's", async () => {
    const text = JSON.stringify(await readManifests(DEPLOY_DIR));
    expect(text).not.toMatch(/[Hh]elm/);
  });
});

describe("the kustomization", () => {
  test("contains exactly the objects of the plain manifests", async () => {
    const objects = [...(await readManifests(DEPLOY_DIR)), ...(await readManifests(join(DEPLOY_DIR, "crds")))];
    const rendered = await kustomize(DEPLOY_DIR);
    expect(rendered).toHaveLength(objects.length);
    expect(byName(rendered)).toEqual(byName(objects));
  });

  test("can be the base of an overlay, for example one that sets the image", async () => {
    const folder = await mkdtemp(join(tmpdir(), "berth-overlay-"));
    try {
      await cp(DEPLOY_DIR, join(folder, "base"), { recursive: true });
      // As in docs/install.md.
      await writeFile(join(folder, "kustomization.yaml"), OVERLAY);
      const deployment = (await kustomize(folder)).find(({ kind }) => kind === "Deployment");
      expect(deployment).toMatchObject({
        spec: { template: { spec: { containers: [{ image: "registry.example/berth:0.1.0" }] } } },
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

const OVERLAY = `resources: [base]
images: [{name: berth, newName: registry.example/berth, newTag: 0.1.0}]
`;

async function kustomize(folder: string): Promise<ApiObject[]> {
  const kubectl = join(await findClientTools(), "kubectl");
  const { stdout } = await promisify(execFile)(kubectl, ["kustomize", folder]);
  return parseManifests(stdout, "the kustomization");
}

function byName(objects: readonly ApiObject[]): Record<string, ApiObject> {
  return Object.fromEntries(objects.map((object) => [`${object.kind} ${object.metadata?.name}`, object]));
}

describe("the samples", async () => {
  const names = (await readdir(SAMPLES)).filter((name) => name.endsWith(".yaml"));

  test("exist", () => expect(names.length).toBeGreaterThan(2));

  test.each(names)("%s is accepted by the API server without losing fields", async (name) => {
    const namespace = await cluster.createNamespace("samples");
    const objects = parseManifests(await readFile(join(SAMPLES, name), "utf8"), name);
    expect(objects.some(({ kind }) => kind === "Environment")).toBe(true);
    for (const object of objects) {
      const path = `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/${object.metadata?.name}`;
      const query = "fieldManager=samples&fieldValidation=Strict";
      const taken = await cluster.api.request("PATCH", `${path}?${query}`, {
        body: { ...object, metadata: { ...object.metadata, namespace } },
        contentType: "application/apply-patch+yaml",
      });
      // Nothing was pruned, as a misspelled field would be.
      expect(taken["spec"]).toMatchObject(object["spec"] as object);
    }
  });
});
