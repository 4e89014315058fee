import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { CHART, helm } from "../../tools/helm.ts";
import { releaseOf, writeReleasedChart } from "../../tools/released-chart.ts";

const IMAGE = "ghcr.io/owner/berth";
const CHARTS = "ghcr.io/owner/charts";
const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

let dir: string;
let chart: string;

const yamlOf = async (folder: string, name: string) => parse(await readFile(join(folder, name), "utf8"));

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-released-"));
  chart = await writeReleasedChart({ image: IMAGE, digest: DIGEST, charts: CHARTS, output: dir });
});
afterAll(() => rm(dir, { recursive: true }));

test("a released chart runs the image that was released with it, by its digest", async () => {
  const { code, stdout, stderr } = await helm(["template", "berth", chart]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const images = [...stdout.matchAll(/^\s+image: (.*)$/gm)].map(([, image = ""]) => parse(image));
  // The operator's, and those of the uninstall and of `helm test`.
  expect(images).toEqual(Array.from({ length: 3 }, () => `${IMAGE}@${DIGEST}`));
});

test("it differs from the chart of the repository in its image alone", async () => {
  const { image, ...values } = await yamlOf(chart, "values.yaml");
  const { image: own, ...others } = await yamlOf(CHART, "values.yaml");
  expect(values).toEqual(others);
  expect(image).toEqual({ ...own, repository: IMAGE, digest: DIGEST });
  const { annotations, ...about } = await yamlOf(chart, "Chart.yaml");
  const { annotations: before, ...same } = await yamlOf(CHART, "Chart.yaml");
  expect(about).toEqual(same);
  const images = "artifacthub.io/images";
  expect(annotations).toEqual({ ...before, [images]: expect.any(String) });
  expect(parse(annotations[images])).toEqual([{ name: "berth", image: `${IMAGE}:${about.appVersion}` }]);
});

test("what it tells people is to install it from where it is, and says of no other image", async () => {
  const readme = await readFile(join(chart, "README.md"), "utf8");
  const { version } = await yamlOf(CHART, "Chart.yaml");
  expect(readme).toContain(`helm install berth oci://${CHARTS}/berth --version ${version} --namespace berth-system`);
  expect(readme).toContain(`| \`image.repository\` | \`"${IMAGE}"\` |`);
  const texts = readme + (await readFile(join(chart, "values.yaml"), "utf8"));
  expect(texts).not.toMatch(/docker build|registry\.example\/berth|no public one/);
});

test("without a digest it runs the image by its tag", async () => {
  const output = await mkdtemp(join(dir, "tag-"));
  const path = await writeReleasedChart({ image: IMAGE, charts: CHARTS, output });
  expect((await yamlOf(path, "values.yaml")).image).toMatchObject({ repository: IMAGE, digest: "", tag: "" });
});

test("arguments that name no image, charts, folder or digest are refused by name", () => {
  const flags = ["--image", IMAGE, "--charts", CHARTS, "--output", dir];
  expect(releaseOf(flags)).toEqual({ image: IMAGE, charts: CHARTS, output: dir });
  expect(releaseOf([...flags, "--digest", DIGEST])).toMatchObject({ digest: DIGEST });
  for (const at of [0, 2, 4]) expect(() => releaseOf(flags.toSpliced(at, 2))).toThrow(flags[at]);
  for (const digest of ["", "sha256:12", "latest"])
    expect(() => releaseOf([...flags, "--digest", digest])).toThrow(/--digest/);
  expect(() => releaseOf([...flags.slice(2), "--image", `${IMAGE}:0.1.0`])).toThrow(/--image.*without a tag/);
});
