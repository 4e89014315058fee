import { isDeepStrictEqual } from "node:util";
import { isRecord } from "../core/json.ts";
import { apiErrorText, isBadRequest, isInvalid, KubeApiError } from "../kube/errors.ts";
import type { Pod } from "../kube/resource.ts";
import { placesOf } from "../policy/template-path.ts";

/** The keys to a field: names, and indexes of lists. */
type Path = readonly (string | number)[];

/** A problem of one field. */
export interface FieldProblem {
  readonly path: Path;
  /** What is wrong, and the fix. */
  readonly words: string;
}

/** The fields of a Pod whose values are quantities, or maps of quantities. */
const QUANTITIES = [
  "@container.resources.(limits|requests)",
  "@pod.resources.(limits|requests)",
  "@pod.overhead",
  "@pod.volumes[].emptyDir.sizeLimit",
  "@pod.volumes[].ephemeral.volumeClaimTemplate.spec.resources.(limits|requests)",
  "@pod.volumes[].downwardAPI.items[].resourceFieldRef.divisor",
  "@pod.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.divisor",
  "@container.env[].valueFrom.resourceFieldRef.divisor",
];

/** https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
const QUANTITY = /^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$/;

/** An amount that was probably meant, such as `2gb`. */
const LIKE_QUANTITY = /^\s*(\d+(?:\.\d+)?)\s*([kmgtp])i?b?\s*$/i;

/** The lists that Berth passes on in another place, where the API server could not name their field. */
const LISTS_OF_STRINGS = "@container.(command|args)";
const LISTS = `${LISTS_OF_STRINGS.slice(0, -1)}|volumeMounts)`;

/** The problems of a template that need no API server. `template` is a PodTemplateSpec, or a Pod. */
export function templateProblems(template: unknown): FieldProblem[] {
  const lists = placesOf(template, LISTS).filter(({ value }) => !Array.isArray(value));
  const elements = placesOf(template, `${LISTS_OF_STRINGS}[]`).filter(({ value }) => typeof value !== "string");
  return [
    ...lists.map(({ field, value }) => ({ path: pathOf(field), words: wrongType(value, "list") })),
    ...elements.map(({ field, value }) => ({ path: pathOf(field), words: wrongType(value, "string") })),
    ...quantityProblems(template),
  ];
}

function quantityProblems(template: unknown): FieldProblem[] {
  const places = QUANTITIES.flatMap((at) => placesOf(template, at)).flatMap(({ field, value }) => {
    if (!isRecord(value)) return [{ path: pathOf(field), value }];
    return Object.entries(value).map(([name, amount]) => ({ path: [...pathOf(field), name], value: amount }));
  });
  return places
    .filter(({ value }) => !isQuantity(value))
    .map(({ path, value }) => ({ path, words: badQuantity(path, value) }));
}

function isQuantity(value: unknown): boolean {
  return value === null || typeof value === "number" || (typeof value === "string" && QUANTITY.test(value));
}

function badQuantity(path: Path, value: unknown): string {
  const [, amount, unit = ""] = LIKE_QUANTITY.exec(String(value)) ?? [];
  const isCpu = path.at(-1) === "cpu";
  const example = isCpu ? "500m" : amount === undefined ? "2Gi" : `${amount}${unit.toUpperCase()}i`;
  return `invalid quantity ${shown(value)}; use for example ${example}`;
}

/**
 * The problems that the API server names in its answer to a Pod, with the fields of that Pod; empty: it names no field.
 * It names only problems of one kind at a time: those that prevent it from decoding the Pod hide all others.
 */
export function answeredProblems(error: unknown, pod: Pod): FieldProblem[] {
  if (!(error instanceof KubeApiError)) return [];
  if (isInvalid(error)) {
    const causes = error.details?.causes ?? [];
    return causes.flatMap(({ field, message = "" }) =>
      field ? [{ path: pathOf(field), words: withFix(message) }] : [],
    );
  }
  if (!isBadRequest(error)) return [];
  const words = apiErrorText(error, pod.metadata.name ?? "");
  if (/^(quantities must match|unable to parse quantity)/.test(words)) return quantityProblems(pod);
  const unknown = [...words.matchAll(/unknown field "([^"]+)"/g)].map(([, field = ""]) => pathOf(field));
  if (unknown.length > 0)
    return unknown.map((path) => ({ path, words: "unknown field; correct its name, or remove it" }));
  const [, found = "", field = "", expected = ""] = WRONG_TYPE.exec(words) ?? [];
  return placesOfType(pod, field, found).map(({ path, value }) => ({
    path,
    words: wrongType(value, kindOfGo(expected)),
  }));
}

const WRONG_TYPE = /^json: cannot unmarshal (\w+)(?: \S+)? into Go struct field \w+\.(\S+) of type (\S+)$/;

/** The words for a missing field. */
export const REQUIRED = "is required; set it";

function withFix(message: string): string {
  return message === "Required value" ? REQUIRED : message;
}

/** The values of a type at a path as Go names it: without indexes, and with the names of embedded structs. */
function placesOfType(pod: Pod, field: string, found: string): { readonly path: Path; readonly value: unknown }[] {
  const names = field.split(".").filter((name) => !/^[A-Z]/.test(name));
  let places: { path: Path; value: unknown }[] = [{ path: [], value: pod }];
  for (const name of names) {
    places = places
      .flatMap(elements)
      .flatMap(({ path, value }) =>
        isRecord(value) && value[name] !== undefined ? [{ path: [...path, name], value: value[name] }] : [],
      );
  }
  const isFound = ({ value }: { value: unknown }) => typeName(value) === found;
  // For an element of a list or map, Go names the whole.
  const own = places.filter(isFound);
  return own.length > 0 ? own : places.flatMap((place) => [...elements(place), ...entries(place)]).filter(isFound);
}

function elements({ path, value }: { path: Path; value: unknown }): { path: Path; value: unknown }[] {
  if (!Array.isArray(value)) return [{ path, value }];
  return value.map((element: unknown, index) => ({ path: [...path, index], value: element }));
}

function entries({ path, value }: { path: Path; value: unknown }): { path: Path; value: unknown }[] {
  return isRecord(value) ? Object.entries(value).map(([name, entry]) => ({ path: [...path, name], value: entry })) : [];
}

/** The type of a JSON value, as Go names it. */
function typeName(value: unknown): string {
  if (Array.isArray(value)) return "array";
  return typeof value === "boolean" ? "bool" : typeof value;
}

type Kind = "string" | "number" | "boolean" | "list" | "object";

function kindOfGo(type: string): Kind {
  if (type.startsWith("[]")) return "list";
  if (/^u?int|^float/.test(type)) return "number";
  return type === "string" ? "string" : type === "bool" ? "boolean" : "object";
}

const WRITE: Readonly<Record<Kind, string>> = {
  string: "write a string, in quotes",
  number: "write a whole number, without quotes",
  boolean: "write true or false, without quotes",
  list: "write a list",
  object: "write an object",
};

/** Does not show a text that should be a list or an object: command lines may contain credentials. */
function wrongType(value: unknown, expected: Kind): string {
  const isText = typeof value === "string" && (expected === "list" || expected === "object");
  return `${isText ? "a string" : shown(value)} has the wrong type; ${WRITE[expected]}`;
}

/** The most characters of a value that a message shows. */
const MAX_SHOWN = 40;

function shown(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (isRecord(value)) return "an object";
  const text = JSON.stringify(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}..."` : text;
}

/**
 * A path of a rendered Pod as the template has it: Berth adds elements to lists, so indexes may differ. Null: the
 * template has no such field.
 */
export function pathInTemplate(path: Path, pod: unknown, template: unknown): Path | null {
  const found: (string | number)[] = [];
  let [rendered, written] = [pod, template];
  for (const [at, part] of path.entries()) {
    const next = childOf(rendered, part);
    const key =
      Array.isArray(rendered) && Array.isArray(written) ? written.findIndex((each) => isSame(each, next)) : part;
    const isLast = at === path.length - 1;
    // A missing field can be required.
    if (key === -1 || (!isLast && childOf(written, key) === undefined)) return null;
    found.push(key);
    [rendered, written] = [next, childOf(written, key)];
  }
  return found;
}

/** Whether two elements of lists are the same one: by their names if they have any. */
function isSame(one: unknown, other: unknown): boolean {
  const name = isRecord(one) ? one["name"] : undefined;
  return name === undefined ? isDeepStrictEqual(one, other) : isRecord(other) && other["name"] === name;
}

function childOf(value: unknown, key: string | number): unknown {
  return typeof value === "object" && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;
}

/** `spec.containers[0].resources.limits["example.com/gpu"]`, as keys. The API server writes no quotes. */
function pathOf(field: string): Path {
  return [...field.matchAll(/([^.[\]]+)|\[([^\]]*)\]/g)].map(([, name, key = ""]) => {
    if (name !== undefined) return name;
    return /^\d+$/.test(key) ? Number(key) : key;
  });
}

/** A copy without these fields; null: it has none of them. */
export function withoutFields(pod: Pod, problems: readonly FieldProblem[]): Pod | null {
  const copy = structuredClone(pod);
  const removed = problems.filter(({ path }) => {
    const key = path.at(-1) ?? "";
    const parent = path.slice(0, -1).reduce<unknown>((value, part) => childOf(value, part), copy);
    if (childOf(parent, key) === undefined) return false;
    // Indexes of the other elements stay what they are.
    if (Array.isArray(parent)) parent[Number(key)] = undefined;
    else if (isRecord(parent)) delete parent[key];
    return true;
  });
  return removed.length === 0 ? null : copy;
}
