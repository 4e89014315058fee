/**
 * `node tools/released-chart.ts --image NAME [--digest sha256:...] --charts REGISTRY --output FOLDER`: a copy of the chart
 * as a release publishes it, for `helm package`. The repository's own names an image that everybody builds for himself.
 */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Document, parseDocument, stringify } from "yaml";
import { readmeWithValues } from "./chart-values.ts";
import { CHART } from "./helm.ts";

/** What a release pushes, and where the chart of it goes. */
export interface Release {
  /** Of the image, such as ghcr.io: apart from the repository, so that another one can take its place. */
  readonly registry: string;
  /** The image in it, without a tag: that is the chart's appVersion. */
  readonly repository: string;
  /** Of the image; without it the tag counts. */
  readonly digest?: string;
  /** Where charts are, without `oci://`. */
  readonly charts: string;
  /** Folder that the chart's own is made in. */
  readonly output: string;
}

/** Comments of values that a release knows more of, before and after. */
const COMMENTS: readonly (readonly [before: RegExp, after: string])[] = [
  [
    /(?<=# )Registry of the image, put before the repository\. .*/,
    "Registry of the image, put before the repository. With an image of your own, name its registry here and the rest below.",
  ],
  [/(?<=# )Where the image is, without a tag: .*/, "Where the image is in the registry, without a tag."],
  [
    /(?<=# )Tag of the image\. Empty: .*/,
    "Tag of the image. Empty: what was released with this chart, by its digest; of another registry or repository, the chart's appVersion.",
  ],
];

const IMAGES = "artifacthub.io/images";
/** What berth.image looks at. A value would be kept by --reuse-values, and with it the image of the release before. */
const OWN_IMAGE = "berth.dev/image";

/** Copies the chart and names the image in it. Resolves with its folder. @throws {Error} a text to change is not there. */
export async function writeReleasedChart(release: Release): Promise<string> {
  const { registry, repository, digest, charts, output } = release;
  const image = `${registry}/${repository}`;
  const folder = join(output, "berth");
  await cp(CHART, folder, { recursive: true });

  const about = parseDocument(await readFile(join(folder, "Chart.yaml"), "utf8"));
  about.setIn(["annotations", IMAGES], stringify([{ name: "berth", image: `${image}:${about.get("appVersion")}` }]));
  if (digest !== undefined) about.setIn(["annotations", OWN_IMAGE], `${image}@${digest}`);
  await writeFile(join(folder, "Chart.yaml"), textOf(about));

  let commented = await readFile(join(folder, "values.yaml"), "utf8");
  for (const [before, after] of COMMENTS) commented = replaced(commented, before, after);
  const values = parseDocument(commented);
  values.setIn(["image", "registry"], registry);
  values.setIn(["image", "repository"], repository);
  const text = textOf(values);
  await writeFile(join(folder, "values.yaml"), text);

  const readme = await readFile(join(folder, "README.md"), "utf8");
  const install = `helm install berth oci://${charts}/berth --version ${about.get("version")} --namespace`;
  const withoutBuild = replaced(readme, /^docker build .*\n/m, "");
  const fromCharts = replaced(withoutBuild, /^helm install berth charts\/berth --namespace/m, install);
  const asReleased = replaced(fromCharts, / --set image\.repository=\S+/, "");
  await writeFile(join(folder, "README.md"), readmeWithValues(asReleased, text));
  return folder;
}

function replaced(text: string, found: RegExp, by: string): string {
  if (!found.test(text)) throw new Error(`the chart has nothing like ${found} any more: mend tools/released-chart.ts`);
  return text.replace(found, by);
}

function textOf(document: Document): string {
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

/** @throws {Error} with what is missing or wrong. */
export function releaseOf(args: readonly string[]): Release {
  const text = { type: "string" } as const;
  const options = { image: text, digest: text, charts: text, output: text };
  const { values } = parseArgs({ args: [...args], options });
  const { image, digest, charts, output } = values;
  if (!image) throw new Error("--image is missing: name what was pushed");
  if (/[:@][^/]*$/.test(image)) throw new Error("--image: name it without a tag or digest");
  const [, registry, repository] = /^([^/]*[.:][^/]*|localhost)\/(.+)$/.exec(image) ?? [];
  if (!registry || !repository) throw new Error("--image: name it with its registry, such as ghcr.io/owner/berth");
  if (!charts) throw new Error("--charts is missing: name the registry of the chart");
  if (!output) throw new Error("--output is missing: name a folder");
  if (digest === undefined) return { registry, repository, charts, output };
  if (!/^sha256:[a-f0-9]{64}$/.test(digest)) throw new Error(`--digest: "${digest}" is no digest`);
  return { registry, repository, digest, charts, output };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(await writeReleasedChart(releaseOf(process.argv.slice(2))));
}
