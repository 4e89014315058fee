import { isRecord } from "../core/json.ts";

/** How the schema of a CRD differs from this build's. Paths of fields, such as `spec.sessions.lease`. */
export interface SchemaDifference {
  /** This build knows them, and the API server drops them from what users write. */
  readonly missing: readonly string[];
  /** Both have them, and not alike: type, bounds, default or rules. */
  readonly changed: readonly string[];
  /** This build does not know them. */
  readonly unknown: readonly string[];
}

/** Parts of a schema that hold other schemas; descriptions mean nothing to the API server. */
const NOT_OWN = new Set(["properties", "items", "additionalProperties", "description"]);

/** Compares two structural schemas, field by field. */
export function schemaDifference(ours: unknown, theirs: unknown): SchemaDifference {
  const mine = fieldsOf(ours);
  const others = fieldsOf(theirs);
  // Of a whole object that is missing, its fields are no news.
  const isNews = (path: string, all: ReadonlyMap<string, string>) =>
    path === "" || all.has(path.replace(/(\.[^.[]+|\[\])$/, ""));
  return {
    missing: [...mine.keys()].filter((path) => !others.has(path) && isNews(path, others)),
    changed: [...mine].filter(([path, text]) => others.has(path) && others.get(path) !== text).map(([path]) => path),
    unknown: [...others.keys()].filter((path) => !mine.has(path) && isNews(path, mine)),
  };
}

/** Every field by its path, with what its own schema says of it. The root's path is empty. */
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

/** The same text for the same value, in whatever order its keys are; sets of names have no order either. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (key, part: unknown) => {
    if (key === "required" && Array.isArray(part)) return [...part].sort();
    if (!isRecord(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
