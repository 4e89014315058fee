import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { pagesOf } from "../../site/pages.ts";
import { chartValues } from "../../tools/chart-values.ts";
import { ROOT } from "./lint-gate.ts";

const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
  readonly scripts: Readonly<Record<string, string>>;
};
const values = chartValues().map(({ key }) => key);

/** Commands of a page: lines between fences that are of no language, or of a shell's. What is continued is one line. */
async function commandsOf(page: string): Promise<string[]> {
  const text = await readFile(join(ROOT, page), "utf8");
  return [...text.matchAll(/^```(?:sh|bash|console)?\n([\s\S]*?)^```/gm)].flatMap(([, block = ""]) =>
    block.replaceAll(/\\\n\s*/g, "").split("\n"),
  );
}

const commands = await Promise.all((await pagesOf()).map(async (page) => ({ page, lines: await commandsOf(page) })));

/** Scripts of package.json that a line runs; npm's own words are none. */
const scriptsIn = (line: string) => [...line.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map(([, name = ""]) => name);
/** Files and folders of the repository that a line names. To kubectl, `deploy/x` is a Deployment, unless it is to apply it. */
const pathsIn = (line: string) =>
  /^kubectl .*\b(exec|logs|rollout|scale|get) /.test(line)
    ? []
    : [...line.matchAll(/(?<![\w./:@=-])((?:examples|charts|deploy|tools|testbed)\/[\w./-]*\w)/g)].map(
        ([, path = ""]) => path,
      );
/** Values of the chart that a line of helm's sets. */
const valuesIn = (line: string) =>
  line.startsWith("helm ") && line.includes("charts/berth")
    ? [...line.matchAll(/--set '?([\w.]+)=/g)].map(([, key = ""]) => key)
    : [];

describe.each(
  commands.filter(({ lines }) => lines.some((line) => /npm run|helm |docker build|kubectl apply/.test(line))),
)("commands of $page", ({ lines }) => {
  test("run scripts that package.json has", () => {
    expect(lines.flatMap(scriptsIn).filter((name) => !(name in manifest.scripts))).toEqual([]);
  });

  test("name files that are there", async () => {
    for (const path of lines.flatMap(pathsIn)) await expect(stat(join(ROOT, path)), path).resolves.toBeDefined();
  });

  test("set values that the chart has", () => {
    const known = (key: string) => values.some((value) => value === key || value.startsWith(`${key}.`));
    expect(lines.flatMap(valuesIn).filter((key) => !known(key))).toEqual([]);
  });
});

test("what is wrong in a command is seen", () => {
  expect(scriptsIn("npm ci && npm run demmo -- --for 60s")).toEqual(["demmo"]);
  expect(pathsIn("docker build -f examples/images/x.Dockerfile examples")).toEqual(["examples/images/x.Dockerfile"]);
  expect(pathsIn("kubectl -n berth-system exec deploy/berth-operator -- true")).toEqual([]);
  expect(valuesIn("helm install berth charts/berth --set image.repo=x --set 'namespaces={a,b}'")).toEqual([
    "image.repo",
    "namespaces",
  ]);
});
