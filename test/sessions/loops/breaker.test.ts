import { describe, expect, test } from "vitest";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { metricValue } from "../../support/metric-value.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";
import type { ContainerFate } from "./node.ts";

const MINUTE = 60_000;
const QUEUED = 40;
/** Three that open the breaker, and those that were under way with them, of four Pods that are parked. */
const OPENING = 8;

const serves = (servesMs: number): ContainerFate => ({ startError: false, program: "stock", servesMs });
const BROKEN: ContainerFate = { startError: true, program: "stock", servesMs: 0 };

/** Killed before its first beat. */
const ENDS_AT_ONCE: ContainerFate = { startError: false, program: "killed", servesMs: 100 };

const starting = (world: LoopWorld) => world.conditionOf("SessionsStarting")?.reason;

/** Items of these that were acknowledged. */
const eaten = (world: LoopWorld, ids: readonly string[]) => ids.filter((id) => world.item(id).acks.length > 0).length;

const enqueue = (world: LoopWorld, items: number) => Array.from({ length: items }, () => world.enqueue());

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

/** A world in which sessions run for so long, from a template that none can be started from any more; and its operator. */
async function withOldSessions(servesMs: readonly number[], fate = BROKEN, more: Record<string, unknown> = {}) {
  const world = new LoopWorld({ sessions: { maxConcurrent: 20, warm: 4, retainFailedSeconds: 3_600, ...more } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 4);
  for (const ms of servesMs) {
    world.fate = () => serves(ms);
    const id = world.enqueue();
    await world.until("an old session runs", () => world.item(id).state === "active");
    await world.until("a Pod for the next", () => world.parked.length === 4);
  }
  await world.pass(MINUTE);
  world.fate = () => fate;
  return { world, operator };
}

describe("a template that served and cannot be started any more", () => {
  test("is not taken for a good one because sessions of before end well", async () => {
    const { world } = await withOldSessions([3, 4, 5, 6, 7, 8].map((minutes) => minutes * MINUTE));
    const ids = enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen");
    await world.pass(15 * MINUTE);
    expect(world.node.running.size, "old sessions").toBe(0);
    expect(starting(world)).toBe("BreakerOpen");
    // Probes after 1, 2, 4 and 8 minutes.
    expect(eaten(world, ids)).toBeLessThanOrEqual(OPENING + 4);
    holdsTrue(world);
  });

  // Of Pods that the operator deletes itself, since kubelet would try on, a new process knows nothing.
  test.each([
    ["ends at once", ENDS_AT_ONCE, 0],
    ["cannot be started", BROKEN, 3],
  ] as const)(
    "is not taken for a good one by a new process that finds an old session running: %s",
    async (_what, fate, more) => {
      const { world, operator } = await withOldSessions([600 * MINUTE], fate);
      const ids = enqueue(world, QUEUED);
      await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
      await world.until("all are settled", () => world.claims.length === 1);
      const before = eaten(world, ids);
      await operator.stop();
      world.startOperator();
      await world.pass(50_000);
      expect(starting(world)).toBe("BreakerOpen");
      expect(eaten(world, ids)).toBe(before + more);
      holdsTrue(world);
    },
  );

  test("serves again as soon as a probe does", async () => {
    const { world } = await withOldSessions([600 * MINUTE]);
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen");
    world.fate = () => serves(5_000);
    await world.until(
      "the queue is served",
      () => world.items.filter(({ state }) => state !== "stopped").length === 1,
      5 * MINUTE,
    );
    expect(starting(world)).toBe("Starting");
    holdsTrue(world);
  });
});

describe("a new process", () => {
  test.each([0, 600])(
    "finds no row where sessions served in between, with retainFinishedSeconds: %i",
    async (seconds) => {
      const sessions = { maxConcurrent: 4, warm: 1, retainFinishedSeconds: seconds, retainFailedSeconds: 3_600 };
      const world = new LoopWorld({ sessions });
      world.createEnvironment();
      const operator = world.startOperator();
      await world.until("a parked Pod", () => world.parked.length > 0);
      for (let n = 0; n < 8; n += 1) {
        world.fate = () => (n % 2 === 0 ? ENDS_AT_ONCE : serves(5_000));
        const id = world.enqueue();
        await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
      }
      // Those that served are not kept any longer; those that failed are.
      await world.pass(11 * MINUTE);
      expect(world.podsOf("finished")).toHaveLength(4);
      await operator.stop();
      world.startOperator();
      await world.pass(10_000);
      expect([starting(world), world.conditionOf("Ready")?.status]).toEqual(["NoSessionYet", "True"]);
      holdsTrue(world);
    },
  );

  test("finds the row that an old session's good end did not break", async () => {
    const { world, operator } = await withOldSessions([8 * MINUTE], ENDS_AT_ONCE, { retainFinishedSeconds: 600 });
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    await world.until("the old session is over", () => world.claims.length === 0, 10 * MINUTE);
    const said = world.conditionOf("SessionsStarting")?.message.replace(/ after \S+$/, "");
    await operator.stop();
    world.startOperator();
    await world.pass(5_000);
    expect(starting(world)).toBe("BreakerOpen");
    expect(world.conditionOf("SessionsStarting")?.message.replace(/ after \S+$/, "")).toBe(said);
    holdsTrue(world);
  });

  test("that follows soon goes on counting", async () => {
    const { world, operator } = await withOldSessions([600 * MINUTE], ENDS_AT_ONCE);
    const ids = [world.enqueue()];
    await world.until("the first is stopped", () => world.item(ids[0] ?? "").state === "stopped", 5 * MINUTE);
    await world.until("its claim is settled", () => world.claims.length === 1);
    await operator.stop();
    world.startOperator();
    ids.push(...enqueue(world, QUEUED));
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    expect(eaten(world, ids)).toBe(3);
    holdsTrue(world);
  });
});

/** How a Pod is ended by something other than its program. */
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
        await world.until("its container runs", () => [...world.node.running].some(({ workId }) => workId === id));
        end(world, [...world.node.running].find(({ workId }) => workId === id)?.pod ?? "");
        await world.until("its item is settled", () => world.item(id).state === "stopped", 5 * MINUTE);
        await world.until("its claim is, too", () => world.claims.length === 0, MINUTE);
        expect(await metricValue(world.metrics.startFailures, {}), `Pod ${n}`).toBe(0);
        // lease: Operator: one that is killed after its grace has run for long enough to serve.
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

/** A world whose first template comes out as `fate`, and the next one serves; with what was started of the first. */
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

/** A new process finds the template fixed: it serves all that is queued, and starts no container of the broken one. */
async function servesFixed(world: LoopWorld, started: readonly Pod[]): Promise<void> {
  const lost = started.length;
  world.patchEnvironment(withImage(IMAGES.fixed));
  world.startOperator();
  await world.until("all are served", () => world.isSettled, 10 * MINUTE);
  expect(started.length).toBe(lost);
  holdsTrue(world);
}

const servedItems = (world: LoopWorld) => world.items.filter(({ state }) => state === "stopped").length;

describe("the parked Pods of a template that was replaced", () => {
  test.each([
    ["cannot be started", BROKEN],
    ["ends at once", ENDS_AT_ONCE],
  ] as const)("get no session where it %s and the breaker was open", async (_what, fate) => {
    const { world, started } = withTwoTemplates(fate, { warm: 4 });
    world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 4);
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    await world.until("the first three are settled", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length === 4);
    const lost = started.length;
    const before = servedItems(world);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.until("the first session is served", () => servedItems(world) > before, 20_000);
    await world.until("all are served", () => world.isSettled, 10 * MINUTE);
    expect(started.length).toBe(lost);
    holdsTrue(world);
  });

  test("get no session before one of them has served, and the queue is served by the next template", async () => {
    const { world, started } = withTwoTemplates(ENDS_AT_ONCE, { warm: 4 });
    world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 4);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.until("the template is known", () => world.environment?.status?.observedGeneration === 2);
    enqueue(world, 8);
    await world.until("all are served", () => world.isSettled, MINUTE);
    expect(started).toEqual([]);
    holdsTrue(world);
  });

  test.each([
    ["cannot be started", BROKEN],
    ["ends at once", ENDS_AT_ONCE],
  ] as const)("get no session from a new process: %s", async (_what, fate) => {
    const { world, started } = withTwoTemplates(fate, { warm: 4 });
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 4);
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    await world.until("the first three are settled", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length === 4);
    await operator.stop();
    await servesFixed(world, started);
  });

  test("get no session from a new process where it served before it could not be started any more", async () => {
    const { world, started, first } = withTwoTemplates(serves(5_000), { warm: 4, retainFinishedSeconds: 600 });
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 4);
    enqueue(world, 2);
    await world.until("it serves", () => world.isSettled, MINUTE);
    first.fate = BROKEN;
    enqueue(world, QUEUED);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    await world.until("what was tried is settled", () => world.claims.length === 0, MINUTE);
    await world.until("parked Pods", () => world.parked.length >= 4);
    await operator.stop();
    await servesFixed(world, started);
  });

  test("make room at once where it is the only one", async () => {
    const { world, started } = withTwoTemplates(BROKEN, { maxConcurrent: 1, warm: 0 });
    const operator = world.startOperator();
    enqueue(world, 5);
    await world.until("the breaker is open", () => starting(world) === "BreakerOpen", 5 * MINUTE);
    await world.until("the Pod of a probe", () => world.parked.length === 1);
    await operator.stop();
    const lost = started.length;
    world.patchEnvironment(withImage(IMAGES.fixed));
    world.startOperator();
    await world.until("all are served", () => world.isSettled, MINUTE);
    expect(started.length).toBe(lost);
    holdsTrue(world);
  });

  test("serve on where it served and the next one cannot be prepared, also after a restart", async () => {
    const sessions = { warm: 2, retainFinishedSeconds: 600 };
    const { world, started } = withTwoTemplates(serves(5_000), sessions, IMAGES.fixed);
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 2);
    enqueue(world, 2);
    await world.until("it serves", () => world.isSettled, MINUTE);
    await world.until("parked Pods", () => world.parked.length === 2);
    world.patchEnvironment(withImage(IMAGES.fixed));
    await world.pass(5_000);
    world.enqueue();
    await world.until("an old Pod serves", () => world.isSettled && started.length === 3, MINUTE);
    await operator.stop();
    world.startOperator();
    world.enqueue();
    await world.until("the other one serves, too", () => world.isSettled && started.length === 4, MINUTE);
    holdsTrue(world);
  });

  test("are removed after a restart where nothing says that it ever served", async () => {
    const { world, started } = withTwoTemplates(serves(5_000), { warm: 2 }, IMAGES.fixed);
    const operator = world.startOperator();
    await world.until("parked Pods", () => world.parked.length === 2);
    await operator.stop();
    world.patchEnvironment(withImage(IMAGES.fixed));
    world.startOperator();
    const id = world.enqueue();
    await world.pass(MINUTE);
    expect([world.parked, started, world.item(id).acks]).toEqual([[], [], []]);
    holdsTrue(world);
  });
});
