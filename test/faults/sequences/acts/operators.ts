import { isNotFound } from "../../../../src/kube/errors.ts";
import { LEASES } from "../../../../src/kube/resource.ts";
import type { Stillness } from "../clock.ts";
import type { Stage } from "../stage.ts";
import { type Act, pick } from "./act.ts";

const HOUR_MS = 3_600_000;
const DOWN_MS = [100, 600, 2_000] as const;
const STILL_MS = [400, 1_500, 4_000] as const;

export const OPERATORS = {
  "clock:forward": setClocks(HOUR_MS),
  "clock:back": setClocks(-HOUR_MS),
  "clock:stopped": standStill("stopped"),
  "clock:suspended": standStill("suspended"),
  "operator:restarted": async (stage) => {
    const [replica] = stage.replicas;
    if (!replica) return false;
    await stage.end(replica);
    await stage.startReplica();
    return true;
  },
  "operator:killed": replaceOne("kill"),
  "operator:down": replaceOne("end"),
  "leader:ended": replaceOne("end"),
  "leader:killed": replaceOne("kill"),
  "leader:lease-deleted": async (stage) => {
    const { kube, namespace } = stage.world;
    stage.witness.shakeLeadership();
    const { items } = await kube.list(LEASES, { namespace });
    for (const { metadata } of items) {
      try {
        await kube.delete(LEASES, { namespace, name: metadata.name ?? "" });
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
    return items.length > 0;
  },
} as const satisfies Record<string, Act>;

function setClocks(offsetMs: number): Act {
  return (stage, choice) => {
    const movable = stage.replicas.filter(({ clock }) => clock.mayBeSet(offsetMs));
    if (movable.length === 0) return false;
    stage.witness.shakeLeadership();
    for (const { clock } of movable) clock.setWall(offsetMs * (1 + (choice % 3)));
    return true;
  };
}

/**
 * Pauses a replica: its timers don't run and its requests wait until it resumes. It still receives replies in flight,
 * which a really stopped process would not.
 */
function standStill(how: Stillness): Act {
  return (stage, choice) => {
    const [replica] = stage.replicas;
    if (!replica?.clock.mayStand(how)) return false;
    stage.witness.shakeLeadership();
    replica.clock.stand(how);
    replica.proxy.stall();
    stage.later(pick(STILL_MS, choice), () => {
      if (replica.isKilled) return;
      replica.clock.goOn();
      replica.proxy.clear();
    });
    return true;
  };
}

/** Ends one replica and starts another. The oldest one usually leads. */
function replaceOne(how: "end" | "kill"): Act {
  return async (stage: Stage, choice) => {
    const [replica] = stage.replicas;
    if (!replica) return false;
    if (how === "kill") stage.kill(replica);
    else await stage.end(replica);
    stage.later(pick(DOWN_MS, choice), async () => {
      await stage.startReplica();
    });
    return true;
  };
}
