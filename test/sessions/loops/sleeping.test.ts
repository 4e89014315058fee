import { describe, expect, test } from "vitest";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { isWaitingCommand } from "../../../src/pods/frame.ts";
import { endedTurn, MOST_TURNS, newestTurn, turnNumber } from "../../../src/pods/turns.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { forbidEphemeralContainers } from "./kube.ts";
import { type LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";
import { sleepyWorld, TEMPLATE } from "./sleepy-world.ts";

const SECOND = 1_000;
const LABELS = { namespace: NAMESPACE, environment: NAME };

describe("a session that sleeps", () => {
  test.each(["Shell", "Program"])("gets its next items in the same Pod, each in its own turn: %s", async (parking) => {
    const { world, serve, sleeperOf, nameOf } = await sleepyWorld({ sessions: { parking } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    for (let n = 0; n < 3; n += 1) await serve(sessionId);
    expect(world.starts.map(({ pod, container }) => [pod, container])).toEqual(
      [1, 2, 3, 4].map((turn) => [name, `berth-turn-${turn}`]),
    );
    expect(nameOf(sessionId)).toBe(name);
    const pod = sleeperOf(sessionId) as Pod;
    expect([endedTurn(pod), newestTurn(pod)]).toEqual([4, 5]);
    expect(world.claims).toEqual([]);
    expect(await metricValue(world.metrics.sessionsWoken, { ...LABELS, result: "same-pod" })).toBe(3);
  });

  test("doesn't delay a new session, whose item is offered before its Pod is ready", async () => {
    const { world, serve } = await sleepyWorld({ sessions: { warm: 0, maxConcurrent: 2 } });
    await serve();
    const item = world.enqueue();
    await world.until("a Pod of the new session is ready", () => world.parked.length === 2);
    expect(world.item(item).offers).not.toEqual([]);
    await world.until("the item is active", () => world.item(item).state === "active", 7 * SECOND);
  });

  test("leaves its Pod to no other session", async () => {
    const { world, serve, nameOf } = await sleepyWorld({ sessions: { warm: 0, maxConcurrent: 2 } });
    const [one, other] = [await serve(), await serve()];
    expect(nameOf(one)).not.toBe(nameOf(other));
    expect(world.podsOf("sleeping")).toHaveLength(2);
  });

  test.each([0, 1, 3])("gets an item that is queued %i s after the last one in the same Pod", async (seconds) => {
    const { world, serve, isServed, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    const second = world.enqueue({ sessionId });
    await world.until("the second item is stopped", () => world.item(second).state === "stopped");
    await world.pass(seconds * SECOND);
    const third = world.enqueue({ sessionId });
    await world.until("the third item is served", () => isServed(third));
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
    // The first offer may come before the next turn waits.
    expect(world.item(third).offers.length).toBeLessThanOrEqual(2);
  });

  test("loses its Pod after sleepSeconds, with an Event, and gets a new one for its next item", async () => {
    const { world, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    await world.pass(595 * SECOND);
    expect(nameOf(sessionId)).toBe(name);
    await world.until("the Pod is deleted", () => !world.pods.some(({ metadata }) => metadata.name === name), 20_000);
    expect(world.told).toContainEqual(
      `SleepEnded: session ${sessionId} no longer sleeps, and its Pod is deleted: no work item came within workspace.sleepSeconds`,
    );
    expect(world.claims).toEqual([]);
    await serve(sessionId);
    expect(nameOf(sessionId)).not.toBe(name);
    const counted = (result: string) => metricValue(world.metrics.sessionsWoken, { ...LABELS, result });
    expect({ fresh: await counted("fresh"), woken: await counted("same-pod") }).toEqual({ fresh: 1, woken: 0 });
  });

  test.each(["deleted", "deleted by force"])("loses its Pod that another client %s, with one Event", async (how) => {
    const { world, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId) ?? "";
    world.server.delete(PODS, NAMESPACE, name, how === "deleted" ? {} : { gracePeriodSeconds: 0 });
    await serve(sessionId);
    expect(nameOf(sessionId)).not.toBe(name);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([
      `SleepEnded: session ${sessionId} no longer sleeps, and its Pod is deleted: another client deleted it, or evicted it from its node`,
    ]);
    expect(world.claims).toEqual([]);
  });

  test("keeps its Pod when the template changes", async () => {
    const { world, serve, sleeperOf, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    const [container] = TEMPLATE.spec.containers;
    const template = { spec: { ...TEMPLATE.spec, containers: [{ ...container, image: "worker:2" }] } };
    world.patchEnvironment({ spec: { sessions: { template } } });
    await world.until("a new Pod waits", () =>
      world.parked.some(({ spec }) => spec.containers[0]?.image === "worker:2"),
    );
    await serve(sessionId);
    expect(nameOf(sessionId)).toBe(name);
    expect(sleeperOf(sessionId)?.spec.containers[0]?.image).toBe("worker:1");
  });

  test("sleeps on when its program fails", async () => {
    const { world, serve, isReady, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId) ?? "";
    world.fate = () => ({ startError: false, program: "stock", servesMs: 60_000 });
    const second = world.enqueue({ sessionId });
    await world.until("it runs", () => world.starts.length === 2);
    await world.pass(SECOND);
    world.node.kill(name);
    await world.until("the item is settled", () => world.item(second).state === "stopped" && world.isSettled, 300_000);
    await world.until("the next turn waits", () => isReady(sessionId));
    expect(nameOf(sessionId)).toBe(name);
  });

  test("sleeps on in its Pod if its item could not be opened", async () => {
    const { world, operator, serve, isReady, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "patch" && plural === "secrets") throw refusal(403, "Forbidden", "no permission");
    });
    const second = world.enqueue({ sessionId });
    await world.until("the item is stopped", () => world.item(second).state === "stopped", 300_000);
    await world.until("the session sleeps again", () => isReady(sessionId));
    operator.kube.intercept.splice(0);
    await world.pass(60 * SECOND);
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
  });

  test("does not run while maxConcurrent is reached, and its item stays in the queue", async () => {
    const { world, serve, nameOf } = await sleepyWorld({ sessions: { maxConcurrent: 1, warm: 1 } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.fate = () => ({ startError: false, program: "stock", servesMs: 30_000 });
    world.enqueue();
    await world.until("another session runs", () => world.starts.length === 2);
    const waiting = world.enqueue({ sessionId });
    await world.pass(15 * SECOND);
    expect(world.item(waiting).state).toBe("queued");
    await world.until("its item is served", () => world.item(waiting).state === "stopped" && world.isSettled);
    expect(world.starts[2]?.pod).toBe(name);
  });

  test("keeps its Pod while Pods of other sessions wait for their scheduling gates, which the status names", async () => {
    const { world, operator, serve, isServed, nameOf } = await sleepyWorld({
      sessions: { warm: 0, workspace: { type: "Pod", sleepSeconds: 3_600 } },
    });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.intercept.push(({ verb, plural, body }) => {
      const schedulingGates = [{ name: "kueue.x-k8s.io/admission" }];
      if (verb === "create" && plural === "pods") Object.assign((body as Pod).spec, { schedulingGates });
    });
    const item = world.enqueue();
    await world.until("the Pod is reported", () => world.conditionOf("Ready")?.reason === "SchedulingGated");
    // Longer than prepareTimeoutSeconds.
    await world.pass(700 * SECOND);
    expect([nameOf(sessionId), world.told.filter((words) => words.startsWith("SleepEnded"))]).toEqual([name, []]);
    const [held] = world.podsOf("warm");
    world.server.patch(PODS, NAMESPACE, held?.metadata.name ?? "", { spec: { schedulingGates: null } });
    await world.until("the item is served in the admitted Pod", () => isServed(item), 20 * SECOND);
    expect(world.starts.at(-1)?.pod).toBe(held?.metadata.name);
    await world.until("the status says so", () => world.conditionOf("Ready")?.reason === "Ready");
  });

  test("goes first among more than maxSleeping if it has slept longest", async () => {
    const { world, serve, sleeperOf } = await sleepyWorld({ sessions: { maxSleeping: 2 } });
    const slept: string[] = [];
    for (let n = 0; n < 3; n += 1) slept.push(await serve());
    await world.until("one Pod is deleted", () => world.podsOf("sleeping").length === 2);
    await world.pass(60 * SECOND);
    expect(slept.map((sessionId) => sleeperOf(sessionId) !== undefined)).toEqual([false, true, true]);
    expect(world.told.some((words) => words.includes("more sessions slept than maxSleeping allows"))).toBe(true);
  });

  test("is deleted with its Environment, with an Event", async () => {
    const { world, serve } = await sleepyWorld();
    const sessionId = await serve();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME, {});
    await world.until("everything is gone", () => world.pods.length === 0 && world.environment === undefined);
    expect(world.claims).toEqual([]);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([
      `SleepEnded: session ${sessionId} no longer sleeps, and its Pod is deleted: the Environment is being deleted`,
    ]);
  });
});

describe("a Pod is not kept", () => {
  const ended = (why: string) => expect.stringMatching(new RegExp(`^SleepEnded: session .* ${why}$`));

  test("if its first program never served: it has no files to keep", async () => {
    const { world, serve, nameOf } = await sleepyWorld({
      fate: () => ({ startError: false, program: "crashes", servesMs: 0 }),
    });
    const item = world.enqueue();
    await world.until("the item is settled", () => world.item(item).state === "stopped" && world.isSettled, 300_000);
    await world.pass(10 * SECOND);
    expect(world.podsOf("sleeping")).toEqual([]);
    world.fate = () => ({ startError: false, program: "stock", servesMs: SECOND });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    // A later one may find what an earlier one left.
    world.fate = () => ({ startError: false, program: "crashes", servesMs: 0 });
    const second = world.enqueue({ sessionId });
    await world.until("the item is settled", () => world.item(second).state === "stopped" && world.isSettled, 300_000);
    await world.pass(10 * SECOND);
    expect(nameOf(sessionId)).toBe(name);
  });

  test("after it has served as many items as one Pod can, and a new one serves the session", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld();
    operator.kube.intercept.push(({ verb, plural, body }) => {
      const annotations = (body as Partial<Pod> | undefined)?.metadata?.annotations ?? {};
      // As if it had served all others.
      if (verb !== "patch" || plural !== "pods" || annotations["berth.dev/ended-turn"] !== "1") return;
      Object.assign(annotations, { "berth.dev/ended-turn": String(MOST_TURNS - 1) });
    });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.intercept.splice(0);
    const last = world.enqueue({ sessionId });
    await world.until("the last item is served", () => world.item(last).state === "stopped" && world.isSettled);
    expect(world.starts.map(({ pod, container }) => [pod, container])).toEqual([
      [name, "berth-turn-1"],
      [name, `berth-turn-${MOST_TURNS}`],
    ]);
    expect(world.told).toContainEqual(ended("as many work items as one Pod can"));
    expect(world.podsOf("sleeping")).toEqual([]);
    await serve(sessionId);
    expect(nameOf(sessionId)).not.toBe(name);
  });
});

describe("with parking Program", () => {
  /** How each turn of a Pod waited for its work item: with its program, or in a shell. */
  const waysOf = ({ spec: { ephemeralContainers = [] } }: Pod) => {
    const turns = ephemeralContainers.toSorted((one, other) => turnNumber(one.name) - turnNumber(other.name));
    return turns.map(({ command }) => (isWaitingCommand(command) ? "shell" : "program"));
  };

  test("a sleeping Pod runs a shell only, whose line starts the program", async () => {
    const { world, serve, sleeperOf } = await sleepyWorld({ sessions: { parking: "Program" } });
    expect(world.parked.map(waysOf)).toEqual([["program"]]);
    const sessionId = await serve();
    expect(waysOf(sleeperOf(sessionId) as Pod)).toEqual(["program", "shell"]);
    await serve(sessionId);
    expect(waysOf(sleeperOf(sessionId) as Pod)).toEqual(["program", "shell", "shell"]);
  });

  test.each(["line", "marker"] as const)("a woken session starts once if a %s is lost", async (kind) => {
    const { world, operator, serve, nameOf } = await sleepyWorld({ sessions: { parking: "Program" } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    let lost = 0;
    operator.kube.loses = (what) => what === kind && lost++ === 0;
    await serve(sessionId);
    expect(lost).toBeGreaterThan(0);
    expect(world.starts.map(({ pod, container }) => [pod, container])).toEqual([
      [name, "berth-turn-1"],
      [name, "berth-turn-2"],
    ]);
  });

  test("no session sleeps where no shell could start its later programs, and the status says why", async () => {
    const template = { spec: { ...TEMPLATE.spec, containers: [{ name: "worker", image: "worker:1" }] } };
    const { world } = await sleepyWorld({ sessions: { parking: "Program", template } });
    const item = world.enqueue();
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.isSettled);
    expect(world.podsOf("sleeping")).toEqual([]);
    expect(world.environment?.status?.sleep).toMatchObject({
      enabled: false,
      message: expect.stringContaining("command is not set"),
    });
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
    const { world, operator, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    await replace(world, operator);
    await serve(sessionId);
    expect(nameOf(sessionId)).toBe(name);
  });

  test("runs in its second turn is replaced by one that lets it sleep again", async () => {
    const { world, operator, serve, isReady, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    const second = world.enqueue({ sessionId });
    await world.until("it runs", () => world.starts.length === 2);
    await replace(world, operator);
    await world.until("the item is stopped", () => world.item(second).state === "stopped" && world.isSettled);
    await world.until("the next turn waits", () => isReady(sessionId));
    expect(nameOf(sessionId)).toBe(name);
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
  });

  test("falls asleep, after it marked the Pod, is replaced by one that deletes the claim's Secret", async () => {
    const { world, operator, serve, sessionOf, nameOf } = await sleepyWorld();
    const first = world.enqueue();
    operator.kube.sent = ({ verb, plural }) => {
      if (verb === "delete" && plural === "secrets" && world.podsOf("sleeping").length === 1) operator.kill();
    };
    await world.until("the Pod is marked", () => world.podsOf("sleeping").length === 1);
    await world.pass(5 * SECOND);
    expect(world.claims).toHaveLength(1);
    const name = nameOf(sessionOf(first));
    world.startOperator();
    await world.until("the claim is gone", () => world.claims.length === 0);
    await serve(sessionOf(first));
    expect(nameOf(sessionOf(first))).toBe(name);
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
