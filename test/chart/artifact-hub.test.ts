import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { ROOT } from "../project/lint-gate.ts";

// The format is that of Artifact Hub's documentation of Helm annotations: each value is a string, and most are YAML.

const read = async (path: string) => parse(await readFile(join(ROOT, path), "utf8"));
const { annotations, version } = await read("charts/berth/Chart.yaml");
const of = (name: string): string => annotations[`artifacthub.io/${name}`];

test("Artifact Hub knows every annotation, and each is a string", () => {
  const known = ["category", "changes", "crds", "crdsExamples", "license", "operator", "operatorCapabilities"];
  const names = [...known, "prerelease"].map((name) => `artifacthub.io/${name}`);
  expect(Object.keys(annotations).sort()).toEqual(names.sort());
  expect(new Set(Object.values(annotations).map((value) => typeof value))).toEqual(new Set(["string"]));
});

test("the CRDs are those that the chart installs, and the example is the minimal one of the repository", async () => {
  const { metadata, spec } = await read("deploy/crds/berth.dev_environments.yaml");
  const listed = parse(of("crds"));
  const versions = spec.versions.map(({ name }: { name: string }) => name);
  expect(listed).toEqual(
    versions.map((name: string) => ({
      kind: spec.names.kind,
      version: name,
      name: metadata.name,
      displayName: spec.names.kind,
      description: expect.stringMatching(/\.$/),
    })),
  );
  expect(parse(of("crdsExamples"))).toEqual([await read("examples/environments/minimal.yaml")]);
});

test("the license and the prerelease mark match the project", async () => {
  expect(of("license")).toBe((await read("package.json")).license);
  expect(of("prerelease")).toBe(String(/^0\.|-/.test(version)));
  expect(of("operator")).toBe("true");
});

test("each change has a kind and a sentence", () => {
  const kinds = ["added", "changed", "deprecated", "removed", "fixed", "security"];
  const changes: { kind: string; description: string }[] = parse(of("changes"));
  expect(changes.length).toBeGreaterThan(0);
  for (const change of changes) {
    expect(Object.keys(change).sort()).toEqual(["description", "kind"]);
    expect(kinds).toContain(change.kind);
    expect(change.description).toMatch(/^[A-Z].*\.$/);
  }
});
