import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { CHART, helm } from "../../tools/helm.ts";

/** The block with the labels of each kind of object. The test enables these blocks. */
const OWN: Readonly<Record<string, string>> = {
  ServiceMonitor: "metrics.serviceMonitor",
  PodMonitor: "metrics.podMonitor",
  PrometheusRule: "prometheusRule",
  ConfigMap: "grafanaDashboards",
};

/** Arguments that enable a block and give it a label. */
function labelled(block: string, label: string, value: string): string[] {
  return ["--set", `${block}.enabled=true`, "--set", `${block}.labels.${label.replaceAll(".", "\\.")}=${value}`];
}

const template = (args: readonly string[]) =>
  helm(["template", "berth", CHART, "--set", "image.repository=berth", ...args]);

test("a label of one kind of object overrides the common label, and appears once", async () => {
  const own = Object.values(OWN).flatMap((block) => labelled(block, "release", "own"));
  const { stdout, stderr } = await template([...own, "--set", "labels.release=all,labels.team=agents"]);
  expect(stderr).toBe("");
  const documents = parseAllDocuments(stdout);
  // The library reports duplicate keys; helm uses the last one, and other tools refuse them.
  expect(documents.flatMap(({ errors }) => errors)).toEqual([]);
  const labels = new Map(documents.map((document) => [document.get("kind"), document.toJS()?.metadata.labels]));
  for (const kind of Object.keys(OWN))
    expect(labels.get(kind), kind).toMatchObject({ release: "own", team: "agents", "app.kubernetes.io/name": "berth" });
  expect(labels.get("Deployment")).toMatchObject({ release: "all" });
});

test.each([
  ["berth", []],
  ["agents", ["--set", "labels.app\\.kubernetes\\.io/part-of=agents"]],
])("every object is part of %s, and no selector says so", async (partOf, args) => {
  const { stdout } = await template(args);
  const all = parseAllDocuments(stdout).map((document) => document.toJS());
  expect(all.map(({ metadata }) => metadata.labels["app.kubernetes.io/part-of"])).toEqual(all.map(() => partOf));
  expect(JSON.stringify(all.map(({ spec }) => spec?.selector ?? {}))).not.toContain("part-of");
});

test("a label that the chart sets is refused in every block of labels", async () => {
  const blocks = Object.values(OWN);
  const results = await Promise.all(blocks.map((block) => template(labelled(block, "app.kubernetes.io/name", "x"))));
  for (const [at, { stderr }] of results.entries()) {
    const said = "has app.kubernetes.io/name, which the chart sets; remove it";
    expect(stderr).toContain(`${blocks[at]}.labels ${said}`);
  }
});
