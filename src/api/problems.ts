import { z } from "zod";
import { REMOVED_NAMES } from "./removed-names.ts";

type RawIssue = Parameters<z.core.$ZodErrorMap>[0];

const list = (values: readonly unknown[]) => values.map((value) => String(value)).join(", ");

/**
 * Describes a problem and its fix without quoting the value, which may be a misplaced key. Undefined keeps a rule's
 * message.
 */
export function sayProblem(issue: RawIssue): string | undefined {
  switch (issue.code) {
    case "unrecognized_keys":
      // One line for each field.
      return issue.keys.map((key) => unknownField(key, fieldsOf(issue.inst))).join("\n");
    case "invalid_type":
      return issue.input === undefined
        ? `is required; set it to a value of type ${issue.expected}`
        : `has the wrong type; write a value of type ${issue.expected}`;
    case "invalid_value":
      return `must be ${issue.values.length === 1 ? "" : "one of "}${list(issue.values)}`;
    case "too_small":
      return `is too small: ${unit(issue.origin)} must be at least ${issue.minimum}`;
    case "too_big":
      return `is too big: ${unit(issue.origin)} must be at most ${issue.maximum}`;
    case "invalid_format":
      return `must match ${issue.pattern ?? issue.format}`;
    default:
      return undefined;
  }
}

function unknownField(name: string, fields: readonly string[]): string {
  const meant = nearest(name, fields);
  const fix = meant === null ? "correct its name, remove it, or update Berth" : `did you mean ${meant}?`;
  return `unknown field; ${fix}`;
}

function fieldsOf(schema: unknown): string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

/** The field that differs from a name by the fewest letters, in at most a third of them; null: none is so similar. */
function nearest(name: string, fields: readonly string[]): string | null {
  const [best] = fields
    .map((field) => ({ field, edits: editsBetween(name.toLowerCase(), field.toLowerCase()) }))
    .toSorted((one, other) => one.edits - other.edits);
  return best !== undefined && best.edits <= Math.max(name.length, best.field.length) / 3 ? best.field : null;
}

/** The number of letters to insert, delete or replace (Levenshtein distance). */
function editsBetween(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [i, letter] of [...one].entries()) {
    const next = [i + 1];
    for (const [j, otherLetter] of [...other].entries()) {
      const replaced = (row[j] ?? 0) + (letter === otherLetter ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

function unit(origin: string): string {
  if (origin === "string") return "its length";
  if (origin === "array") return "the number of items";
  return "it";
}

/** Formats a path such as `spec.sessions.template.spec.containers[0].resources.limits["example.com/gpu"]`. */
export function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    const name = String(part);
    if (text === "") return name;
    return /^[\w-]+$/.test(name) ? `${text}.${name}` : `${text}[${JSON.stringify(name)}]`;
  }, "");
}

/** Several problems as one message; numbered, because each may contain any punctuation. */
export function problemList(problems: readonly string[]): string {
  if (problems.length === 1) return problems[0] ?? "";
  return `${problems.length} problems: ${problems.map((problem, index) => `(${index + 1}) ${problem}`).join(" ")}`;
}

/** One line per problem: path, problem, fix. */
export function problemsOf(error: z.ZodError): string[] {
  return error.issues.flatMap((issue) => {
    if (issue.code !== "unrecognized_keys") return problemAt(issue.path, issue.message);
    const words = issue.message.split("\n");
    return issue.keys.map((key, index) => {
      const path = [...issue.path, key];
      return problemAt(path, REMOVED_NAMES[pathText(path)] ?? words[index] ?? "");
    });
  });
}

function problemAt(path: readonly PropertyKey[], words: string): string {
  return path.length === 0 ? words : `${pathText(path)}: ${words}`;
}
