/** Volumes for worlds whose sessions have workspaces. */
import {
  type KubeObject,
  PERSISTENT_VOLUME_CLAIMS,
  type PersistentVolumeClaim,
  type Resource,
} from "../../src/kube/resource.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import type { World } from "./world.ts";

const RBAC = { group: "rbac.authorization.k8s.io", version: "v1", namespaced: true } as const;
const ROLES: Resource = { ...RBAC, plural: "roles", kind: "Role" };
const ROLE_BINDINGS: Resource = { ...RBAC, plural: "rolebindings", kind: "RoleBinding" };
export const VOLUMES: Resource = {
  group: "",
  version: "v1",
  plural: "persistentvolumes",
  kind: "PersistentVolume",
  namespaced: false,
};

/** `spec.sessions` of a world whose sessions have volumes. */
export function perSession(world: Pick<World, "namespace">, over: Record<string, unknown> = {}) {
  const storageClassName = world.namespace;
  const claimTemplate = { resources: { requests: { storage: "1Gi" } }, storageClassName };
  return { warm: 0, workspace: { type: "PerSession", claimTemplate, ...over } };
}

/**
 * Grants this operator the permissions of the chart's `features.volumes` (test/faults/authority checks that they match).
 */
export async function allowVolumes({ kube, namespace }: Pick<World, "kube" | "namespace">, operator = OPERATOR) {
  const metadata = { name: "workspaces", namespace };
  const verbs = ["get", "list", "create", "patch", "delete"];
  const rules = [{ apiGroups: [""], resources: ["persistentvolumeclaims"], verbs }];
  await kube.create(ROLES, { metadata, rules });
  const subjects = [{ kind: "User", name: operator, apiGroup: RBAC.group }];
  const roleRef = { kind: "Role", name: metadata.name, apiGroup: RBAC.group };
  await kube.create(ROLE_BINDINGS, { metadata, subjects, roleRef });
}

/**
 * Creates a volume of the world's storage class, as an administrator without a provisioner does.
 * @param source where the volume is
 */
export async function provideVolume(
  { kube, namespace }: Pick<World, "kube" | "namespace">,
  name: string,
  source: Record<string, unknown>,
): Promise<void> {
  await kube.create(VOLUMES, {
    metadata: { name },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      storageClassName: namespace,
      persistentVolumeReclaimPolicy: "Retain",
      ...source,
    },
  } as KubeObject);
}

/** Creates this many volumes for the claims of this world. */
export async function provideVolumes(world: World, count: number): Promise<void> {
  const { namespace, name } = world;
  for (let n = 0; n < count; n += 1) {
    await provideVolume(world, `${namespace}-${name}-${n}`, { hostPath: { path: `/var/lib/${namespace}/${n}` } });
  }
}

/** The volumes of a world's sessions. */
export async function sessionVolumes({
  kube,
  namespace,
}: Pick<World, "kube" | "namespace">): Promise<PersistentVolumeClaim[]> {
  return (await kube.list(PERSISTENT_VOLUME_CLAIMS, { namespace })).items;
}

/** The PersistentVolumeClaim that a Pod mounts. */
export function volumeOf(pod: { spec: { volumes?: Record<string, unknown>[] } } | undefined): string | undefined {
  const claims = pod?.spec.volumes?.flatMap(({ persistentVolumeClaim: claim }) => (claim ? [claim] : [])) ?? [];
  return (claims[0] as { claimName?: string } | undefined)?.claimName;
}
