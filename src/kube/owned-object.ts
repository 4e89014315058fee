import { hashOf } from "../core/json.ts";
import type { CallOptions, KubeClient } from "./client.ts";
import { isAlreadyExists, isConflict, isForbidden, isInvalid, isNotFound, orNull } from "./errors.ts";
import type { KubeObject, OwnerReference } from "./objects.ts";
import { apiVersionOf, type Resource } from "./resource.ts";

/** Owns the fields that Berth sets, also when another client changed them. */
export const FIELD_MANAGER = "berth";

/** Attempts to write: another client may create, delete or replace the object in between. */
const TRIES = 3;

/** Where an object is, and whose. */
export type OwnedMetadata = {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly ownerReferences: [OwnerReference];
};

export interface OwnedCalls<T extends KubeObject> {
  readonly kube: KubeClient;
  readonly resource: Resource<T>;
  readonly bound?: CallOptions;
  /** Sends each request. */
  readonly run: <R>(act: "read" | "create" | "patch" | "delete", call: () => Promise<R>) => Promise<R>;
}

/** The object of this name has another owner. */
export class OtherOwner extends Error {}

/** The object was not stored as it was sent. */
export class Altered extends Error {}

/**
 * Makes the object have this spec, and returns it as stored; null: deletes it. Server-side apply replaces lists and
 * selectors of policies whole, so that nothing remains that another client added. The answer is compared, because
 * apply keeps fields that are not in `spec`, and admission may change any.
 *
 * An object of another owner is never touched. One of an earlier owner of the same name is replaced. One without an
 * owner, as `kubectl delete --cascade=orphan` leaves it, is adopted if it has our labels.
 * @param known the object as stored last; null: read it. An outdated one is read again
 * @throws KubeApiError, OtherOwner, Altered
 */
export async function keepOwned<T extends KubeObject>(
  calls: OwnedCalls<T>,
  metadata: OwnedMetadata,
  spec: object | null,
  known: T | null = null,
): Promise<T | null> {
  let last = known;
  for (let tries = 1; ; tries += 1) {
    try {
      return await write(calls, metadata, spec, last ?? (await find(calls, metadata, spec !== null)));
    } catch (error) {
      // A changed uid or a second controller is invalid.
      const isOutdated = last !== null && isInvalid(error);
      const isRace = isOutdated || isAlreadyExists(error) || isConflict(error) || isNotFound(error);
      if (!isRace || tries === TRIES) throw error;
      last = null;
    }
  }
}

/** Whether the stored object is as wanted. Additions to its metadata, and empty fields of the spec, don't count. */
export function isAsWanted(found: KubeObject, wanted: KubeObject): boolean {
  return (
    hasLabels(found, wanted.metadata.labels) &&
    controllerOf(found)?.uid === controllerOf(wanted)?.uid &&
    hashOf(withoutEmpty(found["spec"])) === hashOf(withoutEmpty(wanted["spec"]))
  );
}

async function write<T extends KubeObject>(
  calls: OwnedCalls<T>,
  metadata: OwnedMetadata,
  spec: object | null,
  found: T | null,
): Promise<T | null> {
  if (spec === null) {
    if (found) await remove(calls, found);
    return null;
  }
  const { kube, resource, bound, run } = calls;
  const type = { apiVersion: apiVersionOf(resource), kind: resource.kind };
  const wanted = { ...type, metadata: { ...metadata, uid: found?.metadata.uid }, spec } as unknown as T;
  if (found && isAsWanted(found, wanted)) return found;
  const how = { type: "apply", fieldManager: FIELD_MANAGER, force: true } as const;
  // An apply would also change an object that another client creates meanwhile.
  const stored = found
    ? await run("patch", () => kube.patch(resource, metadata, wanted, how, bound))
    : await run("create", () => kube.create(resource, wanted, { fieldManager: FIELD_MANAGER }, bound));
  if (!isAsWanted(stored, wanted)) throw new Altered("the cluster's admission changed it");
  return stored;
}

/** Reads the object live. Deletes one of an earlier owner, which the garbage collector would do at an unknown time. */
async function find<T extends KubeObject>(
  calls: OwnedCalls<T>,
  { namespace, name, labels, ownerReferences: [owner] }: OwnedMetadata,
  isWanted: boolean,
): Promise<T | null> {
  const { kube, resource, bound, run } = calls;
  const found = await orNull(run("read", () => kube.get(resource, { namespace, name }, bound))).catch((error) => {
    // What is not wanted needs no permission.
    if (isWanted || !isForbidden(error)) throw error;
    return null;
  });
  if (!found) return null;
  const other = controllerOf(found);
  if (other ? other.uid === owner.uid : hasLabels(found, labels)) return found;
  // Other API groups may have a kind with this name.
  if (other && other.kind === owner.kind && other.name === owner.name && groupOf(other) === groupOf(owner)) {
    await remove(calls, found);
    return null;
  }
  if (!isWanted) return null;
  throw new OtherOwner(`${resource.kind} ${name} has another owner; delete or rename it`);
}

async function remove<T extends KubeObject>({ kube, resource, bound, run }: OwnedCalls<T>, { metadata }: T) {
  const { namespace, name = "", uid } = metadata;
  const ref = { namespace, name };
  await orNull(run("delete", () => kube.delete(resource, ref, uid === undefined ? {} : { uid }, bound)));
}

function controllerOf({ metadata }: KubeObject): OwnerReference | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller);
}

function hasLabels({ metadata }: KubeObject, labels: Readonly<Record<string, string>> = {}): boolean {
  return Object.entries(labels).every(([key, value]) => metadata.labels?.[key] === value);
}

function groupOf({ apiVersion }: OwnerReference): string | undefined {
  return apiVersion.split("/")[0];
}

/** The API server omits empty lists and nulls. */
function withoutEmpty(spec: unknown): unknown {
  const isEmpty = (part: unknown) => part === null || (Array.isArray(part) && part.length === 0);
  return Object.fromEntries(Object.entries(spec ?? {}).filter(([, part]) => !isEmpty(part)));
}
