import type { ItemRecord } from "../../../../simulator/item.ts";
import type { Stage } from "../stage.ts";
import { type Act, pick } from "./act.ts";

/** New items, and actions of the platform's users on items. */
export const WORK = {
  "work:session": (stage) => enqueue(stage),
  "work:burst": (stage, choice) => {
    for (let n = 0; n <= 1 + (choice % 3); n += 1) enqueue(stage);
    return true;
  },
  "work:health-check": (stage) => enqueue(stage, { type: "healthcheck" }),
  "work:unknown-type": (stage) => enqueue(stage, { type: "seance" }),
  "work:no-secret": (stage) => enqueue(stage, { secret: false }),
  "work:same-session": (stage, choice) => {
    const sessionId = someSession(stage, choice);
    return sessionId === undefined ? enqueue(stage) : enqueue(stage, { sessionId });
  },
  "work:message": (stage, choice) => {
    const sessionId = someSession(stage, choice);
    if (sessionId === undefined) return false;
    stage.world.simulator.sendMessage(sessionId, {});
    return true;
  },
  "user:stops": withItem(({ world }, { id }) => world.simulator.stopItem(id)),
  "user:forces-stop": withItem(({ world }, { id }) => world.simulator.stopItem(id, { force: true })),
  "user:revokes-tokens": withItem(({ world }, { id }) => world.simulator.revokeTokens(id)),
  "user:deletes-session": (stage, choice) => {
    const sessionId = someSession(stage, choice);
    if (sessionId === undefined) return false;
    stage.world.simulator.deleteSession(sessionId);
    return true;
  },
} as const satisfies Record<string, Act>;

/** Enqueues two sessions: one uses the Pod that is already parked, if any, and the other needs a new one. */
export function giveFate(kind: string): Act {
  return async (stage) => {
    stage.fates.add(kind);
    for (let n = 0; n < 2; n += 1) enqueue(stage);
    await stage.aim(() => !stage.fates.hasComing || undefined);
    return undefined;
  };
}

/**
 * Enqueues a session. Some faults on requests also enqueue one, because otherwise the operator might send no request.
 */
export function enqueue({ world }: Stage, input: Parameters<Stage["world"]["simulator"]["enqueue"]>[1] = {}): true {
  world.simulator.enqueue(world.environmentId, input);
  return true;
}

function someSession({ world }: Stage, choice: number): string | undefined {
  const sessions = world.simulator.sessions(world.environmentId).filter(({ deleted }) => !deleted);
  return sessions.length === 0 ? undefined : pick(sessions, choice).id;
}

function withItem(act: (stage: Stage, item: ItemRecord) => void): Act {
  return async (stage, choice) => {
    const { simulator, environmentId } = stage.world;
    const item = await stage.aim(() => {
      const items = simulator.items(environmentId);
      const live = items.filter(({ state, type }) => type === "session" && state !== "stopped");
      return live.length === 0 ? undefined : pick(live, choice);
    });
    if (item) act(stage, item);
    return item !== undefined;
  };
}
