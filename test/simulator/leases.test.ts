import { describe, expect, test } from "vitest";
import type { SimulatorOptions } from "../../simulator/simulator.ts";
import { beatSchema, type Client, errorSchema, type Work, workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const SECOND = 1000;

interface Claimed extends Rig {
  readonly work: Work;
  readonly worker: Client;
}

/** Returns one acknowledged item. */
async function acked(options: SimulatorOptions = {}): Promise<Claimed> {
  const rig = await startRig(options);
  rig.simulator.enqueue(rig.environmentId);
  const work = await rig.client.take();
  expect((await rig.client.ack(work.id)).status).toBe(200);
  return { ...rig, work, worker: workerOf(rig.client, work) };
}

describe("a lease", () => {
  test("stays alive while heartbeats arrive, and lapses one TTL after the last heartbeat", async () => {
    await using rig = await acked();
    const { work, worker, clock, simulator } = rig;
    let value = await worker.mustBeat(work.id, "NO_HEARTBEAT");
    for (let i = 0; i < 5; i += 1) {
      await clock.advance(89 * SECOND);
      value = await worker.mustBeat(work.id, value);
    }
    await clock.advance(90 * SECOND - 1);
    expect(simulator.item(work.id).state).toBe("active");
    await clock.advance(1);
    expect(simulator.item(work.id)).toMatchObject({ state: "queued", generation: 2 });
    expect(simulator.stats(rig.environmentId)).toMatchObject({ depth: 1, pending: 0 });
    simulator.assertNoViolations();
  });

  test("lapses sooner with a shorter requested TTL, and later after a renewal with a longer one", async () => {
    await using rig = await acked();
    const value = await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT", 10);
    await rig.worker.mustBeat(rig.work.id, value, 20);
    await rig.clock.advance(19 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe("active");
    await rig.clock.advance(1 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe("queued");
  });

  test("that lapsed is lost: the old holder gets 412, and the next holder starts with NO_HEARTBEAT", async () => {
    await using rig = await acked();
    const { work, worker, clock, client } = rig;
    const value = await worker.mustBeat(work.id, "NO_HEARTBEAT");
    await clock.advance(90 * SECOND);
    const late = await worker.beat(work.id, value);
    expect(late.status).toBe(412);
    expect(errorSchema.parse(late.json()).error.details).toMatchObject({ current_state: { state: "queued" } });
    const again = await client.take();
    expect(again.id).toBe(work.id);
    expect(again.secret).not.toBe(work.secret);
    await client.ack(work.id);
    await workerOf(client, again).mustBeat(work.id, "NO_HEARTBEAT");
    expect((await worker.beat(work.id, value)).status).toBe(412);
    rig.simulator.assertNoViolations();
  });

  test("isn't renewed by a request that comes late but before any timer ran", async () => {
    await using rig = await acked();
    const value = await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    rig.clock.pause(90 * SECOND);
    expect((await rig.worker.beat(rig.work.id, value)).status).toBe(412);
  });

  test("that lapsed stops the item if the switch says so", async () => {
    await using rig = await acked({ switches: { lapse: "stop" } });
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    await rig.clock.advance(90 * SECOND);
    expect(rig.simulator.item(rig.work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "server" } });
    expect(await rig.client.poll()).toBeNull();
  });

  test("that lapsed brings the session back as a new item if the switch says so", async () => {
    await using rig = await acked({ switches: { requeueId: "new" } });
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    await rig.clock.advance(90 * SECOND);
    const again = await rig.client.take();
    expect(again.id).not.toBe(rig.work.id);
    expect(again.data).toEqual(rig.work.data);
    expect(rig.simulator.session(rig.work.data.id).workIds).toEqual([rig.work.id, again.id]);
  });

  test.each(["renewed", "kept"] as const)("acknowledged_at of a second acknowledgement is %s", async (reackStamp) => {
    await using rig = await acked({ switches: { reackStamp } });
    const [first] = await rig.client.listAll();
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    await rig.clock.advance(90 * SECOND);
    await rig.client.take();
    expect((await rig.client.ack(rig.work.id)).status).toBe(200);
    const [second] = await rig.client.listAll();
    expect(second?.acknowledged_at === first?.acknowledged_at).toBe(reackStamp === "kept");
  });
});

describe("a starting item", () => {
  test("that gets no heartbeat is queued again", async () => {
    await using rig = await acked();
    await rig.clock.advance(90 * SECOND - 1);
    expect(rig.simulator.item(rig.work.id).state).toBe("starting");
    await rig.clock.advance(1);
    expect(rig.simulator.item(rig.work.id)).toMatchObject({ state: "queued", generation: 2 });
    expect((await rig.worker.beat(rig.work.id, "NO_HEARTBEAT")).status).toBe(412);
    rig.simulator.assertNoViolations();
  });

  test("waits forever if the switch says so", async () => {
    await using rig = await acked({ switches: { starting: "never" } });
    await rig.clock.advance(86_400 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe("starting");
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
  });

  test("that must stop reports so at its first heartbeat", async () => {
    await using rig = await acked();
    rig.simulator.stopItem(rig.work.id);
    const body = beatSchema.parse((await rig.worker.beat(rig.work.id, "NO_HEARTBEAT")).json());
    expect(body.state).toBe("stopping");
  });
});

describe("a stopping item", () => {
  test.each([
    ["ends", "stopped"],
    ["stays", "stopping"],
  ] as const)("whose lease lapsed %s", async (lapsedStopping, state) => {
    await using rig = await acked({ switches: { lapsedStopping } });
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    rig.simulator.stopItem(rig.work.id);
    await rig.clock.advance(3600 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe(state);
  });

  test("is kept alive by heartbeats of its holder, unless the switch says otherwise", async () => {
    await using rig = await acked();
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    rig.simulator.stopItem(rig.work.id);
    for (let i = 0; i < 3; i += 1) {
      await rig.clock.advance(60 * SECOND);
      await rig.worker.mustBeat(rig.work.id, "anything");
    }
    expect(rig.simulator.item(rig.work.id).state).toBe("stopping");
    rig.simulator.setSwitches({ stoppingBeat: "ignored" });
    await rig.clock.advance(60 * SECOND);
    const body = beatSchema.parse((await rig.worker.beat(rig.work.id, "anything")).json());
    expect(body).toMatchObject({ state: "stopping", lease_extended: false });
    await rig.clock.advance(30 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe("stopped");
  });

  test("that never was active ends if its first heartbeat doesn't come", async () => {
    await using rig = await acked();
    rig.simulator.stopItem(rig.work.id);
    await rig.clock.advance(90 * SECOND);
    expect(rig.simulator.item(rig.work.id).state).toBe("stopped");
  });
});

describe("NO_HEARTBEAT on a queued item", () => {
  test("activates it if the switch says so", async () => {
    await using rig = await startRig({ switches: { queuedBeat: "accepted" } });
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    await rig.client.mustBeat(work.id, "NO_HEARTBEAT");
    expect(rig.simulator.item(work.id).state).toBe("active");
    expect(rig.simulator.stats(rig.environmentId)).toMatchObject({ depth: 0, pending: 0 });
  });
});

describe("time", () => {
  test("runs faster by the scale: 90 s pass in 0.9 s", async () => {
    await using rig = await acked({ scale: 100 });
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    await rig.clock.advance(0.9 * SECOND - 1);
    expect(rig.simulator.item(rig.work.id).state).toBe("active");
    await rig.clock.advance(1);
    expect(rig.simulator.item(rig.work.id).state).toBe("queued");
  });

  test("changes its speed for running leases too", async () => {
    await using rig = await acked();
    await rig.worker.mustBeat(rig.work.id, "NO_HEARTBEAT");
    await rig.clock.advance(45 * SECOND);
    rig.simulator.setScale(45);
    await rig.clock.advance(1 * SECOND - 1);
    expect(rig.simulator.item(rig.work.id).state).toBe("active");
    await rig.clock.advance(1);
    expect(rig.simulator.item(rig.work.id).state).toBe("queued");
  });

  test("needs one timer for thousands of leases", async () => {
    await using rig = await startRig();
    for (let i = 0; i < 3000; i += 1) rig.simulator.enqueue(rig.environmentId);
    const { clock, simulator, client } = rig;
    for (let i = 0; i < 50; i += 1) {
      const work = await client.take();
      await client.ack(work.id);
      await workerOf(client, work).mustBeat(work.id, "NO_HEARTBEAT");
    }
    expect(clock.pendingTimers).toBe(1);
    await clock.advance(90 * SECOND);
    expect(simulator.stats(rig.environmentId)).toMatchObject({ depth: 3000, pending: 0 });
    expect(clock.pendingTimers).toBe(0);
  });
});
