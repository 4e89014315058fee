import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import { ENVIRONMENTS } from "../../../src/sessions/environment-hold.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** A world with an Environment and one operator. */
function served(options: LoopWorldOptions = {}): { world: LoopWorld; operator: Operator } {
  const world = new LoopWorld(options);
  world.createEnvironment();
  return { world, operator: world.startOperator() };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("capacity", () => {
  test("serves a burst beyond what is warm, and never more than maxConcurrent at a time", async () => {
    const { world } = served({ sessions: { maxConcurrent: 3, warm: 1 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    for (let n = 0; n < 8; n += 1) world.enqueue();
    await world.until("all served", () => world.isSettled);
    expect(world.items.every(({ stoppedBy }) => stoppedBy?.as === "sessions-token")).toBe(true);
    expect(world.maxLivePods).toBeLessThanOrEqual(3);
    holdsTrue(world);
  });

  test("makes a Pod for an item that was polled and let go, also with none kept warm", async () => {
    const { world } = served({ sessions: { maxConcurrent: 2, warm: 0 } });
    const id = world.enqueue();
    const poll = { workerId: "died", reclaimMs: 5_000, blockMs: undefined, duplicate: false };
    await world.api.world.environment(world.environmentId).poll({ ...poll, signal: AbortSignal.abort() });
    await world.until("it is served", () => world.item(id).state === "stopped", 2 * MINUTE);
    holdsTrue(world);
  });
});

describe("claims whose requests fail", () => {
  /** One item offered to an operator with a free Pod. */
  async function offered(options: LoopWorldOptions = {}) {
    const { world, operator } = served(options);
    await world.until("a parked Pod", () => world.parked.length > 0);
    return { world, operator };
  }

  test("a Secret that cannot be created is tried a few times, not in a hot loop", async () => {
    const { world, operator } = await offered();
    let creations = 0;
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb !== "create" || plural !== "secrets") return;
      creations += 1;
      throw refusal(503, "ServiceUnavailable", "etcd is away", true);
    });
    world.enqueue();
    await world.pass(4 * SECOND);
    expect(creations).toBeGreaterThan(1);
    expect(creations).toBeLessThan(12);
    operator.kube.intercept.length = 0;
    await world.until("it is served", () => world.isSettled);
    holdsTrue(world);
  });

  test("an acknowledgement that fails at once is repeated a few times, not in a hot loop", async () => {
    const { world } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) => (call === "ack" ? json(500, { type: "error" }) : undefined);
    await world.pass(4 * SECOND);
    const sent = world.api.requests.get("ack") ?? 0;
    expect(sent).toBeGreaterThan(1);
    expect(sent).toBeLessThan(8);
    world.api.answer = () => undefined;
    await world.until("it is served", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });

  test("a Retry-After beyond the window holds up neither the slot nor the end of the process", async () => {
    const { world, operator } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) =>
      call === "ack" ? { ...json(429, { type: "error" }), headers: { "retry-after": "120" } } : undefined;
    await world.until("an acknowledgement", () => (world.api.requests.get("ack") ?? 0) > 0);
    let ended = false;
    void operator.stop().then(() => {
      ended = true;
    });
    await world.pass(5 * SECOND);
    expect(ended).toBe(true);
    expect(world.item(id).state).toBe("queued");
    expect(world.claims).toEqual([]);
    holdsTrue(world);
  });

  test("an Environment that is deleted between poll and acknowledgement leaves the item in the queue", async () => {
    const { world, operator } = await offered();
    const id = world.enqueue();
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "create" && plural === "secrets") world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    });
    await world.until("the Environment is gone", () => world.environment === undefined);
    expect(world.item(id).state).toBe("queued");
    expect(world.item(id).acks).toEqual([]);
    expect(world.claims).toEqual([]);
    holdsTrue(world);
  });

  test("an acknowledgement without an answer is not repeated for a Pod that is gone", async () => {
    const { world } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) => {
      if (call !== "ack") return undefined;
      for (const pod of world.parked) world.server.removePod(NAMESPACE, pod.metadata.name ?? "");
      return json(500, { type: "error" });
    };
    await world.pass(4 * SECOND);
    expect(world.api.requests.get("ack")).toBe(1);
    world.api.answer = () => undefined;
    await world.until("it is served from another Pod", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });
});
