import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseAllDocuments } from "yaml";
import { type ApiClient, ApiError, type ApiObject } from "./api.ts";

/** The CRDs of this project. */
export const CRD_DIR = join(import.meta.dirname, "..", "..", "deploy", "crds");

/** A CRD is established within a second; more is a fault. */
const ESTABLISHED_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
const CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/**
 * Applies every CRD in a folder and waits until objects of its kind can be listed. A folder that is missing or empty
 * is no fault. Returns the names of the CRDs.
 */
export async function installCrds(api: ApiClient, dir: string = CRD_DIR): Promise<string[]> {
  const names: string[] = [];
  for (const crd of await readManifests(dir)) {
    const name = crd.metadata?.name;
    if (crd.kind !== "CustomResourceDefinition" || !name) throw new Error(`${dir} holds something other than CRDs`);
    await api.apply(`${CRD_PATH}/${name}`, crd);
    await waitUntilServed(api, name);
    names.push(name);
  }
  return names;
}

/** All objects in the YAML files of a folder, in the order of the files' names. */
export async function readManifests(dir: string): Promise<ApiObject[]> {
  let files: string[];
  try {
    files = (await readdir(dir)).filter((name) => /\.ya?ml$/.test(name)).sort();
  } catch {
    return [];
  }
  const objects: ApiObject[] = [];
  for (const file of files) {
    for (const document of parseAllDocuments(await readFile(join(dir, file), "utf8"))) {
      const [error] = document.errors;
      if (error) throw new Error(`${join(dir, file)}: ${error.message}`);
      const object: unknown = document.toJS();
      if (object !== null) objects.push(object as ApiObject);
    }
  }
  return objects;
}

interface Crd extends ApiObject {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly plural: string };
    readonly versions: { name: string }[];
  };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Established comes a moment before the API server really serves the kind, so a list is the proof. */
async function waitUntilServed(api: ApiClient, name: string): Promise<void> {
  const deadline = performance.now() + ESTABLISHED_TIMEOUT_MS;
  for (;;) {
    const crd = await api.get<Crd>(`${CRD_PATH}/${name}`);
    const conditions = crd.status?.conditions ?? [];
    if (conditions.some(({ type, status }) => type === "Established" && status === "True")) {
      const { group, names, versions } = crd.spec;
      if (await answers(api, `/apis/${group}/${versions[0]?.name}/${names.plural}`)) return;
    }
    if (performance.now() > deadline) throw new Error(`${name} is not established: ${JSON.stringify(conditions)}`);
    await delay(POLL_MS);
  }
}

async function answers(api: ApiClient, path: string): Promise<boolean> {
  try {
    await api.get(path);
    return true;
  } catch (error) {
    // 404: not in the API yet. 429: its watch cache is being filled ("storage is (re)initializing").
    if (error instanceof ApiError && (error.status === 404 || error.status === 429)) return false;
    throw error;
  }
}
