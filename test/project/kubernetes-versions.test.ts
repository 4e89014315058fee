import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { OLDEST_KUBERNETES } from "../../src/doctor/cluster-checks.ts";
import { MINIMUM_GO } from "../../testbed/cluster/go.ts";
import { kubernetesMinors, MINOR_VARIABLE, minorOf } from "../../testbed/cluster/versions.ts";
import { nodeModules } from "../../testbed/real-node/versions.ts";
import { ROOT } from "./lint-gate.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");
const minors = await kubernetesMinors();
const [oldest = "", newest = ""] = [minors[0], minors.at(-1)];

test("the chart supports the oldest tested version and all later ones", async () => {
  expect(parse(await read("charts/berth/Chart.yaml")).kubeVersion).toBe(`>=${oldest}.0-0`);
});

test("berth doctor has the same oldest version", () => {
  expect(`${OLDEST_KUBERNETES.major}.${OLDEST_KUBERNETES.minor}`).toBe(oldest);
});

test("tests run on at least two versions", () => {
  expect(new Set(minors).size).toBeGreaterThan(1);
});

test.each(["README.md", "charts/berth/README.md", "docs/kubernetes.md", "docs/releasing.md", "CHANGELOG.md"])(
  "%s names the range, and no other",
  async (page) => {
    const ranges = [...(await read(page)).matchAll(/(1\.\d+) to (1\.\d+)/g)].map(([, from, to]) => [from, to]);
    expect(ranges.length).toBeGreaterThan(0);
    for (const range of ranges) expect(range).toEqual([oldest, newest]);
  },
);

test("the real node has the newest version, which the README names", async () => {
  const kubelet = (await nodeModules()).find(({ commands }) => "kubelet" in commands);
  expect(minorOf(kubelet?.version ?? "")).toBe(newest);
  expect(await read("README.md")).toContain(`[on a real node](docs/e2e.md) with Kubernetes ${newest}.`);
});

test("docs/kubernetes.md names the oldest version, and shows how to run all tests on it", async () => {
  const page = await read("docs/kubernetes.md");
  const since = [...page.matchAll(/\| (1\.\d+) \|$/gm)].map(([, minor = ""]) => Number(minor.split(".")[1]));
  expect(Math.max(...since)).toBe(Number(oldest.split(".")[1]));
  expect(page).toContain(`${MINOR_VARIABLE}=${oldest} npm test`);
});

test("the public workflow also runs all tests on the oldest version", async () => {
  const { jobs } = parse(await read(".github/workflows/ci.yml"));
  expect(jobs["control-plane"].strategy.matrix.include).toContainEqual({ suite: "test", kubernetes: oldest });
});

test("Go in the workflows and in the worker's image is the one that builds the programs", async () => {
  for (const [file, job] of [
    ["ci.yml", "control-plane"],
    ["e2e.yml", "kind"],
  ] as const) {
    const { jobs } = parse(await read(`.github/workflows/${file}`));
    const setup = jobs[job].steps.find(({ uses = "" }) => uses.startsWith("actions/setup-go@"));
    expect(setup.with["go-version"]).toBe(MINIMUM_GO);
  }
  expect(await read("examples/images/go.Dockerfile")).toContain(`ARG BUILD_IMAGE=golang:${minorOf(MINIMUM_GO)}-`);
});

test.each([
  ...["CONTRIBUTING.md", "README.md", "demo/options.ts", "testbed/cluster/arguments.ts"],
  ...["docs/demo.md", "docs/e2e.md", "docs/images.md", "docs/kubernetes.md"],
])("%s names a version of Go that builds the programs", async (page) => {
  const named = [...(await read(page)).matchAll(/\bGo (\d[\d.]*\d)/g)].map(([, version]) => version);
  expect(named.length).toBeGreaterThan(0);
  for (const version of named) expect([MINIMUM_GO, minorOf(MINIMUM_GO)]).toContain(version);
});
