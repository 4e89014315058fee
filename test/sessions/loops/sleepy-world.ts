import { expect, onTestFinished } from "vitest";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;

export const TEMPLATE = {
  spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }], terminationGracePeriodSeconds: 30 },
};

/**
 * A world whose sessions sleep for ten minutes, with one free Pod. At the end of the test, no rule of the protocol may
 * have been broken.
 */
export async function sleepyWorld(options: LoopWorldOptions = {}) {
  const world = new LoopWorld({
    ...options,
    sessions: { template: TEMPLATE, workspace: { type: "Pod", sleepSeconds: 600 }, ...options.sessions },
  });
  onTestFinished(() => expect([...world.wrongs, ...world.violations]).toEqual([]));
  world.createEnvironment();
  const operator = world.startOperator();
  if (options.sessions?.["warm"] !== 0) await world.until("a Pod waits", () => world.parked.length > 0);
  await world.pass(SECOND);
  const sessionOf = (item: string) => world.api.world.item(item).data.id;
  /** The Pod in which the session sleeps. */
  const sleeperOf = (sessionId: string) =>
    world.podsOf("sleeping").find(({ metadata }) => metadata.annotations?.["berth.dev/session-id"] === sessionId);
  /** The name of that Pod. */
  const nameOf = (sessionId: string) => sleeperOf(sessionId)?.metadata.name;
  /** Whether the session's next turn waits. */
  const isReady = (sessionId: string) => {
    const name = nameOf(sessionId);
    return name !== undefined && world.parked.some(({ metadata }) => metadata.name === name);
  };
  const isServed = (item: string) => world.item(item).state === "stopped" && world.isSettled;
  /** Serves an item, and waits until its session, which is returned, can serve the next one. */
  const serve = async (sessionId?: string) => {
    const item = world.enqueue(sessionId === undefined ? {} : { sessionId });
    await world.until("the item is served", () => isServed(item));
    await world.until("the next turn waits", () => isReady(sessionOf(item)));
    return sessionOf(item);
  };
  return { world, operator, serve, isServed, isReady, sessionOf, sleeperOf, nameOf };
}
