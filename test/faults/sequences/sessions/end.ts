import type { ItemRecord } from "../../../../simulator/item.ts";
import { END_REASON_LIST } from "../../../../src/api/reasons.ts";
import { EVENTS } from "../../../../src/kube/resource.ts";
import { expectDeletable, expectNoLeaks, expectReady, SETTLES_MS, staysForGood } from "../ends.ts";
import { ENDLESS } from "./fates.ts";
import type { SessionsStage } from "./stage.ts";

/** Below the Event writer's burst limit for one object, so no Event was held back. */
const EVENTS_LET_THROUGH = 20;

/** Checks what must be true of every world at the end, whatever happened. */
export async function expectEnd(stage: SessionsStage): Promise<void> {
  const { world, witness } = stage;
  await untilSettled(stage);
  // A problem with an item is reported until a later item is served; this is that item.
  world.simulator.enqueue(world.environmentId);
  await untilSettled(stage);
  witness.check("everything settles", false);
  await expectReady(stage);
  await expectEachServedOrReported(stage);
  await expectNoLeaks(stage);
  await expectDeletable(stage);
  await witness.settled();
}

/**
 * Waits until every item is stopped, no claim is left, and no Pod is assigned. Acts as the user who stops what would
 * never end: an endless program, and an item that a drain gave up, on a platform that keeps it forever.
 */
async function untilSettled(stage: SessionsStage): Promise<void> {
  const { world } = stage;
  const asked = new Set<string>();
  await world.until(
    "everything has settled",
    () => {
      for (const pod of world.pods) {
        const work = pod.metadata.annotations?.["berth.dev/work-id"];
        if (!work || asked.has(work) || !stage.fates.isOneOf(ENDLESS, pod)) continue;
        asked.add(work);
        if (world.simulator.item(work).state !== "stopped") world.simulator.stopItem(work);
      }
      const live = world.simulator.items(world.environmentId).filter(({ state }) => state !== "stopped");
      const isGivenUp = world.events("DrainGivenUp").length > 0 && world.claims.length === 0;
      if (isGivenUp) stopAbandonedItems(stage, live);
      return live.length === 0 && world.claims.length === 0 && stage.podsOf("running").length === 0;
    },
    SETTLES_MS,
  );
}

/** Acts as the user who stops items that no client holds and that this platform never ends. */
function stopAbandonedItems({ world, setting }: SessionsStage, live: readonly ItemRecord[]): void {
  for (const item of live) {
    const { id, state } = item;
    if (staysForGood(item, setting.switches)) world.simulator.stopItem(id, { force: state === "stopping" });
  }
}

async function expectEachServedOrReported(stage: SessionsStage): Promise<void> {
  const { world, witness } = stage;
  const items = world.simulator.items(world.environmentId).filter(({ type }) => type === "session");
  for (const { id, acks } of items) {
    const runs = witness.ran.get(id)?.size ?? 0;
    const wrong = runs > acks.length && `${id} ran in ${runs} containers after ${acks.length} acknowledgements`;
    witness.check("served once, or stopped for a reason that is told", wrong);
  }
  const silent = await untilReported(stage, items.filter(byOperator));
  const wrong = silent.length > 0 && `the operator stopped ${silent.join(", ")}, and no Event says why`;
  witness.check("served once, or stopped for a reason that is told", wrong);
}

/**
 * The operator writes Events asynchronously. Resolves with the items without an Event, once no more Events can come.
 */
async function untilReported({ world, witness }: SessionsStage, items: readonly ItemRecord[]): Promise<string[]> {
  const unreported = async () => {
    const { items: events } = await world.kube.list(EVENTS, { namespace: world.namespace });
    // Events are lost if the API server failed, if their process was killed, or if they exceed a limit. Events promise
    // no more.
    const { kills, kubeTroubled, leadershipShaken } = witness;
    if (kills > 0 || kubeTroubled || leadershipShaken || events.length >= EVENTS_LET_THROUGH) return [];
    const endEvents = events.filter(({ reason }) => (END_REASON_LIST as readonly string[]).includes(reason ?? ""));
    return items.map(({ id }) => id).filter((id) => !endEvents.some(({ message }) => message?.includes(id)));
  };
  const all = () => world.until("the Events are written", async () => (await unreported()).length === 0);
  await all().catch(() => {});
  return await unreported();
}

function byOperator({ stoppedBy, history }: ItemRecord): boolean {
  return stoppedBy?.as === "environment-key" && !history.some(({ by }) => by.as === "admin");
}
