import { LEASES, type Pod } from "../../../src/kube/resource.ts";
import { OPERATOR_NAMESPACE } from "./provided.ts";
import type { E2eWorld } from "./world.ts";

/** The chart's release has one shard, and the shard's Lease has the release's name. */
const LEASE = { namespace: OPERATOR_NAMESPACE, name: "berth" };

/**
 * The current holder of the operators' Lease: the Pod's name and a suffix for the process. Empty if no operator holds
 * it.
 */
export async function leaderIdentity(world: E2eWorld): Promise<string> {
  const { spec } = await world.kube.get(LEASES, LEASE);
  return spec?.holderIdentity ?? "";
}

/** Waits for the operators' Pod that leads. */
export function untilLed(world: E2eWorld): Promise<Pod> {
  return world.until("an operator that leads", async () => {
    const identity = await leaderIdentity(world);
    const pods = await world.operators.readyPods();
    return pods.find(({ metadata }) => metadata.name !== undefined && identity.startsWith(`${metadata.name}_`));
  });
}

/** Waits until another operator leads. */
export function untilLedByAnother(world: E2eWorld, identity: string): Promise<string> {
  return world.until("another leader", async () => {
    const now = await leaderIdentity(world);
    return now !== "" && now !== identity && now;
  });
}
