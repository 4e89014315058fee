import { describe, expect, test } from "vitest";
import { SECRETS } from "../../../src/kube/resource.ts";
import { STEPS, type StepName } from "../../../src/protocol/tracked-steps.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { metricValue } from "../../support/metric-value.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, NAME, NAMESPACE, type Operator } from "./loop-world.ts";

const MINUTE = 60_000;
const LEASES = ["Worker", "Operator"] as const;

interface Fault {
  readonly verb: string;
  readonly plural: string;
  readonly status: number;
  readonly reason?: string;
  /** Only requests about claims, which are named after Pods. */
  readonly claims?: boolean;
}

/** Makes the API server refuse these requests until the returned function is called. */
function refuse(operator: Operator, { verb, plural, status, reason = "", claims }: Fault): () => void {
  operator.kube.intercept.push((request) => {
    if (request.verb !== verb || request.plural !== plural || (claims && request.name === "key")) return;
    throw refusal(status, reason, `the ${verb} of ${plural} is refused with ${status}`, status >= 500);
  });
  return () => void operator.kube.intercept.splice(0);
}

/** Makes the Work API refuse this call until the returned function is called. */
function refuseCall(world: LoopWorld, call: string, status: number): () => void {
  world.api.answer = (asked) =>
    asked === call ? { status, body: { error: { type: "odd_error", message: `${call} is refused` } } } : undefined;
  return () => {
    world.api.answer = () => undefined;
  };
}

async function started(sessions: Record<string, unknown> = {}) {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1, ...sessions } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  return { world, operator };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

const failing = (world: LoopWorld, step: string) =>
  metricValue(world.metrics.failingSteps, { namespace: NAMESPACE, environment: NAME, step });

/** Ready, one Event and the metric report the failure within a minute, in the server's words. */
async function untilTold(world: LoopWorld, step: StepName, words: string): Promise<void> {
  await world.until(`Ready says ${words}`, () => world.conditionOf("Ready")?.message.includes(words) === true, MINUTE);
  const { reason } = STEPS[step];
  expect(world.conditionOf("Ready")).toMatchObject({ status: "False", reason });
  const told = () => world.told.filter((each) => each.startsWith(reason));
  await world.until(`an Event reports ${reason}`, () => told().length > 0, 10_000);
  expect(told()).toHaveLength(1);
  expect(await failing(world, step)).toBeGreaterThan(0);
}

async function untilServedAgain(world: LoopWorld, limitMs = 10 * MINUTE): Promise<void> {
  const id = world.enqueue();
  await world.until(
    "the item is stopped and everything is settled",
    () => world.item(id).state === "stopped" && world.isSettled,
    limitMs,
  );
  await world.until("Ready is True", () => world.conditionOf("Ready")?.status === "True", 2 * MINUTE);
  holdsTrue(world);
}

describe.each(LEASES)("lease: %s", (lease) => {
  describe.each([400, 429, 500, 503])("an opening that is answered with %d", (status) => {
    const fault = { verb: "patch", plural: "secrets", status };

    test("is reported within a minute, and its session settles as a failed start", async () => {
      const { world, operator } = await started({ lease });
      const fix = refuse(operator, fault);
      const id = world.enqueue();
      // While this item waits, the failure stays reported.
      world.enqueue();
      await world.until("the item is acknowledged", () => world.item(id).acks.length > 0);
      await untilTold(world, "open", `refused with ${status}`);
      await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
      expect(world.item(id).acks).toHaveLength(1);
      expect(await metricValue(world.metrics.startFailures, { namespace: NAMESPACE, environment: NAME })).toBe(1);
      expect(world.told.find((told) => told.startsWith("StartFailed"))).toContain(`refused with ${status}`);
      fix();
      await untilServedAgain(world);
    });

    test("costs no more sessions than it takes to see that starts fail", async () => {
      const { world, operator } = await started({ lease, warm: 4 });
      await untilServedAgain(world);
      const fix = refuse(operator, fault);
      const ids = Array.from({ length: 20 }, () => world.enqueue());
      await world.pass(30 * MINUTE);
      const lost = ids.filter((id) => world.item(id).state === "stopped");
      // Three show that starts fail, four may be claimed before the first of them fails, and the rest are probes.
      expect(lost.length).toBeLessThanOrEqual(9);
      expect(world.conditionOf("Ready")?.status).toBe("False");
      fix();
      await world.until("everything is settled", () => world.isSettled, 90 * MINUTE);
      holdsTrue(world);
    });
  });

  test.each([
    { step: "hold", verb: "patch", plural: "environments", status: 500 },
    { step: "journal", verb: "create", plural: "secrets", status: 500 },
    { step: "journal", verb: "create", plural: "secrets", status: 503 },
    { step: "read-pod", verb: "get", plural: "pods", status: 500 },
    { step: "read-pod", verb: "get", plural: "pods", status: 429 },
  ] as const)(
    "reports a claim whose $verb of $plural is answered with $status, and leaves the item in the queue",
    async (fault) => {
      const { world, operator } = await started({ lease });
      const { step, verb, plural, status } = fault;
      let refused = 0;
      operator.kube.intercept.push((request) => {
        // Patches of the Environment's status do not count.
        if (request.verb !== verb || request.plural !== plural || "status" in Object(request.body)) return;
        refused += 1;
        throw refusal(status, "", `the ${verb} of ${plural} is refused with ${status}`, status >= 500);
      });
      const id = world.enqueue();
      await untilTold(world, step, `refused with ${status}`);
      await world.pass(10 * MINUTE);
      expect(world.item(id).acks).toEqual([]);
      expect(world.item(id).state).toBe("queued");
      expect(refused / 11).toBeLessThan(15);
      operator.kube.intercept.splice(0);
      await world.until(
        "the item is stopped and everything is settled",
        () => world.item(id).state === "stopped" && world.isSettled,
        2 * MINUTE,
      );
      await untilServedAgain(world);
    },
  );

  test.each([400, 429, 500])("backs off while acknowledgements are answered with %d", async (status) => {
    const { world } = await started({ lease, maxConcurrent: 12, warm: 8 });
    await world.until("all warm Pods", () => world.parked.length === 8);
    const fix = refuseCall(world, "ack", status);
    const ids = Array.from({ length: 20 }, () => world.enqueue());
    if (status === 400) await untilTold(world, "acknowledge", "ack is refused");
    await world.pass(15 * MINUTE);
    expect(world.api.requests.get("ack")).toBeLessThanOrEqual(40);
    expect(world.conditionOf("Ready")?.message).toContain("Work API ack");
    expect(ids.map((id) => world.item(id).state)).toEqual(ids.map(() => "queued"));
    fix();
    await world.until("a session starts", () => world.starts.length > 0, 35_000);
    await untilServedAgain(world);
  });

  test("serves other items while the acknowledgement of one always fails, and backs off for that one", async () => {
    const { world } = await started({ lease });
    const bad = world.enqueue();
    let acks = 0;
    world.api.answer = (call, { path }) => {
      if (call !== "ack" || !path.includes(bad)) return undefined;
      acks += 1;
      return { status: 500, body: { error: { type: "api_error", message: "not this one" } } };
    };
    for (let n = 0; n < 15; n += 1) {
      // The first of them waits for the try after the longest pause.
      await world.pass(MINUTE);
      const id = world.enqueue();
      await world.until("the other item runs", () => world.starts.some(({ workId }) => workId === id), 35_000);
    }
    expect(acks).toBeLessThanOrEqual(40);
    world.api.answer = () => undefined;
    await world.until("its session runs", () => world.starts.some(({ workId }) => workId === bad), 2 * MINUTE);
    holdsTrue(world);
  });

  test.each([401, 403])("reports a refused key when acknowledgements are answered with %d", async (status) => {
    const { world } = await started({ lease });
    const fix = refuseCall(world, "ack", status);
    world.enqueue();
    world.enqueue();
    await world.until("Authenticated is False", () => world.conditionOf("Authenticated")?.status === "False", MINUTE);
    await world.pass(15 * MINUTE);
    expect(world.api.requests.get("ack")).toBeLessThan(20);
    fix();
    await untilServedAgain(world, 15 * MINUTE);
  });

  test.each([400, 500])("reports stops that are answered with %d, and runs no session twice", async (status) => {
    const { world } = await started({ lease });
    world.fate = () => ({ startError: false, program: lease === "Operator" ? "plain" : "dies", servesMs: 3_000 });
    const fix = refuseCall(world, "stop", status);
    const ids = Array.from({ length: 6 }, () => world.enqueue());
    await world.until(
      "Ready is False and names the stop",
      () => world.conditionOf("Ready")?.status === "False" && /stop/.test(world.conditionOf("Ready")?.message ?? ""),
      3 * MINUTE,
    );
    for (let n = 0; n < 20; n += 1) ids.push(world.enqueue());
    await world.pass(30 * MINUTE);
    // Six that ended before the failure was noticed, and those that maxConcurrent allows.
    expect(world.pods.filter(({ metadata }) => !metadata.deletionTimestamp).length).toBeLessThanOrEqual(10);
    expect(world.conditionOf("CapacityAvailable")?.message).not.toContain("raise it");
    expect(Math.max(...ids.map((id) => world.item(id).acks.length))).toBe(1);
    fix();
    await world.until("everything is settled", () => world.isSettled, 30 * MINUTE);
    expect(ids.map((id) => world.item(id).acks.length)).toEqual(ids.map(() => 1));
    holdsTrue(world);
  });

  test("reports a refused list for as long as it lasts", async () => {
    const { world } = await started({ lease });
    const fix = refuseCall(world, "list", 500);
    world.fate = () => ({ startError: false, program: lease === "Operator" ? "plain" : "stock", servesMs: 4 * MINUTE });
    for (let n = 0; n < 6; n += 1) world.enqueue();
    if (lease === "Worker") {
      await world.until(
        "QueueReachable is False",
        () => world.conditionOf("QueueReachable")?.status === "False",
        2 * MINUTE,
      );
      await world.pass(3 * MINUTE);
      expect(world.conditionOf("QueueReachable")?.status).toBe("False");
    }
    fix();
    await world.until("all items are served and settled", () => world.isSettled, 30 * MINUTE);
    await untilServedAgain(world);
  });

  test("reports Pods that can't be deleted, and does not blame maxConcurrent", async () => {
    const { world, operator } = await started({ lease, warm: 2 });
    const fix = refuse(operator, { verb: "delete", plural: "pods", status: 500 });
    for (let n = 0; n < 8; n += 1) world.enqueue();
    world.patchEnvironment({
      spec: { sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:2" }] } } } },
    });
    await untilTold(world, "delete-pod", "refused with 500");
    expect(world.conditionOf("CapacityAvailable")?.message).not.toContain("raise it");
    fix();
    await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
    await untilServedAgain(world);
  });

  test("reports Secrets that can't be created, does not blame maxConcurrent, and backs off", async () => {
    const { world, operator } = await started({ lease, warm: 2 });
    let requests = 0;
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "create" && plural === "secrets") requests += 1;
    });
    const fix = refuse(operator, { verb: "create", plural: "secrets", status: 500 });
    for (let n = 0; n < 6; n += 1) world.enqueue();
    // Pods of the earlier template are removed, which needs Secrets, too.
    world.patchEnvironment({
      spec: { sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:2" }] } } } },
    });
    await untilTold(world, "journal", "refused with 500");
    await world.pass(14 * MINUTE);
    for (const type of ["Ready", "CapacityAvailable"] as const) {
      expect(world.conditionOf(type)?.message).toContain("Secrets");
      expect(world.conditionOf(type)?.message).not.toContain("maxConcurrent");
    }
    expect(requests).toBeLessThanOrEqual(100);
    fix();
    await world.until("all items are served and settled", () => world.isSettled, 10 * MINUTE);
    await untilServedAgain(world);
  });

  test("reports claim Secrets that can't be deleted, and their number stays bounded", async () => {
    const { world, operator } = await started({ lease });
    const fix = refuse(operator, { verb: "delete", plural: "secrets", status: 500 });
    const ids = Array.from({ length: 40 }, () => world.enqueue());
    await untilTold(world, "settled", "refused with 500");
    await world.pass(20 * MINUTE);
    expect(world.claims.length).toBeLessThanOrEqual(12);
    fix();
    await world.until("all items are served and settled", () => world.isSettled, 30 * MINUTE);
    expect(ids.every((id) => world.item(id).acks.length === 1)).toBe(true);
    await untilServedAgain(world);
  });

  test("deletes an Environment whose claim Secrets can't be deleted once its drain times out", async () => {
    const { world, operator } = await started({ lease });
    world.enqueue();
    await world.until("a session runs", () => world.node.running.size > 0);
    const fix = refuse(operator, { verb: "delete", plural: "secrets", status: 500 });
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.until("the Environment is gone", () => world.environment === undefined, 5 * MINUTE);
    fix();
    await world.until("no Secret is left", () => world.claims.length === 0, 5 * MINUTE);
    holdsTrue(world);
  });

  test("reports a finalizer that can't be removed from a deleted Environment", async () => {
    const { world, operator } = await started({ lease });
    await untilServedAgain(world);
    operator.kube.intercept.push(({ verb, plural, body }) => {
      const isStatus = "status" in Object(body);
      if (verb === "patch" && plural === "environments" && !isStatus)
        throw refusal(500, "", "the patch is refused", true);
    });
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.until(
      "Ready reports the refused patch",
      () => world.conditionOf("Ready")?.message.includes("the patch is refused") === true,
      2 * MINUTE,
    );
    expect(world.conditionOf("Ready")?.reason).toBe("Deleting");
    operator.kube.intercept.splice(0);
    await world.until("the Environment is gone", () => world.environment === undefined, MINUTE);
  });

  test("backs off from a permanent conflict", async () => {
    const { world, operator } = await started({ lease });
    const fix = refuse(operator, { verb: "delete", plural: "secrets", status: 409, reason: "Conflict" });
    const id = world.enqueue();
    await world.until(
      "the session is stopped",
      () => world.item(id).state === "stopped" && world.node.running.size === 0,
      2 * MINUTE,
    );
    await untilTold(world, "settled", "changed or replaced");
    const before = operator.kube.requests.get("delete secrets") ?? 0;
    await world.pass(10 * MINUTE);
    expect((operator.kube.requests.get("delete secrets") ?? 0) - before).toBeLessThan(80);
    fix();
    await untilServedAgain(world);
  });
});

test("a session that opens at the third try does not block others", async () => {
  const { world, operator } = await started({ lease: "Worker", warm: 2 });
  world.fate = () => ({ startError: false, program: "stock", servesMs: 10 * MINUTE });
  let tries = 0;
  operator.kube.intercept.push(({ verb, plural, name, body }) => {
    if (verb !== "patch" || plural !== "secrets" || tries > 1) return;
    tries += 1;
    if (tries === 1) throw refusal(504, "Timeout", "no answer", true);
    // The first request takes effect just before the second one.
    world.server.patch(SECRETS, NAMESPACE, name, body);
    throw refusal(409, "Conflict", "the object has been modified");
  });
  world.enqueue();
  await world.until("the container runs", () => world.node.running.size === 1, MINUTE);
  const next = world.enqueue();
  await world.until("the next item is claimed", () => world.item(next).acks.length > 0, MINUTE);
  holdsTrue(world);
});

test("other sessions are served while the stop of one item is always answered with 403", async () => {
  const { world } = await started({ lease: "Operator" });
  world.fate = () => ({ startError: false, program: "plain", servesMs: 3_000 });
  const first = world.enqueue();
  world.api.answer = (call, { path }) =>
    call === "stop" && path.includes(first)
      ? { status: 403, body: { error: { type: "permission_error", message: "not this item" } } }
      : undefined;
  await world.until(
    "Ready reports CleanupFailing",
    () => world.conditionOf("Ready")?.reason === "CleanupFailing",
    3 * MINUTE,
  );
  expect(world.conditionOf("Ready")?.message).toContain("not this item");
  expect(world.conditionOf("Authenticated")?.status).toBe("True");
  const others = Array.from({ length: 6 }, () => world.enqueue());
  await world.until(
    "the other items are stopped",
    () => others.every((id) => world.item(id).state === "stopped"),
    5 * MINUTE,
  );
  expect(world.item(first)).toMatchObject({ state: "active", acks: { length: 1 } });
  world.api.answer = () => undefined;
  await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
  holdsTrue(world);
});

test("the metric returns to 0 when a step has not been tried for a long time", async () => {
  const { world } = await started({ lease: "Worker" });
  world.fate = () => ({ startError: false, program: "dies", servesMs: 3_000 });
  const fix = refuseCall(world, "stop", 400);
  const id = world.enqueue();
  await world.until(
    "Ready reports CleanupFailing",
    () => world.conditionOf("Ready")?.reason === "CleanupFailing",
    3 * MINUTE,
  );
  expect(await failing(world, "stop")).toBe(1);
  // A user stops the item. More work waits, so that the loop does not forget the failure.
  world.api.world.stopItem(id, true);
  world.patchEnvironment({ spec: { paused: true } });
  world.enqueue();
  await world.pass(10 * MINUTE);
  expect(await failing(world, "stop")).toBe(0);
  fix();
});

test("lease: Operator: refused heartbeats are reported, and the claim is given up", async () => {
  const { world } = await started({ lease: "Operator" });
  const fix = refuseCall(world, "heartbeat", 400);
  const id = world.enqueue();
  await world.until("the item is acknowledged", () => world.item(id).acks.length > 0);
  await untilTold(world, "take", "heartbeat is refused");
  await world.pass(15 * MINUTE);
  expect(world.api.requests.get("heartbeat")).toBeLessThan(200);
  fix();
  await untilServedAgain(world, 30 * MINUTE);
});

test("acknowledgements and lists that take two seconds are reported with the limit that they exceed", async () => {
  const { world } = await started();
  world.api.delay = (call) => (call === "ack" || call === "list" ? 2_000 : 0);
  for (let n = 0; n < 4; n += 1) world.enqueue();
  await world.until("Ready is False", () => world.conditionOf("Ready")?.status === "False", MINUTE);
  expect(world.conditionOf("Ready")?.message).toMatch(/no complete answer within 1500 ms/);
  world.api.delay = () => 0;
  await untilServedAgain(world);
});

test("work that is not claimed for two minutes despite a free Pod is reported, whatever the cause", async () => {
  const { world } = await started();
  // Polls return nothing, although statistics show waiting work.
  world.api.answer = (call) => (call === "poll" ? { status: 204 } : undefined);
  // Lets a poll that began earlier end.
  await world.pass(2_000);
  world.enqueue();
  await world.pass(MINUTE);
  expect(world.conditionOf("Ready")?.status).toBe("True");
  await world.until(
    "Ready reports NothingStarts",
    () => world.conditionOf("Ready")?.reason === "NothingStarts",
    2 * MINUTE,
  );
  expect(world.conditionOf("Ready")?.message).toContain("Berth acknowledges nothing");
  expect(await failing(world, "claim")).toBe(1);
  world.api.answer = () => undefined;
  await untilServedAgain(world);
});

test("a session that waits for its previous Pod is not reported as a stall", async () => {
  const { world } = await started({ warm: 2 });
  world.fate = () => ({ startError: false, program: "stock", servesMs: 10 * MINUTE });
  const first = world.enqueue();
  await world.until("the container runs", () => world.node.running.size === 1);
  world.enqueue({ sessionId: world.api.world.item(first).data.id });
  await world.pass(5 * MINUTE);
  expect(world.conditionOf("Ready")?.status).toBe("True");
});
