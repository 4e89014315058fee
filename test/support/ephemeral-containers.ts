import { isRecord } from "../../src/core/json.ts";
import type { Container, Pod } from "../../src/kube/resource.ts";

/** The fields that an ephemeral container may have (pkg/apis/core/validation, allowedEphemeralContainerFields). */
const ALLOWED: ReadonlySet<string> = new Set([
  ...["name", "image", "imagePullPolicy", "command", "args", "workingDir", "env", "envFrom"],
  ...["volumeMounts", "volumeDevices", "terminationMessagePath", "terminationMessagePolicy", "securityContext"],
  ...["stdin", "stdinOnce", "tty", "targetContainerName"],
]);

/** The lists that a strategic merge patch merges, with the field that identifies an element. */
const MERGE_KEYS: Readonly<Record<string, string>> = {
  ...{ ephemeralContainers: "name", env: "name", volumeMounts: "mountPath", volumeDevices: "devicePath" },
};

/** What the API server makes of a patch: the Pod's new ephemeral containers, or why it refuses them with 422. */
export type PatchedContainers = { readonly containers: Container[] } | { readonly problem: string };

/**
 * Applies a strategic merge patch to the subresource `pods/ephemeralcontainers`. The server ignores all other fields of
 * the patch. As on a real one, new containers come first.
 */
export function patchEphemeralContainers(pod: Pod, patch: unknown): PatchedContainers {
  const before = pod.spec.ephemeralContainers ?? [];
  const wanted = isRecord(patch) && isRecord(patch["spec"]) ? patch["spec"]["ephemeralContainers"] : undefined;
  const containers = merged("ephemeralContainers", before, wanted ?? []) as Container[];
  const problem = changeProblem(before, containers) ?? specProblem(pod, containers);
  return problem === undefined ? { containers } : { problem };
}

function changeProblem(before: readonly Container[], after: readonly Container[]): string | undefined {
  for (const old of before) {
    const found = after.find(({ name }) => name === old.name);
    if (!found) return `spec.ephemeralContainers: existing ephemeral containers "${old.name}" may not be removed`;
    if (!isSame(old, found)) {
      return `spec.ephemeralContainers: existing ephemeral containers "${old.name}" may not be changed`;
    }
  }
  return undefined;
}

function specProblem({ spec }: Pod, containers: readonly Container[]): string | undefined {
  const taken = new Set([...spec.containers, ...(spec.initContainers ?? [])].map(({ name }) => name));
  const volumes = new Set((spec.volumes ?? []).map(({ name }) => name));
  for (const [index, container] of containers.entries()) {
    const path = `spec.ephemeralContainers[${index}]`;
    if (!container.name) return `${path}.name: Required value`;
    if (!container.image) return `${path}.image: Required value`;
    if (taken.has(container.name)) return `${path}.name: Duplicate value: "${container.name}"`;
    taken.add(container.name);
    const other = Object.keys(container).find((field) => !ALLOWED.has(field) && !isUnset(container[field]));
    if (other) return `${path}.${other}: Forbidden: cannot be set for an Ephemeral Container`;
    for (const [at, mount] of ((container["volumeMounts"] ?? []) as Record<string, unknown>[]).entries()) {
      const where = `${path}.volumeMounts[${at}]`;
      const part = ["subPath", "subPathExpr"].find((field) => mount[field]);
      if (part) return `${where}.${part}: Forbidden: cannot be set for an Ephemeral Container`;
      if (!volumes.has(mount["name"])) return `${where}.name: Not found: "${mount["name"]}"`;
    }
  }
  return undefined;
}

/** The server takes an object without fields for a missing one, but not a list without elements. */
function isUnset(value: unknown): boolean {
  return value === undefined || value === null || (isRecord(value) && Object.keys(value).length === 0);
}

/** When the server compares, an empty list equals a missing one. */
function isEmpty(value: unknown): boolean {
  return isUnset(value) || (Array.isArray(value) && value.length === 0);
}

function merged(field: string, before: unknown, patch: unknown): unknown {
  const key = MERGE_KEYS[field];
  if (key !== undefined && Array.isArray(before) && Array.isArray(patch)) return mergedList(key, before, patch);
  if (!isRecord(before) || !isRecord(patch)) return patch;
  const result = { ...before };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(name, before[name], value);
  }
  return result;
}

type Element = Readonly<Record<string, unknown>>;

function mergedList(key: string, before: readonly Element[], patch: readonly Element[]): unknown[] {
  const patchOf = (element: Element) => patch.find((each) => each[key] === element[key]);
  const added = patch.filter((each) => !before.some((element) => element[key] === each[key]));
  return [...added, ...before.map((element) => merged("", element, patchOf(element) ?? {}))];
}

function isSame(a: unknown, b: unknown): boolean {
  if (a === b || (isEmpty(a) && isEmpty(b))) return true;
  if (!(isRecord(a) && isRecord(b)) && !(Array.isArray(a) && Array.isArray(b))) return false;
  const [left, right] = [a, b] as Record<string, unknown>[];
  return Object.keys({ ...left, ...right }).every((field) => isSame(left?.[field], right?.[field]));
}
