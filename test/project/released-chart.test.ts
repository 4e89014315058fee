import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { parseManifests } from "../../testbed/cluster/manifests.ts";
import { CHART } from "../../tools/helm.ts";
import { releaseOf, writeReleasedChart } from "../../tools/released-chart.ts";
import { helmWithValues, Rendered, type Values } from "../support/chart.ts";
import { ROOT } from "./lint-gate.ts";

const IMAGE = "ghcr.io/owner/berth";
const CHARTS = "ghcr.io/owner/charts";
const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

const SOURCE = "https://forge.example/owner/berth";
const LATER = `sha256:${"fedcba9876543210".repeat(4)}`;

let dir: string;
let chart: string;
/** The tag of the image. */
let version: string;

const yamlOf = async (folder: string, name: string) => parse(await readFile(join(folder, name), "utf8"));

/** Writes the chart of a release into its own folder. */
async function released(...more: readonly string[]): Promise<string> {
  const output = await mkdtemp(join(dir, "chart-"));
  return await writeReleasedChart(releaseOf(["--image", IMAGE, "--charts", CHARTS, "--output", output, ...more]));
}

/**
 * The image of the operator, the uninstall and `helm test`. @throws {Error} if they differ, or helm refuses the values.
 */
async function imageOf(folder: string, values: Values = {}): Promise<string> {
  const { code, stdout, stderr } = await helmWithValues(["template", "berth", folder], values);
  if (code !== 0 || stderr !== "") throw new Error(stderr);
  const images = [...stdout.matchAll(/^\s+image: (.*)$/gm)].map(([, image = ""]) => parse(image));
  const [image] = images;
  if (images.length !== 3 || images.some((other) => other !== image)) throw new Error(`images: ${images.join(" ")}`);
  return image;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-released-"));
  chart = await released("--digest", DIGEST);
  version = (await yamlOf(CHART, "Chart.yaml")).appVersion;
});
afterAll(() => rm(dir, { recursive: true }));

test("a released chart runs the image of its release, by digest", async () => {
  expect(await imageOf(chart)).toBe(`${IMAGE}@${DIGEST}`);
});

test("an upgrade that reuses the values of the previous release runs the new image", async () => {
  const later = await released("--digest", LATER);
  // Values that --reuse-values passes to the new chart: the old chart's defaults, and the user's values.
  const reused = await yamlOf(chart, "values.yaml");
  expect(await imageOf(later, reused)).toBe(`${IMAGE}@${LATER}`);
  expect(await imageOf(later, { ...reused, replicas: 2 })).toBe(`${IMAGE}@${LATER}`);
});

test.each<[string, Values, () => string]>([
  ["a tag", { image: { tag: "1.2.3" } }, () => `${IMAGE}:1.2.3`],
  ["a digest", { image: { digest: LATER } }, () => `${IMAGE}@${LATER}`],
  ["another repository", { image: { repository: "team/berth" } }, () => `ghcr.io/team/berth:${version}`],
  ["another registry", { image: { registry: "mirror.example" } }, () => `mirror.example/owner/berth:${version}`],
  [
    "a parent's registry",
    { global: { imageRegistry: "mirror.example" } },
    () => `mirror.example/owner/berth:${version}`,
  ],
  [
    "a parent's registry, and the digest there",
    { global: { imageRegistry: "mirror.example" }, image: { digest: DIGEST } },
    () => `mirror.example/owner/berth@${DIGEST}`,
  ],
])("%s overrides the digest of the release", async (_name, values, image) => {
  expect(await imageOf(chart, values)).toBe(image());
});

test("it differs from the repository's chart only in the image", async () => {
  const { image, ...values } = await yamlOf(chart, "values.yaml");
  const { image: own, ...others } = await yamlOf(CHART, "values.yaml");
  expect(values).toEqual(others);
  expect(image).toEqual({ ...own, registry: "ghcr.io", repository: "owner/berth" });
  const { annotations, ...about } = await yamlOf(chart, "Chart.yaml");
  const { annotations: before, ...same } = await yamlOf(CHART, "Chart.yaml");
  expect(about).toEqual(same);
  const images = "artifacthub.io/images";
  expect(annotations).toEqual({ ...before, [images]: expect.any(String), "berth.dev/image": `${IMAGE}@${DIGEST}` });
  const release = parse(await readFile(join(ROOT, ".github/workflows/release.yml"), "utf8"));
  const { with: build } = release.jobs.publish.steps.find(({ id }: { id?: string }) => id === "build");
  const platforms = build.platforms.split(",");
  expect(parse(annotations[images])).toEqual([{ name: "berth", image: `${IMAGE}:${version}`, platforms }]);
});

test("it names its repository, and Artifact Hub's links lead to existing pages of this version", async () => {
  const { home, sources, annotations } = await yamlOf(await released("--source", SOURCE), "Chart.yaml");
  expect([home, sources]).toEqual([SOURCE, [SOURCE]]);
  const links: { name: string; url: string }[] = parse(annotations["artifacthub.io/links"]);
  expect(links).toContainEqual({ name: "support", url: `${SOURCE}/issues` });
  const pages = links.filter(({ name }) => name !== "support").map(({ url }) => url);
  for (const url of pages) {
    const [page = "", anchor] = url.replace(`${SOURCE}/blob/v${version}/`, "").split("#");
    const text = await readFile(join(ROOT, page), "utf8");
    if (anchor !== undefined) expect(text).toMatch(new RegExp(`^## ${anchor.replaceAll("-", " ")}$`, "im"));
  }
});

test("its alerts and its dashboard link to the runbooks of its release, or to a copy of yours", async () => {
  const runbooks = `${SOURCE}/blob/v${version}/docs/runbooks`;
  const linked = await released("--source", SOURCE);
  const linksOf = async (folder: string, runbookUrl?: string) => {
    const { stdout, stderr } = await helmWithValues(["template", "berth", folder], {
      prometheusRule: { enabled: true, ...(runbookUrl === undefined ? {} : { runbookUrl }) },
      grafanaDashboards: { enabled: true },
    });
    const objects = new Rendered(parseManifests(stdout, stderr));
    const { links } = JSON.parse(objects.one("ConfigMap").data?.["berth.json"] ?? "{}") as {
      links: { url?: string }[];
    };
    const [group] = objects.one("PrometheusRule").spec.groups ?? [];
    return [group?.rules[0]?.annotations["runbook_url"], ...links.flatMap(({ url = [] }) => url)];
  };
  expect(await linksOf(linked)).toEqual([`${runbooks}/BerthOperatorDown.md`, runbooks]);
  const own = "https://pages.example/runbooks";
  expect(await linksOf(linked, `${own}/`)).toEqual([`${own}/BerthOperatorDown.md`, own]);
  expect(await linksOf(chart)).toEqual([undefined]);
});

test("its texts explain the installation from its registry, and mention no other image", async () => {
  const readme = await readFile(join(chart, "README.md"), "utf8");
  const { version: ofChart } = await yamlOf(CHART, "Chart.yaml");
  expect(readme).toContain(`helm install berth oci://${CHARTS}/berth --version ${ofChart} --namespace berth-system`);
  expect(readme).toContain('| `image.registry` | `"ghcr.io"` |');
  expect(readme).toContain('| `image.repository` | `"owner/berth"` |');
  const texts = readme + (await readFile(join(chart, "values.yaml"), "utf8"));
  expect(texts).not.toMatch(/docker build|registry\.example\/berth|no public one/);
});

test("without a digest it runs the image by tag", async () => {
  expect(await imageOf(await released())).toBe(`${IMAGE}:${version}`);
});

test("a missing or invalid image, charts address, folder or digest is refused by name", () => {
  const flags = ["--image", IMAGE, "--charts", CHARTS, "--output", dir];
  const release = { registry: "ghcr.io", repository: "owner/berth", charts: CHARTS, output: dir };
  expect(releaseOf(flags)).toEqual(release);
  expect(releaseOf(["--image", "localhost:5000/berth", ...flags.slice(2)])).toMatchObject({
    registry: "localhost:5000",
    repository: "berth",
  });
  expect(releaseOf([...flags, "--digest", DIGEST])).toMatchObject({ digest: DIGEST });
  expect(releaseOf([...flags, "--source", SOURCE])).toMatchObject({ source: SOURCE });
  for (const source of ["owner/berth", `${SOURCE}/`])
    expect(() => releaseOf([...flags, "--source", source])).toThrow(/--source/);
  for (const at of [0, 2, 4]) expect(() => releaseOf(flags.toSpliced(at, 2))).toThrow(flags[at]);
  for (const digest of ["", "sha256:12", "latest"])
    expect(() => releaseOf([...flags, "--digest", digest])).toThrow(/--digest/);
  expect(() => releaseOf([...flags.slice(2), "--image", `${IMAGE}:0.1.0`])).toThrow(/--image.*remove the tag/);
  for (const image of ["berth", "owner/berth"])
    expect(() => releaseOf([...flags.slice(2), "--image", image])).toThrow(/--image.*add the registry/);
});
