import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import type { ApiObject } from "./api.ts";

/** Kustomize's list of the files in a folder. It isn't a Kubernetes object. */
const KUSTOMIZATION = "kustomization.yaml";

/** Reads all objects in the YAML files of a folder, in the order of the file names. Ignores subfolders. */
export async function readManifests(dir: string): Promise<ApiObject[]> {
  const names = (await readdir(dir)).filter((name) => /\.ya?ml$/.test(name) && name !== KUSTOMIZATION).sort();
  const files = await Promise.all(
    names.map(async (name) => parseManifests(await readFile(join(dir, name), "utf8"), join(dir, name))),
  );
  return files.flat();
}

/** Parses the objects in a multi-document YAML text. Errors refer to the text by `name`. */
export function parseManifests(text: string, name: string): ApiObject[] {
  const objects: ApiObject[] = [];
  for (const document of parseAllDocuments(text)) {
    const [error] = document.errors;
    if (error) throw new Error(`${name}: ${error.message}`);
    const object: unknown = document.toJS();
    // The document contains only comments.
    if (object === null) continue;
    if (!isApiObject(object)) throw new Error(`${name} contains an object without kind or name`);
    objects.push(object);
  }
  return objects;
}

function isApiObject(value: unknown): value is ApiObject {
  if (typeof value !== "object" || value === null || !("kind" in value) || !("metadata" in value)) return false;
  const { metadata } = value;
  return typeof metadata === "object" && metadata !== null && "name" in metadata && typeof metadata.name === "string";
}
