import { createConnection } from "node:net";
import { describe, expect, test } from "vitest";
import type { FaultInput } from "../../simulator/faults.ts";
import { workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const SECOND = 1000;

/** Returns two items. The first one is acknowledged and active. */
async function busy(rig: Rig) {
  rig.simulator.enqueue(rig.environmentId);
  const work = await rig.client.take();
  await rig.client.ack(work.id);
  const worker = workerOf(rig.client, work);
  const value = await worker.mustBeat(work.id, "NO_HEARTBEAT");
  return { work, worker, value };
}

describe("faults before the effect", () => {
  const before: [string, FaultInput, (rig: Rig) => Promise<unknown>][] = [
    ["a status", { kind: "status", status: 503 }, (rig) => expectStatus(rig, 503)],
    ["a reset", { kind: "reset" }, (rig) => expect(rig.client.poll()).rejects.toThrow()],
    ["a page of HTML", { kind: "html" }, (rig) => expectStatus(rig, 502)],
  ];

  test.each(before)("%s has no effect on the simulator", async (_name, fault, check) => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    rig.simulator.inject({ ...fault, times: 1 });
    await check(rig);
    expect(rig.simulator.stats(rig.environmentId)).toMatchObject({ depth: 1, pending: 0 });
    expect(await rig.client.poll()).not.toBeNull();
  });

  async function expectStatus(rig: Rig, status: number) {
    expect((await rig.client.pollRaw()).status).toBe(status);
  }

  test("429 carries Retry-After", async () => {
    await using rig = await startRig();
    rig.simulator.inject({ kind: "status", status: 429, retryAfterSeconds: 7, times: 1 });
    const answer = await rig.client.stats();
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, "7"]);
    expect(answer.json()).toMatchObject({ type: "error", error: { type: "rate_limit_error" } });
  });

  test("an HTML page can have a success status", async () => {
    await using rig = await startRig();
    rig.simulator.inject({ kind: "html", status: 200, times: 1 });
    const answer = await rig.client.stats();
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/html"]);
    expect(() => answer.json()).toThrow();
  });

  test("an acknowledgement can be rejected", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    rig.simulator.inject({ call: "ack", kind: "status", status: 409, times: 1 });
    expect((await rig.client.ack(work.id)).status).toBe(409);
    expect(rig.simulator.item(work.id).state).toBe("queued");
    rig.simulator.assertNoViolations();
  });

  test("latency delays a request, which takes effect even if the client is gone", async () => {
    await using rig = await startRig();
    const { work } = await busy(rig);
    const fault = rig.simulator.inject({ call: "stop", kind: "latency", ms: 3 * SECOND, times: 1 });
    const { bearer } = rig.client.options;
    const socket = createConnection(rig.simulator.port, "127.0.0.1");
    const path = rig.client.work(`/${work.id}/stop`);
    const headers = `host: x\r\nauthorization: Bearer ${bearer}\r\nanthropic-beta: managed-agents-2026-04-01\r\nanthropic-version: 1\r\n`;
    socket.write(`POST ${path} HTTP/1.1\r\n${headers}content-length: 0\r\n\r\n`);
    await rig.simulator.waitFor(() => fault.struck === 1);
    const gone = rig.simulator.waitFor(() => rig.simulator.report().requests["stop none"] === 1);
    socket.destroy();
    await gone;
    expect(rig.simulator.item(work.id).state).toBe("active");
    await rig.clock.advance(3 * SECOND);
    expect(rig.simulator.item(work.id).state).toBe("stopping");
  });

  test("a hanging call is never answered and has no effect", async () => {
    await using rig = await startRig();
    const { work, worker, value } = await busy(rig);
    const fault = rig.simulator.inject({ call: "heartbeat", kind: "hang", times: 1 });
    const hanging = worker.beat(work.id, value);
    const settled = expect(hanging).rejects.toThrow();
    await rig.simulator.waitFor(() => fault.struck === 1);
    await rig.clock.advance(90 * SECOND);
    expect(rig.simulator.item(work.id).state).toBe("queued");
    await rig.simulator.close();
    await settled;
  });
});

describe("faults after the effect", () => {
  test("a lost reply of poll: the item is offered, its secret is lost, and the item comes back", async () => {
    await using rig = await startRig();
    rig.simulator.inject({ call: "poll", kind: "lost-reply", times: 1 });
    expect(await rig.client.poll()).toBeNull();
    rig.simulator.enqueue(rig.environmentId);
    await expect(rig.client.poll()).rejects.toThrow();
    expect(rig.simulator.stats(rig.environmentId)).toMatchObject({ depth: 0, pending: 1 });
    await rig.clock.advance(5 * SECOND);
    expect(await rig.client.poll()).not.toBeNull();
  });

  test.each([
    ["truncated", { kind: "truncated" }],
    ["wrong-types", { kind: "wrong-types" }],
  ] as const)("a %s reply of ack: the item is acknowledged", async (_name, fault) => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    rig.simulator.inject({ ...fault, call: "ack", times: 1 });
    const answer = await rig.client.ack(work.id);
    expect(answer.status).toBe(200);
    if (fault.kind === "truncated") expect(() => answer.json()).toThrow();
    else expect(answer.json()).toMatchObject({ id: expect.any(Number), state: expect.any(Number) });
    expect(rig.simulator.item(work.id).state).toBe("starting");
  });

  test("a hanging reply of stop: the item is stopped", async () => {
    await using rig = await startRig();
    const { work, worker } = await busy(rig);
    rig.simulator.inject({ call: "stop", kind: "hang", after: true, times: 1 });
    const settled = expect(worker.stop(work.id, true)).rejects.toThrow();
    await rig.simulator.waitFor(() => rig.simulator.item(work.id).state === "stopped");
    await rig.simulator.close();
    await settled;
  });

  test("a late reply still takes effect at once", async () => {
    await using rig = await startRig();
    const { work, worker } = await busy(rig);
    rig.simulator.inject({ call: "stop", kind: "latency", ms: 5 * SECOND, after: true, times: 1 });
    const stop = worker.stop(work.id, true);
    await rig.simulator.waitFor(() => rig.simulator.item(work.id).state === "stopped");
    await rig.clock.advance(5 * SECOND);
    expect((await stop).status).toBe(204);
  });

  test("an endless body continues until the client disconnects", async () => {
    await using rig = await startRig();
    rig.simulator.inject({ call: "stats", kind: "endless", times: 1 });
    const { bearer } = rig.client.options;
    const headers = {
      authorization: `Bearer ${bearer}`,
      "anthropic-beta": "managed-agents-2026-04-01",
      "anthropic-version": "1",
    };
    const response = await fetch(`${rig.simulator.url}${rig.client.work("/stats")}`, { headers });
    const reader = response.body?.getReader();
    let length = 0;
    while (length < 4 * 1024 * 1024) {
      const chunk = await reader?.read();
      expect(chunk?.done).toBe(false);
      length += chunk?.value?.byteLength ?? 0;
    }
    await reader?.cancel();
    expect((await rig.client.stats()).status).toBe(200);
  });
});

describe("the requests that a fault strikes", () => {
  test("match its call, environment, and item, and it strikes as often as it says", async () => {
    await using rig = await startRig();
    const other = rig.simulator.createEnvironment();
    const record = rig.simulator.inject({
      kind: "status",
      status: 500,
      call: "stats",
      environmentId: rig.environmentId,
      times: 2,
    });
    const foreign = rig.client.with({ environmentId: other.id, bearer: other.key });
    expect((await foreign.stats()).status).toBe(200);
    expect((await rig.client.list()).status).toBe(200);
    const statuses = [];
    for (let i = 0; i < 3; i += 1) statuses.push((await rig.client.stats()).status);
    expect(statuses).toEqual([500, 500, 200]);
    expect(record.struck).toBe(2);
    expect(rig.simulator.faults()).toEqual([]);
  });

  test("are a share of all, the same for the same seed", async () => {
    const runs = [];
    for (const seed of [7, 7, 8]) {
      await using rig = await startRig({ seed });
      rig.simulator.inject({ kind: "status", status: 500, probability: 0.5 });
      const statuses = [];
      for (let i = 0; i < 40; i += 1) statuses.push((await rig.client.stats()).status);
      runs.push(statuses.join());
      expect(statuses.filter((status) => status === 500).length).toBeGreaterThan(5);
      expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(5);
    }
    expect(runs[0]).toBe(runs[1]);
    expect(runs[0]).not.toBe(runs[2]);
  });

  test("are none after the fault was removed", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.inject({ kind: "status", status: 500 });
    rig.simulator.inject({ kind: "status", status: 502 });
    rig.simulator.clearFaults(id);
    expect((await rig.client.stats()).status).toBe(502);
    rig.simulator.clearFaults();
    expect((await rig.client.stats()).status).toBe(200);
  });

  test("match a duplicate offer only when an item can be offered twice", async () => {
    await using rig = await startRig();
    const fault = rig.simulator.inject({ kind: "duplicate-offer", times: 1 });
    expect(await rig.client.poll()).toBeNull();
    rig.simulator.enqueue(rig.environmentId);
    const first = await rig.client.take();
    expect(fault.struck).toBe(0);
    const second = await rig.client.take();
    expect([second.id, fault.struck]).toEqual([first.id, 1]);
    expect(await rig.client.poll()).toBeNull();
  });
});

describe("the simulator's own rate limit", () => {
  test("answers 429 with Retry-After, separately for reads and creates", async () => {
    await using rig = await startRig({ limits: { readsPerMinute: 60, createsPerMinute: 1 } });
    for (let i = 0; i < 60; i += 1) expect((await rig.client.stats()).status).toBe(200);
    const limited = await rig.client.stats();
    expect([limited.status, limited.headers.get("retry-after")]).toEqual([429, "1"]);
    expect((await rig.client.ack("work_none")).status).toBe(404);
    const create = await rig.client.ack("work_none");
    expect([create.status, create.headers.get("retry-after")]).toEqual([429, "60"]);
    await rig.clock.advance(1 * SECOND);
    expect((await rig.client.stats()).status).toBe(200);
    expect((await rig.client.stats()).status).toBe(429);
  });
});
