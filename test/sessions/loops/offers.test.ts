import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { readJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/**
 * An operator with one parked Pod; every later Pod takes an hour to get ready. With `served`, the template has already
 * served a session, so the Pod is still claimed after the template changes.
 */
async function parkedOnce({ served = false, ...options }: LoopWorldOptions & { served?: boolean } = {}) {
  let pods = 0;
  const prepareMs = () => {
    pods += 1;
    return pods <= (served ? 2 : 1) ? SECOND : 60 * MINUTE;
  };
  const world = new LoopWorld({ prepareMs, ...options, sessions: { maxConcurrent: 2, warm: 1, ...options.sessions } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  if (served) {
    world.enqueue();
    await world.until("a session has served and a Pod is parked", () => world.isSettled && world.parked.length > 0);
  }
  const creations: Secret[] = [];
  operator.kube.intercept.push(({ verb, plural, body }) => {
    if (verb === "create" && plural === "secrets") creations.push(body as Secret);
  });
  return { world, operator, creations, [Symbol.dispose]: () => expect(world.wrongs).toEqual([]) };
}

describe("an item that the queue offers", () => {
  test.each(["healthcheck", "party"])("is stopped without a Secret or a Pod when its type is %s", async (type) => {
    using rig = await parkedOnce();
    const id = rig.world.enqueue({ type } as never);
    await rig.world.until("the item is stopped", () => rig.world.item(id).state === "stopped", MINUTE);
    expect(rig.creations).toEqual([]);
    expect(rig.world.parked).toHaveLength(1);
  });

  test("that is not a session stays in the queue when its poll took too long", async () => {
    using rig = await parkedOnce();
    const { world } = rig;
    world.api.delay = (call) => (call === "poll" ? 4 * SECOND : 0);
    await world.pass(6 * SECOND);
    const id = world.enqueue({ type: "party" } as never);
    await world.pass(30 * SECOND);
    expect(world.api.requests.get("ack")).toBeUndefined();
    world.api.delay = () => 0;
    await world.until("the item is stopped", () => world.item(id).state === "stopped", MINUTE);
  });

  test("is stopped when it lacks the secret for its Pod", async () => {
    using rig = await parkedOnce();
    const id = rig.world.enqueue({ secret: false } as never);
    await rig.world.until("the item is stopped", () => rig.world.item(id).state === "stopped", MINUTE);
    expect(rig.world.parked).toHaveLength(1);
  });

  test("isn't given to a Pod that waits for a secret when the item has none", async () => {
    using rig = await parkedOnce({ served: true });
    rig.world.patchEnvironment({ spec: { sessions: { credential: "EnvironmentKey" } } });
    await rig.world.pass(2 * SECOND);
    const id = rig.world.enqueue({ secret: false } as never);
    await rig.world.pass(30 * SECOND);
    expect(rig.world.item(id)).toMatchObject({ state: "queued", acks: [] });
    expect(rig.world.parked).toHaveLength(1);
  });

  test("isn't claimed for a deleted Environment that is still in the cache", async () => {
    using rig = await parkedOnce();
    const { world } = rig;
    world.weather.watch = { lagMs: 10 * MINUTE, breaks: 0 };
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    const id = world.enqueue();
    await world.pass(20 * SECOND);
    expect(world.api.requests.get("poll")).toBeGreaterThan(0);
    expect(world.item(id).acks).toEqual([]);
    expect(rig.creations).toEqual([]);
  });

  test("isn't journaled after its window", async () => {
    using rig = await parkedOnce();
    const { world, operator } = rig;
    operator.kube.delay = ({ verb, plural }) => (verb === "patch" && plural === "environments" ? 10 * SECOND : 0);
    const id = world.enqueue();
    await world.pass(9 * SECOND);
    operator.kube.delay = () => 0;
    await world.pass(SECOND + 500);
    expect(rig.creations).toEqual([]);
    await world.until("the item is claimed at its next offer", () => world.item(id).acks.length > 0, MINUTE);
  });
});

describe("a claim", () => {
  test("whose Secret may exist after an unanswered create is judged, and its slot is freed", async () => {
    using rig = await parkedOnce();
    const { world, operator } = rig;
    let isDown = false;
    operator.kube.intercept.push(({ verb, plural, name, body }) => {
      if (plural !== "secrets" || name === "key" || verb === "delete") return;
      if (!isDown) world.server.create(SECRETS, body as Secret);
      isDown = true;
      if (verb === "create") throw refusal(504, "Timeout", "no answer", true);
    });
    world.enqueue();
    await world.until("the claim's Secret exists", () => world.claims.length > 0, MINUTE);
    // From here on, the Secret only blocks its slot.
    world.patchEnvironment({ spec: { paused: true } });
    await world.until("the Secret is gone", () => world.claims.length === 0, 30 * SECOND);
    expect(world.items.flatMap(({ acks }) => acks)).toEqual([]);
  });

  test("without an answer keeps its Secret until its acknowledgement can't take effect unnoticed", async () => {
    using rig = await parkedOnce();
    const { world } = rig;
    world.api.delay = (call) => (call === "ack" ? 60 * MINUTE : 0);
    world.enqueue();
    await world.until("the claim's Secret exists", () => world.claims.length > 0, MINUTE);
    const fromMs = world.clock.monotonic();
    world.patchEnvironment({ spec: { paused: true } });
    await world.until("the Secret is gone", () => world.claims.length === 0, MINUTE);
    const { othersReclaimMs, lateAckMs, listLagMs } = DEFAULT_TIMING;
    expect(world.clock.monotonic() - fromMs).toBeGreaterThan(othersReclaimMs + lateAckMs + listLagMs - 2 * SECOND);
  });

  test.each([0, 5])("is settled by its item's next offer if its process is killed for %i s", async (seconds) => {
    using rig = await parkedOnce({ prepareMs: () => SECOND });
    const { world, operator } = rig;
    const killedMs: number[] = [];
    world.server.subscribe(({ plural, type }) => {
      if (plural !== "secrets" || type !== "ADDED" || killedMs.length > 0) return;
      killedMs.push(world.clock.monotonic());
      operator.kill();
    });
    const id = world.enqueue();
    await world.until("the operator is killed", () => killedMs.length > 0, MINUTE);
    await world.pass(seconds * SECOND);
    expect(world.item(id).acks).toEqual([]);
    world.startOperator();
    await world.until("the item is acknowledged", () => world.item(id).acks.length > 0, MINUTE);
    expect(world.item(id).offers).toHaveLength(2);
    // The longest reclaim_older_than_ms of a poll.
    const { ownReclaimMs, pollBlockMs } = DEFAULT_TIMING;
    expect(world.clock.monotonic() - (killedMs[0] ?? 0)).toBeLessThan(ownReclaimMs + 2 * pollBlockMs);
  });

  test("whose acknowledgement takes effect late is opened, not dropped", async () => {
    using rig = await parkedOnce();
    const { world } = rig;
    world.api.delay = (call) => (call === "ack" ? 3 * SECOND : 0);
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active", MINUTE);
    expect(world.item(id).acks).toHaveLength(1);
  });

  test("journals the earliest and latest time of the poll when the server sends no Date", async () => {
    using rig = await parkedOnce();
    const { world } = rig;
    world.enqueue();
    const nowMs = world.clock.now();
    await world.until("the claim's Secret exists", () => world.claims.length > 0, MINUTE);
    const journal = world.claims[0] && readJournal(world.claims[0]);
    expect(journal?.polledFromMs).toBeLessThan(nowMs);
    expect(journal?.polledUntilMs).toBeGreaterThan(world.clock.now());
  });
});

test("nothing is polled while no Pod is free", async () => {
  const world = new LoopWorld({ prepareMs: () => 30 * 60_000 });
  world.createEnvironment();
  world.startOperator();
  const id = world.enqueue();
  await world.pass(5 * 60_000);
  expect(world.api.requests.get("stats")).toBeGreaterThan(0);
  expect(world.api.requests.get("poll")).toBeUndefined();
  expect(world.item(id).state).toBe("queued");
});

test("a rejected key is not sent again until its Secret changes", async () => {
  const world = new LoopWorld();
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  world.api.answer = () =>
    json(401, { type: "error", error: { type: "authentication_error", message: "invalid key" } });
  await world.until(
    "Authenticated reports KeyRejected",
    () => world.conditionOf("Authenticated")?.reason === "KeyRejected",
  );
  const sent = () => [...world.api.requests.values()].reduce((sum, each) => sum + each, 0);
  await world.pass(10_000);
  const before = sent();
  await world.pass(5 * 60_000);
  expect(sent()).toBe(before);
});
