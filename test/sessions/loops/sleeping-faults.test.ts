import { describe, expect, test } from "vitest";
import { END_REASONS } from "../../../src/api/reasons.ts";
import { PODS, type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { MOST_TURNS } from "../../../src/pods/turns.ts";
import { type Journal, renderJournal } from "../../../src/protocol/journal.ts";
import { sleepEndMessage } from "../../../src/sleep/sleep-plan.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { type LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";
import { sleepyWorld } from "./sleepy-world.ts";

const SECOND = 1_000;

/** Whether a request marks a Pod as being in this phase. */
const marks = (phase: string, { verb, plural, body }: { verb: string; plural: string; body?: unknown }) => {
  const { metadata } = (body ?? {}) as Partial<Pod>;
  return verb === "patch" && plural === "pods" && metadata?.labels?.["berth.dev/phase"] === phase;
};

describe("wakes and fresh sessions", () => {
  test("together do not exceed maxConcurrent while a removal is slow", async () => {
    const { world, operator, serve } = await sleepyWorld({ sessions: { warm: 3, maxConcurrent: 3 } });
    const slept = [await serve(), await serve()];
    await world.until("free Pods wait beside the sleeping ones", () => world.podsOf("warm").length === 3);
    await world.pass(20 * SECOND);
    operator.kube.delay = ({ verb, plural }) => (verb === "delete" && plural === "pods" ? 1_500 : 0);
    for (const sessionId of slept) world.enqueue({ sessionId });
    for (const _ of slept) world.enqueue();
    let ran = 0;
    await world.until("all items are served", () => {
      ran = Math.max(ran, world.node.running.size);
      return world.items.every(({ state }) => state === "stopped");
    });
    expect(ran).toBeLessThanOrEqual(3);
  });
});

test("a sleeping session keeps its Pod while the environment key is missing, and its item is served later", async () => {
  const { world, serve, isServed, nameOf } = await sleepyWorld({ sessions: { credential: "EnvironmentKey" } });
  const sessionId = await serve();
  const name = nameOf(sessionId);
  // A poll that was sent with the key offers the item when the key is gone.
  world.api.delay = (call) => (call === "poll" ? 2 * SECOND : 0);
  world.server.delete(SECRETS, NAMESPACE, "key");
  await world.until("the key is missed", () => world.conditionOf("Ready")?.reason === "KeySecretMissing");
  const item = world.enqueue({ sessionId });
  await world.pass(30 * SECOND);
  expect(nameOf(sessionId)).toBe(name);
  world.createKey();
  await world.until("the item is served", () => isServed(item));
  expect(nameOf(sessionId)).toBe(name);
});

describe("an item whose session's Pod is being removed", () => {
  test("starts in another Pod only after that one is deleted", async () => {
    const { world, operator, serve } = await sleepyWorld({
      sessions: { workspace: { type: "Pod", sleepSeconds: 60 }, warm: 1 },
    });
    const sessionId = await serve();
    const name = world.podsOf("sleeping")[0]?.metadata.name;
    let isRemoving = false;
    operator.kube.delay = ({ verb, plural }) => {
      if (verb !== "delete" || plural !== "pods") return 0;
      isRemoving = true;
      return 4 * SECOND;
    };
    await world.until("the Pod is being removed", () => isRemoving);
    const item = world.enqueue({ sessionId });
    let beside = 0;
    await world.until("the item is served", () => {
      const isThere = world.pods.some(({ metadata }) => metadata.name === name && !metadata.deletionTimestamp);
      if (isThere) beside = Math.max(beside, world.starts.length - 1);
      return world.item(item).state === "stopped";
    });
    expect(beside).toBe(0);
  });

  test("does not wait for long if the Pod got its next turn while it was locked", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld({
      sessions: { workspace: { type: "Pod", sleepSeconds: 60 } },
    });
    const name = nameOf(await serve()) ?? "";
    await world.pass(50 * SECOND);
    operator.kube.delay = ({ verb, plural, subresource }) => {
      const isReadUnderLock = verb === "get" && plural === "pods" && world.claims.length > 0;
      return subresource === "ephemeralcontainers" || isReadUnderLock ? 12 * SECOND : 0;
    };
    world.node.kill(name, "berth-turn-2");
    await world.until("the Pod is locked", () => world.claims.length === 1);
    await world.until("the lock is released", () => world.claims.length === 0);
    operator.kube.delay = () => 0;
    const isThere = () => world.pods.some(({ metadata }) => metadata.name === name);
    expect(isThere()).toBe(true);
    await world.until("the Pod is deleted", () => !isThere(), 20 * SECOND);
  });
});

describe("an item that waits for its session's next turn", () => {
  test("does not wake the session once another item has taken the last place", async () => {
    const { world, operator, serve, isServed, isReady, nameOf } = await sleepyWorld({
      sessions: { warm: 1, maxConcurrent: 1 },
    });
    const sessionId = await serve();
    operator.kube.delay = ({ subresource, name }) =>
      subresource === "ephemeralcontainers" && name === nameOf(sessionId) ? 20 * SECOND : 0;
    world.node.kill(nameOf(sessionId) ?? "", "berth-turn-2");
    await world.until("its waiting turn has ended", () => !isReady(sessionId));
    world.fate = () => ({ startError: false, program: "stock", servesMs: 30 * SECOND });
    await world.pass(19.5 * SECOND);
    expect([isReady(sessionId), world.parked.length]).toEqual([false, 1]);
    const waiting = world.enqueue({ sessionId });
    await world.until("it is offered", () => world.item(waiting).offers.length > 0);
    const other = world.enqueue();
    let ran = 0;
    await world.until("the next turn waits", () => {
      ran = Math.max(ran, world.node.running.size);
      return isReady(sessionId);
    });
    await world.until("both are served", () => {
      ran = Math.max(ran, world.node.running.size);
      return isServed(waiting) && isServed(other);
    });
    expect(ran).toBe(1);
  });
});

describe("a sleeping Pod that can't be attached to", () => {
  /** A world whose operator can't attach to sleeping Pods, and a session that sleeps. */
  const unreachable = async (sessions: Record<string, unknown> = {}) => {
    const made = await sleepyWorld({ sessions });
    const fault = { lasts: true };
    made.operator.kube.intercept.push(({ verb, name }) => {
      const isAsleep = made.world.podsOf("sleeping").some(({ metadata }) => metadata.name === name);
      if (fault.lasts && verb === "attach" && isAsleep) throw refusal(500, "InternalError", "error dialing backend");
    });
    const sessionId = await made.serve();
    return { ...made, sessionId, name: made.nameOf(sessionId), fault };
  };

  test("keeps its session and files, and the item stays in the queue until it can be reached", async () => {
    const { world, sessionId, name, fault, isServed } = await unreachable();
    const item = world.enqueue({ sessionId });
    const other = world.enqueue();
    await world.until("the other session is served", () => world.item(other).state === "stopped");
    await world.pass(120 * SECOND);
    expect([world.item(item).state, world.item(item).acks.length]).toEqual(["queued", 0]);
    expect(world.claims).toEqual([]);
    expect(
      await metricValue(world.metrics.failingSteps, { namespace: NAMESPACE, environment: NAME, step: "wake" }),
    ).toBe(1);
    fault.lasts = false;
    await world.until("the item is served", () => isServed(item));
    expect(world.starts.at(-1)?.pod).toBe(name);
  });

  test("stays although it could not be attached to once, however soon its session sleeps again", async () => {
    const { world, sessionId, name, fault, isServed } = await unreachable({ prepareTimeoutSeconds: 20 });
    const item = world.enqueue({ sessionId });
    await world.until("it could not be reached", () => world.item(item).offers.length > 0);
    await world.pass(SECOND);
    fault.lasts = false;
    await world.until("the item is served", () => isServed(item), 40 * SECOND);
    await world.pass(60 * SECOND);
    expect(world.starts.at(-1)?.pod).toBe(name);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([]);
  });

  test("is reported, also while new sessions start", async () => {
    const { world, sessionId } = await unreachable({ maxConcurrent: 20 });
    world.enqueue({ sessionId });
    for (let n = 0; n < 8; n += 1) {
      world.enqueue();
      await world.pass(15 * SECOND);
    }
    expect(
      await metricValue(world.metrics.failingSteps, { namespace: NAMESPACE, environment: NAME, step: "wake" }),
    ).toBe(1);
  });

  test("is deleted after prepareTimeoutSeconds, so that a new Pod serves its session", async () => {
    const { world, sessionId, name, isServed } = await unreachable({ prepareTimeoutSeconds: 60 });
    const item = world.enqueue({ sessionId });
    await world.until("the item is served", () => isServed(item), 200 * SECOND);
    expect(world.starts.at(-1)?.pod).not.toBe(name);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([
      `SleepEnded: ${sleepEndMessage(sessionId ?? "", "NotReady")}`,
    ]);
  });
});

describe("a claim that is not opened", () => {
  test.each([
    ["leaves the session asleep in its Pod", 2],
    ["leaves the session asleep in its Pod before the last item that this can serve", MOST_TURNS],
  ])("%s", async (_, turn) => {
    const { world, operator, serve, nameOf } = await sleepyWorld();
    operator.kube.intercept.push(({ verb, plural, body }) => {
      const annotations = (body as Partial<Pod> | undefined)?.metadata?.annotations ?? {};
      // As if it had served the items before.
      if (verb !== "patch" || plural !== "pods" || annotations["berth.dev/ended-turn"] !== "1") return;
      Object.assign(annotations, { "berth.dev/ended-turn": String(turn - 1) });
    });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    let refuse = true;
    operator.kube.intercept.push(({ verb, plural, name: of }) => {
      if (refuse && verb === "patch" && plural === "secrets" && of === `${name}-t${turn}`)
        throw refusal(403, "Forbidden", "secrets may not be patched");
    });
    const item = world.enqueue({ sessionId });
    await world.until("the claim is given up", () => world.item(item).state === "stopped", 600 * SECOND);
    await world.until("nothing is claimed", () => world.claims.length === 0);
    await world.pass(5 * SECOND);
    refuse = false;
    expect(world.pods.find(({ metadata }) => metadata.name === name)?.metadata.deletionTimestamp).toBeUndefined();
    expect(nameOf(sessionId)).toBe(name);
  });

  test("leaves the session asleep in its Pod if the operator dies before the opening", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.intercept.push(({ verb, plural, name: of }) => {
      if (verb === "patch" && plural === "secrets" && of === `${name}-t2`)
        throw refusal(503, "ServiceUnavailable", "not now");
    });
    const item = world.enqueue({ sessionId });
    await world.until("the item is acknowledged", () => world.item(item).acks.length === 1);
    operator.kill();
    // No operator serves the item before a user stops it.
    await world.pass(60 * SECOND);
    world.api.world.item(item).state = "stopped";
    world.startOperator();
    await world.until("nothing is claimed", () => world.claims.length === 0);
    await world.pass(60 * SECOND);
    expect(nameOf(sessionId)).toBe(name);
  });

  test("puts no session to sleep that never ran", async () => {
    const { world, operator } = await sleepyWorld();
    let slept = 0;
    world.server.subscribe(() => {
      slept = Math.max(slept, world.podsOf("sleeping").length);
    });
    const item = world.enqueue();
    await world.clock.advanceUntil(() => world.claims.length === 1, 10 * SECOND, 1);
    operator.kill();
    world.api.world.item(item).state = "stopped";
    world.startOperator();
    await world.until("nothing is claimed", () => world.claims.length === 0);
    expect([slept, world.starts]).toEqual([0, []]);
  });

  test("leaves the session asleep in its Pod, although the operator may not read logs", async () => {
    const { world, operator, serve, isServed, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    let refuse = true;
    operator.kube.intercept.push(({ verb, plural, name: of }) => {
      if (verb === "log") throw refusal(403, "Forbidden", "logs may not be read");
      if (refuse && verb === "patch" && plural === "secrets" && of === `${name}-t2`)
        throw refusal(403, "Forbidden", "secrets may not be patched");
    });
    const item = world.enqueue({ sessionId });
    await world.until("the claim is given up", () => world.item(item).state === "stopped", 600 * SECOND);
    await world.until("nothing is claimed", () => world.claims.length === 0);
    refuse = false;
    const next = world.enqueue({ sessionId });
    await world.until("the next item is served", () => isServed(next), 300 * SECOND);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
  });
});

describe("a Secret that someone deletes while its line is on its way", () => {
  /** A session whose next item's line is held back, as if by a proxy. */
  const heldBack = async () => {
    const made = await sleepyWorld();
    const sessionId = await made.serve();
    const name = made.nameOf(sessionId) ?? "";
    const held: string[] = [];
    made.operator.kube.loses = (what) => what === "line";
    made.operator.kube.wrote = (_, text) => held.push(text);
    made.world.enqueue({ sessionId });
    await made.world.until("the line is sent", () => held.length > 0);
    const arrives = () => made.world.server.attach(NAMESPACE, name, "berth-turn-2").write(held[0] ?? "");
    return { ...made, sessionId, name, arrives };
  };

  test("puts no session to sleep whose program may start, once its Pod is assigned", async () => {
    const { world, operator, nameOf, sessionId, name, arrives } = await heldBack();
    await world.until("the Pod is assigned", () => world.podsOf("running").length === 1);
    operator.kill();
    world.server.delete(SECRETS, NAMESPACE, `${name}-t2`);
    world.startOperator();
    const isThere = () => world.pods.some(({ metadata }) => metadata.name === name);
    await world.until("the Pod is deleted, or asleep", () => !isThere() || nameOf(sessionId) === name, 120 * SECOND);
    if (isThere()) arrives();
    await world.pass(SECOND);
    expect(world.podsOf("sleeping").filter(({ metadata }) => metadata.name === name)).toEqual([]);
    expect(world.starts).toHaveLength(1);
  });

  test("before its Pod is assigned, leaves the session its Pod and files, although its program may start", async () => {
    const { world, operator, serve, isReady, sessionId, name, arrives } = await heldBack();
    expect(world.podsOf("running")).toEqual([]);
    operator.kill();
    world.server.delete(SECRETS, NAMESPACE, `${name}-t2`);
    world.startOperator();
    await world.pass(SECOND);
    arrives();
    await world.until("its program runs", () => world.starts.length === 2);
    await world.until("the next turn waits", () => world.node.running.size === 0 && isReady(sessionId));
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
  });
});

describe("a woken Pod that is not assigned yet", () => {
  const program = (lease: string) => (lease === "Operator" ? "plain" : "stock");
  /** Why the work items ended. */
  const ended = (world: LoopWorld) =>
    world.told.map((words) => words.split(":")[0] ?? "").filter((reason) => reason in END_REASONS);

  test.each(["Worker", "Operator"])("runs its program to the end if no patch can assign it (%s)", async (lease) => {
    const { world, operator, serve, nameOf, sleeperOf } = await sleepyWorld({ sessions: { lease } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.intercept.push((call) => {
      if (marks("running", call)) throw refusal(403, "Forbidden", "pods may not be patched like this");
    });
    world.fate = () => ({ startError: false, program: program(lease), servesMs: 60 * SECOND });
    const item = world.enqueue({ sessionId });
    await world.until("its program runs", () => world.starts.length === 2);
    await world.pass(30 * SECOND);
    expect(world.environment?.status?.sessions).toMatchObject({ running: 1, sleeping: 0 });
    expect(world.conditionOf("Ready")?.message).toContain("pods may not be patched like this");
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.isSettled);
    expect([ended(world), world.starts.length]).toEqual([["Completed", "Completed"], 2]);
    expect(sleeperOf(sessionId)?.metadata).toMatchObject({
      ...{ name, labels: { "berth.dev/work-id": item } },
      annotations: { "berth.dev/ended-turn": "2", "berth.dev/work-id": item },
    });
    operator.kube.intercept.pop();
    await serve(sessionId);
  });

  test("is assigned by the next process before that adopts its lease, and its session goes on", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld({ sessions: { lease: "Operator" } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.delay = (call) => (marks("running", call) ? 60 * SECOND : 0);
    world.fate = () => ({ startError: false, program: "plain", servesMs: 120 * SECOND });
    const item = world.enqueue({ sessionId });
    await world.until("its program runs", () => world.starts.length === 2);
    operator.kill();
    await world.pass(SECOND);
    const heartbeats = world.api.requests.get("heartbeat");
    world.startOperator();
    await world.until("it is assigned", () => world.podsOf("running").length === 1);
    expect(world.api.requests.get("heartbeat")).toBe(heartbeats);
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.isSettled);
    expect([ended(world), world.starts.length, nameOf(sessionId)]).toEqual([["Completed", "Completed"], 2, name]);
  });

  test("sleeps again after a program that ended before", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    operator.kube.delay = (call) => (marks("running", call) ? 5 * SECOND : 0);
    world.fate = () => ({ startError: false, program: "stock", servesMs: SECOND });
    await serve(sessionId);
    operator.kube.delay = () => 0;
    expect(ended(world)).toEqual(["Completed", "Completed"]);
    expect(await metricValue(world.metrics.startFailures, { namespace: NAMESPACE, environment: NAME })).toBe(0);
    await serve(sessionId);
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name, name]);
  });
});

describe("a sleeping Pod whose lock is someone else's", () => {
  test("is tried again after a pause only, and its sleep is not reported as ended", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld({ sessions: { warm: 0 } });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.server.create(SECRETS, { metadata: { name: `${name}-t2`, namespace: NAMESPACE } });
    await world.pass(590 * SECOND);
    const before = operator.kube.requests.get("create secrets") ?? 0;
    await world.pass(60 * SECOND);
    const told = world.told.filter((words) => words.startsWith("SleepEnded")).length;
    expect({ told, creates: (operator.kube.requests.get("create secrets") ?? 0) - before }).toEqual({
      told: 0,
      creates: 1,
    });
    expect(
      await metricValue(world.metrics.sleepsEnded, { namespace: NAMESPACE, environment: NAME, reason: "Expired" }),
    ).toBe(0);
  });
});

describe("the end of a sleep is reported once, with its reason,", () => {
  const ends = (world: LoopWorld) => world.told.filter((words) => words.startsWith("SleepEnded")).toSorted();
  const counted = (world: LoopWorld, reason: string) =>
    metricValue(world.metrics.sleepsEnded, { namespace: NAMESPACE, environment: NAME, reason });
  const expired = (sessionId: string) => `SleepEnded: ${sleepEndMessage(sessionId, "Expired")}`;

  test("although the Pod is gone before the removal of another one is answered", async () => {
    const { world, operator, serve, nameOf } = await sleepyWorld({ sessions: { warm: 2 } });
    const sessions = [await serve(), await serve()];
    const slow = nameOf(sessions[1] ?? "");
    operator.kube.delay = ({ verb, name }) => (verb === "delete" && name === slow ? 1_900 : 0);
    world.patchEnvironment({ spec: { sessions: { workspace: { type: "Pod", sleepSeconds: 1 } } } });
    await world.until("both Pods are gone", () => world.podsOf("sleeping").length === 0);
    await world.pass(10 * SECOND);
    expect(ends(world)).toEqual(sessions.map(expired).toSorted());
    expect([await counted(world, "Expired"), await counted(world, "Removed")]).toEqual([2, 0]);
  });

  test("although its operator is killed once it has locked the Pod", async () => {
    const { world, operator, serve } = await sleepyWorld({ sessions: { warm: 0 } });
    const sessionId = await serve();
    world.server.subscribe(({ plural, type }) => {
      if (plural === "secrets" && type === "ADDED") operator.kill();
    });
    world.patchEnvironment({ spec: { sessions: { workspace: { type: "Pod", sleepSeconds: 1 } } } });
    await world.until("the Pod is locked", () => world.claims.length === 1);
    world.startOperator();
    await world.until("the Pod is gone", () => world.pods.length === 0);
    await world.pass(10 * SECOND);
    expect(ends(world)).toEqual([expired(sessionId)]);
    expect([await counted(world, "Expired"), await counted(world, "Removed")]).toEqual([1, 0]);
  });
});

describe("an item of a session whose sleeping Pod can't be claimed", () => {
  test("and the items of other sessions do not wait forever", async () => {
    const { world, serve, nameOf } = await sleepyWorld({
      sessions: { warm: 0, maxConcurrent: 1, workspace: { type: "Pod", sleepSeconds: 60 } },
    });
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.server.create(SECRETS, { metadata: { name: `${name}-t2`, namespace: NAMESPACE } });
    await world.pass(90 * SECOND);
    const other = world.enqueue();
    await world.until(
      "an item of another session is served",
      () => world.item(other).state === "stopped",
      200 * SECOND,
    );
    const item = world.enqueue({ sessionId });
    await world.until("the item is served", () => world.item(item).state === "stopped", 200 * SECOND);
  });
});

describe("a Secret that holds the slot of a sleeping Pod's next turn", () => {
  test("of another client delays the session's next item by seconds, not until its sleep ends", async () => {
    const { world, serve, nameOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId);
    world.server.create(SECRETS, { metadata: { name: `${name}-t2`, namespace: NAMESPACE } });
    const item = world.enqueue({ sessionId });
    await world.until("the item is served", () => world.item(item).state === "stopped", 90 * SECOND);
    expect(world.starts.at(-1)?.pod).not.toBe(name);
  });

  test("is adopted if it records a claim that this process does not know", async () => {
    const { world, serve, nameOf, sleeperOf } = await sleepyWorld();
    const sessionId = await serve();
    const name = nameOf(sessionId) ?? "";
    // The process has looked for late records of an earlier one.
    await world.pass(120 * SECOND);
    const journal: Omit<Journal, "opened" | "acknowledgedAt"> = {
      ...{ use: "session", lease: "Worker", environmentUid: world.environment?.metadata.uid ?? "" },
      ...{
        podUid: sleeperOf(sessionId)?.metadata.uid ?? "",
        workId: "work_of_another_process",
        sessionId,
        queuedAt: "",
      },
      ...{ polledFromMs: world.clock.now() - 600 * SECOND, polledUntilMs: world.clock.now() - 599 * SECOND },
    };
    const record = renderJournal({ name: `${name}-t2`, namespace: NAMESPACE, environment: NAME }, journal, "late");
    world.server.create(SECRETS, record);
    const item = world.enqueue({ sessionId });
    await world.until("the item is served", () => world.item(item).state === "stopped", 180 * SECOND);
    expect(world.starts.at(-1)?.pod).toBe(name);
  });
});

describe("a volume's session that slept", () => {
  test("gets no new Pod without a new item", async () => {
    const { world, serve } = await sleepyWorld({
      sessions: {
        warm: 0,
        workspace: {
          type: "PerSession",
          sleepSeconds: 20,
          claimTemplate: { resources: { requests: { storage: "1Gi" } } },
        },
      },
    });
    const sessionId = await serve();
    await serve(sessionId);
    const made = () => metricValue(world.metrics.podsCreated, { namespace: NAMESPACE, environment: NAME });
    expect(await made()).toBe(1);
    await world.pass(120 * SECOND);
    expect([await made(), world.pods]).toEqual([1, []]);
  });
});

describe("a Pod that ended in the middle of a work item", () => {
  test("does not make its session's next item wait until the earlier one is settled", async () => {
    const { world, sessionOf } = await sleepyWorld({
      fate: () => ({ startError: false, program: "deaf", servesMs: 20 * SECOND }),
      sessions: { maxConcurrent: 4, retainFailedSeconds: 600 },
    });
    const first = world.enqueue();
    const sessionId = sessionOf(first);
    await world.until("the program runs", () => world.item(first).state === "active");
    const name = world.podsOf("running")[0]?.metadata.name ?? "";
    world.fate = () => ({ startError: false, program: "stock", servesMs: 5 * SECOND });
    // For example for its memory: the kubelet ends the Pod with it.
    world.node.kill(name, "worker");
    await world.until("the Pod ended", () => world.node.running.size === 0);
    await world.pass(3 * SECOND);
    expect(world.item(first).state).toBe("active");
    const next = world.enqueue({ sessionId });
    const runs = () => world.starts.some(({ workId }) => workId === next);
    await world.until("the next item's program runs", runs, 15 * SECOND);
    await world.until("the first item is settled", () => world.item(first).state === "stopped", 300 * SECOND);
    await world.pass(10 * SECOND);
    // It keeps nothing but its logs.
    expect(world.podsOf("ended").map(({ metadata }) => metadata.name)).toEqual([name]);
    expect(world.told.filter((words) => words.startsWith("SleepEnded"))).toEqual([]);
  });
});

describe("a restart while the cache lags", () => {
  test("keeps the first work item running in a Pod that the cache does not show", async () => {
    const { world, operator, sessionOf, nameOf } = await sleepyWorld({
      fate: () => ({ startError: false, program: "stock", servesMs: 300 * SECOND }),
      sessions: { firstBeatTimeoutSeconds: 60 },
    });
    const item = world.enqueue();
    const sessionId = sessionOf(item);
    await world.until("the program runs", () => world.node.running.size === 1);
    await world.pass(5 * SECOND);
    const [pod] = world.podsOf("running");
    operator.kill();
    // Someone removes the label by mistake: the Pod is read live.
    world.server.patch(PODS, NAMESPACE, pod?.metadata.name ?? "", {
      metadata: { labels: { "berth.dev/role": null } },
    });
    await world.pass(20 * SECOND);
    world.startOperator();
    await world.pass(30 * SECOND);
    world.server.patch(PODS, NAMESPACE, pod?.metadata.name ?? "", {
      metadata: { labels: { "berth.dev/role": "session" } },
    });
    await world.until("the item has ended", () => world.item(item).state === "stopped", 600 * SECOND);
    await world.pass(10 * SECOND);
    expect([world.starts.length, world.sessionReasons]).toEqual([1, ["SessionStarted", "Completed"]]);
    expect(nameOf(sessionId)).toBe(pod?.metadata.name);
  });
});

describe("a touch that lands long after its timeout", () => {
  test("does not take a sleeping Pod from its session", async () => {
    const { world, operator, serve, sessionOf } = await sleepyWorld();
    let late = true;
    // The first try hangs in a proxy.
    operator.kube.delay = (call) => {
      if (!marks("running", call) || !late) return 0;
      late = false;
      return 30 * SECOND;
    };
    const item = world.enqueue();
    await world.until("the item is served", () => world.item(item).state === "stopped" && world.claims.length === 0);
    await world.until("it sleeps", () => world.podsOf("sleeping").length === 1);
    const name = world.podsOf("sleeping")[0]?.metadata.name;
    await world.pass(60 * SECOND);
    expect(world.podsOf("sleeping").map(({ metadata }) => metadata.name)).toEqual([name]);
    await serve(sessionOf(item));
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
  });
});

describe("a touch that lands between two turns", () => {
  test("does not take a sleeping Pod from its session", async () => {
    const { world, operator, serve, sessionOf, nameOf } = await sleepyWorld();
    let touch: unknown;
    operator.kube.sent = (call) => {
      if (marks("running", call)) touch = call.body;
    };
    operator.kube.delay = ({ subresource }) => (subresource === "ephemeralcontainers" ? 3 * SECOND : 0);
    const item = world.enqueue();
    await world.until("it sleeps", () => world.podsOf("sleeping").length === 1);
    const name = nameOf(sessionOf(item)) ?? "";
    // An earlier try of the touch, whose connection hung.
    expect(() => world.server.patch(PODS, NAMESPACE, name, touch)).toThrow(/precondition differs/);
    await world.pass(60 * SECOND);
    expect(world.podsOf("sleeping").map(({ metadata }) => metadata.name)).toEqual([name]);
    await serve(sessionOf(item));
    expect(world.starts.map(({ pod }) => pod)).toEqual([name, name]);
  });
});

describe("a clean-up that saw a Pod before its last work item was settled", () => {
  test("does not delete the Pod under the next work item", async () => {
    const { world, operator, serve, sessionOf } = await sleepyWorld({
      fate: () => ({ startError: false, program: "stock", servesMs: 5 * SECOND }),
      sessions: { maxConcurrent: 8, warm: 2, maxSleeping: 50 },
    });
    world.weather.watch = { lagMs: 400, breaks: 0 };
    const sessionId = await serve();
    for (let n = 0; n < 6; n += 1) {
      operator.kube.delay = ({ verb, plural, name }) =>
        verb === "get" && plural === "secrets" && name !== "key" ? SECOND : 0;
      const item = world.enqueue({ sessionId });
      const beside = [world.enqueue(), world.enqueue()];
      await world.until("all are served", () => [item, ...beside].every((id) => world.item(id).state === "stopped"));
    }
    const own = world.starts.filter(({ workId }) => sessionOf(workId) === sessionId);
    expect(new Set(own.map(({ pod }) => pod)).size).toBe(1);
  });
});

describe("turns that an admission policy refuses", () => {
  test("do not replace all free Pods again and again", async () => {
    const { world, operator } = await sleepyWorld({ sessions: { warm: 0 } });
    operator.kube.intercept.push(({ verb, subresource, name }) => {
      // Like the API server, which reports a missing Pod before it checks policies.
      if (verb !== "patch" || subresource !== "ephemeralcontainers") return;
      if (!world.server.find(PODS, NAMESPACE, name)) return;
      throw refusal(422, "Invalid", "ephemeral containers need limits here");
    });
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.until("a Pod waits", () => world.parked.length === 1);
    const names = new Set<string>(world.parked.map(({ metadata }) => metadata.name ?? ""));
    for (let minutes = 0; minutes < 60; minutes += 1) {
      await world.pass(60 * SECOND);
      for (const { metadata } of world.podsOf("warm")) names.add(metadata.name ?? "");
    }
    expect(names.size).toBeLessThanOrEqual(2);
    expect(world.environment?.status?.sleep).toMatchObject({
      enabled: false,
      message: expect.stringContaining("ephemeral containers need limits here"),
    });
    const item = world.enqueue();
    await world.until("an item is served", () => world.item(item).state === "stopped" && world.isSettled);
    expect(world.podsOf("sleeping")).toEqual([]);
  });
});

test("an API server that refuses turns for a moment changes no Pod", async () => {
  const { world, operator } = await sleepyWorld();
  const names = () => world.parked.map(({ metadata: { name, labels } }) => [name, labels?.["berth.dev/template-hash"]]);
  await world.until("the first status is written", () => world.environment?.status?.sleep?.enabled === true);
  const before = names();
  let refused = 0;
  operator.kube.intercept.push(({ verb, subresource }) => {
    if (verb !== "patch" || subresource !== "ephemeralcontainers" || refused > 0) return;
    refused += 1;
    throw refusal(403, "Forbidden", 'User "berth" cannot patch resource "pods/ephemeralcontainers" in API group ""');
  });
  world.enqueue();
  await world.until("a turn was refused", () => refused > 0);
  await world.pass(60 * SECOND);
  expect(world.environment?.status?.sleep?.enabled).toBe(true);
  const hashes = new Set([...before, ...names()].map(([, hash]) => hash));
  expect(hashes.size).toBe(1);
});

describe("turns that cannot be added", () => {
  const overloaded = () => refusal(500, "InternalError", "etcdserver: request timed out");
  const changed = () => refusal(409, "Conflict", "the object has been modified");

  test("are reported in Ready with the server's words, also after prepareTimeoutSeconds", async () => {
    const { world, operator, serve } = await sleepyWorld({ sessions: { prepareTimeoutSeconds: 120 } });
    let refuses = true;
    operator.kube.intercept.push(({ subresource }) => {
      if (refuses && subresource === "ephemeralcontainers") throw overloaded();
    });
    world.enqueue();
    for (let minutes = 0; minutes < 6; minutes += 1) {
      await world.pass(60 * SECOND);
      const { status, message } = world.conditionOf("Ready") ?? {};
      expect({ minutes, status, message }).toEqual({
        ...{ minutes, status: "False" },
        message: expect.stringContaining("etcdserver: request timed out"),
      });
    }
    refuses = false;
    await serve();
    await world.until("Ready", () => world.conditionOf("Ready")?.status === "True");
  });

  test("are tried again with backoff after conflicts, too", async () => {
    const { world, operator } = await sleepyWorld({ sessions: { warm: 0 } });
    let tries = 0;
    operator.kube.intercept.push(({ subresource, name }) => {
      if (subresource !== "ephemeralcontainers" || !world.server.find(PODS, NAMESPACE, name)) return;
      tries += 1;
      throw changed();
    });
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.pass(300 * SECOND);
    expect(tries).toBeGreaterThan(10);
    expect(tries).toBeLessThan(60);
  });

  test("are no concern of an Environment whose Pods need none any more", async () => {
    const { world, operator } = await sleepyWorld({ sessions: { warm: 0 }, timing: { warmScaleDownMs: 1_000 } });
    operator.kube.intercept.push(({ subresource, name }) => {
      if (subresource === "ephemeralcontainers" && world.server.find(PODS, NAMESPACE, name)) throw overloaded();
    });
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.until("it is reported", () => world.conditionOf("Ready")?.reason === "NothingStarts");
    world.patchEnvironment({ spec: { sessions: { warm: 0 } } });
    await world.until("Ready", () => world.conditionOf("Ready")?.status === "True");
  });
});

describe("a Pod that cannot be marked as sleeping", () => {
  test.each([403, 500])("is reported in Ready until one can (%i)", async (status) => {
    const { world, operator, serve } = await sleepyWorld();
    let refuses = true;
    operator.kube.intercept.push((call) => {
      if (refuses && marks("sleeping", call))
        throw refusal(status, status === 403 ? "Forbidden" : "InternalError", "no marks today");
    });
    const item = world.enqueue();
    await world.until("it is served", () => world.item(item).state === "stopped" && world.claims.length === 0);
    await world.pass(10 * SECOND);
    expect(world.conditionOf("Ready")).toMatchObject({
      ...{ status: "False", reason: "SessionsInterrupted" },
      message: expect.stringMatching(/^sessions lose their Pods after each work item .*no marks today/),
    });
    refuses = false;
    await serve();
    await world.until("Ready", () => world.conditionOf("Ready")?.status === "True");
  });
});
