import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAst } from "rolldown/parseAst";
import { expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

const SRC = join(ROOT, "src");

/** Files whose texts are not shown to users: names of points for traces, scripts for containers, verbs of roles. */
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
