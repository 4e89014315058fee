import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { parseManifests } from "../../testbed/cluster/manifests.ts";
import { CHART } from "../../tools/helm.ts";
import { helmWithValues, Rendered, render, type Values } from "../support/chart.ts";

/** A chart with Berth as a dependency. */
let parent: string;

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), "berth-parent-"));
  const dependencies = [{ name: "berth", version: "*", condition: "berth.enabled" }];
  await writeFile(
    join(parent, "Chart.yaml"),
    stringify({ apiVersion: "v2", name: "platform", version: "1.0.0", dependencies }),
  );
  await cp(CHART, join(parent, "charts/berth"), { recursive: true });
});
afterAll(() => rm(parent, { recursive: true }));

async function rendered(values: Values): Promise<Rendered> {
  const args = ["template", "platform", parent, "--set", "berth.image.repository=berth"];
  const { code, stdout, stderr } = await helmWithValues(args, values);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return new Rendered(parseManifests(stdout, "the parent chart"));
}

test("a parent chart enables and disables it by its condition, and sets its values", async () => {
  const [off, on] = await Promise.all([
    rendered({ berth: { enabled: false } }),
    rendered({ berth: { enabled: true, replicas: 2, podLabels: null } }),
  ]);
  expect(off.objects).toEqual([]);
  expect(on.one("Deployment").spec.replicas).toBe(2);
});

test("a parent's pull secrets may be names, as in other charts, or objects", async () => {
  const { pod, testPod, uninstallPod } = await render("berth-system", {
    global: { imagePullSecrets: ["regcred", { name: "mirror" }] },
    imagePullSecrets: [{ name: "regcred" }],
  });
  for (const spec of [pod, testPod, uninstallPod])
    expect(spec).toMatchObject({ imagePullSecrets: [{ name: "regcred" }, { name: "mirror" }] });
});
