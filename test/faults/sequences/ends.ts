import type { ItemRecord } from "../../../simulator/item.ts";
import { LABEL_ENVIRONMENT } from "../../../src/api/names.ts";
import {
  CONFIG_MAPS,
  DEPLOYMENTS,
  EVENTS,
  type KubeObject,
  LEASES,
  NETWORK_POLICIES,
  POD_DISRUPTION_BUDGETS,
  PODS,
  type Resource,
} from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { CommonSetting, Stage } from "./stage.ts";

/**
 * A few seconds on an idle machine. On a machine so busy that requests exceed the claim protocol's limits, the operator
 * correctly serves nothing meanwhile.
 */
export const SETTLES_MS = 600_000;
/** The garbage collector of a new control plane needs half a minute to discover a kind. */
const GONE_MS = 300_000;

const REPLICA_SETS: Resource<KubeObject> = {
  group: "apps",
  version: "v1",
  plural: "replicasets",
  kind: "ReplicaSet",
  namespaced: true,
};

/** Whether this platform keeps an item that no client holds in its state forever. */
export function staysForGood(
  { state, beats }: ItemRecord,
  { starting, lapsedStopping }: CommonSetting["switches"],
): boolean {
  const startsForEver = starting === "never";
  if (state === "starting") return startsForEver;
  // Without a heartbeat there is no lease that could lapse.
  return state === "stopping" && (lapsedStopping === "stays" || (startsForEver && beats === 0));
}

/** Waits until `Ready` is True. */
export async function expectReady({ world, witness }: Stage): Promise<void> {
  await world.until("Ready is True", () => world.condition("Ready")?.status === "True", SETTLES_MS);
  witness.check("Ready when all is well", false);
}

/** Checks that only Secrets contain credentials. */
export async function expectNoLeaks(stage: Stage): Promise<void> {
  const { world, witness } = stage;
  const { kube, namespace } = world;
  const kinds: readonly Resource[] = [
    PODS,
    EVENTS,
    CONFIG_MAPS,
    LEASES,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    ENVIRONMENTS,
  ];
  const lists = await Promise.all(kinds.map((kind) => kube.list(kind, { namespace })));
  for (const object of lists.flatMap(({ items }) => items)) {
    witness.checkForLeaks(`${object.kind} ${object.metadata.name}`, JSON.stringify(object));
  }
  for (const { metrics, name } of stage.replicas) {
    const text = (await metrics?.registry.metrics()) ?? "";
    witness.checkForLeaks(`the metrics of ${name}`, text);
  }
  witness.checkForLeaks("the log", stage.log.lines.join("\n"));
}

/** Deletes the Environment, and checks that nothing of it is left. */
export async function expectDeletable(stage: Stage): Promise<void> {
  const { world, witness } = stage;
  await world.deleteEnvironment();
  witness.environmentDeleted = true;
  await world.until("the Environment is gone", () => !world.environment, GONE_MS);
  await world.until("its Pods and claims are gone", () => world.pods.length + world.claims.length === 0, GONE_MS);
  await world.until("whatever it owned is gone", async () => (await leftovers(stage)).length === 0, GONE_MS);
  witness.check("nothing is left of a deleted Environment", false);
}

/** Objects with an Environment's label, of every kind that Berth creates. */
async function leftovers({ world }: Stage): Promise<KubeObject[]> {
  const { kube, namespace } = world;
  const query = { namespace, labelSelector: LABEL_ENVIRONMENT };
  const kinds: readonly Resource[] = [NETWORK_POLICIES, POD_DISRUPTION_BUDGETS, DEPLOYMENTS, REPLICA_SETS];
  const lists = await Promise.all(kinds.map((kind) => kube.list(kind, query)));
  return lists.flatMap(({ items }) => items);
}
