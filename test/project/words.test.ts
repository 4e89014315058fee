import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LANDING, pagesOf } from "../../site/pages.ts";
import { ROOT } from "./lint-gate.ts";
import { passagesOf } from "./passages.ts";
import { MOST_WORDS, WORDS, WORDS_OF_MESSAGES } from "./words.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");

const filesBelow = async (folder: string, names: RegExp) =>
  (await readdir(join(ROOT, folder), { recursive: true }))
    .map((name) => `${folder}/${name}`)
    .filter((path) => names.test(path));

/** Pages, and files with messages or descriptions. The CRD is generated from literals in src/api. */
const files = [
  ...(await pagesOf()),
  LANDING,
  ...(await filesBelow("src", /\.[jt]s$/)),
  ...(await filesBelow("charts/berth", /\.(ya?ml|tpl|txt)$|dashboards\/.*\.json$/)),
].filter((path) => !path.endsWith("/crds.yaml"));

/** Sentences end before a capital letter, a digit or code. */
const sentencesOf = (text: string) => text.split(/(?<=[.!?])["')]*\s+(?=["'(]*[A-Z0-9])/);

function findingsIn(path: string, text: string): string[] {
  const avoided = path.startsWith("src/") ? [...WORDS, ...WORDS_OF_MESSAGES] : WORDS;
  return passagesOf(path, text).flatMap(({ line, text }) => {
    const words = avoided.flatMap(({ avoid, write }) => {
      const [found] = new RegExp(avoid, "i").exec(text) ?? [];
      return found === undefined ? [] : [`${path}:${line}: "${found}": write ${write}`];
    });
    const long = sentencesOf(text).flatMap((sentence) => {
      const count = sentence.split(/\s+/).filter((word) => /\w/.test(word)).length;
      const start = sentence.slice(0, 50);
      return count > MOST_WORDS ? [`${path}:${line}: ${count} words, at most ${MOST_WORDS}: "${start}..."`] : [];
    });
    return [...words, ...long];
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
    ["words with another meaning", "page.md", "It runs in its own Pod, as soon as it is ready.\n"],
  ])("but not for %s", (_, path, text) => {
    expect(findingsIn(path, text)).toEqual([]);
  });
});
