import { describe, expect, test } from "vitest";
import type { Pod } from "../../../src/kube/resource.ts";
import { endedTurn, newestTurn } from "../../../src/pods/turns.ts";
import { metricValue } from "../../support/metric-value.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;

const TEMPLATE = {
  spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }], terminationGracePeriodSeconds: 30 },
};

/** A world whose sessions sleep for ten minutes, with one free Pod. */
async function sleepyWorld(options: LoopWorldOptions = {}) {
  const world = new LoopWorld({
    ...options,
    sessions: { template: TEMPLATE, workspace: { type: "Pod", sleepSeconds: 600 }, ...options.sessions },
  });
  world.createEnvironment();
  const operator = world.startOperator();
  if (options.sessions?.["warm"] !== 0) await world.until("a Pod waits", () => world.parked.length > 0);
  await world.pass(SECOND);
  const sessionOf = (item: string) => world.api.world.item(item).data.id;
  const served = (item: string) => world.item(item).state === "stopped" && world.isSettled;
  /** Serves an item, and waits until its session can serve the next one. */
  const serve = async (sessionId?: string) => {
    const item = world.enqueue(sessionId === undefined ? {} : { sessionId });
    await world.until("the item is served", () => served(item));
    await world.until("the next turn waits", () => asleep(sessionOf(item))?.ready === true);
    return { item, sessionId: sessionOf(item) };
  };
  const asleep = (sessionId: string) => {
    const pod = world.podsOf("sleeping").find((each) => sessionIn(each) === sessionId);
    return (
      pod && {
        pod,
        name: pod.metadata.name ?? "",
        ready: world.parked.some(({ metadata }) => metadata.name === pod.metadata.name),
      }
    );
  };
  const podsServed = () => world.starts.map(({ pod, container }) => `${pod} ${container}`);
  return { world, operator, serve, asleep, served, sessionOf, podsServed };
}

const sessionIn = (pod: Pod) => pod.metadata.annotations?.["berth.dev/session-id"];

describe("a session that sleeps", () => {
  test("gets its next items in the same Pod, each in a turn of its own", async () => {
    const { world, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    for (let n = 0; n < 3; n += 1) await serve(sessionId);
    expect(world.starts.map(({ pod, container }) => [pod, container])).toEqual(
      [1, 2, 3, 4].map((turn) => [name, `berth-turn-${turn}`]),
    );
    expect(asleep(sessionId)?.name).toBe(name);
    const pod = asleep(sessionId)?.pod as Pod;
    expect([endedTurn(pod), newestTurn(pod)]).toEqual([4, 5]);
    expect(world.claims).toEqual([]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
    expect(await metricValue(world.metrics.sessionsWoken, { namespace: NAMESPACE, environment: NAME })).toBe(3);
  });

  test("leaves its Pod to no other session", async () => {
    const { world, serve, asleep } = await sleepyWorld({ sessions: { warm: 0, maxConcurrent: 2 } });
    const [one, other] = [await serve(), await serve()];
    expect(asleep(one.sessionId)?.name).not.toBe(asleep(other.sessionId)?.name);
    expect(world.podsOf("sleeping")).toHaveLength(2);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });
});
