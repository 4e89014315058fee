import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { OLDEST_KUBERNETES } from "../../src/doctor/cluster-checks.ts";
import { kubernetesMinors, MINOR_VARIABLE } from "../../testbed/cluster/versions.ts";
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
