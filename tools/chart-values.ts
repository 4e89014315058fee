/**
 * Writes the table of values in the chart's README from values.yaml: each key with its default and the comment above
 * it. `--check` writes nothing and exits with code 1 if the table is out of date.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMap, isNode, isScalar, type Pair, parseDocument, type YAMLMap } from "yaml";

const ROOT = new URL("../", import.meta.url);
const VALUES = "charts/berth/values.yaml";
const README = "charts/berth/README.md";

/** The README's text between these marks is generated. */
const BEGIN = "<!-- values: generated from values.yaml by tools/chart-values.ts -->\n";
const END = "<!-- /values -->";

/** One value that a user can set. */
export interface ChartValue {
  /** With dots: `image.tag`. */
  readonly key: string;
  /** As JSON. */
  readonly default: string;
  /** The comment above it; empty if there is none. */
  readonly about: string;
}

/** Maps with free-form keys: each counts as one value. */
const WHOLE = new Set(["resources", "grafanaDashboards.labels"]);

/** Every value of values.yaml, in order. */
export function chartValues(text: string = readFileSync(new URL(VALUES, ROOT), "utf8")): ChartValue[] {
  const { contents } = parseDocument(text);
  if (!isMap(contents)) throw new Error(`${VALUES} is not a map`);
  return valuesIn(contents, "");
}

function valuesIn(map: YAMLMap, prefix: string): ChartValue[] {
  // The yaml package assigns a comment above a map's first key to the map.
  let first = map.commentBefore;
  return map.items.flatMap((pair): ChartValue[] => {
    const { key, value } = pair as Pair;
    if (!isScalar(key)) throw new Error(`a key below "${prefix}" is not a scalar`);
    const name = prefix + String(key.value);
    const comment = key.commentBefore ?? first;
    first = null;
    if (isMap(value) && value.items.length > 0 && !WHOLE.has(name)) return valuesIn(value, `${name}.`);
    const json = isNode(value) ? value.toJSON() : value;
    return [{ key: name, default: JSON.stringify(json), about: aboutOf(comment) }];
  });
}

/** The comment lines directly above. Lines before an empty line describe a group. */
function aboutOf(comment: string | null | undefined): string {
  const [last = ""] = (comment ?? "").split("\n\n").slice(-1);
  return last
    .split("\n")
    .map((line) => line.trim())
    .join(" ");
}

/**
 * The README with a current table.
 * @param values the text of values.yaml
 */
export function readmeWithValues(
  readme: string = readFileSync(new URL(README, ROOT), "utf8"),
  values: string = readFileSync(new URL(VALUES, ROOT), "utf8"),
): string {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`${README} has no place for the values: ${BEGIN}${END}`);
  const rows = chartValues(values).map(({ key, default: value, about }) =>
    [key, value]
      .map((cell) => `\`${cell}\``)
      .concat(about)
      .map(cell)
      .join(" | "),
  );
  const table = ["| Value | Default | Meaning |", "|---|---|---|", ...rows.map((row) => `| ${row} |`)].join("\n");
  return `${readme.slice(0, begin)}${BEGIN}${table}\n${readme.slice(end)}`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

function main(args: readonly string[]): number {
  const readme = readmeWithValues();
  if (args.includes("--check")) {
    if (readFileSync(new URL(README, ROOT), "utf8") === readme) return 0;
    console.error(`${README} is out of date: run npm run generate`);
    return 1;
  }
  writeFileSync(new URL(README, ROOT), readme);
  return 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = main(process.argv.slice(2));
