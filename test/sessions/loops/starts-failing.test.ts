import { describe, expect, test } from "vitest";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { metricValue } from "../../support/metric-value.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const MINUTE = 60_000;
const QUEUED = 40;
/** The three sessions that show that starts fail, and those under way with them when four Pods are parked. */
const OPENING = 8;

const serves = (servesMs: number): ContainerFate => ({ startError: false, program: "stock", servesMs });
const BROKEN: ContainerFate = { startError: true, program: "stock", servesMs: 0 };

/** Killed before its first heartbeat. */
const ENDS_AT_ONCE: ContainerFate = { startError: false, program: "killed", servesMs: 100 };

const starting = (world: LoopWorld) => world.conditionOf("SessionsStarting")?.reason;

/** The number of these items that were acknowledged. */
const eaten = (world: LoopWorld, ids: readonly string[]) => ids.filter((id) => world.item(id).acks.length > 0).length;

const enqueue = (world: LoopWorld, items: number) => Array.from({ length: items }, () => world.enqueue());

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

/**
 * Starts an operator and old sessions that run for these times, then breaks the template: no further session starts.
 */
async function withOldSessions(servesMs: readonly number[], fate = BROKEN, more: Record<string, unknown> = {}) {
  const world = new LoopWorld({ sessions: { maxConcurrent: 20, warm: 4, retainFailedSeconds: 3_600, ...more } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length >= 4);
  for (const ms of servesMs) {
    world.fate = () => serves(ms);
    const id = world.enqueue();
    await world.until("an old session runs", () => world.item(id).state === "active");
    await world.until("four Pods are parked again", () => world.parked.length === 4);
  }
  await world.pass(MINUTE);
  world.fate = () => fate;
  return { world, operator };
}

describe("a template that served before and can't start any more", () => {
  test("is not trusted because older sessions end well", async () => {
    const { world } = await withOldSessions([3, 4, 5, 6, 7, 8].map((minutes) => minutes * MINUTE));
    const ids = enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing");
    await world.pass(15 * MINUTE);
    expect(world.node.running.size, "old sessions").toBe(0);
    expect(starting(world)).toBe("StartsFailing");
    // Probes follow after 1, 2, 4 and 8 minutes.
    expect(eaten(world, ids)).toBeLessThanOrEqual(OPENING + 4);
    holdsTrue(world);
  });

  // A new process can't count Pods that the operator deleted itself because the kubelet would have retried.
  test.each([
    ["ends at once", ENDS_AT_ONCE, 0],
    ["cannot be started", BROKEN, 3],
  ] as const)("is not trusted by a new process that finds an old session running: %s", async (_what, fate, more) => {
    const { world, operator } = await withOldSessions([600 * MINUTE], fate);
    const ids = enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("all other claims are settled", () => world.claims.length === 1);
    const before = eaten(world, ids);
    await world.stop(operator);
    world.startOperator();
    await world.pass(50_000);
    expect(starting(world)).toBe("StartsFailing");
    expect(eaten(world, ids)).toBe(before + more);
    holdsTrue(world);
  });

  test("claims as usual as soon as a probe serves", async () => {
    const { world } = await withOldSessions([600 * MINUTE]);
    enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing");
    world.fate = () => serves(5_000);
    await world.until(
      "all but one item are stopped",
      () => world.items.filter(({ state }) => state !== "stopped").length === 1,
      5 * MINUTE,
    );
    expect(starting(world)).toBe("Starting");
    holdsTrue(world);
  });
});

test("a pause neither ends the hold of failing starts nor lets a probe run", async () => {
  const { world } = await withOldSessions([600 * MINUTE]);
  const ids = enqueue(world, QUEUED);
  await world.until("starts are failing", () => starting(world) === "StartsFailing");
  await world.pass(MINUTE / 2);
  const before = eaten(world, ids);
  world.patchEnvironment({ spec: { paused: true } });
  await world.pass(10 * MINUTE);
  expect([eaten(world, ids), starting(world), world.conditionOf("Ready")?.reason]).toEqual([
    before,
    "StartsFailing",
    "Paused",
  ]);
  world.patchEnvironment({ spec: { paused: false } });
  await world.pass(MINUTE);
  expect([eaten(world, ids), starting(world)]).toEqual([before + 1, "StartsFailing"]);
  holdsTrue(world);
});

describe("a new process", () => {
  test.each([0, 600])(
    "does not count failures as consecutive when sessions served in between, with retainEndedSeconds: %i",
    async (seconds) => {
      const sessions = { maxConcurrent: 4, warm: 1, retainEndedSeconds: seconds, retainFailedSeconds: 3_600 };
      const world = new LoopWorld({ sessions });
      world.createEnvironment();
      const operator = world.startOperator();
      await world.until("a parked Pod", () => world.parked.length > 0);
      for (let n = 0; n < 8; n += 1) {
        world.fate = () => (n % 2 === 0 ? ENDS_AT_ONCE : serves(5_000));
        const id = world.enqueue();
        await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
      }
      // Pods that served are already deleted; failed ones are retained.
      await world.pass(11 * MINUTE);
      expect(world.podsOf("ended")).toHaveLength(4);
      await world.stop(operator);
      world.startOperator();
      await world.pass(10_000);
      expect([starting(world), world.conditionOf("Ready")?.status]).toEqual(["NoSessionYet", "True"]);
      holdsTrue(world);
    },
  );

  test("finds the consecutive failures despite the good end of an old session", async () => {
    const { world, operator } = await withOldSessions([8 * MINUTE], ENDS_AT_ONCE, { retainEndedSeconds: 600 });
    enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("the old session's claim is settled", () => world.claims.length === 0, 10 * MINUTE);
    const said = world.conditionOf("SessionsStarting")?.message.replace(/ after \S+$/, "");
    await world.stop(operator);
    world.startOperator();
    await world.pass(5_000);
    expect(starting(world)).toBe("StartsFailing");
    expect(world.conditionOf("SessionsStarting")?.message.replace(/ after \S+$/, "")).toBe(said);
    holdsTrue(world);
  });

  test("continues the count when it starts soon after", async () => {
    const { world, operator } = await withOldSessions([600 * MINUTE], ENDS_AT_ONCE);
    const ids = [world.enqueue()];
    await world.until("the first item is stopped", () => world.item(ids[0] ?? "").state === "stopped", 5 * MINUTE);
    await world.until("the other claims are settled", () => world.claims.length === 1);
    await world.until("parked Pods", () => world.parked.length >= 4);
    await world.stop(operator);
    world.startOperator();
    ids.push(...enqueue(world, QUEUED));
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    expect(eaten(world, ids)).toBe(3);
    holdsTrue(world);
  });
});

/** Ways to end a Pod from outside. */
const deleted = (world: LoopWorld, pod: string) => world.server.delete(PODS, NAMESPACE, pod);
const disrupted = (reason: string) => (world: LoopWorld, pod: string) => {
  const { status } = world.server.get(PODS, NAMESPACE, pod);
  const lastTransitionTime = new Date(world.clock.now()).toISOString();
  const target = { type: "DisruptionTarget", status: "True", reason, lastTransitionTime } as const;
  const conditions = [...(status?.conditions ?? []), target];
  world.server.patch(PODS, NAMESPACE, pod, { status: { ...status, conditions } }, true);
  deleted(world, pod);
};

describe.each(["Worker", "Operator"] as const)(
  "lease: %s: a Pod that is ended from outside before it served",
  (lease) => {
    test.each([
      ["deleted by hand, and killed after its grace", "silent", deleted],
      ["deleted by hand, and leaves on SIGTERM", "plain", deleted],
      ["evicted", "plain", disrupted("EvictionByEvictionAPI")],
      ["preempted", "plain", disrupted("PreemptionByScheduler")],
      ["lost with its node", "silent", (world: LoopWorld, pod: string) => world.node.lose(pod, NAMESPACE)],
    ] as const)("does not count against its template: %s", async (_how, program, end) => {
      const fate = () => ({ startError: false, program, servesMs: 60 * MINUTE });
      const world = new LoopWorld({ sessions: { lease, maxConcurrent: 8, warm: 2 }, fate });
      world.createEnvironment();
      world.startOperator();
      for (let n = 1; n <= 4; n += 1) {
        await world.until("a parked Pod", () => world.parked.length > 0);
        const id = world.enqueue();
        await world.until("the container runs", () => [...world.node.running].some(({ workId }) => workId === id));
        end(world, [...world.node.running].find(({ workId }) => workId === id)?.pod ?? "");
        await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
        await world.until("its claim is settled", () => world.claims.length === 0, MINUTE);
        expect(await metricValue(world.metrics.startFailures, {}), `Pod ${n}`).toBe(0);
        // lease: Operator: a Pod that is killed after its grace period has run long enough to count as served.
        const told = lease === "Operator" && program === "silent" ? "Starting" : "NoSessionYet";
        expect(["NoSessionYet", told], `Pod ${n}`).toContain(starting(world));
      }
      holdsTrue(world);
    });
  },
);

const IMAGES = { broken: "worker:1", fixed: "worker:2" };

const withImage = (image: string) => ({
  spec: {
    sessions: { template: { spec: { containers: [{ name: "worker", image }], terminationGracePeriodSeconds: 30 } } },
  },
});

/** A world where the first template behaves like `fate` and the next one serves, with the started Pods of the first. */
function withTwoTemplates(fate: ContainerFate, sessions: Record<string, unknown>, unprepared = "") {
  const started: Pod[] = [];
  const first = { fate };
  const world = new LoopWorld({
    sessions: { maxConcurrent: 10, retainFailedSeconds: 3_600, ...sessions },
    fate: (pod) => {
      if (imageOf(pod) !== IMAGES.broken) return serves(5_000);
      started.push(pod);
      return first.fate;
    },
    prepareMs: (pod) => (imageOf(pod) === unprepared ? 600 * MINUTE : 1_500),
  });
  world.createEnvironment();
  return { world, started, first };
}

const imageOf = (pod: Pod) => pod.spec.containers[0]?.image;

/**
 * Starts a new process after the template was fixed. It serves the whole queue and starts no container of the broken
 * template.
 */
async function servesFixed(world: LoopWorld, started: readonly Pod[]): Promise<void> {
  const lost = started.length;
  world.patchEnvironment(withImage(IMAGES.fixed));
  world.startOperator();
  await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
  expect(started.length).toBe(lost);
  holdsTrue(world);
}

const servedItems = (world: LoopWorld) => world.items.filter(({ state }) => state === "stopped").length;

describe("parked Pods of a replaced template", () => {
  test.each([
    ["can't start", BROKEN],
    ["ends at once", ENDS_AT_ONCE],
  ] as const)("get no session when the template %s and starts failed", async (_what, fate) => {
    const { world, started } = withTwoTemplates(fate, { warm: 4 });
    world.startOperator();
    await world.until("parked Pods", () => world.parked.length >= 4);
    enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("the first three claims are settled", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length >= 4);
    const lost = started.length;
    const before = servedItems(world);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.until("the first session is served", () => servedItems(world) > before, 20_000);
    await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
    expect(started.length).toBe(lost);
    holdsTrue(world);
  });

  test("get no session if none of them has served, and the next template serves the queue", async () => {
    const { world, started } = withTwoTemplates(ENDS_AT_ONCE, { warm: 4 });
    world.startOperator();
    await world.until("parked Pods", () => world.parked.length >= 4);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.until("the changed template is observed", () => world.environment?.status?.observedGeneration === 2);
    enqueue(world, 8);
    await world.until("all items are served and settled", () => world.isSettled, MINUTE);
    expect(started).toEqual([]);
    holdsTrue(world);
  });

  test.each([
    ["can't start", BROKEN],
    ["ends at once", ENDS_AT_ONCE],
  ] as const)("get no session from a new process: %s", async (_what, fate) => {
    const { world, started } = withTwoTemplates(fate, { warm: 4 });
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length >= 4);
    enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("the first three claims are settled", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length >= 4);
    await world.stop(operator);
    await servesFixed(world, started);
  });

  test("get no session from a new process when the template served before it broke", async () => {
    const { world, started, first } = withTwoTemplates(serves(5_000), { warm: 4, retainEndedSeconds: 600 });
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length >= 4);
    enqueue(world, 2);
    await world.until("everything is settled", () => world.isSettled, MINUTE);
    first.fate = BROKEN;
    enqueue(world, QUEUED);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("no claim is left", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length >= 4);
    await world.stop(operator);
    await servesFixed(world, started);
  });

  test("are deleted at once when they occupy the only slot", async () => {
    const { world, started } = withTwoTemplates(BROKEN, { maxConcurrent: 1, warm: 0 });
    const operator = world.startOperator();
    enqueue(world, 5);
    await world.until("starts fail", () => starting(world) === "StartsFailing", 5 * MINUTE);
    await world.until("the Pod for a probe is parked", () => world.parked.length === 1);
    await world.stop(operator);
    const lost = started.length;
    world.patchEnvironment(withImage(IMAGES.fixed));
    world.startOperator();
    await world.until("all items are served and settled", () => world.isSettled, MINUTE);
    expect(started.length).toBe(lost);
    holdsTrue(world);
  });

  test("continue to serve when they served before and the next template never gets ready", async () => {
    const sessions = { warm: 2, retainEndedSeconds: 600 };
    const { world, started } = withTwoTemplates(serves(5_000), sessions, IMAGES.fixed);
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 2);
    enqueue(world, 2);
    await world.until("everything is settled", () => world.isSettled, MINUTE);
    await world.until("parked Pods", () => world.parked.length === 2);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.pass(5_000);
    world.enqueue();
    await world.until("a session in an old Pod is settled", () => world.isSettled && started.length === 3, MINUTE);
    await world.stop(operator);
    world.startOperator();
    world.enqueue();
    await world.until(
      "a session in the other old Pod is settled",
      () => world.isSettled && started.length === 4,
      MINUTE,
    );
    holdsTrue(world);
  });

  test("are deleted after a restart when no record shows that the template served", async () => {
    const { world, started } = withTwoTemplates(serves(5_000), { warm: 2 }, IMAGES.fixed);
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 2);
    await world.stop(operator);
    world.patchEnvironment(withImage(IMAGES.fixed));
    world.startOperator();
    const id = world.enqueue();
    await world.pass(MINUTE);
    expect([world.parked, started, world.item(id).acks]).toEqual([[], [], []]);
    holdsTrue(world);
  });
});
