import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { VIOLATION_KINDS, type ViolationKind } from "../../simulator/violations.ts";
import { type Client, type Work, workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const SECOND = 1000;

/** Returns a second operator on the same queue: it has another worker id and is alive at the same time. */
async function rival(rig: Rig): Promise<Client> {
  const other = rig.client.with({ workerId: "poller-2" });
  await rig.client.stats();
  await other.stats();
  await rig.client.stats();
  return other;
}

async function offer(rig: Rig, client = rig.client): Promise<Work> {
  rig.simulator.enqueue(rig.environmentId);
  return await client.take();
}

async function acked(rig: Rig, client = rig.client): Promise<{ work: Work; worker: Client }> {
  const work = await offer(rig, client);
  expect((await client.ack(work.id)).status).toBe(200);
  return { work, worker: workerOf(client, work) };
}

async function active(rig: Rig): Promise<{ work: Work; worker: Client; value: string }> {
  const { work, worker } = await acked(rig);
  return { work, worker, value: await worker.mustBeat(work.id, "NO_HEARTBEAT") };
}

/** Writes a whole heartbeat of a worker whose stop was answered, on a separate connection. */
async function writeBeatAfterStop(rig: Rig) {
  const { work, worker, value } = await active(rig);
  await worker.stop(work.id, true);
  return send(rig, worker, worker.work(`/${work.id}/heartbeat`, { expected_last_heartbeat: value }));
}

/** Acknowledges an item after its window, and returns the connection. */
async function writeLateAck(rig: Rig) {
  const work = await offer(rig);
  await rig.clock.advance(6 * SECOND);
  return send(rig, rig.client, rig.client.work(`/${work.id}/ack`));
}

/** Sends a request over a separate connection, and returns that. */
async function send(rig: Rig, { options: { bearer, workerId } }: Client, path: string): Promise<Socket> {
  const { hostname, port, host } = new URL(rig.simulator.url);
  const socket = connect(Number(port), hostname);
  await once(socket, "connect");
  const headers = {
    host,
    authorization: `Bearer ${bearer}`,
    "anthropic-beta": "managed-agents-2026-04-01",
    "anthropic-version": "2023-06-01",
    "content-length": "0",
    ...(workerId !== undefined && { "anthropic-worker-id": workerId }),
  };
  const lines = Object.entries(headers).map(([name, text]) => `${name}: ${text}`);
  socket.write([`POST ${path} HTTP/1.1`, ...lines, "", ""].join("\r\n"));
  return socket;
}

/** The mistakes of a client, by kind of violation. */
const WRONG: Record<ViolationKind, ((rig: Rig) => Promise<unknown>)[]> = {
  "ack-without-offer": [
    async (rig) => rig.client.ack(rig.simulator.enqueue(rig.environmentId).id),
    async (rig) => {
      const other = await rival(rig);
      const work = await offer(rig);
      await other.ack(work.id);
    },
  ],
  "ack-outside-window": [
    async (rig) => {
      const work = await offer(rig);
      await rig.clock.advance(5 * SECOND + 1);
      await rig.client.ack(work.id);
    },
    async (rig) => {
      rig.simulator.enqueue(rig.environmentId);
      const work = await rig.client.take({ reclaim_older_than_ms: 1000 });
      await rig.clock.advance(1 * SECOND + 1);
      await rig.client.ack(work.id);
    },
    // Another client reclaimed the item before this client's window ended.
    async (rig) => {
      const other = await rival(rig);
      const work = await offer(rig);
      await rig.clock.advance(1 * SECOND);
      await other.take({ reclaim_older_than_ms: 500 });
      await rig.client.ack(work.id);
    },
    // The item was queued again in the meantime.
    async (rig) => {
      const { work } = await acked(rig);
      await rig.clock.advance(90 * SECOND);
      await rig.client.ack(work.id);
    },
  ],
  "beat-on-queued": [
    async (rig) => {
      const work = await offer(rig);
      await workerOf(rig.client, work).beat(work.id, "NO_HEARTBEAT");
    },
    async (rig) => {
      const other = await rival(rig);
      const { work } = await acked(rig);
      await rig.clock.advance(90 * SECOND);
      await other.beat(work.id, "NO_HEARTBEAT");
    },
  ],
  "start-without-ack": [
    async (rig) => {
      const other = await rival(rig);
      const mine = await offer(rig);
      await rig.clock.advance(5 * SECOND);
      const theirs = await other.take();
      await other.ack(theirs.id);
      await workerOf(rig.client, mine).beat(mine.id, "NO_HEARTBEAT");
    },
  ],
  "second-start": [
    // The same container starts again, or two containers start with one secret.
    async (rig) => {
      const { work, worker } = await active(rig);
      await worker.beat(work.id, "NO_HEARTBEAT");
    },
    // One operator starts two containers, each from a different offer.
    async (rig) => {
      const first = await offer(rig);
      await rig.clock.advance(5 * SECOND);
      const second = await rig.client.take();
      await rig.client.ack(second.id);
      await workerOf(rig.client, first).mustBeat(first.id, "NO_HEARTBEAT");
      await workerOf(rig.client, second).beat(second.id, "NO_HEARTBEAT");
    },
  ],
  "two-holders": [
    // The operator adopts the lease at once although the holder is alive.
    async (rig) => {
      const { work, value } = await active(rig);
      await rig.clock.advance(10 * SECOND);
      await rig.client.mustBeat(work.id, value);
    },
    async (rig) => {
      const { work, value } = await active(rig);
      await rig.client.with({ workerId: undefined, userAgent: "someone" }).mustBeat(work.id, value);
    },
  ],
  "wrong-echo": [
    async (rig) => {
      const { work, worker } = await active(rig);
      await worker.beat(work.id, "2026-01-01T00:00:00.000000Z");
    },
    async (rig) => {
      const { work, worker, value } = await active(rig);
      await worker.beat(work.id, value.slice(0, -4));
    },
  ],
  "unconditional-beat": [
    async (rig) => {
      const { work, worker } = await acked(rig);
      await worker.beat(work.id, undefined);
    },
  ],
  "beat-after-stop": [
    async (rig) => {
      const { work, worker, value } = await active(rig);
      await worker.stop(work.id, true);
      await worker.beat(work.id, value);
    },
    async (rig) => {
      const { work, worker, value } = await active(rig);
      rig.simulator.stopItem(work.id, { force: true });
      await worker.beat(work.id, value);
      await worker.beat(work.id, value);
    },
  ],
  "stop-queued": [
    async (rig) => rig.client.stop((await offer(rig)).id, true),
    async (rig) => {
      const { work } = await active(rig);
      await rig.clock.advance(90 * SECOND);
      await rig.client.stop(work.id, true);
    },
    // Another client holds the health check.
    async (rig) => {
      const other = await rival(rig);
      rig.simulator.enqueue(rig.environmentId, { type: "healthcheck" });
      await other.stop((await rig.client.take()).id, true);
    },
  ],
  "stop-unfenced": [
    async (rig) => rig.client.stop((await acked(rig)).work.id, true),
    async (rig) => rig.client.stop((await acked(rig)).work.id),
  ],
  "stop-without-lease": [
    // The operator relies only on the list and the clock.
    async (rig) => {
      const { work } = await active(rig);
      await rig.clock.advance(60 * SECOND);
      await rig.client.stop(work.id, true);
    },
    // The stop is graceful, but another operator owns the session.
    async (rig) => {
      const other = await rival(rig);
      const { work } = await active(rig);
      await other.stop(work.id);
    },
    // The worker's lease went to another holder.
    async (rig) => {
      const other = await rival(rig);
      const { work, worker } = await active(rig);
      await rig.clock.advance(90 * SECOND);
      const again = await other.take();
      await other.ack(again.id);
      await workerOf(other, again).mustBeat(again.id, "NO_HEARTBEAT");
      await worker.stop(work.id, true);
    },
    // The worker belongs to an operator that never acknowledged the item.
    async (rig) => {
      const other = await rival(rig);
      const mine = await offer(rig);
      await rig.clock.advance(5 * SECOND);
      await other.ack((await other.take()).id);
      await workerOf(rig.client, mine).stop(mine.id, true);
    },
  ],
  "unknown-tool-result": [
    async (rig) => {
      const { work, worker } = await active(rig);
      const events = [{ type: "user.tool_result", tool_use_id: "sevt_none", content: [] }];
      await worker.request("POST", `/v1/sessions/${work.data.id}/events`, { body: { events } });
    },
    // A result of the wrong kind leaves the call open.
    async (rig) => {
      const { work, worker } = await active(rig);
      const [call] = rig.simulator.session(work.data.id).toolCalls;
      const events = [{ type: "user.custom_tool_result", custom_tool_use_id: call?.id, content: [] }];
      await worker.request("POST", `/v1/sessions/${work.data.id}/events`, { body: { events } });
      expect(rig.simulator.session(work.data.id).toolCalls[0]?.answeredAt).toBeUndefined();
    },
  ],
  "wrong-credential": [
    async (rig) => rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey }).list(),
    async (rig) => rig.client.retrieve((await offer(rig)).id),
  ],
  "invalid-poll": [
    async (rig) => rig.client.pollRaw({ block_ms: 0 }),
    async (rig) => rig.client.pollRaw({ reclaim_older_than_ms: -1 }),
  ],
  "invalid-request": [
    async (rig) => {
      const { work } = await active(rig);
      await rig.client.request("POST", rig.client.work(`/${work.id}/stop`), { body: "{force" });
    },
    async (rig) => {
      const { work } = await active(rig);
      await rig.client.request("POST", rig.client.work(`/${work.id}/stop`), { body: "[]" });
    },
    async (rig) => {
      const { work, worker } = await acked(rig);
      await worker.beat(work.id, "NO_HEARTBEAT", -5);
    },
  ],
  "missing-header": [
    async (rig) => rig.client.request("GET", rig.client.work("/stats"), { headers: { "anthropic-beta": "other" } }),
    async (rig) => rig.client.request("GET", rig.client.work("/stats"), { headers: { "anthropic-version": "" } }),
  ],
  "unknown-path": [
    async (rig) => rig.client.request("GET", "/v1/environments"),
    async (rig) => rig.client.request("DELETE", rig.client.work("/work_1")),
    async (rig) => rig.client.request("GET", "/v1/sessions/session_1/%zz"),
    async (rig) => rig.client.request("GET", rig.client.work("//ack")),
  ],
};

describe("an incorrect client is caught", () => {
  const cases = VIOLATION_KINDS.flatMap((kind) => WRONG[kind].map((act, index) => ({ kind, index, act })));
  test.each(cases)("$kind ($index)", async ({ kind, act }) => {
    await using rig = await startRig();
    await act(rig);
    const kinds = rig.simulator.violations.map((violation) => violation.kind);
    expect(kinds).toEqual([kind]);
    expect(rig.simulator.excused).toEqual([]);
    expect(() => rig.simulator.assertNoViolations()).toThrow(kind);
    rig.simulator.clearViolations();
    rig.simulator.assertNoViolations();
  });

  test("with who did what and when", async () => {
    await using rig = await startRig();
    await rig.clock.advance(7 * SECOND);
    const { work } = await acked(rig);
    await rig.client.with({ userAgent: "wrong/1" }).stop(work.id, true);
    expect(rig.simulator.violations).toEqual([
      {
        kind: "stop-unfenced",
        details: expect.stringContaining("NO_HEARTBEAT"),
        at: rig.simulator.clock.now(),
        by: { as: "environment-key", workerId: "poller-1", userAgent: "wrong/1" },
        environmentId: rig.environmentId,
        workId: work.id,
        sessionId: work.data.id,
      },
    ]);
  });
});

describe("a correct client is allowed", () => {
  /** What a correct client may do, even if it looks wrong. */
  const right: Record<string, (rig: Rig) => Promise<unknown>> = {
    "acknowledges on the last millisecond": async (rig) => {
      const work = await offer(rig);
      await rig.clock.advance(5 * SECOND);
      await rig.client.ack(work.id);
    },
    "polls with a long reclaim time and acknowledges inside every client's window": async (rig) => {
      rig.simulator.enqueue(rig.environmentId);
      const work = await rig.client.take({ reclaim_older_than_ms: 15_000 });
      await rig.clock.advance(4 * SECOND);
      await rig.client.ack(work.id);
    },
    "acknowledges an item that a fault gave to two clients": async (rig) => {
      const other = await rival(rig);
      const work = await offer(rig);
      rig.simulator.inject({ kind: "duplicate-offer", times: 1 });
      expect((await other.take()).id).toBe(work.id);
      expect((await rig.client.ack(work.id)).status).toBe(200);
      expect((await other.ack(work.id)).status).toBe(409);
    },
    "acknowledges an item without its worker id after two clients were offered it": async (rig) => {
      const other = await rival(rig);
      const work = await offer(rig);
      rig.simulator.inject({ kind: "duplicate-offer", times: 1 });
      await other.take();
      await rig.client.with({ workerId: undefined }).ack(work.id);
      await workerOf(rig.client, work).mustBeat(work.id, "NO_HEARTBEAT");
    },
    "starts a worker after a second acknowledgement that renewed the first": async (rig) => {
      rig.simulator.setSwitches({ secondAck: "renewed" });
      const other = await rival(rig);
      const work = await offer(rig);
      rig.simulator.inject({ kind: "duplicate-offer", times: 1 });
      const twin = await other.take();
      await rig.client.ack(work.id);
      expect((await other.ack(work.id)).status).toBe(200);
      await workerOf(other, twin).mustBeat(work.id, "NO_HEARTBEAT");
      expect((await workerOf(rig.client, work).beat(work.id, "NO_HEARTBEAT")).status).toBe(412);
    },
    "repeats an acknowledgement whose answer was lost": async (rig) => {
      const work = await offer(rig);
      rig.simulator.inject({ call: "ack", kind: "lost-reply", times: 1 });
      await expect(rig.client.ack(work.id)).rejects.toThrow();
      expect((await rig.client.ack(work.id)).status).toBe(409);
    },
    "repeats a first heartbeat whose answer was lost, and gives up at 412": async (rig) => {
      const { work, worker } = await acked(rig);
      rig.simulator.inject({ call: "heartbeat", kind: "lost-reply", times: 1 });
      await expect(worker.beat(work.id, "NO_HEARTBEAT")).rejects.toThrow();
      expect((await worker.beat(work.id, "NO_HEARTBEAT")).status).toBe(412);
    },
    "repeats a stop whose answer was lost, and sends no more heartbeats": async (rig) => {
      const { work, worker } = await active(rig);
      rig.simulator.inject({ call: "stop", kind: "lost-reply", times: 1 });
      await expect(worker.stop(work.id, true)).rejects.toThrow();
      expect((await worker.stop(work.id, true)).status).toBe(409);
    },
    "sends another heartbeat after the answer of its stop was lost": async (rig) => {
      const { work, worker, value } = await active(rig);
      rig.simulator.inject({ call: "stop", kind: "lost-reply", times: 1 });
      await expect(worker.stop(work.id, true)).rejects.toThrow();
      expect((await worker.beat(work.id, value)).status).toBe(200);
    },
    "fences a starting item, then stops it": async (rig) => {
      const { work } = await acked(rig);
      await rig.client.mustBeat(work.id, "NO_HEARTBEAT");
      await rig.client.stop(work.id, true);
    },
    "fences an active item whose value didn't change, then stops it": async (rig) => {
      const { work, value } = await active(rig);
      await rig.clock.advance(50 * SECOND);
      await rig.client.mustBeat(work.id, value);
      await rig.client.stop(work.id, true);
    },
    "stops gracefully while its own worker holds the lease, and by force after that": async (rig) => {
      const { work } = await active(rig);
      await rig.client.stop(work.id);
      await rig.clock.advance(30 * SECOND);
      await rig.client.stop(work.id, true);
    },
    "stops gracefully after a restart under another worker id": async (rig) => {
      const { work } = await active(rig);
      await rig.client.with({ workerId: "poller-1-restarted" }).stop(work.id);
    },
    "stops health checks, unknown items and items without a secret unfenced": async (rig) => {
      rig.simulator.enqueue(rig.environmentId, { type: "healthcheck" });
      rig.simulator.enqueue(rig.environmentId, { type: "novelty" });
      rig.simulator.enqueue(rig.environmentId, { secret: false });
      for (const ack of [true, true, false]) {
        const work = await rig.client.take();
        if (ack) await rig.client.ack(work.id);
        expect((await rig.client.stop(work.id, true)).status).toBe(204);
      }
    },
    "stops the item of a deleted session that is offered again and again": async (rig) => {
      const work = await offer(rig);
      rig.simulator.deleteSession(work.data.id);
      await rig.clock.advance(5 * SECOND);
      expect((await rig.client.take()).id).toBe(work.id);
      await rig.client.stop(work.id, true);
    },
    "opens its lease late, after its item was queued again, and leaves at 412": async (rig) => {
      const { work, worker } = await acked(rig);
      await rig.clock.advance(90 * SECOND);
      expect((await worker.beat(work.id, "NO_HEARTBEAT")).status).toBe(412);
    },
    "is a user who stops an item at any time": async (rig) => {
      const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey, workerId: undefined });
      await user.stop((await active(rig)).work.id, true);
      await user.stop((await acked(rig)).work.id);
      await user.stop(rig.simulator.enqueue(rig.environmentId).id);
    },
  };

  test.each(Object.keys(right))("when it %s", async (name) => {
    await using rig = await startRig();
    await right[name]?.(rig);
    rig.simulator.assertNoViolations();
    expect(rig.simulator.excused).toEqual([]);
  });
});

describe("a violation that a correct client can't avoid is excused", () => {
  test("when a fault delays a request beyond its window", async () => {
    await using rig = await startRig();
    const work = await offer(rig);
    const fault = rig.simulator.inject({ call: "ack", kind: "latency", ms: 6 * SECOND, times: 1 });
    const ack = rig.client.ack(work.id);
    await rig.simulator.waitFor(() => fault.struck === 1);
    await rig.clock.advance(6 * SECOND);
    await ack;
    rig.simulator.assertNoViolations();
    expect(rig.simulator.excused).toMatchObject([{ kind: "ack-outside-window", excuse: "fault" }]);
  });

  test("when a fault delays a heartbeat until after the worker's own stop", async () => {
    await using rig = await startRig();
    const { work, worker, value } = await active(rig);
    const fault = rig.simulator.inject({ call: "heartbeat", kind: "latency", ms: 2 * SECOND, times: 1 });
    const beat = worker.beat(work.id, value);
    await rig.simulator.waitFor(() => fault.struck === 1);
    await worker.stop(work.id, true);
    await rig.clock.advance(2 * SECOND);
    await beat;
    rig.simulator.assertNoViolations();
    expect(rig.simulator.excused).toMatchObject([{ kind: "beat-after-stop", excuse: "fault" }]);
  });

  const late = [
    { what: "a heartbeat after the worker's own stop", kind: "beat-after-stop", write: writeBeatAfterStop },
    { what: "an acknowledgement outside its window", kind: "ack-outside-window", write: writeLateAck },
  ] as const;

  test.each(late)("when the sender gave up $what", async ({ kind, write }) => {
    await using rig = await startRig();
    const socket = await write(rig);
    socket.destroy();
    const { violations, excused } = rig.simulator;
    await rig.simulator.waitFor(() => violations.length + excused.length > 0);
    rig.simulator.assertNoViolations();
    expect(excused).toMatchObject([{ kind, excuse: "given-up" }]);
  });

  test.each(late)("but not $what whose sender still waits for the answer", async ({ kind, write }) => {
    await using rig = await startRig();
    const socket = await write(rig);
    expect(String(await once(socket, "data"))).toMatch(/^HTTP\/1\.1 200 /);
    socket.destroy();
    expect(rig.simulator.violations).toMatchObject([{ kind }]);
    expect(rig.simulator.excused).toEqual([]);
  });

  test("when a stock worker stops its own item before its first heartbeat was answered", async () => {
    await using rig = await startRig();
    const { work, worker } = await acked(rig);
    await worker.stop(work.id, true);
    rig.simulator.assertNoViolations();
    expect(rig.simulator.excused).toMatchObject([{ kind: "stop-without-lease", excuse: "stock-worker" }]);
  });
});
