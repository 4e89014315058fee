import type { ItemRecord } from "../../../../simulator/item.ts";
import { ANNOTATION_WORK_ID, LABEL_ENVIRONMENT, LABEL_PHASE } from "../../../../src/api/names.ts";
import {
  DEPLOYMENTS,
  type KubeObject,
  NETWORK_POLICIES,
  POD_DISRUPTION_BUDGETS,
  type Resource,
  SECRETS,
} from "../../../../src/kube/resource.ts";
import { runningContainerName } from "../../../../src/pods/pod-state.ts";
import { isAsleep } from "../../../../src/pods/turns.ts";
import { CLAIM_SECRET_TYPE } from "../../../../src/protocol/journal.ts";
import type { World } from "../../../support/world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";
import type { Scenario } from "./scenarios.ts";

/** Records from now on what ran each item: by work id, the started containers, each with its Pod's uid. */
export function watchRuns(world: World): ReadonlyMap<string, ReadonlySet<string>> {
  const runs = new Map<string, Set<string>>();
  world.onPodChange(() => {
    for (const pod of world.pods) {
      const { metadata, status } = pod;
      const workId = metadata.annotations?.[ANNOTATION_WORK_ID];
      // The next turn of a sleeping Pod serves no item yet.
      if (workId === undefined || isAsleep(pod)) continue;
      const name = runningContainerName(pod);
      const statuses = [...(status?.containerStatuses ?? []), ...(status?.ephemeralContainerStatuses ?? [])];
      const { state } = statuses.find((container) => container.name === name) ?? {};
      if (!state?.running && !state?.terminated?.startedAt) continue;
      const containers = runs.get(workId) ?? new Set();
      runs.set(workId, containers.add(`${metadata.uid} ${name}`));
    }
  });
  return runs;
}

/** Waits until nothing is in progress, and checks every promise against the final state. */
export async function expectEnd(
  world: World,
  scenario: Scenario,
  runs: ReadonlyMap<string, ReadonlySet<string>>,
): Promise<void> {
  const isOver = ({ state }: ItemRecord) => state === "stopped" || (state === "queued" && scenario.ends === "returned");
  await world.until(
    "every item has ended, and no claim is left",
    () => items(world).every(isOver) && noClaim(world),
    PATIENCE_MS,
  );
  await world.until("only free and sleeping Pods are left", () => world.pods.every(isUnclaimed), PATIENCE_MS);
  for (const item of items(world)) await expectItem(world, scenario, item, runs.get(item.id)?.size ?? 0);
  await scenario.atEnd?.(world);
  if (world.environment && !world.environment.metadata.deletionTimestamp) await world.deleteEnvironment();
  await world.until("the Environment is gone", () => world.environment === undefined, PATIENCE_MS);
  await world.until("no Pod is left", () => world.pods.length === 0, PATIENCE_MS);
  for (const resource of [POD_DISRUPTION_BUDGETS, NETWORK_POLICIES, DEPLOYMENTS] as Resource<KubeObject>[]) {
    await world.until(`no ${resource.kind} is left`, () => isNone(world, resource), PATIENCE_MS);
  }
  // Listed directly, because a watch may lag behind that of the Environment.
  const labelSelector = LABEL_ENVIRONMENT;
  const secrets = async () => (await world.kube.list(SECRETS, { namespace: world.namespace, labelSelector })).items;
  const claims = (await secrets()).filter(({ type }) => type === CLAIM_SECRET_TYPE);
  if (claims.length > 0) throw new Error(`claims are left: ${JSON.stringify(claims)}\n${world.describe()}`);
  // The garbage collector deletes what the Environment owns.
  await world.until("no Secret is left", async () => (await secrets()).length === 0, PATIENCE_MS);
  world.simulator.assertNoViolations();
}

async function expectItem(world: World, { ends }: Scenario, item: ItemRecord, containers: number): Promise<void> {
  const wrong = (what: string) => {
    throw new Error(`item ${item.id} ${what}: ${JSON.stringify(item)}\n${world.describe()}`);
  };
  // An item whose lease lapsed or was released is queued again, and may be acknowledged once per generation.
  const generations = item.acks.map(({ generation }) => generation);
  if (new Set(generations).size < generations.length) wrong("was acknowledged twice");
  if (containers > item.acks.length) wrong(`ran in ${containers} containers`);
  const ran = containers > 0 || item.firstBeatAt !== undefined;
  // The operator writes Events asynchronously, and the test sees them through a separate watch.
  const isItemReported = () => isReported(world, item);
  if (ends === "served" && !ran) await world.until(`an Event says why item ${item.id} never ran`, isItemReported);
  if (ends === "stopped" && item.stoppedBy?.as !== "environment-key") wrong("was not stopped by the operator");
}

/** Whether an Event names the item, so that a user can find out what became of it. */
function isReported(world: World, item: ItemRecord): boolean {
  return world.allEvents.some(({ message }) => message?.includes(item.id));
}

const items = (world: World) => world.simulator.items(world.environmentId);

const noClaim = (world: World) => world.claims.length === 0;

function isUnclaimed(pod: World["pods"][number]): boolean {
  const { labels } = pod.metadata;
  return labels?.[LABEL_PHASE] === "warm" || isAsleep(pod) || labels?.["berth.dev/role"] === "worker";
}

async function isNone(world: World, resource: Resource<KubeObject>): Promise<boolean> {
  return (await world.kube.list(resource, { namespace: world.namespace })).items.length === 0;
}
