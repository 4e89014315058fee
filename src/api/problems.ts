import type { z } from "zod";

type RawIssue = Parameters<z.core.$ZodErrorMap>[0];

const list = (values: readonly unknown[]) => values.map((value) => String(value)).join(", ");

/**
 * Describes a problem and its fix without quoting the value, which may be a misplaced key. Undefined keeps a rule's
 * message.
 */
export function sayProblem(issue: RawIssue): string | undefined {
  switch (issue.code) {
    case "unrecognized_keys":
      return "unknown field; correct its name, remove it, or update Berth";
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
    const paths = issue.code === "unrecognized_keys" ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
    return paths.map((path) => (path.length === 0 ? issue.message : `${pathText(path)}: ${issue.message}`));
  });
}
