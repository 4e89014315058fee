import { isRecord } from "../core/json.ts";

/** The metadata that caches, keys and preconditions are made from, each with its type in meta/v1. */
const TEXTS = ["name", "namespace", "uid", "resourceVersion"];
const MAPS = ["labels", "annotations"];

/**
 * What keeps a value from being an object as an API server stores them; null: nothing. It looks at the metadata alone: what
 * is below them is typed by the server, and read with care by whoever reads it.
 */
export function objectProblem(value: unknown): string | null {
  const metadata = isRecord(value) ? value["metadata"] : undefined;
  if (!isRecord(metadata)) return "it is no object";
  if (!metadata["name"]) return "it has no name";
  for (const field of TEXTS) {
    const text = metadata[field];
    if (text !== undefined && typeof text !== "string") return `its metadata.${field} is no text`;
  }
  for (const field of MAPS) {
    const map = metadata[field];
    const isMap = isRecord(map) && Object.values(map).every((entry) => typeof entry === "string");
    if (map !== undefined && map !== null && !isMap) return `its metadata.${field} is no map of texts`;
  }
  return null;
}
