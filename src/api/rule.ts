import { z } from "zod";

/** A DNS subdomain, the bound of every object's name. */
export const MAX_NAME = 253;
export const NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/**
 * One rule over a value, written twice: as CEL for the API server and as a predicate for `parseEnvironment`. The
 * predicate covers objects that bypassed the CRD, such as older ones and those of tests. Rules about the old value have
 * no predicate, because only the server has both values.
 */
export interface Rule<T> {
  /** CEL over `self` (and `oldSelf`). */
  readonly cel: string;
  /** The problem and its fix. */
  readonly message: string;
  /** Field below `self` that the message is about, without a leading dot. */
  readonly field?: string;
  readonly holds?: (value: T) => boolean;
}

/** Returns the schema with the rules attached to both sides. Call it last: it keeps metadata that was set before. */
export function withRules<S extends z.ZodType>(schema: S, rules: readonly Rule<z.output<S>>[]): S {
  let checked = schema;
  for (const { holds, message, field } of rules) {
    if (holds) {
      checked = checked.refine((value) => holds(value), { message, path: field?.split(".") ?? [] });
    }
  }
  return checked.meta({
    ...schema.meta(),
    "x-kubernetes-validations": rules.map(({ cel, message, field }) => ({
      rule: cel,
      message,
      ...(field === undefined ? {} : { fieldPath: `.${field}` }),
    })),
  });
}

/** Quotes a text as a CEL string literal. */
export const celString = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

/**
 * A rule that an object's field, if set, matches a regular expression (valid for RE2 and JavaScript). It belongs to the
 * object on purpose: for the keyword `pattern`, or a rule of the string itself, the API server would quote the value in
 * its answer, and the value may be a key in the wrong place.
 */
export function fieldMatches<F extends string>(
  field: F,
  pattern: string,
  message: string,
): Rule<{ readonly [K in F]?: string | undefined }> {
  const expression = new RegExp(pattern);
  return {
    cel: `!has(self.${field}) || self.${field}.matches(${celString(pattern)})`,
    message,
    field,
    holds: (value) => {
      const text = value[field];
      return text === undefined || expression.test(text);
    },
  };
}

/** A whole number of seconds with a default. Bounds are inclusive. */
export function seconds(fallback: number, min: number, max: number, description: string) {
  return z.int32().min(min).max(max).default(fallback).meta({ description });
}
