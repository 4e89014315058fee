/**
 * `node tools/released-chart.ts --image NAME [--digest sha256:...] [--source URL] --charts REGISTRY --output FOLDER`:
 * copies the chart as a release publishes it, for `helm package`. The chart in the repository names no image, because
 * users build it themselves.
 */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Document, parseDocument, stringify } from "yaml";
import { readmeWithValues } from "./chart-values.ts";
import { CHART } from "./helm.ts";

/** What a release pushes, and the registry of its chart. */
export interface Release {
  /** The image's registry, such as ghcr.io. It is separate from the repository, so that a mirror can replace it. */
  readonly registry: string;
  /** The image's repository, without a tag: the tag is the chart's appVersion. */
  readonly repository: string;
  /** The image's digest; without one, the tag applies. */
  readonly digest?: string;
  /** The repository's address, such as https://github.com/owner/berth; without one, nothing links to its pages. */
  readonly source?: string;
  /** The registry of charts, without `oci://`. */
  readonly charts: string;
  /** The folder that the chart's folder is created in. */
  readonly output: string;
}

/** Comments of values that are more specific in a release, before and after. */
const COMMENTS: readonly (readonly [before: RegExp, after: string])[] = [
  [
    /(?<=# )Registry of the image, a prefix of the repository\. .*/,
    "Registry of the image, a prefix of the repository. For your own image, set its registry here and the rest below.",
  ],
  [/(?<=# )Repository of the image, without a tag\. .*/, "Repository of the image, without a tag."],
  [
    /(?<=# )Tag of the image\. Empty: .*/,
    "Tag of the image. Empty: the image of this release, by its digest. With another registry or repository: the chart's appVersion.",
  ],
];

const IMAGES = "artifacthub.io/images";
const LINKS = "artifacthub.io/links";
/** The platforms in release.yml, which a test compares. */
const PLATFORMS = ["linux/amd64", "linux/arm64"];
/**
 * The annotation that berth.image reads. --reuse-values would keep a value, and with it the previous release's image.
 */
const OWN_IMAGE = "berth.dev/image";
/** The annotation that berth.runbooks reads, which is not a value for the same reason. */
const OWN_RUNBOOKS = "berth.dev/runbooks";

/**
 * Copies the chart and sets its image. Resolves with the chart's folder.
 * @throws {Error} a text to change is missing
 */
export async function writeReleasedChart(release: Release): Promise<string> {
  const { registry, repository, digest, source, charts, output } = release;
  const image = `${registry}/${repository}`;
  const folder = join(output, "berth");
  await cp(CHART, folder, { recursive: true });

  const about = parseDocument(await readFile(join(folder, "Chart.yaml"), "utf8"));
  const tagged = `${image}:${about.get("appVersion")}`;
  about.setIn(["annotations", IMAGES], stringify([{ name: "berth", image: tagged, platforms: PLATFORMS }]));
  if (digest !== undefined) about.setIn(["annotations", OWN_IMAGE], `${image}@${digest}`);
  if (source !== undefined) {
    const pages = `${source}/blob/v${about.get("version")}`;
    about.set("home", source);
    // Helm copies the first one to the OCI annotation by which a forge links the chart to its repository.
    about.set("sources", [source]);
    about.setIn(["annotations", LINKS], stringify(linksOf(source, pages)));
    about.setIn(["annotations", OWN_RUNBOOKS], `${pages}/docs/runbooks`);
  }
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

/** Artifact Hub shows "support" as the place to report an issue. */
function linksOf(source: string, pages: string): { readonly name: string; readonly url: string }[] {
  return [
    { name: "support", url: `${source}/issues` },
    { name: "installation", url: `${pages}/docs/install.md` },
    { name: "verification of a release", url: `${pages}/docs/releasing.md#verify-a-release` },
    { name: "changelog", url: `${pages}/CHANGELOG.md` },
  ];
}

function replaced(text: string, found: RegExp, by: string): string {
  if (!found.test(text)) throw new Error(`found no ${found} in the chart: update tools/released-chart.ts`);
  return text.replace(found, by);
}

function textOf(document: Document): string {
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

/** @throws {Error} what is missing or wrong */
export function releaseOf(args: readonly string[]): Release {
  const text = { type: "string" } as const;
  const options = { image: text, digest: text, source: text, charts: text, output: text };
  const { values } = parseArgs({ args: [...args], options });
  const { image, digest, source, charts, output } = values;
  if (!image) throw new Error("--image is missing: use the pushed image, with its registry");
  if (/[:@][^/]*$/.test(image)) throw new Error("--image: remove the tag or digest");
  const [, registry, repository] = /^([^/]*[.:][^/]*|localhost)\/(.+)$/.exec(image) ?? [];
  if (!registry || !repository) throw new Error("--image: add the registry, for example ghcr.io/owner/berth");
  if (!charts) throw new Error("--charts is missing: use the registry of the chart");
  if (!output) throw new Error("--output is missing: use a folder");
  if (digest !== undefined && !/^sha256:[a-f0-9]{64}$/.test(digest))
    throw new Error(`--digest: "${digest}" is not a digest; use sha256:...`);
  if (source !== undefined && !/^https:\/\/\S+[^/]$/.test(source))
    throw new Error(`--source: "${source}" is not an https URL without a slash at its end`);
  return { registry, repository, ...(digest && { digest }), ...(source && { source }), charts, output };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(await writeReleasedChart(releaseOf(process.argv.slice(2))));
}
