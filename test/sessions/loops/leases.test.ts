import { describe, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { metricValue } from "../../support/metric-value.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "./loop-world.ts";
import { FAIR } from "./network.ts";
import type { Program } from "./worker.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** A world with one operator, which keeps the sessions' leases. */
function kept(options: LoopWorldOptions = {}): { world: LoopWorld; operator: Operator } {
  const world = new LoopWorld({ ...options, sessions: { lease: "Operator", ...options.sessions } });
  world.createEnvironment();
  return { world, operator: world.startOperator() };
}

/** Starts `count` sessions that run for `servesMs`. */
async function running(
  count: number,
  servesMs: number,
  { program = "plain", ...options }: LoopWorldOptions & { program?: Program } = {},
) {
  const { world, operator } = kept({
    ...options,
    sessions: { maxConcurrent: count, warm: count, ...options.sessions },
    fate: () => ({ startError: false, program, servesMs }),
  });
  await world.until("parked Pods", () => world.parked.length === count);
  const ids = Array.from({ length: count }, () => world.enqueue());
  await world.until("all containers run", () => world.node.running.size === count, 5 * MINUTE);
  return { world, operator, ids };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

const beatsOf = (world: LoopWorld) => world.api.requests.get("heartbeat") ?? 0;
const stillOne = (world: LoopWorld, ids: readonly string[]) => ids.every((id) => world.item(id).acks.length === 1);

describe("leases that the operator keeps", () => {
  test("hours of sessions cost one heartbeat every 25 to 30 s each, and no list", async () => {
    const { world, ids } = await running(10, 2 * 60 * MINUTE);
    await world.pass(MINUTE);
    const [beats, lists] = [beatsOf(world), world.api.requests.get("list") ?? 0];
    await world.pass(60 * MINUTE);
    const perSession = (beatsOf(world) - beats) / 10;
    expect(perSession).toBeGreaterThanOrEqual(120);
    expect(perSession).toBeLessThanOrEqual((60 * 60) / 25);
    expect((world.api.requests.get("list") ?? 0) - lists).toBe(0);
    expect(stillOne(world, ids)).toBe(true);
    holdsTrue(world);
  });

  test("a restart loses none of many sessions, and each is stopped as soon as its container ends", async () => {
    const { world, operator, ids } = await running(60, 10 * MINUTE);
    operator.kill();
    await world.pass(20 * SECOND);
    world.startOperator();
    await world.until("all items are served and settled", () => world.isSettled, 12 * MINUTE);
    expect(stillOne(world, ids)).toBe(true);
    expect(await metricValue(world.metrics.leasesLost, {})).toBe(0);
    holdsTrue(world);
  });

  test("the duration of a restart's lists counts toward the wait for the previous process's requests", async () => {
    const { world, operator, ids } = await running(3, 10 * MINUTE);
    operator.kill();
    const [startedMs, beats] = [world.clock.monotonic(), beatsOf(world)];
    const next = world.startOperator();
    next.kube.delay = ({ verb, plural }) => (verb === "list" && plural === "secrets" ? 4 * SECOND : 0);
    await world.until("the first heartbeat", () => beatsOf(world) > beats, 2 * MINUTE);
    // The operator reads the items as soon as the claims are listed. It waits 50 s for an unchanged value from there.
    const waitedMs = world.clock.monotonic() - startedMs - 54 * SECOND;
    expect(waitedMs).toBeGreaterThanOrEqual(0);
    expect(waitedMs).toBeLessThan(2 * SECOND);
    await world.until("all items are served and settled", () => world.isSettled, 12 * MINUTE);
    expect(stillOne(world, ids)).toBe(true);
    holdsTrue(world);
  });

  test("a process that lost leadership sends no more heartbeats, and the next one takes over", async () => {
    const { world, operator, ids } = await running(3, 10 * MINUTE);
    operator.loseLeadership();
    const before = beatsOf(world);
    await world.pass(40 * SECOND);
    expect(beatsOf(world)).toBe(before);
    void operator.stop();
    world.startOperator();
    await world.until("all items are served and settled", () => world.isSettled, 12 * MINUTE);
    expect(stillOne(world, ids)).toBe(true);
    holdsTrue(world);
  });

  test("an outage shorter than the lease has no effect", async () => {
    const { world, ids } = await running(5, 10 * MINUTE);
    world.weather.work = { lost: 1, slow: 0, refused: 0 };
    await world.pass(2 * MINUTE);
    world.weather.work = FAIR;
    await world.until("all items are served and settled", () => world.isSettled, 12 * MINUTE);
    expect(stillOne(world, ids)).toBe(true);
    holdsTrue(world);
  });

  test("an outage longer than the lease ends the Pods, and the items run again", async () => {
    const { world, ids } = await running(3, 10 * MINUTE);
    world.weather.work = { lost: 1, slow: 0, refused: 0 };
    await world.pass(4 * MINUTE);
    expect(world.node.running.size).toBe(0);
    world.weather.work = FAIR;
    world.fate = () => ({ startError: false, program: "plain", servesMs: 5 * SECOND });
    await world.until("all items are served and settled", () => world.isSettled, 20 * MINUTE);
    expect(ids.every((id) => world.item(id).acks.length === 2)).toBe(true);
    expect(await metricValue(world.metrics.leasesLost, {})).toBe(3);
    expect(world.told.filter((text) => text.startsWith("LeaseLost"))).not.toEqual([]);
    holdsTrue(world);
  });

  test("slow steps of a claim do not lose its lease: heartbeats continue meanwhile", async () => {
    const { world, operator } = kept({ limits: { maxTtlSeconds: 10 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    operator.kube.delay = ({ verb, plural }) => (verb === "patch" && plural === "secrets" ? 25 * SECOND : 0);
    const id = world.enqueue();
    await world.until("everything is settled", () => world.isSettled);
    expect(world.item(id)).toMatchObject({ acks: { length: 1 }, refusedBeats: 0 });
    expect(world.item(id).beats).toBeGreaterThan(5);
    holdsTrue(world);
  });

  test("a drain gives a program that ignores SIGTERM half of its time limit, and stops the item", async () => {
    const podSpec = { containers: [{ name: "worker", image: "worker:1" }], terminationGracePeriodSeconds: 600 };
    const { world, ids } = await running(1, 0, { sessions: { template: { spec: podSpec } }, program: "silent" });
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.until("the Environment is gone", () => world.environment === undefined, 125 * SECOND);
    expect(world.item(ids[0] ?? "")).toMatchObject({ state: "stopped", stoppedBy: { as: "environment-key" } });
    expect(world.told.filter((text) => text.startsWith("DrainGivenUp"))).toEqual([]);
    holdsTrue(world);
  });

  test("a changed kind of lease does not affect a running session, even across a restart", async () => {
    const { world, operator, ids } = await running(1, 10 * MINUTE);
    world.patchEnvironment({ spec: { sessions: { lease: "Worker" } } });
    await world.pass(MINUTE);
    operator.kill();
    world.startOperator();
    world.fate = () => ({ startError: false, program: "stock", servesMs: 5 * SECOND });
    const next = world.enqueue();
    await world.until("all items are served and settled", () => world.isSettled, 12 * MINUTE);
    expect(stillOne(world, [...ids, next])).toBe(true);
    expect(world.item(ids[0] ?? "").stoppedBy?.as).toBe("environment-key");
    expect(world.item(next).stoppedBy?.as).toBe("sessions-token");
    holdsTrue(world);
  });

  test("a Pod that was created for a stock worker keeps that kind of lease after the spec changes", async () => {
    let prepareMs = 100;
    const { world } = kept({ sessions: { lease: "Worker", maxConcurrent: 2, warm: 1 }, prepareMs: () => prepareMs });
    await world.until("a parked Pod", () => world.parked.length > 0);
    const first = world.enqueue();
    await world.until("a session of the template is served", () => world.item(first).state === "stopped", 30 * SECOND);
    await world.until("only one parked Pod is left", () => world.pods.length === 1 && world.parked.length === 1);
    prepareMs = MINUTE;
    world.patchEnvironment({ spec: { sessions: { lease: "Operator" } } });
    await world.until("its replacement exists", () => world.pods.length === 2);
    const id = world.enqueue();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 30 * SECOND);
    expect(world.item(id).history.find(({ event }) => event === "first heartbeat")?.by.as).toBe("sessions-token");
    expect(world.item(id).refusedBeats).toBe(0);
    holdsTrue(world);
  });
});

describe("onPodFailure: Release", () => {
  test.each(["Worker", "Operator"])(
    "lease: %s: a released item is claimed again when it is first offered again",
    async (lease) => {
      const { world } = kept({ sessions: { lease, onPodFailure: "Release", maxConcurrent: 2, warm: 2 } });
      await world.until("parked Pods", () => world.parked.length === 2);
      world.fate = () => ({ startError: false, program: "killed", servesMs: 20 * SECOND });
      const id = world.enqueue();
      await world.until("the container runs", () => world.node.running.size === 1);
      await world.until("the container is killed", () => world.node.running.size === 0);
      const killedMs = world.clock.monotonic();
      world.fate = () => ({
        startError: false,
        program: lease === "Operator" ? "plain" : "stock",
        servesMs: 5 * SECOND,
      });
      await world.until("the item is queued again", () => world.item(id).generation === 2, 5 * MINUTE);
      const queuedMs = world.clock.monotonic();
      // The operator's own lease lapses soon; a worker's lease takes its full time.
      if (lease === "Operator") expect(queuedMs - killedMs).toBeLessThan(15 * SECOND);
      await world.until("the container runs again", () => world.node.running.size === 1, 10 * SECOND);
      expect(world.clock.monotonic() - queuedMs).toBeLessThan(5 * SECOND);
      expect(world.item(id).offers).toHaveLength(2);
      expect(world.told.filter((text) => text.includes("in the queue again"))).not.toEqual([]);
      await world.until("everything is settled", () => world.isSettled);
      holdsTrue(world);
    },
  );

  test("a container that repeatedly fails to start claims few items of the queue", async () => {
    const { world } = kept({ sessions: { onPodFailure: "Release", maxConcurrent: 4, warm: 4 } });
    await world.until("parked Pods", () => world.parked.length === 4);
    world.fate = () => ({ startError: true, program: "plain", servesMs: 0 });
    const ids = Array.from({ length: 20 }, () => world.enqueue());
    await world.pass(5 * MINUTE);
    expect(ids.filter((id) => world.item(id).acks.length > 0).length).toBeLessThan(8);
    world.fate = () => ({ startError: false, program: "plain", servesMs: SECOND });
    await world.until("all items are served and settled", () => world.isSettled, 40 * MINUTE);
    holdsTrue(world);
  });
});

describe("lease: Operator: failing starts", () => {
  test("a program that repeatedly fails at once stops the claims, although the operator sends heartbeats", async () => {
    const { world } = kept({ sessions: { maxConcurrent: 4, warm: 4 } });
    await world.until("parked Pods", () => world.parked.length === 4);
    world.fate = () => ({ startError: false, program: "crashes", servesMs: 300 });
    for (let n = 0; n < 20; n += 1) world.enqueue();
    await world.pass(30 * SECOND);
    const served = world.items.filter(({ acks }) => acks.length > 0).length;
    expect(served).toBeGreaterThanOrEqual(3);
    expect(served).toBeLessThanOrEqual(6);
    holdsTrue(world);
  });

  test("a program that runs for a while, or ends well, has served", async () => {
    const { world } = kept({ sessions: { maxConcurrent: 6, warm: 6 } });
    await world.until("parked Pods", () => world.parked.length === 6);
    world.fate = () => ({ startError: false, program: "plain", servesMs: 10 * MINUTE });
    for (let n = 0; n < 6; n += 1) world.enqueue();
    // Three at first, then the others as soon as the template is known to serve.
    await world.until("all containers run", () => world.node.running.size === 6, 20 * SECOND);
    holdsTrue(world);
  });
});
