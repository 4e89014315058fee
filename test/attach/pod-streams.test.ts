import { describe, expect, test } from "vitest";
import { ANNOTATION_PARKING } from "../../src/api/names.ts";
import { PodStreams, type StreamBudget, StreamBudgets } from "../../src/attach/pod-streams.ts";
import type { CallOptions, ObjectRef } from "../../src/kube/client.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { STARTED_MARKER } from "../../src/pods/frame.ts";
import { pod } from "../pods/pods.ts";
import { turnsPod } from "../pods/turn-pods.ts";
import { refusal } from "../reconcile/fake-kube.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeStream } from "./fake-stream.ts";

const SECOND = 1_000;
const FRAME = "\nberth1 1 x #end\n";
/** Of one Environment. */
const MOST_KEPT = 20;
const MOST_AT_A_TIME = 8;

const waiting = (name: string, parking: string | null = "Shell", uid = `${name}-uid`): Pod => {
  const made = pod();
  const annotations = { ...made.metadata.annotations, ...(parking === null ? {} : { [ANNOTATION_PARKING]: parking }) };
  return { ...made, metadata: { ...made.metadata, name, uid, annotations } };
};
const some = (count: number) => Array.from({ length: count }, (_, n) => waiting(`pod-${n}`));

/** PodStreams whose attach requests the test answers; by default each succeeds. */
function streamsOf(budget = new StreamBudgets().waiting, asleepBudget = new StreamBudgets().asleep) {
  const clock = new VirtualClock();
  const metrics = createMetrics();
  const labels = { namespace: "agents", environment: "research" };
  const attached: { name: string; container: string; stream: FakeStream; timeoutMs: number | undefined }[] = [];
  const failures: [message: string, isForMoment: boolean | undefined][] = [];
  let changes = 0;
  const on = {
    attach: (_name: string): Error | Promise<Error | undefined> | undefined => undefined,
    send: (_stream: FakeStream): void => {},
    log: (): string | Error => "",
  };
  const kube = {
    attach: async ({ name }: ObjectRef, { container }: { container: string }, { timeoutMs }: CallOptions = {}) => {
      const stream = new FakeStream((each) => on.send(each));
      attached.push({ name, container, stream, timeoutMs });
      const answer = await on.attach(name);
      if (!(answer instanceof Error)) return stream;
      stream.close();
      throw answer;
    },
    log: async () => {
      const answer = on.log();
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
  const streams = new PodStreams(
    {
      ...{ namespace: "agents", kube, clock, random: () => 0.5, logger: silentLogger, metrics, labels },
      streamBudgets: { waiting: budget, asleep: asleepBudget },
      shellFailed: (message, isForMoment) => failures.push([message, isForMoment]),
    },
    () => {
      changes += 1;
    },
  );
  const keep = async (pods: readonly Pod[]) => {
    const nextMs = streams.keep(pods);
    await clock.settle();
    return nextMs;
  };
  return {
    ...{ streams, clock, budget, attached, failures, on, keep },
    changes: () => changes,
    names: () => attached.map(({ name }) => name),
    open: () => attached.filter(({ stream }) => stream.isOpen).map(({ name }) => name),
    gauge: () => metricValue(metrics.attachStreams, labels),
    deliveries: (connection: string, result: string) =>
      metricValue(metrics.deliveries, { ...labels, connection, result }),
  };
}

const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };

/** A sleeping Pod whose next turn waits. */
const asleepPod = (name = "pod-0", turn = 2): Pod => {
  const made = turnsPod({ name, phase: "sleeping", ended: turn - 1, turns: { [turn]: RUNNING } });
  return { ...made, metadata: { ...made.metadata, uid: `${name}-uid` } };
};

const BOUND_MS = 1_500;

/** Asks the node of a Pod for an answer. Resolves with whether one came. */
const reach = ({ streams }: ReturnType<typeof streamsOf>, of = asleepPod()): Promise<boolean> =>
  streams.reach(of, BOUND_MS).then(
    () => true,
    () => false,
  );

/** Prints the marker after each line. */
const starts = (stream: FakeStream) => stream.print(`${STARTED_MARKER}\n`);

describe("a free Pod", () => {
  test("is reachable only once an attach to its session container succeeded", async () => {
    const { streams, keep, on, attached, changes } = streamsOf();
    const free = waiting("pod-0");
    const answered = Promise.withResolvers<undefined>();
    on.attach = () => answered.promise;
    expect(streams.isReachable(free)).toBe(false);
    await keep([free]);
    expect([streams.isReachable(free), changes()]).toEqual([false, 0]);
    answered.resolve(undefined);
    await keep([free]);
    expect([streams.isReachable(free), changes()]).toEqual([true, 1]);
    expect(attached).toMatchObject([{ name: "pod-0", container: "worker", timeoutMs: 5 * SECOND }]);
  });

  test("that waits for a key is reachable at once, and gets no connection", async () => {
    const { streams, keep, names } = streamsOf();
    const byKey = waiting("pod-0", null);
    await keep([byKey]);
    expect([streams.isReachable(byKey), names()]).toEqual([true, []]);
  });

  test("gets another proof if another Pod takes its name", async () => {
    const { streams, keep, names } = streamsOf();
    await keep([waiting("pod-0", "Program")]);
    const again = waiting("pod-0", "Program", "another-uid");
    expect(streams.isReachable(again)).toBe(false);
    await keep([again]);
    expect([streams.isReachable(again), names()]).toEqual([true, ["pod-0", "pod-0"]]);
  });

  test("loses its proof when it neither waits nor has a connection", async () => {
    const { streams, keep, attached, clock } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    await keep([]);
    // A claim that is dropped returns its Pod.
    expect(streams.isReachable(free)).toBe(true);
    attached[0]?.stream.close("the container ended");
    await clock.settle();
    await keep([]);
    expect(streams.isReachable(free)).toBe(false);
  });
});

describe("connections ahead of time", () => {
  test("stay open to the Pods that are claimed next, and every Pod is attached to once", async () => {
    const { keep, names, open, gauge } = streamsOf();
    const pods = some(MOST_KEPT + 5);
    for (let pass = 0; pass < 20; pass += 1) await keep(pods);
    expect(names()).toEqual(pods.map(({ metadata }) => metadata.name));
    expect(open()).toEqual(names().slice(0, MOST_KEPT));
    expect(await gauge()).toBe(MOST_KEPT);
  });

  test("are made in the order of the claims, a few at a time", async () => {
    const { keep, names, on } = streamsOf();
    const answered = Promise.withResolvers<undefined>();
    on.attach = () => answered.promise;
    const pods = some(MOST_AT_A_TIME + 2);
    await keep(pods);
    await keep(pods);
    expect(names()).toEqual(pods.slice(0, MOST_AT_A_TIME).map(({ metadata }) => metadata.name));
    answered.resolve(undefined);
    await keep(pods);
    await keep(pods);
    expect(names()).toHaveLength(MOST_AT_A_TIME + 2);
  });

  test("move up when Pods leave", async () => {
    const { keep, open, streams } = streamsOf();
    const pods = some(MOST_KEPT + 1);
    for (let pass = 0; pass < 20; pass += 1) await keep(pods);
    const last = pods.at(-1) as Pod;
    expect(open()).not.toContain(last.metadata.name);
    await keep(pods.slice(1));
    expect(open()).toContain(last.metadata.name);
    expect(streams.isReachable(last)).toBe(true);
  });

  test("stop at the bound that all Environments of a replica share, without attaching again and again", async () => {
    const budget = new StreamBudgets().waiting;
    let taken = 0;
    while (taken < 1_000 && budget.take()) taken += 1;
    expect(taken).toBe(100);
    budget.give();
    const { keep, names, open, streams } = streamsOf(budget);
    const pods = some(3);
    for (let pass = 0; pass < 5; pass += 1) await keep(pods);
    expect(names()).toEqual(["pod-0", "pod-1", "pod-2"]);
    expect(open()).toHaveLength(1);
    expect(pods.every((each) => streams.isReachable(each))).toBe(true);
    expect(budget.isFull).toBe(true);
  });

  test("give back their share when they end, however they end", async () => {
    const budget = new StreamBudgets().waiting;
    let taken = 0;
    const counted = {
      isFull: false,
      take: () => {
        taken += 1;
        return true;
      },
      give: () => {
        taken -= 1;
      },
    };
    const { streams, keep, attached, on, clock, gauge } = streamsOf(counted as StreamBudget);
    on.send = starts;
    const pods = some(3);
    await keep(pods);
    expect(taken).toBe(3);
    attached[0]?.stream.close("the connection was lost");
    await streams.deliver(pods[1] as Pod, FRAME, () => {});
    await clock.settle();
    expect([taken, await gauge()]).toEqual([1, 1]);
    streams.close();
    await clock.settle();
    expect([taken, await gauge()]).toEqual([0, 0]);
    expect(budget.isFull).toBe(false);
  });

  test("are made again after they break, more slowly while they break early", async () => {
    const { streams, keep, attached, clock, changes } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    const pauses: number[] = [];
    for (let n = 0; n < 4; n += 1) {
      attached.at(-1)?.stream.close("the connection was lost");
      await clock.settle();
      const againMs = (await keep([free])) ?? 0;
      pauses.push(againMs - clock.monotonic());
      await clock.advance(againMs - clock.monotonic());
      await keep([free]);
    }
    expect(pauses).toEqual([750, 1_500, 3_000, 6_000]);
    expect(attached).toHaveLength(5);
    // The Pod stays free: one attach did succeed, and the next one may, too.
    expect([streams.isReachable(free), streams.problemOf(free)]).toEqual([true, null]);
    expect(changes()).toBe(9);
    await clock.advance(60 * SECOND);
    attached.at(-1)?.stream.close("the load balancer's idle timeout");
    await clock.settle();
    expect(await keep([free])).toBeNull();
    expect(attached).toHaveLength(6);
  });

  test("are not kept to a Pod that got its line meanwhile", async () => {
    const { streams, keep, on, open, gauge } = streamsOf();
    const free = waiting("pod-0");
    const answered = Promise.withResolvers<undefined>();
    on.attach = () => answered.promise;
    await keep([free]);
    on.attach = () => undefined;
    on.send = starts;
    expect(await streams.deliver(free, FRAME, () => {})).toBe("started");
    answered.resolve(undefined);
    await keep([]);
    expect(open()).toEqual([]);
    expect(await gauge()).toBe(0);
  });

  test("are closed when this process no longer serves the Environment, and no more are made", async () => {
    const { streams, keep, open, on, changes } = streamsOf();
    await keep(some(2));
    const answered = Promise.withResolvers<undefined>();
    on.attach = () => answered.promise;
    await keep(some(3));
    const before = changes();
    streams.close();
    answered.resolve(undefined);
    await keep([]);
    expect([open(), changes()]).toEqual([[], before]);
    expect(streams.problemOf(waiting("pod-2"))).toBeNull();
    await expect(streams.deliver(waiting("pod-1"), FRAME, () => {})).rejects.toThrow("are closed");
  });
});

describe("an attach that fails", () => {
  test.each([
    ["refused", 403, 2, "no; give the operator get and create on pods/attach (the chart's rbac.attach), or set"],
    ["answered with an error", 500, 4, "no; check the Pod and its node's kubelet"],
  ])("is reported with its fix if it is %s repeatedly", async (_what, status, times, said) => {
    const { streams, keep, on, clock } = streamsOf();
    const free = waiting("pod-0");
    on.attach = () => refusal(status, "", "no.");
    for (let n = 1; n < times; n += 1) {
      await keep([free]);
      expect(streams.problemOf(free)).toBeNull();
      await clock.advance(10 * SECOND);
    }
    await keep([free]);
    expect(streams.problemOf(free)).toContain(said);
  });

  test("is tried again with backoff until one succeeds", async () => {
    const { streams, keep, on, clock, names, changes } = streamsOf();
    const free = waiting("pod-0");
    on.attach = () => refusal(500, "InternalError", "error dialing backend");
    await keep([free]);
    expect(streams.isReachable(free)).toBe(false);
    expect(changes()).toBe(1);
    const againMs = await keep([free]);
    expect(againMs).toBe(clock.monotonic() + 750);
    expect(names()).toHaveLength(1);
    await clock.advance(750);
    await keep([free]);
    expect(streams.isReachable(free)).toBe(false);
    expect(await keep([free])).toBe(clock.monotonic() + 1_500);
    on.attach = () => undefined;
    await clock.advance(1_500);
    await keep([free]);
    expect([streams.isReachable(free), streams.problemOf(free)]).toEqual([true, null]);
    expect(names()).toHaveLength(3);
  });

  test("comes after the first attaches to other Pods, and takes no place of theirs", async () => {
    const { keep, on, clock, names, open } = streamsOf();
    const failing = some(MOST_AT_A_TIME);
    on.attach = (name) =>
      name.startsWith("pod-") ? refusal(500, "InternalError", "error dialing backend") : undefined;
    await keep(failing);
    const others = Array.from({ length: MOST_KEPT }, (_, n) => waiting(`other-${n}`));
    await clock.advance(10 * SECOND);
    await keep([...failing, ...others]);
    expect(names().slice(MOST_AT_A_TIME)).toEqual(others.slice(0, MOST_AT_A_TIME).map(({ metadata }) => metadata.name));
    for (let n = 0; n < 4; n += 1) await keep([...failing, ...others]);
    expect(open().filter((name) => name.startsWith("other-"))).toHaveLength(MOST_KEPT);
  });

  test("to a Pod whose connection broke makes it unreachable until one succeeds again", async () => {
    const { streams, keep, attached, on, clock } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    await clock.advance(60 * SECOND);
    on.attach = () => refusal(500, "InternalError", "error dialing backend");
    attached[0]?.stream.close("the connection was lost");
    await clock.settle();
    expect([streams.isReachable(free), streams.unreachableMs(free)]).toEqual([true, 0]);
    await keep([free]);
    await clock.advance(750);
    await keep([free]);
    await clock.advance(1_000);
    expect([streams.isReachable(free), streams.unreachableMs(free)]).toEqual([false, 1_750]);
    on.attach = () => undefined;
    await clock.advance(500);
    await keep([free]);
    expect([streams.isReachable(free), streams.unreachableMs(free)]).toEqual([true, 0]);
  });

  test("does not delay the attach to another Pod", async () => {
    const { streams, keep, on } = streamsOf();
    on.attach = (name) => (name === "pod-0" ? refusal(500, "InternalError", "no") : undefined);
    const pods = some(2);
    await keep(pods);
    expect(pods.map((each) => streams.isReachable(each))).toEqual([false, true]);
    expect(await keep(pods)).not.toBeNull();
  });

  test.each([403, 405, 501])(
    "three times in a row with HTTP %i means that Pods can't wait in a shell",
    async (status) => {
      const { keep, on, failures } = streamsOf();
      on.attach = () => refusal(status, "No", "not here");
      await keep(some(2));
      expect(failures).toEqual([]);
      await keep(some(5));
      // The permission to attach may be granted later. A policy or a node does not change.
      expect(failures).toEqual([["attaching to Pods is refused: not here", status === 403]]);
    },
  );

  test("three times in a row is reported again if Pods are refused after a check of the right passed", async () => {
    const { keep, on, failures } = streamsOf();
    on.attach = () => refusal(403, "Forbidden", "not here");
    await keep(some(4));
    expect(failures).toHaveLength(1);
    await keep(some(4).map(({ metadata }) => waiting(`later-${metadata.name}`)));
    expect(failures).toHaveLength(2);
  });

  test("for another reason, or between successes, means nothing for other Pods", async () => {
    const { keep, on, failures } = streamsOf();
    on.attach = () => refusal(500, "InternalError", "no");
    await keep(some(5));
    on.attach = (name) => (name === "ok" ? undefined : refusal(403, "Forbidden", "no"));
    await keep([...some(2).map(({ metadata }) => waiting(`more-${metadata.name}`)), waiting("ok")]);
    await keep([waiting("last-1"), waiting("last-2")]);
    expect(failures).toEqual([]);
  });
});

describe("a delivery", () => {
  test("uses the open connection, and closes it once the container has read the line", async () => {
    const { streams, keep, on, attached, deliveries } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    const order: string[] = [];
    on.send = (stream) => {
      order.push("sent");
      starts(stream);
    };
    expect(await streams.deliver(free, FRAME, () => order.push("noted"))).toBe("started");
    expect(order).toEqual(["noted", "sent"]);
    expect(attached).toHaveLength(1);
    expect(attached[0]?.stream).toMatchObject({ sent: [FRAME], isOpen: false });
    expect(await deliveries("kept", "started")).toBe(1);
  });

  test("makes a connection if none is open", async () => {
    const { streams, keep, on, attached, deliveries } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    // Just now: the Pod's record still has it.
    attached[0]?.stream.close("the connection was lost");
    on.send = starts;
    expect(await streams.deliver(free, FRAME, () => {})).toBe("started");
    expect(attached.map(({ stream }) => stream.sent)).toEqual([[], [FRAME]]);
    expect(attached[1]).toMatchObject({ name: "pod-0", container: "worker", stream: { isOpen: false } });
    expect(await deliveries("new", "started")).toBe(1);
  });

  test("to a Pod that took another one's name does not use the other one's connection", async () => {
    const { streams, keep, on, attached } = streamsOf();
    await keep([waiting("pod-0")]);
    on.send = starts;
    await streams.deliver(waiting("pod-0", "Shell", "another-uid"), FRAME, () => {});
    expect(attached.map(({ stream }) => stream.sent)).toEqual([[], [FRAME]]);
  });

  test("is unanswered if the marker does not follow in time", async () => {
    const { streams, keep, on, attached, deliveries, clock } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    on.send = (stream) => stream.print("something else\n");
    const delivery = streams.deliver(free, FRAME, () => {});
    await clock.advance(2 * SECOND - 1);
    expect(attached[0]?.stream.isOpen).toBe(true);
    await clock.advance(1);
    expect(await delivery).toBe("unanswered");
    expect(attached[0]?.stream.isOpen).toBe(false);
    expect(await deliveries("kept", "unanswered")).toBe(1);
  });

  test("is unanswered at once if the connection breaks off", async () => {
    const { streams, keep, on } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    on.send = (stream) => stream.close("the connection was lost");
    expect(await streams.deliver(free, FRAME, () => {})).toBe("unanswered");
  });

  test("fails without a line if the Pod can't be attached to", async () => {
    const { streams, on, attached, deliveries } = streamsOf();
    on.attach = () => refusal(500, "InternalError", "error dialing backend");
    let noted = 0;
    await expect(
      streams.deliver(waiting("pod-0"), FRAME, () => {
        noted += 1;
      }),
    ).rejects.toThrow("error dialing backend");
    expect([noted, attached[0]?.stream.sent]).toEqual([0, []]);
    expect(await deliveries("new", "failed")).toBe(1);
  });

  test("fails if the process may no longer act, and closes the connection", async () => {
    const { streams, keep, on, attached } = streamsOf();
    const free = waiting("pod-0");
    await keep([free]);
    on.send = () => {
      throw new LeadershipLostError("not the leader");
    };
    await expect(streams.deliver(free, FRAME, () => {})).rejects.toThrow("not the leader");
    expect(attached[0]?.stream.isOpen).toBe(false);
  });
});

describe("a connection that is opened while a sleeping Pod is claimed", () => {
  const PREPARED_SECONDS = 10;
  const asleep = (turn = 2) => asleepPod("pod-0", turn);
  const prepared = async (streams: ReturnType<typeof streamsOf>, pod = asleep()) => {
    void reach(streams, pod);
    await streams.clock.settle();
  };

  test("leads to its waiting turn, and is used by the delivery", async () => {
    const world = streamsOf();
    await prepared(world);
    await prepared(world);
    expect(world.attached).toMatchObject([{ name: "pod-0", container: "berth-turn-2", stream: { isOpen: true } }]);
    world.on.send = starts;
    expect(await world.streams.deliver(asleep(), FRAME, () => {})).toBe("started");
    expect(world.attached.map(({ stream }) => stream)).toMatchObject([{ sent: [FRAME], isOpen: false }]);
  });

  test("is waited for by a delivery", async () => {
    const { streams, on, attached, clock } = streamsOf();
    const answered = Promise.withResolvers<undefined>();
    on.attach = () => answered.promise;
    on.send = starts;
    void streams.reach(asleep(), BOUND_MS);
    const delivery = streams.deliver(asleep(), FRAME, () => {});
    await clock.settle();
    expect(attached).toHaveLength(1);
    answered.resolve(undefined);
    expect(await delivery).toBe("started");
    expect(attached).toHaveLength(1);
  });

  test.each<[string, (world: ReturnType<typeof streamsOf>) => void]>([
    [
      "could not be opened",
      ({ on }) => {
        on.attach = () => refusal(500, "InternalError", "error dialing backend");
      },
    ],
    ["was lost", ({ clock, attached }) => void clock.setTimer(() => attached[0]?.stream.close("lost"), 0)],
  ])("is replaced by another one if it %s", async (_, fault) => {
    const world = streamsOf();
    fault(world);
    await prepared(world);
    await world.clock.advance(1);
    world.on.attach = () => undefined;
    world.on.send = starts;
    expect(await world.streams.deliver(asleep(), FRAME, () => {})).toBe("started");
    expect(world.attached.map(({ stream }) => stream.sent)).toEqual([[], [FRAME]]);
  });

  test("is closed if no delivery uses it in time", async () => {
    const world = streamsOf();
    await prepared(world);
    await world.clock.advance(PREPARED_SECONDS * SECOND - 1);
    expect(world.open()).toEqual(["pod-0"]);
    await world.clock.advance(1);
    expect(world.open()).toEqual([]);
    await prepared(world);
    expect(world.attached).toHaveLength(2);
  });

  test("has its own time, whatever became of an earlier one", async () => {
    const world = streamsOf();
    await prepared(world);
    world.on.send = starts;
    await world.streams.deliver(asleep(), FRAME, () => {});
    await world.clock.advance(PREPARED_SECONDS * SECOND - 1);
    await prepared(world);
    await world.clock.advance(1);
    expect(world.open()).toEqual(["pod-0"]);
  });

  test("leads to no other turn of the Pod than the one that is claimed", async () => {
    const world = streamsOf();
    await prepared(world, asleep(2));
    await prepared(world, asleep(3));
    world.on.send = starts;
    await world.streams.deliver(asleep(3), FRAME, () => {});
    expect(world.attached.map(({ container, stream }) => [container, stream.sent])).toEqual([
      ["berth-turn-2", []],
      ["berth-turn-3", [FRAME]],
    ]);
    await world.clock.advance(PREPARED_SECONDS * SECOND);
    expect(world.open()).toEqual([]);
  });

  test("is closed with all others, also if it opens later", async () => {
    const world = streamsOf();
    await prepared(world, asleep(2));
    const answered = Promise.withResolvers<undefined>();
    world.on.attach = () => answered.promise;
    await prepared(world, { ...asleep(), metadata: { ...asleep().metadata, name: "pod-1", uid: "pod-1-uid" } });
    world.streams.close();
    answered.resolve(undefined);
    await world.clock.settle();
    expect(world.names()).toEqual(["pod-0", "pod-1"]);
    expect(world.open()).toEqual([]);
  });
});

describe("the connections to sleeping Pods", () => {
  /** Of one Environment. */
  const MOST_ASLEEP = 100;
  const FIRST_PAUSE_SECONDS = 5;
  const sleepers = (count: number) => Array.from({ length: count }, (_, n) => asleepPod(`pod-${n}`));
  const keepAsleep = async ({ streams, clock }: ReturnType<typeof streamsOf>, pods: readonly Pod[]) => {
    streams.keepAsleep(pods);
    await clock.settle();
  };

  test("lead to the waiting turn, count as kept, and are used by the wake's delivery", async () => {
    const world = streamsOf();
    await keepAsleep(world, [asleepPod()]);
    await keepAsleep(world, [asleepPod()]);
    expect(world.attached).toMatchObject([{ name: "pod-0", container: "berth-turn-2", stream: { isOpen: true } }]);
    expect(await world.gauge()).toBe(1);
    world.on.send = starts;
    void reach(world);
    // The claimed Pod is not among the sleeping ones meanwhile.
    await keepAsleep(world, []);
    expect(await world.streams.deliver(asleepPod(), FRAME, () => {})).toBe("started");
    expect(world.attached.map(({ stream }) => stream.sent)).toEqual([[FRAME]]);
    expect([await world.deliveries("kept", "started"), await world.gauge()]).toEqual([1, 0]);
  });

  test("follow a Pod to its next turn", async () => {
    const world = streamsOf();
    await keepAsleep(world, [asleepPod("pod-0", 2)]);
    await keepAsleep(world, [asleepPod("pod-0", 3)]);
    expect(world.attached.map(({ container, stream }) => [container, stream.isOpen])).toEqual([
      ["berth-turn-2", false],
      ["berth-turn-3", true],
    ]);
  });

  test("are kept to the first Pods only, and go to others when the order changes", async () => {
    const world = streamsOf();
    const pods = sleepers(MOST_ASLEEP + 1);
    await keepAsleep(world, pods);
    expect(world.open()).toEqual(pods.slice(0, MOST_ASLEEP).map(({ metadata }) => metadata.name));
    await keepAsleep(world, pods.slice(1));
    expect(world.open()).toEqual(pods.slice(1).map(({ metadata }) => metadata.name));
  });

  test("stop at the bound of the replica, and give back their share however they end", async () => {
    const budget = new StreamBudgets().asleep;
    let left = 0;
    while (budget.take()) left += 1;
    expect(left).toBe(400);
    budget.give();
    budget.give();
    const world = streamsOf(undefined, budget);
    await keepAsleep(world, sleepers(3));
    expect(world.open()).toHaveLength(2);
    world.attached[0]?.stream.close("the connection was lost");
    await world.clock.settle();
    world.on.attach = () => refusal(500, "InternalError", "error dialing backend");
    await keepAsleep(world, sleepers(3));
    expect(world.names()).toEqual(["pod-0", "pod-1", "pod-2"]);
    world.streams.close();
    await world.clock.settle();
    expect(budget.take() && budget.take() && !budget.take()).toBe(true);
  });

  test("are opened again after a pause, one at a time until one succeeds, and block nothing", async () => {
    const world = streamsOf();
    world.on.attach = () => refusal(500, "InternalError", "error dialing backend");
    await keepAsleep(world, sleepers(10));
    await keepAsleep(world, sleepers(10));
    expect(world.names()).toHaveLength(10);
    await world.clock.advance(FIRST_PAUSE_SECONDS * SECOND);
    expect(world.names().slice(10)).toEqual(["pod-0"]);
    await world.clock.advance(2 * FIRST_PAUSE_SECONDS * SECOND);
    expect(world.names().slice(11)).toEqual(["pod-1"]);
    world.on.attach = () => undefined;
    await world.clock.advance(4 * FIRST_PAUSE_SECONDS * SECOND);
    expect(world.open()).toHaveLength(10);
    expect([await world.gauge(), world.changes(), world.failures]).toEqual([10, 0, []]);
  });

  test.each([
    ["fails", () => refusal(500, "InternalError", "error dialing backend")],
    ["succeeds", () => undefined],
  ])("are opened again although the Pod that was tried woke meanwhile, and its attach %s", async (_, answer) => {
    const world = streamsOf();
    world.on.attach = () => refusal(500, "InternalError", "error dialing backend");
    await keepAsleep(world, sleepers(3));
    const answered = Promise.withResolvers<Error | undefined>();
    world.on.attach = () => answered.promise;
    await world.clock.advance(FIRST_PAUSE_SECONDS * SECOND);
    await keepAsleep(world, sleepers(3).slice(1));
    world.on.attach = () => undefined;
    answered.resolve(answer());
    await world.clock.advance(2 * FIRST_PAUSE_SECONDS * SECOND);
    expect(world.open()).toEqual(["pod-1", "pod-2"]);
  });

  test("are opened again at once after they end, unless they ended early", async () => {
    const world = streamsOf();
    world.on.attach = (name) => (name === "pod-0" ? refusal(500, "InternalError", "error dialing backend") : undefined);
    await keepAsleep(world, sleepers(2));
    await world.clock.advance(30 * SECOND);
    world.attached.find(({ name }) => name === "pod-1")?.stream.close("the connection was idle");
    await world.clock.settle();
    expect(world.open()).toEqual(["pod-1"]);
  });

  test("are kept again to a Pod whose claim did not use the prepared one", async () => {
    const world = streamsOf();
    await keepAsleep(world, [asleepPod()]);
    void reach(world);
    await keepAsleep(world, [asleepPod()]);
    await world.clock.advance(10 * SECOND);
    expect([world.names().length, await world.gauge()]).toEqual([2, 1]);
  });

  test("are tried at once for a Pod that has just fallen asleep, while others fail", async () => {
    const world = streamsOf();
    world.on.attach = (name) => (name === "pod-0" ? refusal(500, "InternalError", "error dialing backend") : undefined);
    await keepAsleep(world, sleepers(1));
    await keepAsleep(world, sleepers(2));
    expect(world.open()).toEqual(["pod-1"]);
    await keepAsleep(world, sleepers(2).slice(1));
    await world.clock.advance(FIRST_PAUSE_SECONDS * SECOND);
    expect(world.names()).toEqual(["pod-0", "pod-1"]);
  });

  test("are opened less and less often where each is cut soon after", async () => {
    const world = streamsOf();
    const cutAll = async () => {
      for (const { stream } of world.attached) stream.close("the connection was cut");
      await world.clock.settle();
    };
    await keepAsleep(world, sleepers(3));
    for (let pauseMs = FIRST_PAUSE_SECONDS * SECOND; pauseMs <= 40 * SECOND; pauseMs *= 2) {
      const before = world.names().length;
      await cutAll();
      await world.clock.advance(pauseMs / 2 - 1);
      expect(world.names()).toHaveLength(before);
      await world.clock.advance(pauseMs / 2 + 1);
      expect(world.names()).toHaveLength(before + 3);
    }
    // Connections that stayed open for a while end the long pauses.
    await world.clock.advance(30 * SECOND);
    await cutAll();
    await world.clock.advance(FIRST_PAUSE_SECONDS * SECOND);
    expect(world.open()).toHaveLength(3);
  });

  test("are not needed for a wake: it opens its own", async () => {
    const world = streamsOf();
    const answered = Promise.withResolvers<undefined>();
    world.on.attach = () => answered.promise;
    await keepAsleep(world, [asleepPod()]);
    world.on.attach = () => undefined;
    world.on.send = starts;
    void reach(world);
    expect(await world.streams.deliver(asleepPod(), FRAME, () => {})).toBe("started");
    answered.resolve(undefined);
    await world.clock.settle();
    expect(world.attached.map(({ stream }) => [stream.sent, stream.isOpen])).toEqual([
      [[], true],
      [[FRAME], false],
    ]);
    await keepAsleep(world, []);
    expect(world.open()).toEqual([]);
  });
});

describe("the node of a Pod that is claimed", () => {
  const onNode = (name: string, nodeName: string): Pod => {
    const made = waiting(name);
    return { ...made, spec: { ...made.spec, nodeName } };
  };

  test("answers a ping over the kept connection, which stays for the delivery", async () => {
    const world = streamsOf();
    const free = waiting("pod-0");
    await world.keep([free]);
    expect(await reach(world, free)).toBe(true);
    world.on.send = starts;
    expect(await world.streams.deliver(free, FRAME, () => {})).toBe("started");
    expect(world.attached.map(({ stream }) => stream.sent)).toEqual([[FRAME]]);
  });

  test("answers an attach if no connection is kept, and that one is used by the delivery", async () => {
    const world = streamsOf();
    expect(await reach(world, waiting("pod-0"))).toBe(true);
    world.on.send = starts;
    expect(await world.streams.deliver(waiting("pod-0"), FRAME, () => {})).toBe("started");
    expect(world.attached.map(({ stream }) => stream.sent)).toEqual([[FRAME]]);
  });

  test("need not answer if the Pod waits for a key", async () => {
    const world = streamsOf();
    expect([await reach(world, waiting("pod-0", null)), world.names()]).toEqual([true, []]);
  });

  test("must answer again over a connection that an earlier claim has opened", async () => {
    const world = streamsOf();
    await reach(world);
    for (const { stream } of world.attached) stream.isSilent = true;
    const reached = reach(world);
    await world.clock.advance(BOUND_MS);
    expect([await reached, world.open()]).toEqual([false, []]);
  });

  test.each<[string, (world: ReturnType<typeof streamsOf>) => void]>([
    [
      "a ping over a connection that still seems open",
      ({ attached }) => {
        for (const { stream } of attached) stream.isSilent = true;
      },
    ],
    [
      "an attach",
      ({ attached, on }) => {
        for (const { stream } of attached) stream.close("the connection was lost");
        on.attach = () => new Promise(() => {});
      },
    ],
  ])("makes its Pod unreachable, and its other Pods come last, if it does not answer %s", async (_, fault) => {
    const world = streamsOf();
    const [asked, beside, other] = [onNode("asked", "mute"), onNode("beside", "mute"), onNode("other", "well")];
    const doubtful = () => [asked, beside, other].map((each) => world.streams.isDoubtful(each));
    await world.keep([asked, beside, other]);
    expect(doubtful()).toEqual([false, false, false]);
    fault(world);
    await world.clock.settle();
    const reached = reach(world, asked);
    await world.clock.advance(BOUND_MS);
    expect([await reached, world.streams.isReachable(asked)]).toEqual([false, false]);
    world.on.attach = () => undefined;
    for (const { stream } of world.attached) stream.isSilent = false;
    expect(doubtful().slice(0, 2)).toEqual([true, true]);
    expect(await reach(world, other)).toBe(true);
    expect(doubtful()).toEqual([true, true, false]);
    expect(await reach(world, beside)).toBe(true);
    expect(world.streams.isDoubtful(beside)).toBe(false);
  });

  test("is forgotten with its last Pod", async () => {
    const world = streamsOf();
    world.on.attach = () => refusal(500, "InternalError", "error dialing backend");
    await reach(world, onNode("asked", "mute"));
    expect(world.streams.isDoubtful(onNode("next", "mute"))).toBe(true);
    world.on.attach = () => new Promise(() => {});
    await world.keep([onNode("other", "well")]);
    expect(world.streams.isDoubtful(onNode("next", "mute"))).toBe(false);
  });
});

test("a Pod whose connection broke comes last until an attach succeeds again", async () => {
  const { streams, keep, attached, clock } = streamsOf();
  const free = waiting("pod-0");
  await keep([free]);
  await clock.advance(60 * SECOND);
  attached[0]?.stream.close("the connection was lost");
  await clock.settle();
  expect([streams.isDoubtful(free), streams.isDoubtful(waiting("pod-1"))]).toEqual([true, false]);
  await keep([free]);
  expect(streams.isDoubtful(free)).toBe(false);
});

describe("a container's log", () => {
  test.each([
    ["has no output", "", "waiting"],
    ["has the marker", `warming up\n${STARTED_MARKER}\nworking\n`, "started"],
    ["has other output only, or has lost its beginning", "working\n", "unclear"],
  ])("%s", async (_, log, shown) => {
    const { streams, on } = streamsOf();
    on.log = () => log;
    expect(await streams.hasStarted(waiting("pod-0"))).toBe(shown);
  });

  test("that can't be read says nothing", async () => {
    const { streams, on } = streamsOf();
    on.log = () => refusal(403, "Forbidden", "no");
    await expect(streams.hasStarted(waiting("pod-0"))).rejects.toThrow("no");
  });
});
