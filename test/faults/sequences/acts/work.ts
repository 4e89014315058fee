import type { ItemRecord } from "../../../../simulator/item.ts";
import type { Stage } from "../stage.ts";
import { type Act, pick } from "./act.ts";

/** Work comes, and users of the platform do something about it. */
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

/** Two sessions come: one takes the Pod that is parked already, where there is one, the other wants a new one. */
export function giveFate(kind: string): Act {
  return async (stage) => {
    stage.fates.add(kind);
    for (let n = 0; n < 2; n += 1) enqueue(stage);
    await stage.aim(() => !stage.fates.hasComing || undefined);
    return undefined;
  };
}

/** Work comes. Faults on requests come with some, for else none might be sent. */
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
