import type { ItemRecord } from "../../../../simulator/item.ts";
import { END_REASON_LIST } from "../../../../src/api/reasons.ts";
import { EVENTS } from "../../../../src/kube/resource.ts";
import { expectDeletable, expectNoLeaks, expectReady, SETTLES_MS, staysForGood } from "../ends.ts";
import { ENDLESS } from "./fates.ts";
import type { SessionsStage } from "./stage.ts";

/** Fewer Events than the writer lets through of one object at a stretch: none of them was held back. */
const EVENTS_LET_THROUGH = 20;

/** What must be true of every world in the end, whatever befell it. */
export async function expectEnd(stage: SessionsStage): Promise<void> {
  const { world, witness } = stage;
  await untilSettled(stage);
  // What was wrong with an item is told until one after it is served: this one is.
  world.simulator.enqueue(world.environmentId);
  await untilSettled(stage);
  witness.check("everything settles", false);
  await expectReady(stage);
  await expectEachServedOrTold(stage);
  await expectNoLeaks(stage);
  await expectDeletable(stage);
  await witness.settled();
}

/**
 * Every item is stopped, no claim is left, no Pod is assigned. What never ends by itself is stopped by its user: a program
 * without end, and one that a drain gave up, as it tells, on a platform that keeps it for ever.
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
      if (isGivenUp) endForGood(stage, live);
      return live.length === 0 && world.claims.length === 0 && stage.podsOf("assigned").length === 0;
    },
    SETTLES_MS,
  );
}

/** Items that nobody holds any more, on a platform that never ends them by itself: their user does. */
function endForGood({ world, setting }: SessionsStage, live: readonly ItemRecord[]): void {
  for (const item of live) {
    const { id, state } = item;
    if (staysForGood(item, setting.switches)) world.simulator.stopItem(id, { force: state === "stopping" });
  }
}

async function expectEachServedOrTold(stage: SessionsStage): Promise<void> {
  const { world, witness } = stage;
  const items = world.simulator.items(world.environmentId).filter(({ type }) => type === "session");
  for (const { id, acks } of items) {
    const runs = witness.ran.get(id)?.size ?? 0;
    const wrong = runs > acks.length && `${id} ran in ${runs} Pods after ${acks.length} acknowledgements`;
    witness.check("served once, or stopped for a reason that is told", wrong);
  }
  const silent = await untilTold(stage, items.filter(byOperator));
  const wrong = silent.length > 0 && `the operator stopped ${silent.join(", ")}, and no Event says why`;
  witness.check("served once, or stopped for a reason that is told", wrong);
}

/** Events are written beside the work. Resolves with the items of which none tells, once that is sure. */
async function untilTold({ world, witness }: SessionsStage, items: readonly ItemRecord[]): Promise<string[]> {
  const untold = async () => {
    const { items: events } = await world.kube.list(EVENTS, { namespace: world.namespace });
    // One that nobody could write, that went with a process, or that was one too many is lost: more Events do not promise.
    const { kills, kubeTroubled, leadershipShaken } = witness;
    if (kills > 0 || kubeTroubled || leadershipShaken || events.length >= EVENTS_LET_THROUGH) return [];
    const told = events.filter(({ reason }) => (END_REASON_LIST as readonly string[]).includes(reason ?? ""));
    return items.map(({ id }) => id).filter((id) => !told.some(({ message }) => message?.includes(id)));
  };
  const all = () => world.until("the Events are written", async () => (await untold()).length === 0);
  await all().catch(() => {});
  return await untold();
}

function byOperator({ stoppedBy, history }: ItemRecord): boolean {
  return stoppedBy?.as === "environment-key" && !history.some(({ by }) => by.as === "admin");
}
