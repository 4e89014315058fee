import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { ROOT } from "../project/lint-gate.ts";
import { render, type Values } from "../support/chart.ts";

// A values file with an empty `podLabels:`, or with only comments below it, gives helm a null, which removes the
// chart's own value. The test takes all maps and lists from values.yaml.

const TEMPLATES = join(ROOT, "charts/berth/templates");
const NAMESPACE = "berth-system";

type Path = readonly string[];
type Tree = { [key: string]: unknown };

const defaults: Tree = parse(await readFile(join(ROOT, "charts/berth/values.yaml"), "utf8"));

/** Paths of all maps and lists below. */
function collectionsIn(values: Tree, prefix: Path = []): Path[] {
  return Object.entries(values).flatMap(([key, value]): Path[] => {
    if (typeof value !== "object" || value === null) return [];
    const path = [...prefix, key];
    return [path, ...(Array.isArray(value) ? [] : collectionsIn(value as Tree, path))];
  });
}

const at = (path: Path) => path.reduce<unknown>((values, key) => (values as Tree)[key], defaults);
const isEmpty = (path: Path) => Object.keys(at(path) as object).length === 0;

/** Returns values with these entries replacing the defaults. */
function having(entries: readonly (readonly [Path, unknown])[]): Tree {
  const values: Tree = {};
  for (const [path, value] of entries) put(values, path, value);
  return values;
}

function put(values: Tree, [key = "", ...rest]: Path, value: unknown): void {
  if (rest.length === 0) {
    values[key] = value;
    return;
  }
  const inner = (values[key] ?? {}) as Tree;
  values[key] = inner;
  put(inner, rest, value);
}

/** Enables everything that is off by default, so that templates read its values. */
function everythingOn(): [Path, unknown][] {
  const switches = collectionsIn(defaults)
    .filter((path) => (at(path) as Tree)["enabled"] === false)
    .map((path): [Path, unknown] => [[...path, "enabled"], true]);
  return [...switches, [["prometheusRule", "parkedPods"], true], [["webhook", "secret"], "webhooks"]];
}

const objectsOf = async (values: Values) => (await render(NAMESPACE, values)).objects;

test("nulls for values that are empty by default change nothing", async () => {
  const empty = collectionsIn(defaults).filter(isEmpty);
  expect(empty).toContainEqual(["prometheusRule", "alerts"]);
  const nulls = empty.map((path): [Path, unknown] => [path, null]);
  const [given, expected] = await Promise.all([
    objectsOf(having([...everythingOn(), ...nulls])),
    objectsOf(having(everythingOn())),
  ]);
  expect(given).toEqual(expected);
});

test("a null block counts as disabled, or is refused by name if the chart needs it", async () => {
  const blocks = collectionsIn(defaults).filter((path) => !isEmpty(path));
  const refused: string[] = [];
  for (;;) {
    const nulls = blocks.filter((path) => path.length === 1 && !refused.includes(path[0] ?? ""));
    const message = await objectsOf(having(nulls.map((path) => [path, null]))).then(() => undefined, String);
    if (message === undefined) break;
    const name = /(\S+) is null; remove the key to use the chart's values, or give it values/.exec(message)?.[1];
    expect(name, message).toBeDefined();
    expect(refused).not.toContain(name);
    refused.push(name ?? "");
  }
  const kept = [
    "allowedApiOrigins",
    "crds",
    "features",
    "health",
    "image",
    "metrics",
    "podDisruptionBudget",
    "rbac",
    "serviceAccount",
    "uninstall",
  ];
  expect(refused.sort()).toEqual(kept);
  const inner = blocks.filter((path) => path.length > 1).map((path): [Path, unknown] => [path, null]);
  await objectsOf(having([...everythingOn(), ...inner]));
});

test("every template checks for nulls first, since helm guarantees no order of rendering", async () => {
  const late: string[] = [];
  for (const name of (await readdir(TEMPLATES)).filter((file) => !file.startsWith("_"))) {
    const [first = ""] = (await readFile(join(TEMPLATES, name), "utf8")).match(/\{\{-? (?!\/\*).*?\}\}/) ?? [];
    if (!/include "berth\.(nulls|check)"/.test(first)) late.push(name);
  }
  expect(late).toEqual([]);
});
