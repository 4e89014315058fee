import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PERSISTENT_VOLUME_CLAIMS } from "../../src/kube/resource.ts";
import { allowVolumes, provideVolume } from "../../test/support/session-volumes.ts";
import type { Inside } from "./inside.ts";

/** Provides folders of the node as volumes of the namespace's storage class, and lets the operator claim them. */
export async function provideLocalVolumes(
  { stand, node }: Inside<unknown>,
  namespace: string,
  count: number,
): Promise<void> {
  const world = { kube: stand.kube, namespace };
  await allowVolumes(world);
  const isThere = { key: "kubernetes.io/hostname", operator: "In", values: [node.nodeName] };
  const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions: [isThere] }] } };
  for (let at = 0; at < count; at += 1) {
    const path = join(dirname(node.podLogs), "volumes", namespace, String(at));
    await mkdir(path, { recursive: true });
    await provideVolume(world, `${namespace}-${at}`, { local: { path }, nodeAffinity });
  }
}

/** Claims one of these volumes. */
export async function claimVolume({ stand }: Inside<unknown>, namespace: string, name: string): Promise<void> {
  await stand.kube.create(PERSISTENT_VOLUME_CLAIMS, {
    metadata: { name, namespace },
    spec: {
      ...{ accessModes: ["ReadWriteOnce"], storageClassName: namespace },
      resources: { requests: { storage: "1Gi" } },
    },
  });
}
