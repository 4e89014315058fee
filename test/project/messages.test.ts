import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAst } from "rolldown/parseAst";
import { describe, expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

const SRC = join(ROOT, "src");

/** Files whose texts nobody is shown: names of points for traces, scripts for containers, verbs of roles. */
const NOT_SHOWN = new Set([
  "doctor/operator-rights.ts",
  "pods/frame.ts",
  "protocol/points.ts",
  "reconcile/reconciler-options.ts",
  "workers/context.ts",
]);

/** CEL, shell scripts and selectors. */
const CODE = /&&|\|\||\bself\.|\bvariables\.|type\(|;;|^ANTHROPIC_| = | != |<<|\$_/;

/** Two words in a row, of three or more. Shorter texts are names, keys and verbs. */
const SENTENCE = /[a-z]{2,}[,:;.)]* [a-z(]/;

const MAX_EXPRESSION = 30;

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [field: string]: unknown;
}

/** The texts of a source file that are messages: string and template literals with at least three words. */
function messagesOf(path: string): string[] {
  const source = readFileSync(join(SRC, path), "utf8");
  const texts: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const node = value as Node;
    // Module names.
    if (node.type === "ImportDeclaration" || (node.type === "ExportNamedDeclaration" && node["source"] !== null))
      return;
    if (node.type === "Literal" && typeof node["value"] === "string") texts.push(node["value"]);
    if (node.type === "TemplateLiteral") texts.push(templateText(node, source));
    for (const child of Object.values(node)) visit(child);
  };
  visit(parseAst(source, { lang: "ts" }));
  return texts.filter((text) => text.split(" ").length > 2 && SENTENCE.test(text) && !CODE.test(text));
}

/** The text with the expressions in braces. */
function templateText(node: Node, source: string): string {
  const quasis = node["quasis"] as readonly { readonly value: { readonly cooked: string } }[];
  const expressions = node["expressions"] as readonly Node[];
  return quasis
    .map(({ value }, at) => {
      const expression = expressions[at];
      if (expression === undefined) return value.cooked;
      const code = source.slice(expression.start, expression.end).replaceAll(/\s+/g, " ");
      return `${value.cooked}{${code.length > MAX_EXPRESSION ? "..." : code}}`;
    })
    .join("");
}

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts") && !NOT_SHOWN.has(path))
  .sort();
const messages = new Map(files.map((path) => [path, messagesOf(path)]));

test("every message of the product is in messages.snap, to be read in one place", async () => {
  const text = [...messages]
    .filter(([, texts]) => texts.length > 0)
    .map(([path, texts]) => `${path}\n${texts.map((line) => `  ${line.replaceAll("\n", "\\n")}\n`).join("")}`)
    .join("\n");
  expect(text).toContain("\n  Create the Secret, or correct api.keySecretRef.name.\n");
  await expect(text).toMatchFileSnapshot("messages.snap");
});

/** The beginning of one of the kubelet's messages, by which Berth recognizes it. */
const KUBELETS = "couldn't find key ";

describe("no message", () => {
  /** Words that read like a translation, and what to write. */
  test.each<[RegExp, string]>([
    [/\bmend(s|ed|ing)?\b/i, "fix"],
    [/\banew\b|\bonce more\b/i, "again"],
    [/\b(some|no)body\b|\bwhoever\b/i, "the client, the operator, you"],
    [/\bfor good\b/i, "permanently"],
    [/\bas ever\b|\bas it is\b/i, "as usual"],
    [/\bbeats?\b|\bbeating\b/i, "heartbeat"],
    [/\b(looks(?! like)|looked|asks|asked)\b/i, "checks, reads, lists, requests"],
    [/\bleft alone\b|\bleft out\b|\bleave .* out\b/i, "ignored, removed"],
    [/\bany more\b|\bno longer is\b/i, "no longer"],
    [/\bby (itself|themselves)\b/i, "automatically"],
    [/\bbesides\b/i, "other than, in addition to"],
    [/\bof (its|their|one's) own\b/i, "its own"],
    [/\btakes? (up|over|off)\b|\bgoes\b|\bstands\b/i, "adopts, is deleted"],
    [/\bis over\b|\bare over\b/i, "has ended"],
    [/n't\b/i, "not (no contractions)"],
    [/(?<!there )\bis no (?!longer|fault)/i, "is not a"],
    [/;.*;.*;/, "two sentences"],
  ])("contains %s: write %s", (pattern) => {
    const withoutCode = (text: string) => text.replaceAll(/\{[^}]*\}/g, "{}").replace(KUBELETS, "");
    const found = [...messages].flatMap(([path, texts]) =>
      texts.filter((text) => pattern.test(withoutCode(text))).map((text) => `${path}: ${text}`),
    );
    expect(found).toEqual([]);
  });
});
