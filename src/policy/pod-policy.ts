import { ANY, isBelow } from "./policy-looks.ts";
import { type Need, needsOf, POLICY_KEYS, POLICY_RULES, type PolicyKey, type PolicyRule } from "./policy-rules.ts";

/**
 * What the operator allows Pod templates beyond the permissions of every template: a list of names or folders for each
 * key of POLICY_RULES. An enabled switch is `["*"]`. A missing key allows nothing.
 */
export type PodPolicy = { readonly [K in PolicyKey]?: readonly string[] };

/** The operator's flag for the policy. */
export const POLICY_FLAG = "allowed-in-templates";

/** The field of the chart's values for the policy. */
export const POLICY_VALUE = "podPolicy";

/** One allowance in the syntax of the flag: `privileged`, `capabilities=NET_ADMIN`. */
export interface Allowance {
  readonly key: PolicyKey;
  readonly item: string;
}

/** Number of forbidden fields that a message names, which keeps it below the limit of a condition. */
const SHOWN = 20;
/** Longer names are cut in messages. */
const SHOWN_CHARACTERS = 100;

/** Pods store their template's needs in an annotation, so the length is bounded for the operator's caches. */
const MAX_NEEDS_CHARACTERS = 4_000;

const kindOf = (key: PolicyKey): PolicyRule["kind"] => POLICY_RULES[key].kind;

const NAME = /^(\*|[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?)$/;
const FOLDER = /^\/$|^(\/(?!\.\.?(\/|$))[^/\s,"'\\]+)+$/;

/** @throws {RangeError} with the expected syntax. */
export function parseAllowance(word: string): Allowance {
  const at = word.indexOf("=");
  const key = POLICY_KEYS.find((known) => known === (at < 0 ? word : word.slice(0, at)));
  if (key === undefined) throw new RangeError(`is unknown; write one of ${POLICY_KEYS.map(exampleOf).join(", ")}`);
  const item = at < 0 ? "" : word.slice(at + 1);
  const kind = kindOf(key);
  if (kind === "switch") {
    if (at >= 0) throw new RangeError(`${key} takes no value; write ${key}`);
    return { key, item: ANY };
  }
  const isGood = kind === "paths" ? FOLDER.test(item) : NAME.test(item);
  if (!isGood) throw new RangeError(`write ${exampleOf(key)}`);
  if (key === "capabilities" && /^CAP_|[a-z]/.test(item)) {
    throw new RangeError(
      "capability names have capital letters and no CAP_ prefix; write for example capabilities=NET_ADMIN",
    );
  }
  return { key, item };
}

function exampleOf(key: PolicyKey): string {
  return { switch: key, names: `${key}=<name>`, paths: `${key}=</path>` }[kindOf(key)];
}

/** Returns the policy that allows exactly these. */
export function policyOf(allowances: readonly Allowance[]): PodPolicy {
  const policy: { [K in PolicyKey]?: string[] } = {};
  for (const { key, item } of allowances) policy[key] = [...new Set([...(policy[key] ?? []), item])];
  return policy;
}

/** What the policy always allows: the RuntimeClasses that isolate more than the default runtime. */
export function allowancesFor(classes: Readonly<Record<string, string>>): Allowance[] {
  return Object.values(classes).map((item) => ({ key: "runtimeClasses", item }));
}

/** A template's needs, as stored on its Pods. The operator checks them when the policy becomes stricter. */
export function needWords(template: unknown): string[] {
  return [...new Set(needsOf(template).map(({ key, item }) => wordOf(key, item)))].sort();
}

/** Parses the annotation; null if it is missing or malformed. */
export function readNeeds(text: string | undefined): readonly string[] | null {
  try {
    const words: unknown = JSON.parse(text ?? "null");
    return Array.isArray(words) ? words.map(String) : null;
  } catch {
    return null;
  }
}

/** Whether the policy allows all of these. An unknown word comes from another version and is not allowed. */
export function allowsAll(policy: PodPolicy, words: readonly string[]): boolean {
  return words.every((word) => {
    const at = word.indexOf("=");
    const key = POLICY_KEYS.find((known) => known === (at < 0 ? word : word.slice(0, at)));
    return key !== undefined && isAllowed(policy, key, at < 0 ? "" : word.slice(at + 1));
  });
}

/** The needs of a template that the policy forbids, each with its field, its value and the fix. */
export function forbiddenIn(policy: PodPolicy, template: unknown, field: string): string[] {
  const forbidden = needsOf(template).filter(({ key, item }) => !isAllowed(policy, key, item));
  const { length } = JSON.stringify(needWords(template));
  if (forbidden.length === 0) {
    if (length <= MAX_NEEDS_CHARACTERS) return [];
    return [
      `${field}: the names and folders that need the operator's permission take ${length} characters, more than ${MAX_NEEDS_CHARACTERS}; use fewer or shorter ones`,
    ];
  }
  const shown = forbidden.slice(0, SHOWN).map((need) => describe(policy, need, field));
  const more = forbidden.length > SHOWN ? [`${field}: ${forbidden.length - SHOWN} more fields are not allowed`] : [];
  return [...shown, ...more];
}

function isAllowed(policy: PodPolicy, key: PolicyKey, item: string): boolean {
  const allowed = policy[key] ?? [];
  if (kindOf(key) === "paths") return isBelow(item, allowed);
  return allowed.includes(ANY) || allowed.includes(item);
}

function describe(policy: PodPolicy, { key, item, field: at }: Need, field: string): string {
  const value = `${POLICY_VALUE}.${key}`;
  const flag = `--${POLICY_FLAG} ${short(wordOf(key, item))}`;
  if (kindOf(key) === "switch") {
    return `${field}.${at}: not allowed (${value}=false); remove it, or set the chart's ${value}=true (${flag})`;
  }
  const allowed = (policy[key] ?? []).map(short).join(", ");
  return `${field}.${at}: ${short(item)} is not allowed (${value}=[${allowed}]); remove it, or add it to the chart's ${value} (${flag})`;
}

function wordOf(key: PolicyKey, item: string): string {
  return kindOf(key) === "switch" ? key : `${key}=${item}`;
}

function short(text: string): string {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;
}
