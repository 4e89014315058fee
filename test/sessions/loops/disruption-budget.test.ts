import { describe, expect, test } from "vitest";
import { KubeApiError } from "../../../src/kube/errors.ts";
import { POD_DISRUPTION_BUDGETS, type PodDisruptionBudget } from "../../../src/kube/resource.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const BUDGET = `berth-${NAME}`;

function served(sessions: Record<string, unknown> = {}, more: LoopWorldOptions = {}) {
  const world = new LoopWorld({ sessions: { disruption: "Protect", ...sessions }, ...more });
  world.createEnvironment();
  return { world, operator: world.startOperator() };
}

const budgetOf = (world: LoopWorld): PodDisruptionBudget | undefined =>
  world.server.find(POD_DISRUPTION_BUDGETS, NAMESPACE, BUDGET);
const protectedNow = (world: LoopWorld) => budgetOf(world)?.spec?.minAvailable;

/** How long each assigned Pod was not covered by the budget, in milliseconds. */
function watchLags(world: LoopWorld): number[] {
  const lags: number[] = [];
  let waiting: { readonly count: number; readonly atMs: number }[] = [];
  let most = 0;
  world.server.subscribe(({ plural, atMs }) => {
    const count = world.podsOf("running").length;
    if (plural === "pods" && count > most) waiting.push({ count, atMs });
    most = Math.max(most, count);
    const covered = Number(protectedNow(world) ?? 0);
    lags.push(...waiting.filter((each) => each.count <= covered).map((each) => atMs - each.atMs));
    waiting = waiting.filter((each) => each.count > covered);
  });
  return lags;
}

/** Refuses requests of these verbs for PodDisruptionBudgets. */
function refuse(operator: Operator, ...verbs: string[]) {
  return refuseWith({ status: 403, reason: "Forbidden" }, operator, ...verbs);
}

function refuseWith(how: { status: number; reason: string }, operator: Operator, ...verbs: string[]) {
  let refusals = 0;
  let on = true;
  operator.kube.intercept.push(({ verb, plural }) => {
    if (!on || plural !== "poddisruptionbudgets" || !verbs.includes(verb)) return;
    refusals += 1;
    throw new KubeApiError(`poddisruptionbudgets is forbidden: cannot ${verb}`, how);
  });
  return {
    count: () => refusals,
    stop: () => {
      on = false;
    },
  };
}

describe("disruption: Protect", () => {
  test("the budget exists before the first session, has an owner, and selects assigned session Pods", async () => {
    const { world } = served();
    await world.until("a budget", () => budgetOf(world) !== undefined);
    const budget = budgetOf(world);
    expect(budget?.spec).toEqual({
      minAvailable: 0,
      maxUnavailable: null,
      unhealthyPodEvictionPolicy: "IfHealthyBudget",
      selector: {
        matchLabels: {
          "berth.dev/environment": NAME,
          "berth.dev/role": "session",
          "berth.dev/phase": "running",
        },
      },
    });
    expect(budget?.metadata.ownerReferences).toEqual([
      {
        apiVersion: "berth.dev/v1alpha1",
        kind: "Environment",
        name: NAME,
        uid: world.environment?.metadata.uid,
        controller: true,
      },
    ]);
  });

  test("the budget covers each of 100 sessions that start at once within 2 s, with few writes", async () => {
    const fate = () => ({ startError: false, program: "stock", servesMs: 10 * MINUTE }) as const;
    const { world, operator } = served({ maxConcurrent: 100, warm: 100 }, { fate });
    await world.until("parked Pods", () => world.parked.length === 100, 10 * MINUTE);
    const lags = watchLags(world);
    const writes = () => operator.kube.requests.get("patch poddisruptionbudgets") ?? 0;
    const before = writes();
    for (let n = 0; n < 100; n += 1) world.enqueue();
    await world.until("the budget counts all sessions", () => protectedNow(world) === 100, 10 * MINUTE);
    expect(lags.length).toBe(100);
    expect(Math.max(...lags)).toBeLessThan(2 * SECOND);
    expect(writes() - before).toBeLessThan(20);
  });

  test("the budget follows the number of running sessions", async () => {
    const { world } = served({}, { fate: () => ({ startError: false, program: "stock", servesMs: 20_000 }) });
    const id = world.enqueue();
    await world.until("the budget counts the session", () => protectedNow(world) === 1);
    await world.until("the item is stopped", () => world.item(id).state === "stopped");
    await world.until("the budget is lowered", () => protectedNow(world) === 0, 5 * SECOND);
  });

  test("the budget is deleted and created again as the field changes", async () => {
    const { world } = served();
    await world.until("a budget", () => budgetOf(world) !== undefined);
    world.patchEnvironment({ spec: { sessions: { disruption: "Allow" } } });
    await world.until("no budget", () => budgetOf(world) === undefined);
    world.patchEnvironment({ spec: { sessions: { disruption: "Protect" } } });
    await world.until("a budget", () => budgetOf(world) !== undefined);
  });

  test("a budget of an earlier process is deleted if the field says Allow by now", async () => {
    const { world, operator } = served();
    await world.until("a budget", () => budgetOf(world) !== undefined);
    operator.kill();
    world.patchEnvironment({ spec: { sessions: { disruption: "Allow" } } });
    world.startOperator();
    await world.until("no budget", () => budgetOf(world) === undefined);
  });

  test("a new process adopts the budget, and does not lower it during a session", async () => {
    const { world, operator } = served(
      {},
      { fate: () => ({ startError: false, program: "stock", servesMs: 5 * MINUTE }) },
    );
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active");
    operator.kill();
    const lowered: unknown[] = [];
    world.server.subscribe(({ plural }) => {
      if (plural === "poddisruptionbudgets" && protectedNow(world) !== 1) lowered.push(protectedNow(world));
    });
    world.startOperator();
    await world.pass(2 * MINUTE);
    expect(world.item(id).state).toBe("active");
    expect(lowered).toEqual([]);
  });

  test("a budget that another client deleted or lowered is restored within about a minute", async () => {
    const { world } = served({}, { fate: () => ({ startError: false, program: "stock", servesMs: 20 * MINUTE }) });
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active");
    world.server.delete(POD_DISRUPTION_BUDGETS, NAMESPACE, BUDGET, {});
    await world.until("the budget exists again", () => protectedNow(world) === 1);
    world.server.patch(POD_DISRUPTION_BUDGETS, NAMESPACE, BUDGET, { spec: { minAvailable: "50%" } });
    await world.until("the budget has its value again", () => protectedNow(world) === 1);
  });

  test("another owner's budget of that name is left alone and reported in an Event", async () => {
    const world = new LoopWorld({ sessions: { disruption: "Protect" } });
    const own = { metadata: { name: BUDGET, namespace: NAMESPACE }, spec: { maxUnavailable: 1 } };
    world.server.create(POD_DISRUPTION_BUDGETS, own);
    world.createEnvironment();
    world.startOperator();
    await world.pass(MINUTE);
    expect(budgetOf(world)?.spec).toEqual({ maxUnavailable: 1 });
    expect(world.told.filter((told) => told.startsWith("ProtectionFailing"))).toEqual([
      expect.stringContaining("has another owner"),
    ]);
  });

  test("the budget of an earlier Environment with this name is replaced", async () => {
    const world = new LoopWorld({ sessions: { disruption: "Protect" } });
    const owner = {
      apiVersion: "berth.dev/v1alpha1",
      kind: "Environment",
      name: NAME,
      uid: "earlier",
      controller: true,
    };
    world.server.create(POD_DISRUPTION_BUDGETS, {
      metadata: { name: BUDGET, namespace: NAMESPACE, ownerReferences: [owner] },
      spec: { minAvailable: 9 },
    });
    world.createEnvironment();
    world.startOperator();
    await world.until("the budget is replaced", () => protectedNow(world) === 0);
  });

  test("sessions are served without permission to write the budget, and one Event reports it", async () => {
    const { world, operator } = served();
    const refused = refuse(operator, "create", "patch");
    const ids = [world.enqueue(), world.enqueue()];
    await world.until(
      "all items are stopped and everything is settled",
      () => ids.every((id) => world.item(id).state === "stopped") && world.isSettled,
    );
    await world.pass(5 * MINUTE);
    const told = world.told.filter((text) => text.startsWith("ProtectionFailing"));
    expect(told).toEqual([expect.stringContaining("give the operator permission")]);
    // Retries back off instead of running in a hot loop.
    expect(refused.count()).toBeLessThan(20);
    refused.stop();
    await world.until("a budget", () => budgetOf(world) !== undefined, 2 * MINUTE);
    expect(world.violations).toEqual([]);
  });
});

test.each(["create", "patch"])(
  "a conflict at every %s is reported in one Event and retried with backoff",
  async (verb) => {
    const { world, operator } = served();
    const refused = refuseWith({ status: 409, reason: "Conflict" }, operator, verb);
    for (let n = 0; n < 6; n += 1) world.enqueue();
    await world.until("all items are served and settled", () => world.isSettled, 5 * MINUTE);
    await world.pass(10 * MINUTE);
    expect(world.told.filter((text) => text.startsWith("ProtectionFailing"))).toEqual([
      expect.stringContaining("running sessions may be evicted although disruption is Protect"),
    ]);
    expect(refused.count()).toBeGreaterThan(3);
    expect(refused.count()).toBeLessThan(150);
    refused.stop();
    await world.until("a budget", () => protectedNow(world) === 0, 2 * MINUTE);
  },
);

test("reports unanswered writes after 10 s, and they delay no session", async () => {
  const { world, operator } = served({ maxConcurrent: 20, warm: 20 });
  await world.until("parked Pods", () => world.parked.length === 20);
  const isTold = () => world.told.some((text) => text.startsWith("ProtectionFailing"));
  operator.kube.delay = ({ plural }) => (plural === "poddisruptionbudgets" ? MINUTE : 0);
  for (let i = 0; i < 20; i += 1) world.enqueue();
  await world.until("all Pods are marked as assigned", () => world.podsOf("running").length === 20, 5 * SECOND);
  await world.pass(6 * SECOND);
  expect(isTold()).toBe(false);
  await world.until("an Event", isTold, 10 * SECOND);
});

describe("disruption: Allow", () => {
  test("creates no budget, and reports nothing when the operator may not read budgets", async () => {
    const { world, operator } = served({ disruption: "Allow" });
    const refused = refuse(operator, "get", "create", "patch", "delete");
    const id = world.enqueue();
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
    );
    await world.pass(30 * MINUTE);
    expect(refused.count()).toBeLessThanOrEqual(2);
    expect(budgetOf(world)).toBeUndefined();
    expect(world.told.filter((text) => text.startsWith("ProtectionFailing"))).toEqual([]);
  });

  test("retries the deletion of a budget until it succeeds", async () => {
    const { world, operator } = served();
    await world.until("a budget", () => budgetOf(world) !== undefined);
    const refused = refuse(operator, "delete");
    world.patchEnvironment({ spec: { sessions: { disruption: "Allow" } } });
    await world.pass(5 * MINUTE);
    expect(budgetOf(world)).toBeDefined();
    expect(refused.count()).toBeGreaterThan(2);
    refused.stop();
    await world.until("the budget is gone", () => budgetOf(world) === undefined, 2 * MINUTE);
  });
});
