import { describe, expect, test } from "vitest";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { endedTurn, newestTurn } from "../../../src/pods/turns.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { forbidEphemeralContainers } from "./kube.ts";
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

  test.each([0, 1, 3])("gets an item that is queued %i s after the last one in the same Pod", async (seconds) => {
    const { world, serve, asleep, served } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    const second = world.enqueue({ sessionId });
    await world.until("the second item is stopped", () => world.item(second).state === "stopped");
    await world.pass(seconds * SECOND);
    const third = world.enqueue({ sessionId });
    await world.until("the third item is served", () => served(third));
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
    // The first offer may come before the next turn waits.
    expect(world.item(third).offers.length).toBeLessThanOrEqual(2);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("loses its Pod after sleepSeconds, with an Event, and gets a new one for its next item", async () => {
    const { world, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    await world.pass(595 * SECOND);
    expect(asleep(sessionId)?.name).toBe(name);
    await world.until("the Pod is deleted", () => !world.pods.some(({ metadata }) => metadata.name === name), 20_000);
    expect(world.told).toContainEqual(
      `SleepEnded: session ${sessionId} sleeps no longer, and its Pod is deleted: no work item came within workspace.sleepSeconds`,
    );
    expect(world.claims).toEqual([]);
    await serve(sessionId);
    expect(asleep(sessionId)?.name).not.toBe(name);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test.each(["deleted", "deleted by force"])("loses its Pod that another client %s, with one Event", async (how) => {
    const { world, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name ?? "";
    world.server.delete(PODS, NAMESPACE, name, how === "deleted" ? {} : { gracePeriodSeconds: 0 });
    await serve(sessionId);
    expect(asleep(sessionId)?.name).not.toBe(name);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([
      `SleepEnded: session ${sessionId} sleeps no longer, and its Pod is deleted: another client deleted it, or evicted it from its node`,
    ]);
    expect(world.claims).toEqual([]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("keeps its Pod when the template changes", async () => {
    const { world, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    const [container] = TEMPLATE.spec.containers;
    const template = { spec: { ...TEMPLATE.spec, containers: [{ ...container, image: "worker:2" }] } };
    world.patchEnvironment({ spec: { sessions: { template } } });
    await world.until("a new Pod waits", () =>
      world.parked.some(({ spec }) => spec.containers[0]?.image === "worker:2"),
    );
    await serve(sessionId);
    expect(asleep(sessionId)?.name).toBe(name);
  });

  test("sleeps on when its program fails", async () => {
    const { world, serve, asleep, operator: _ } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name ?? "";
    world.fate = () => ({ startError: false, program: "stock", servesMs: 60_000 });
    const second = world.enqueue({ sessionId });
    await world.until("it runs", () => world.starts.length === 2);
    await world.pass(SECOND);
    world.node.kill(name);
    await world.until("the item is settled", () => world.item(second).state === "stopped" && world.isSettled, 300_000);
    await world.until("the next turn waits", () => asleep(sessionId)?.ready === true);
    expect(asleep(sessionId)?.name).toBe(name);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("sleeps on in its Pod if its item could not be opened", async () => {
    const { world, operator, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "patch" && plural === "secrets") throw refusal(403, "Forbidden", "no permission");
    });
    const second = world.enqueue({ sessionId });
    await world.until("the Pod is assigned", () => world.podsOf("assigned").length === 1);
    await world.until("the item is stopped", () => world.item(second).state === "stopped", 300_000);
    await world.until("the session sleeps again", () => asleep(sessionId)?.ready === true);
    operator.kube.intercept.splice(0);
    await world.pass(60 * SECOND);
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("does not run while maxConcurrent is reached, and its item stays in the queue", async () => {
    const { world, serve, asleep } = await sleepyWorld({ sessions: { maxConcurrent: 1, warm: 1 } });
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    world.fate = () => ({ startError: false, program: "stock", servesMs: 30_000 });
    world.enqueue();
    await world.until("another session runs", () => world.starts.length === 2);
    const waiting = world.enqueue({ sessionId });
    await world.pass(15 * SECOND);
    expect(world.item(waiting).state).toBe("queued");
    await world.until("its item is served", () => world.item(waiting).state === "stopped" && world.isSettled);
    expect(world.starts[2]?.pod).toBe(name);
  });

  test("goes first among more than maxSleeping if it has slept longest", async () => {
    const { world, serve, asleep } = await sleepyWorld({ sessions: { maxSleeping: 2 } });
    const slept: string[] = [];
    for (let n = 0; n < 3; n += 1) slept.push((await serve()).sessionId);
    await world.until("one Pod is deleted", () => world.podsOf("sleeping").length === 2);
    expect(slept.map((sessionId) => asleep(sessionId) !== undefined)).toEqual([false, true, true]);
    expect(world.told.some((words) => words.includes("more sessions slept than maxSleeping allows"))).toBe(true);
  });

  test("is deleted with its Environment", async () => {
    const { world, serve } = await sleepyWorld();
    await serve();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME, {});
    await world.until("everything is gone", () => world.pods.length === 0 && world.environment === undefined);
    expect(world.claims).toEqual([]);
  });
});

describe("an operator that ends while a session", () => {
  /** Ends the operator and starts another one. */
  const replace = async (world: LoopWorld, operator: { kill(): void }) => {
    operator.kill();
    await world.pass(SECOND);
    world.startOperator();
  };

  test("sleeps is replaced by one that wakes it in its Pod", async () => {
    const { world, operator, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    await replace(world, operator);
    await serve(sessionId);
    expect(asleep(sessionId)?.name).toBe(name);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("runs in its second turn is replaced by one that lets it sleep again", async () => {
    const { world, operator, serve, asleep } = await sleepyWorld();
    const { sessionId } = await serve();
    const name = asleep(sessionId)?.name;
    const second = world.enqueue({ sessionId });
    await world.until("it runs", () => world.starts.length === 2);
    await replace(world, operator);
    await world.until("the item is stopped", () => world.item(second).state === "stopped" && world.isSettled);
    await world.until("the next turn waits", () => asleep(sessionId)?.ready === true);
    expect(asleep(sessionId)?.name).toBe(name);
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("falls asleep, after it marked the Pod, is replaced by one that deletes the claim's Secret", async () => {
    const { world, operator, serve, asleep, sessionOf } = await sleepyWorld();
    const first = world.enqueue();
    operator.kube.sent = ({ verb, plural }) => {
      if (verb === "delete" && plural === "secrets" && world.podsOf("sleeping").length === 1) operator.kill();
    };
    await world.until("the Pod is marked", () => world.podsOf("sleeping").length === 1);
    await world.pass(5 * SECOND);
    expect(world.claims).toHaveLength(1);
    const name = asleep(sessionOf(first))?.name;
    world.startOperator();
    await world.until("the claim is gone", () => world.claims.length === 0);
    await serve(sessionOf(first));
    expect(asleep(sessionOf(first))?.name).toBe(name);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });
});

describe("where ephemeral containers", () => {
  test("are forbidden, no session sleeps, and the status says why", async () => {
    const { world, operator } = await sleepyWorld({ sessions: { warm: 0 } });
    operator.kube.intercept = [forbidEphemeralContainers];
    const item = world.enqueue();
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.isSettled, 300_000);
    expect(world.environment?.status?.sleep).toMatchObject({
      enabled: false,
      message: expect.stringContaining("ephemeral containers"),
    });
    expect(world.podsOf("sleeping")).toEqual([]);
  });
});
