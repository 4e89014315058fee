import { parseAst } from "rolldown/parseAst";
import { parseSync } from "rolldown/utils";

/** A piece of text for readers: a line of a page, a message, a comment. Code in it is replaced by `X`. */
export interface Passage {
  /** Counts from 1. */
  readonly line: number;
  readonly text: string;
}

/** Returns the texts for readers in a file. Cells of tables and messages are split where their lists are. */
export function passagesOf(path: string, text: string): Passage[] {
  if (path.endsWith(".md")) return ofPage(text);
  if (isScript(path)) return ofCode(text).flatMap(partsOf);
  if (path.endsWith(".json")) return ofDashboard(text);
  const plain = withoutCode(text);
  if (path.endsWith(".txt")) return ofLines(plain);
  if (path.endsWith(".py")) return [...ofComments(plain), ...ofDocstrings(plain)].flatMap(partsOf);
  if (/\.(go|c)$/.test(path)) return ofComments(plain.replaceAll(/^(\s*)\/\//gm, "$1#")).flatMap(partsOf);
  return [...ofComments(plain), ...ofFields(plain), ...ofHelmStrings(text)].flatMap(partsOf);
}

/** Returns the comments of TypeScript or JavaScript. Those on consecutive lines are one passage. */
export function commentsOf(path: string, text: string): Passage[] {
  if (!isScript(path)) return [];
  const found: { line: number; text: string }[] = [];
  let endedAt = 0;
  for (const { type, value, start, end } of parseSync(path, text, { lang: "ts" }).comments) {
    const words = withoutCode(value.replaceAll(/^\s*\*+/gm, "").replaceAll(/\s+/g, " "));
    const last = found.at(-1);
    if (type === "Line" && last && /^\n[ \t]*$/.test(text.slice(endedAt, start))) last.text += ` ${words.trim()}`;
    else found.push({ line: lineAt(text, start), text: words.trim() });
    endedAt = end;
  }
  return found;
}

const isScript = (path: string) => /\.m?[jt]s$/.test(path);

const lineAt = (text: string, index: number) => text.slice(0, index).split("\n").length;

const ofLines = (text: string): Passage[] => text.split("\n").map((line, index) => ({ line: index + 1, text: line }));

/** Splits at semicolons, and before items of a list that are code with an explanation. */
const partsOf = ({ line, text }: Passage): Passage[] =>
  text.split(/;\s|,\s(?=X \()/).map((part) => ({ line, text: part }));

/** Removes a part without changing the number of lines. */
const blank = (part: string) => part.replaceAll(/[^\n]/g, "");

/** Replaces inline code and Helm's actions. */
const withoutCode = (text: string) =>
  text.replaceAll(/(`+)[^\n]*?[^`\n]\1(?!`)/g, "X").replaceAll(/\{\{[^{}\n]*\}\}/g, "X");

/** Prose of Markdown: without fences, comments and targets of links. Each cell of a table is a passage. */
function ofPage(text: string): Passage[] {
  const prose = text
    .replaceAll(/^( *)```[\s\S]*?^\1```/gm, blank)
    .replace(/^---\n[\s\S]*?\n---\n/, blank)
    .replaceAll(/<!--[\s\S]*?-->/g, blank);
  const linked = withoutCode(prose).replaceAll(/!?\[((?:[^\][]|\[[^\]]*\])*)\]\([^)\s]*\)/g, "$1");
  return ofLines(linked.replaceAll("**", "")).flatMap(({ line, text }) => {
    if (!text.startsWith("|")) return [{ line, text: text.replace(/^\s*(#+|[-*]|\d+\.)\s/, "") }];
    return text.split(/(?<!\\)\|/).flatMap((cell) => partsOf({ line, text: cell.trim() }));
  });
}

/** The parts of the syntax tree that hold text. */
interface Node {
  readonly type: string;
  readonly start: number;
  readonly value?: unknown;
  readonly operator?: string;
  readonly left?: Node;
  readonly right?: Node;
  readonly quasis?: readonly { readonly value: { readonly cooked: string } }[];
}

/** String literals that are prose. A sum of strings is one text. */
function ofCode(text: string): Passage[] {
  const found: Passage[] = [];
  const visit = (node: unknown, isPart: boolean): void => {
    if (Array.isArray(node)) for (const each of node) visit(each, isPart);
    else if (isNode(node)) {
      const own = isPart ? undefined : literalOf(node);
      if (own !== undefined && isProse(own)) {
        const line = lineAt(text, node.start);
        for (const each of own.split("\n")) found.push({ line, text: each.trim() });
      }
      const isSum = node.type === "BinaryExpression" && (isPart || own !== undefined);
      for (const [key, below] of Object.entries(node)) {
        if (key !== "source") visit(below, isSum && (key === "left" || key === "right"));
      }
    }
  };
  visit(parseAst(text, { lang: "ts" }).body, false);
  return found;
}

const isNode = (node: unknown): node is Node => typeof node === "object" && node !== null && "type" in node;

/** The text of a literal or of a sum with one. Expressions in it are `X`. */
function literalOf(node: Node): string | undefined {
  if (node.type === "Literal" && typeof node.value === "string") return node.value;
  if (node.type === "TemplateLiteral") return node.quasis?.map(({ value }) => value.cooked).join("X");
  if (node.type !== "BinaryExpression" || node.operator !== "+" || !node.left || !node.right) return undefined;
  const [left, right] = [literalOf(node.left), literalOf(node.right)];
  return left === undefined && right === undefined ? undefined : `${left ?? "X"}${right ?? "X"}`;
}

/** Whether a text has three words in a row. Code rarely has. */
const isProse = (text: string) => /[A-Za-z][a-z'’]*,? [a-z'’]+,? [a-z'’]+/.test(text);

/** Comments of YAML, Python or a Dockerfile. Lines of one comment are joined. */
function ofComments(text: string): Passage[] {
  const found: { line: number; text: string }[] = [];
  let isOpen = false;
  for (const { line, text: whole } of ofLines(text)) {
    const [, comment] = /^\s*#\s?(.*)$/.exec(whole) ?? [];
    const last = found.at(-1);
    if (comment && isOpen && last) last.text += ` ${comment}`;
    else found.push({ line, text: comment ?? /\s#\s(.*)$/.exec(whole)?.[1] ?? "" });
    isOpen = Boolean(comment);
  }
  return found.filter((passage) => isProse(passage.text));
}

/** Docstrings of Python. Each paragraph is a passage. */
function ofDocstrings(text: string): Passage[] {
  return [...text.matchAll(/^\s*"""([\s\S]*?)"""$/gm)].flatMap(({ 1: docstring = "", index }) =>
    docstring
      .split("\n\n")
      .map((paragraph) => ({ line: lineAt(text, index), text: paragraph.replaceAll(/\s+/g, " ").trim() })),
  );
}

/** Descriptions, summaries and messages of YAML, also folded ones. */
function ofFields(text: string): Passage[] {
  const lines = text.split("\n");
  return lines.flatMap((whole, index) => {
    const [, indent = "", value = ""] = /^(\s*)(?:- )?(?:description|summary|message): (.*)$/.exec(whole) ?? [];
    if (!/^[>|]/.test(value)) return value === "" ? [] : [{ line: index + 1, text: value }];
    const rest = lines.slice(index + 1);
    const end = rest.findIndex((line) => line.trim() !== "" && !line.startsWith(`${indent} `));
    const folded = rest.slice(0, end < 0 ? undefined : end).map((line) => line.trim());
    return [{ line: index + 1, text: folded.join(" ") }];
  });
}

/** Strings in Helm's actions, such as the messages of `fail`. */
function ofHelmStrings(text: string): Passage[] {
  return ofLines(text).flatMap(({ line, text }) =>
    [...text.matchAll(/\{\{.*?\}\}/g)].flatMap(([action]) =>
      [...action.matchAll(/"((?:[^"\\]|\\.)*)"/g)]
        .map(([, string = ""]) => ({ line, text: string.replaceAll(/%\w/g, "X") }))
        .filter((passage) => isProse(passage.text)),
    ),
  );
}

/** Descriptions of a dashboard. */
function ofDashboard(text: string): Passage[] {
  return ofLines(text).flatMap(({ line, text }) => {
    const [, value = ""] = /^\s*"description": "(.*)",?$/.exec(text) ?? [];
    return value === "" ? [] : [{ line, text: value }];
  });
}
