import { describe, expect, test } from "vitest";
import { EVENTS, type KubeEvent, type Pod } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** Two reads of one Environment's Events are at least half of the base interval apart. */
const READINGS_A_MINUTE = 2;

const MISSING = 'MountVolume.SetUp failed for volume "mine" : configmap "mine" not found';

/** A world where Pods are bound after 5 minutes and parked after 5 more, unless `options` override it. */
function slowWorld(options: LoopWorldOptions = {}) {
  const world = new LoopWorld({ prepareMs: () => 10 * MINUTE, ...options });
  world.createEnvironment();
  const operator = world.startOperator();
  const readings = () => operator.kube.requests.get("list events") ?? 0;
  const condition = () => {
    const conditions = world.environment?.status?.conditions ?? [];
    return conditions.find(({ type }) => type === "CapacityAvailable");
  };
  const untilSaid = (words: string, limitMs = 20 * MINUTE) =>
    world.until(words, () => condition()?.message?.includes(words) === true, limitMs);
  const bound = () => world.pods.filter(({ spec, metadata }) => spec.nodeName && !metadata.deletionTimestamp);
  const untilBound = () => world.until("a Pod is bound", () => bound().length > 0, 20 * MINUTE);
  let events = 0;
  const complain = (pod: Pod | undefined, message: string, more: Partial<KubeEvent> = {}) => {
    const { name = "", uid = "" } = pod?.metadata ?? {};
    events += 1;
    world.server.create(EVENTS, {
      metadata: { name: `${name}.${events}`, namespace: NAMESPACE },
      involvedObject: { kind: "Pod", name, uid },
      type: "Warning",
      reason: "FailedMount",
      message,
      source: { component: "kubelet" },
      lastTimestamp: new Date(world.clock.now()).toISOString(),
      ...more,
    });
  };
  return { world, operator, readings, condition, untilSaid, bound, untilBound, complain };
}

describe("a Pod that waits on its node without a reason in its status", () => {
  test("is reported with the node's message after a while, until it is parked", async () => {
    const { world, readings, condition, untilSaid, bound, untilBound, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 3_600 },
    });
    await untilBound();
    complain(bound()[0], MISSING);
    await world.pass(15 * SECOND);
    expect([readings(), condition()?.status]).toEqual([0, "Unknown"]);
    await untilSaid(MISSING, 10 * SECOND);
    expect(condition()).toMatchObject({ status: "False", reason: "PreparationFailing" });
    expect(condition()?.message).toBe(
      `Pods do not get ready: FailedMount: ${MISSING}; create the object that the volume refers to, or correct the template's volumes`,
    );
    await world.until("a Pod is parked", () => world.parked.length === 1, 10 * MINUTE);
    await untilSaid("Pods can be created", 10 * SECOND);
    const before = readings();
    await world.pass(10 * MINUTE);
    expect(readings()).toBe(before);
  });

  test("is reported with its RuntimeClass if the node does not have that runtime", async () => {
    const { bound, untilBound, untilSaid, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 3_600, isolation: "gVisor" },
    });
    await untilBound();
    const words = 'Failed to create pod sandbox: rpc error: no runtime for "runsc" is configured';
    complain(bound()[0], words, { reason: "FailedCreatePodSandBox" });
    await untilSaid(
      `FailedCreatePodSandBox: ${words}; install the runtime of RuntimeClass gvisor on the node, or set the class's scheduling.nodeSelector to nodes that have it`,
    );
  });

  test("shares infrequent reads with other Pods, and the same fault is reported once", async () => {
    const { world, readings, untilSaid, bound, untilBound, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 3_600, warm: 3, maxConcurrent: 3 },
      prepareMs: () => 60 * MINUTE,
    });
    await world.until("Pods are bound", () => bound().length === 3, 40 * MINUTE);
    await untilBound();
    for (const pod of bound()) complain(pod, `cannot mount for ${pod.metadata.name} (${pod.metadata.uid})`);
    await untilSaid("cannot mount for it (it)", MINUTE);
    const version = world.environment?.metadata.resourceVersion;
    const before = readings();
    for (let minute = 0; minute < 20; minute += 1) {
      await world.pass(MINUTE);
      for (const pod of bound()) complain(pod, `cannot mount for ${pod.metadata.name} (${pod.metadata.uid})`);
    }
    const made = readings() - before;
    expect(made).toBeGreaterThan(5);
    expect(made).toBeLessThanOrEqual(20 * READINGS_A_MINUTE);
    expect(world.told.filter((text) => text.includes("cannot mount"))).toHaveLength(1);
    expect(world.environment?.metadata.resourceVersion).toBe(version);
  });

  test("is not reported while its Events show progress, such as pulling a large image", async () => {
    const { world, condition, readings, bound, untilBound, complain } = slowWorld();
    await untilBound();
    complain(bound()[0], "a hiccup");
    await world.pass(SECOND);
    complain(bound()[0], "Pulling image", { type: "Normal", reason: "Pulling" });
    await world.pass(2 * MINUTE);
    expect(readings()).toBeGreaterThan(0);
    expect(condition()).toMatchObject({ status: "Unknown", reason: "CapacityUnchecked" });
  });

  test("keeps its message after its timeout, during the pause and for the next Pod", async () => {
    const { world, condition, untilSaid, bound, untilBound, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 60 },
    });
    await untilBound();
    const [first] = bound();
    complain(first, MISSING);
    await untilSaid(MISSING);
    await world.until("the Pod is replaced", () =>
      world.pods.some(({ metadata }) => metadata.uid !== first?.metadata.uid),
    );
    await world.until("the next Pod is bound", () => bound().length === 1, 20 * MINUTE);
    expect(condition()?.message).toContain(MISSING);
    complain(bound()[0], "network is not ready", { reason: "NetworkNotReady" });
    await untilSaid("NetworkNotReady: network is not ready; fix the node's network plug-in", 50 * SECOND);
  });

  test("is reported as late when its node has no warning", async () => {
    const { untilSaid, condition } = slowWorld({ sessions: { prepareTimeoutSeconds: 30 } });
    await untilSaid("not within prepareTimeoutSeconds, and the node reports no reason");
    expect(condition()?.message).not.toContain("kubectl");
  });

  test.each([
    ["is not answered yet", () => {}, 9 * SECOND],
    [
      "fails",
      () => {
        throw refusal(500, "InternalError", "etcd is away");
      },
      0,
    ],
  ])("is reported without a node message while the list of its Events %s", async (_title, answer, delayMs) => {
    const { world, operator, untilSaid, condition } = slowWorld({ sessions: { prepareTimeoutSeconds: 2 } });
    const isOfEvents = ({ verb, plural }: { verb: string; plural: string }) => verb === "list" && plural === "events";
    operator.kube.delay = (request) => (isOfEvents(request) ? delayMs : 0);
    operator.kube.intercept.push((request) => {
      if (isOfEvents(request)) answer();
    });
    await world.until("the condition is False", () => condition()?.status === "False", 20 * MINUTE);
    expect(condition()?.message).toBe(
      "Pods do not get ready: not within prepareTimeoutSeconds; raise it if Pods only need more time",
    );
    operator.kube.delay = () => 0;
    operator.kube.intercept.splice(0);
    await untilSaid("not within prepareTimeoutSeconds, and the node reports no reason");
  });

  test("has its Events read soon when prepareTimeoutSeconds is short", async () => {
    const { world, readings, untilBound } = slowWorld({ sessions: { prepareTimeoutSeconds: 10 } });
    await untilBound();
    await world.pass(4 * SECOND);
    expect(readings()).toBe(0);
    await world.pass(2 * SECOND);
    expect(readings()).toBe(1);
  });
});

describe("an operator that may not list Events, as with the Role of an older release", () => {
  test("reports how to see them, retries at the same slow pace, and reads them once it may", async () => {
    const { world, operator, readings, condition, untilSaid, bound, untilBound, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 100 },
    });
    const forbid = ({ verb, plural }: { verb: string; plural: string }) => {
      if (verb === "list" && plural === "events") throw refusal(403, "Forbidden", "events is forbidden");
    };
    operator.kube.intercept.push(forbid);
    await untilBound();
    await world.pass(95 * SECOND);
    expect(condition()?.status).toBe("Unknown");
    expect(readings()).toBeGreaterThan(0);
    expect(readings()).toBeLessThanOrEqual(3);
    await untilSaid("`kubectl -n agents describe pods -l berth.dev/environment=research`");
    expect(condition()?.message).toMatch(/^Pods do not get ready: not within prepareTimeoutSeconds, .* list Events/);
    operator.kube.intercept.splice(0);
    await world.until("the next Pod is bound", () => bound().length === 1, 20 * MINUTE);
    complain(bound()[0], MISSING);
    await untilSaid(MISSING, 99 * SECOND);
  });

  test("Events are requested again later after a server error, and the reported message stays", async () => {
    const { world, operator, readings, untilSaid, condition, bound, untilBound, complain } = slowWorld({
      sessions: { prepareTimeoutSeconds: 3_600 },
      prepareMs: () => 38 * MINUTE,
    });
    await untilBound();
    complain(bound()[0], MISSING);
    await untilSaid(MISSING);
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "list" && plural === "events") throw refusal(500, "InternalError", "etcd is away");
    });
    const before = readings();
    await world.pass(10 * MINUTE);
    expect(readings() - before).toBeGreaterThan(2);
    expect(readings() - before).toBeLessThanOrEqual(10 * READINGS_A_MINUTE);
    expect(condition()?.message).toContain(MISSING);
  });
});

test("reads no Events while Pods get ready in time", async () => {
  const { world, readings } = slowWorld({ prepareMs: () => 2 * SECOND });
  for (let round = 0; round < 5; round += 1) {
    world.enqueue();
    await world.pass(MINUTE);
  }
  expect(world.items.every(({ state }) => state === "stopped")).toBe(true);
  expect(readings()).toBe(0);
});

test("an operator can stop while it reads Events", async () => {
  const { world, operator, readings, untilBound } = slowWorld({ sessions: { prepareTimeoutSeconds: 3_600 } });
  operator.kube.delay = ({ verb, plural }) => (verb === "list" && plural === "events" ? 9 * SECOND : 0);
  await untilBound();
  await world.until("the operator lists Events", () => readings() === 1);
  await world.stop(operator, 5 * SECOND);
});
