import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import { parseManifests, readManifests } from "../../testbed/cluster/manifests.ts";
import { dryRun } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const SAMPLES = join(import.meta.dirname, "..", "..", "examples", "environments");

describe("the plain manifests", () => {
  test("are taken by the API server, each of them", async () => {
    const objects = [...(await readManifests(DEPLOY_DIR)), ...(await readManifests(join(DEPLOY_DIR, "crds")))];
    expect(objects.map(({ kind }) => kind)).toContain("Deployment");
    for (const object of objects) await dryRun(cluster.api, object);
  });

  test("bear no label of helm's, which would own them", async () => {
    const text = JSON.stringify(await readManifests(DEPLOY_DIR));
    expect(text).not.toMatch(/[Hh]elm/);
  });
});

describe("the samples", async () => {
  const names = (await readdir(SAMPLES)).filter((name) => name.endsWith(".yaml"));

  test("are there", () => expect(names.length).toBeGreaterThan(2));

  test.each(names)("%s is taken by the API server, and what it shows is kept", async (name) => {
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
      // Nothing was pruned: a misspelled field would be.
      expect(taken["spec"]).toMatchObject(object["spec"] as object);
    }
  });
});
