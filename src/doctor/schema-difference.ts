import { isRecord } from "../core/json.ts";

/** How a CRD's schema differs from this build's. Lists field paths such as `spec.sessions.lease`. */
export interface SchemaDifference {
  /** Only this build knows these fields. The API server drops them from what users write. */
  readonly missing: readonly string[];
  /** Both know these fields, but their type, limits, default or rules differ. */
  readonly changed: readonly string[];
  /** This build does not know these fields. */
  readonly unknown: readonly string[];
}

/** Parts of a schema that contain other schemas, and descriptions, which the API server ignores. */
const NOT_OWN = new Set(["properties", "items", "additionalProperties", "description"]);

/** Compares two structural schemas field by field. */
export function schemaDifference(ours: unknown, theirs: unknown): SchemaDifference {
  const mine = fieldsOf(ours);
  const others = fieldsOf(theirs);
  // If a whole object is missing, don't list its fields as well.
  const isReported = (path: string, all: ReadonlyMap<string, string>) =>
    path === "" || all.has(path.replace(/(\.[^.[]+|\[\])$/, ""));
  return {
    missing: [...mine.keys()].filter((path) => !others.has(path) && isReported(path, others)),
    changed: [...mine].filter(([path, text]) => others.has(path) && others.get(path) !== text).map(([path]) => path),
    unknown: [...others.keys()].filter((path) => !mine.has(path) && isReported(path, mine)),
  };
}

/** Maps every field's path to its own part of the schema. The root's path is empty. */
function fieldsOf(schema: unknown): Map<string, string> {
  const fields = new Map<string, string>();
  const walk = (at: unknown, path: string) => {
    if (!isRecord(at)) return;
    const own = Object.entries(at).filter(([key]) => !NOT_OWN.has(key));
    fields.set(path, canonical(Object.fromEntries(own)));
    for (const [name, child] of Object.entries(isRecord(at["properties"]) ? at["properties"] : {})) {
      walk(child, `${path}.${name}`);
    }
    if (at["items"] !== undefined) walk(at["items"], `${path}[]`);
    if (at["additionalProperties"] !== undefined) walk(at["additionalProperties"], `${path}.*`);
  };
  walk(schema, "");
  return fields;
}

/** Serializes a value independently of the order of its keys, and of the names in `required`. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (key, part: unknown) => {
    if (key === "required" && Array.isArray(part)) return [...part].sort();
    if (!isRecord(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
