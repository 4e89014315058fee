import type { ItemRecord } from "../../../../simulator/item.ts";
import type { Pod } from "../../../../src/kube/resource.ts";
import { deletePod } from "../acts/cluster.ts";
import { expectDeletable, expectNoLeaks, expectReady, SETTLES_MS, staysForGood } from "../ends.ts";
import { ENDLESS, SILENT } from "./fates.ts";
import { CALM_IMAGE } from "./perform.ts";
import type { WorkersStage } from "./stage.ts";

/**
 * A live worker sends a heartbeat sooner after its acknowledgement, and a worker that was told to stop has ended by
 * then.
 */
const ABANDONED_MS = 15_000;

/** Checks what must be true of every world at the end, whatever happened. */
export async function expectEnd(stage: WorkersStage): Promise<void> {
  const { world, witness, setting } = stage;
  await untilSettled(stage);
  witness.check("every item is served or stopped", false);
  await untilAtMinimum(stage);
  witness.check("as few workers as the queue asks for", false);
  witness.peak = setting.minReplicas;
  await world.until(
    "as many workers as may be",
    () => {
      if (witness.peak < setting.maxReplicas) fillQueue(stage);
      return witness.peak === setting.maxReplicas;
    },
    SETTLES_MS,
  );
  witness.check("as many workers as the queue asks for", false);
  await untilSettled(stage);
  await untilAtMinimum(stage);
  await expectReady(stage);
  await expectNoLeaks(stage);
  await expectDeletable(stage);
  await witness.settled();
}

/**
 * Enqueues more than all workers may serve; otherwise a few quick workers could empty the queue before the operator
 * reads it.
 */
function fillQueue({ world, setting }: WorkersStage): void {
  const { simulator, environmentId } = world;
  const waiting = simulator.items(environmentId).filter(({ state }) => state === "queued").length;
  const wanted = setting.maxReplicas * setting.sessionsPerReplica + 1;
  for (let n = waiting; n < wanted; n += 1) simulator.enqueue(environmentId);
}

/** Waits until every item is stopped. Acts as the user who stops what would never end. */
async function untilSettled(stage: WorkersStage): Promise<void> {
  const { simulator, environmentId } = stage.world;
  await stage.world.until(
    "every item is stopped",
    () => {
      const live = simulator.items(environmentId).filter(({ state }) => state !== "stopped");
      for (const item of live) stopIfAbandoned(stage, item);
      return live.length === 0;
    },
    SETTLES_MS,
  );
}

/** Stops an item that no other client will ever stop. */
function stopIfAbandoned({ world, fates, setting }: WorkersStage, item: ItemRecord): void {
  const { simulator } = world;
  const ageMs = simulator.clock.now() - (item.history.at(-1)?.at ?? 0);
  const server = world.pods.find(({ metadata }) => metadata.name === item.acks.at(-1)?.workerId);
  if (item.state === "active" && server && fates.isOneOf(ENDLESS, server)) simulator.stopItem(item.id);
  if (ageMs >= ABANDONED_MS && staysForGood(item, setting.switches)) simulator.stopItem(item.id, { force: true });
}

/**
 * Waits for `minReplicas` workers in one Deployment, of the current template and all Ready, and for a status that
 * agrees.
 */
async function untilAtMinimum(stage: WorkersStage): Promise<void> {
  const { world, setting } = stage;
  const { minReplicas } = setting;
  await world.until(
    `${minReplicas} workers, and nothing of earlier templates`,
    async () => {
      await deleteSilent(stage);
      const [deployment, ...others] = stage.deployments;
      const pods = stage.workers;
      const { desired, replicas, ready } = world.environment?.status?.workers ?? {};
      return (
        others.length === 0 &&
        (deployment?.spec.replicas ?? 0) === minReplicas &&
        (!deployment || imageOf(deployment.spec.template as Pod) === CALM_IMAGE) &&
        pods.length === minReplicas &&
        [desired, replicas, ready].every((count) => count === minReplicas)
      );
    },
    SETTLES_MS,
  );
}

/** A worker that never reports that it is idle ends only when a user deletes it, as docs/workers.md says. */
async function deleteSilent(stage: WorkersStage): Promise<void> {
  for (const pod of stage.idlePods()) {
    if (!stage.fates.isOneOf(SILENT, pod)) continue;
    stage.witness.excuse(pod);
    await deletePod(stage, pod);
  }
}

function imageOf({ spec }: Pick<Pod, "spec">): string | undefined {
  return spec.containers[0]?.image;
}
