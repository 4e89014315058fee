import { isRecord } from "../core/json.ts";
/**
 * Paths into a Pod template, read in two ways: the operator finds each place with its value, and the API server
 * evaluates CEL. Both accept any JSON and never fail. A value of an unexpected type counts as absent, since the API
 * server would refuse such a Pod.
 *
 * A path is names joined by dots; `[]` after a name means every element of a list, and `(a|b)` either name. It begins
 * at the template, with `@pod` at its spec, or with `@container` at each of its containers: init, session or worker,
 * and ephemeral ones.
 */
export type TemplatePath = string;

/** A value at a path, and its field, such as `spec.containers[0].ports[1].hostPort`. */
export interface Place {
  readonly field: string;
  readonly value: unknown;
}

/** Where a path begins, by its first name: as a path for the operator, and as a policy's variable in CEL. */
const ROOTS = {
  "@container": { path: "spec.(initContainers|containers|ephemeralContainers)[]", cel: "variables.containers[]" },
  "@pod": { path: "spec", cel: "variables.pod" },
} as const;

type Segment = { readonly names: readonly string[] } | "each";

function segmentsOf(path: TemplatePath): Segment[] {
  return path.split(".").flatMap((part): Segment[] => {
    const each = part.endsWith("[]");
    const name = each ? part.slice(0, -2) : part;
    const names = name.startsWith("(") ? name.slice(1, -1).split("|") : [name];
    return each ? [{ names }, "each"] : [{ names }];
  });
}

/** Returns every value at a path. Nulls count as absent. */
export function placesOf(template: unknown, path: TemplatePath): Place[] {
  const [first = "", ...rest] = path.split(".");
  const root = Object.hasOwn(ROOTS, first) ? ROOTS[first as keyof typeof ROOTS].path : first;
  const segments = segmentsOf([root, ...rest].join("."));
  const found = segments.reduce<Place[]>(
    (places, segment) => places.flatMap((place) => below(place, segment)),
    [{ field: "", value: template }],
  );
  return found.filter(({ value }) => value !== null && value !== undefined);
}

function below({ field, value }: Place, segment: Segment): Place[] {
  if (segment === "each") {
    return Array.isArray(value)
      ? value.map((item: unknown, index) => ({ field: `${field}[${index}]`, value: item }))
      : [];
  }
  if (!isRecord(value)) return [];
  return segment.names
    .filter((name) => Object.hasOwn(value, name))
    .map((name) => ({ field: field === "" ? name : `${field}.${name}`, value: value[name] }));
}

/** Returns CEL that is true if `leaf` holds for every value at a path. It uses the variables of CEL_VARIABLES. */
export function celOfPath(path: TemplatePath, leaf: (value: string) => string): string {
  const [first = "", ...rest] = path.split(".");
  const segments = segmentsOf(rest.join("."));
  // The Environment's schema guarantees that the template and its spec are objects.
  if (first === "@pod") return celBelow("variables.pod", segments, leaf, 0, true);
  if (first === "@container") return celBelow("variables.containers", ["each", ...segments], leaf, 0, true);
  return celBelow("variables.template", segmentsOf(path), leaf, 0, true);
}

const listIn = (field: string) => `(has(${field}) && type(${field}) == list ? ${field} : [])`;

/** Variables of a policy over Environments, where the paths begin. `dyn`, since much of a template has no schema. */
export const CEL_VARIABLES = {
  template: "dyn(object).spec.?sessions.?template.orValue(dyn(object).spec.?workers.?template.orValue({'spec': {}}))",
  pod: "variables.template.spec",
  containers: ["initContainers", "containers", "ephemeralContainers"]
    .map((name) => listIn(`variables.pod.${name}`))
    .join(" + "),
} as const;

/** Checks the type of the value before each step: `||` stops at the first alternative that holds. */
function celBelow(
  value: string,
  segments: readonly Segment[],
  leaf: (value: string) => string,
  depth: number,
  isSure = false,
): string {
  const [segment, ...rest] = segments;
  if (segment === undefined) return leaf(value);
  if (segment === "each") {
    const each = `e${depth}`;
    const all = `${value}.all(${each}, ${celBelow(each, rest, leaf, depth + 1)})`;
    return isSure ? all : `type(${value}) != list || ${all}`;
  }
  const branches = segment.names.map((name) => {
    const next = `${value}.${name}`;
    return `!has(${next}) || ${celBelow(next, rest, leaf, depth)}`;
  });
  const all = branches.length === 1 ? branches.join("") : branches.map((branch) => `(${branch})`).join(" && ");
  if (isSure) return all;
  return `type(${value}) != map || ${branches.length === 1 ? all : `(${all})`}`;
}
