import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { pagesOf } from "../../site/pages.ts";
import { chartValues } from "../../tools/chart-values.ts";
import { ROOT } from "./lint-gate.ts";

const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
  readonly scripts: Readonly<Record<string, string>>;
};
const values = chartValues();

/** Joins continued lines. */
const linesOf = (block: string) => block.replaceAll(/\\\n\s*/g, "").split("\n");

/** Commands of a page: the lines of code blocks without a language or with a shell's, also in a list. */
function commandsIn(text: string): string[] {
  return [...text.matchAll(/^( *)```(?:sh|bash|console)?\n([\s\S]*?)^\1```/gm)].flatMap(([, indent = "", block = ""]) =>
    linesOf(block).map((line) => line.slice(line.startsWith(indent) ? indent.length : 0).replace(/^\$ /, "")),
  );
}

/** Commands within a sentence. */
const mentionedIn = (text: string) =>
  [...text.matchAll(/`((?:kubectl|helm|berth) [^`\n]+)`/g)].map(([, line = ""]) => line);

const pages = await Promise.all(
  (await pagesOf()).map(async (page) => ({ page, text: await readFile(join(ROOT, page), "utf8") })),
);
const commands = pages.map(({ page, text }) => ({ page, lines: commandsIn(text) }));

const WORKFLOWS = ".github/workflows";
/** Lines that the steps of each workflow run. */
const workflows = await Promise.all(
  (await readdir(join(ROOT, WORKFLOWS))).map(async (name) => {
    const page = `${WORKFLOWS}/${name}`;
    const { jobs } = parse(await readFile(join(ROOT, page), "utf8")) as {
      readonly jobs: Readonly<Record<string, { readonly steps?: readonly { readonly run?: string }[] }>>;
    };
    const steps = Object.values(jobs).flatMap((job) => job.steps ?? []);
    return { page, lines: steps.flatMap(({ run = "" }) => linesOf(run)) };
  }),
);

/** Deployments of the rendered chart, by name, with their namespaces. */
const deployments = new Map(
  parseAllDocuments(await readFile(join(ROOT, "deploy/operator.yaml"), "utf8"))
    .map((document) => document.toJS() as { kind: string; metadata: { name: string; namespace: string } })
    .filter(({ kind }) => kind === "Deployment")
    .map(({ metadata }) => [metadata.name, metadata.namespace]),
);

/** Scripts of package.json that a line runs, without npm's own commands. */
const scriptsIn = (line: string) => [...line.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map(([, name = ""]) => name);
/**
 * Files and folders of the repository in a line. For kubectl, `deploy/x` is a Deployment, except when it is applied.
 */
const pathsIn = (line: string) =>
  /^kubectl .*\b(exec|logs|rollout|scale|get) /.test(line)
    ? []
    : [...line.matchAll(/(?<![\w./:@=-])((?:examples|charts|deploy|tools|testbed)\/[\w./-]*\w)/g)].map(
        ([, path = ""]) => path,
      );
/** Values of the chart that a helm command sets. */
const valuesIn = (line: string) =>
  /\bhelm(\.ts)? /.test(line) && line.includes("charts/berth")
    ? [...line.matchAll(/--set(?:-string|-json)?[ =]['"]?([\w.[\]]+)=/g)].map(([, key = ""]) => key)
    : [];
/** Whether a key is a value, a map of values, or a key inside a map with user-defined keys. */
const isValue = (key: string) =>
  values.some(
    (value) =>
      value.key === key ||
      value.key.startsWith(`${key}.`) ||
      (value.default.startsWith("{") && key.startsWith(`${value.key}.`)),
  );
/** Deployments in a line, with the namespace that the line gives for each, if any. */
function deploymentsIn(line: string): { name: string; namespace: string | undefined }[] {
  const [, within] = /\s(?:-n|--namespace)[ =](\S+)/.exec(line) ?? [];
  const name = "([a-z0-9][a-z0-9-]*)(?![\\w.=/])";
  const named = /\bkubectl /.test(line)
    ? // After -f or -k, deploy/ is a folder of this repository.
      [...line.replaceAll(/\s(?:-f|-k) \S+/g, "").matchAll(RegExp(`\\bdeploy(?:ments?)?(?:\\.apps)?[/ ]${name}`, "g"))]
    : [];
  const flagged = [...line.matchAll(RegExp(`--deployment[ =]([a-z0-9-]+)/${name}`, "g"))];
  return [
    ...named.map(([, found = ""]) => ({ name: found, namespace: within })),
    ...flagged.map(([, namespace, found = ""]) => ({ name: found, namespace })),
  ];
}
/** Deployments that the rendered chart does not have, or has in another namespace. */
const missingIn = (line: string) =>
  deploymentsIn(line).filter(({ name, namespace }) => {
    const rendered = deployments.get(name);
    return rendered === undefined || (namespace !== undefined && namespace !== rendered);
  });

/** Labels with which a line selects objects in the operator's namespace. */
const labelsIn = (line: string) => {
  const [, selector = ""] = (line.includes("-n berth-system ") && / -l ([\w./=,-]+)/.exec(line)) || [];
  return selector === "" ? [] : selector.split(",");
};

describe.each(
  commands.filter(({ lines }) => lines.some((line) => /npm run|helm |docker build|kubectl apply/.test(line))),
)("commands of $page", ({ lines }) => {
  test("run existing scripts of package.json", () => {
    expect(lines.flatMap(scriptsIn).filter((name) => !(name in manifest.scripts))).toEqual([]);
  });

  test("name existing files", async () => {
    for (const path of lines.flatMap(pathsIn)) await expect(stat(join(ROOT, path)), path).resolves.toBeDefined();
  });

  test("set existing values of the chart", () => {
    expect(lines.flatMap(valuesIn).filter((key) => !isValue(key))).toEqual([]);
  });
});

describe("the chart's Deployments and values", () => {
  test("exist if a page names them in a command or a sentence", () => {
    const named = pages.flatMap(({ page, text }) =>
      [...commandsIn(text), ...mentionedIn(text)].map((line) => ({ page, line })),
    );
    expect(named.filter(({ line }) => missingIn(line).length > 0)).toEqual([]);
    expect(named.filter(({ line }) => valuesIn(line).some((key) => !isValue(key)))).toEqual([]);
    // Guards against patterns that match nothing.
    expect(named.flatMap(({ line }) => deploymentsIn(line)).length).toBeGreaterThan(5);
    expect(named.flatMap(({ line }) => valuesIn(line)).length).toBeGreaterThan(5);
  });

  test("exist if a workflow names them", () => {
    const lines = workflows.flatMap(({ page, lines }) => lines.map((line) => ({ page, line })));
    expect(lines.filter(({ line }) => missingIn(line).length > 0)).toEqual([]);
    expect(lines.filter(({ line }) => valuesIn(line).some((key) => !isValue(key)))).toEqual([]);
    expect(lines.flatMap(({ line }) => valuesIn(line))).toContain("metrics.serviceMonitor.enabled");
  });
});

/** Strings that a line sets from a shell variable with --set: helm turns a short hash of digits only into a number. */
const untypedIn = (line: string) =>
  [...line.matchAll(/--set[ =]['"]?([\w.]+)=["']?\$/g)]
    .map(([, key = ""]) => key)
    .filter((key) => values.some((value) => value.key === key && value.default.startsWith('"')));

test("commands set a string from a variable with --set-string", () => {
  const lines = commands.flatMap(({ page, lines }) => lines.map((line) => ({ page, line })));
  expect(lines.filter(({ line }) => untypedIn(line).length > 0)).toEqual([]);
  expect(untypedIn("helm upgrade berth charts/berth --set image.tag=$tag --set replicas=$n")).toEqual(["image.tag"]);
});

test("commands select the chart's objects by labels that do not depend on its values or the release's name", () => {
  const picked = pages.flatMap(({ page, text }) =>
    [...commandsIn(text), ...mentionedIn(text)].flatMap((line) => labelsIn(line).map((label) => ({ page, label }))),
  );
  const isChanged = (label: string) => /^app\.kubernetes\.io\/(name|instance)=/.test(label);
  expect(picked.filter(({ label }) => isChanged(label))).toEqual([]);
  expect(picked.filter(({ label }) => label === "berth.dev/role=operator").length).toBeGreaterThan(5);
});

test("finds errors in commands", () => {
  expect(labelsIn("kubectl -n berth-system logs -l a.b/c=d,e --tail=5")).toEqual(["a.b/c=d", "e"]);
  expect(scriptsIn("npm ci && npm run demmo -- --for 60s")).toEqual(["demmo"]);
  expect(pathsIn("docker build -f examples/images/x.Dockerfile examples")).toEqual(["examples/images/x.Dockerfile"]);
  expect(pathsIn("kubectl -n berth-system exec deploy/berth-operator -- true")).toEqual([]);
  expect(valuesIn("helm install berth charts/berth --set image.repo=x --set 'namespaces={a,b}'")).toEqual([
    "image.repo",
    "namespaces",
  ]);
  expect(valuesIn('node tools/helm.ts template berth charts/berth --set-string "image.tag=1" --set=a[0]=b')).toEqual([
    "image.tag",
    "a[0]",
  ]);
  expect(["image.tag", "image", "resources.limits.memory"].filter((key) => !isValue(key))).toEqual([]);
  expect(["image.repo", "image.tag.x", "imag"].filter(isValue)).toEqual([]);
  expect(commandsIn("1. Do:\n\n   ```\n   helm a \\\n     --set b=c\n   ```\n")).toEqual(["helm a --set b=c", ""]);
  expect(mentionedIn("Restart it (`kubectl -n x rollout restart deployment y`).")).toEqual([
    "kubectl -n x rollout restart deployment y",
  ]);
});

test.each([
  ["kubectl -n berth-system exec deploy/berth-operatr -- true", 1],
  ["kubectl -n agents rollout status deployment/berth-operator", 1],
  ["kubectl -n berth-system rollout restart deployment berth", 1],
  ["berth uninstall --deployment berth/berth-operator", 1],
  ["berth doctor --deployment=berth-system/berth-operator", 0],
  ["kubectl rollout status deployment/berth-operator", 0],
  ["kubectl -n berth-system port-forward deployment/berth-operator 8083", 0],
  ["kubectl apply --server-side -f deploy/crds/", 0],
  ["kubectl apply --server-side -k deploy/", 0],
  ["kubectl get benv,deployments,pods -n berth-demo", 0],
  ["kubectl port-forward deployment/...", 0],
])("finds in %j %i Deployments that the chart does not have", (line, count) => {
  expect(missingIn(line)).toHaveLength(count);
});
