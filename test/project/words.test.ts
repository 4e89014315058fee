import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LANDING, pagesOf } from "../../site/pages.ts";
import { ROOT } from "./lint-gate.ts";
import { commentsOf, type Passage, passagesOf } from "./passages.ts";
import { MOST_WORDS, WORDS, WORDS_OF_MESSAGES } from "./words.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");

const filesBelow = async (folder: string, names: RegExp) =>
  (await readdir(join(ROOT, folder), { recursive: true }))
    .map((name) => `${folder}/${name}`)
    .filter((path) => names.test(path) && !/\/(node_modules|dist|cache)\//.test(path));

const SCRIPTS = /\.m?[jt]s$/;
/** Folders with programs that print texts for readers. */
const PROGRAMS = ["src", "bench", "bin", "demo", "simulator", "site", "testbed", "tools"];
/** Folders without texts for readers. Their comments, and the names of tests, use the same words. */
const INNER = ["model", "test"];
/** The words themselves. */
const LIST = /^test\/project\/words(\.test)?\.ts$/;

const scriptsBelow = async (folders: readonly string[]) =>
  (await Promise.all(folders.map((folder) => filesBelow(folder, SCRIPTS)))).flat();

/** Pages, and files with messages, descriptions or comments. The CRD is generated from literals in src/api. */
const files = [
  ...(await pagesOf()),
  LANDING,
  "vitest.config.ts",
  ...(await scriptsBelow([...PROGRAMS, ...INNER])),
  ...(await filesBelow("charts/berth", /\.(ya?ml|tpl|txt)$|dashboards\/.*\.json$/)),
  ...(await filesBelow("examples", /\.(ya?ml|mjs|py|go|Dockerfile)$/)),
  ...(await filesBelow("demo", /\.ya?ml$/)),
  ...(await filesBelow("init", /\.(c|md)$/)),
].filter((path) => !path.endsWith("/crds.yaml") && !LIST.test(path));

const anyCase = (words: typeof WORDS) => words.map(({ avoid, write }) => ({ avoid: new RegExp(avoid, "i"), write }));
const AVOIDED = anyCase(WORDS);
const AVOIDED_IN_MESSAGES = anyCase([...WORDS, ...WORDS_OF_MESSAGES]);

const isInner = (path: string) => INNER.some((folder) => path.startsWith(`${folder}/`));

/** Sentences end before a capital letter, a digit or code. */
const sentencesOf = (text: string) => text.split(/(?<=[.!?])["')]*\s+(?=["'(]*[A-Z0-9])/);

function findingsIn(path: string, text: string): string[] {
  const avoided = path.startsWith("src/") ? AVOIDED_IN_MESSAGES : AVOIDED;
  const texts = passagesOf(path, text).flatMap((passage) => [
    ...avoidedIn(path, passage, avoided),
    ...(isInner(path) ? [] : longIn(path, passage)),
  ]);
  return [...texts, ...commentsOf(path, text).flatMap((passage) => avoidedIn(path, passage, AVOIDED))];
}

function avoidedIn(path: string, { line, text }: Passage, avoided: typeof WORDS): string[] {
  return avoided.flatMap(({ avoid, write }) => {
    const [found] = avoid.exec(text) ?? [];
    return found === undefined ? [] : [`${path}:${line}: "${found}": write ${write}`];
  });
}

function longIn(path: string, { line, text }: Passage): string[] {
  return sentencesOf(text).flatMap((sentence) => {
    const count = sentence.split(/\s+/).filter((word) => /\w/.test(word)).length;
    const start = sentence.slice(0, 50);
    return count > MOST_WORDS ? [`${path}:${line}: ${count} words, at most ${MOST_WORDS}: "${start}..."`] : [];
  });
}

test.each(files)("%s is plain English", async (path) => {
  expect(findingsIn(path, await read(path))).toEqual([]);
});

describe("a text is reported", () => {
  const long = `It ${"also ".repeat(MOST_WORDS)}ends.`;

  test.each([
    ["a page", "page.md", "# One\n\nWe mend it.\n", ['page.md:3: "mend": write fix']],
    ["a cell", "page.md", "| a | b |\n|---|---|\n| x; done anew | y |\n", ['page.md:3: "anew": write again']],
    ["the text of a link", "page.md", "[for good](mend.md)\n", ['page.md:1: "for good": write permanently']],
    ["a capital letter", "page.md", "Mended.\n", ['page.md:1: "Mended": write fix']],
    ["a long sentence", "page.md", `Short.\n${long}\n`, [expect.stringContaining("page.md:2: 32 words, at most 30")]],
    ["a message", "a.ts", 'const a = 1;\nfail("is told of by now");\n', ['a.ts:2: "is told of": write is reported']],
    ["a template", "a.ts", `fail(\`$\{name} is tried anew\`);\n`, ['a.ts:1: "anew": write again']],
    [
      "a sum over a break",
      "a.ts",
      'const a = "it is " +\n  "for good now";\n',
      ['a.ts:1: "for good": write permanently'],
    ],
    ["a nested message", "a.ts", `f(a ? "then it is mended" : "");\n`, ['a.ts:1: "mended": write fix']],
    [
      "a comment of values",
      "values.yaml",
      "a: 1\n# Kept for\n# good here.\n",
      ['values.yaml:2: "for good": write permanently'],
    ],
    [
      "a folded description",
      "alerts.yaml",
      "description: >-\n  This was\n  mended now.\nb: 1\n",
      ['alerts.yaml:1: "mended": write fix'],
    ],
    [
      "a message of Helm",
      "a.tpl",
      '{{- fail (printf "%s is left as ever" .x) }}\n',
      ['a.tpl:1: "as ever": write as usual'],
    ],
    ["a doc comment", "a.ts", "/**\n * Kept for\n * good.\n */\n", ['a.ts:1: "for good": write permanently']],
    ["line comments", "a.ts", "f();\n// Kept for\n// good.\n", ['a.ts:2: "for good": write permanently']],
    ["a comment after code", "a.mjs", 'f("//"); // mended\n', ['a.mjs:1: "mended": write fix']],
    [
      "the name of a test",
      "test/a.test.ts",
      'test("is not mended here", f);\n',
      [expect.stringContaining(':1: "mended"')],
    ],
    ["a comment of Python", "a.py", "a = 1\n# Kept for\n# good.\n", ['a.py:2: "for good": write permanently']],
    ["a docstring", "a.py", '"""Kept.\n\nIt is\nmended.\n"""\n', ['a.py:1: "mended": write fix']],
    ["a comment of Go", "a.go", "x()\n\t// Kept for\n\t// good.\n", ['a.go:2: "for good": write permanently']],
    ["a dashboard", "a.json", '{\n  "description": "Beats sent."\n}\n', [expect.stringContaining('a.json:2: "Beats"')]],
  ])("in %s", (_, path, text, expected) => {
    expect(findingsIn(path, text)).toEqual(expected);
  });

  test.each([
    ["inline code", "page.md", "Rename `mend` to `fix`.\n"],
    ["a fence", "page.md", "```\nmend\n```\n"],
    ["a comment of a page", "page.md", "<!-- mend -->\n"],
    ["short sentences", "page.md", `${"This is short. ".repeat(20)}\n`],
    ["an identifier", "a.ts", 'import { mend } from "./mend.ts";\nmend("for good");\n'],
    ["a long sentence in a comment", "a.ts", `// ${long}\n`],
    ["a long name of a test", "test/a.test.ts", `test("${long}");\n`],
    ["code in a comment", "a.ts", "// Calls `mend`.\n"],
    ["words with another meaning", "page.md", "It runs in its own Pod, as soon as it is ready.\n"],
  ])("but not for %s", (_, path, text) => {
    expect(findingsIn(path, text)).toEqual([]);
  });
});
