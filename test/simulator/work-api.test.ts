import { describe, expect, test } from "vitest";
import { z } from "zod";
import { beatSchema, decodeSecret, errorSchema, workerOf, workSchema } from "./client.ts";
import { startRig } from "./rig.ts";

const SECOND = 1000;

describe("poll", () => {
  test("answers null at once for an empty queue", async () => {
    await using rig = await startRig();
    const answer = await rig.client.pollRaw();
    expect([answer.status, answer.text]).toEqual([200, "null"]);
  });

  test("gives out the oldest item first, each with its own secret that contains the API's URL", async () => {
    await using rig = await startRig();
    const ids = [0, 1].map(() => rig.simulator.enqueue(rig.environmentId).id);
    const works = [await rig.client.take(), await rig.client.take()];
    expect(works.map((work) => work.id)).toEqual(ids);
    const secrets = works.map((work) => decodeSecret(work.secret));
    for (const secret of secrets) {
      expect(secret.sessions_token).toMatch(/^sk-ant-req-/);
      expect(secret.api_base_url).toBe(rig.simulator.url);
    }
    expect(secrets[0]?.sessions_token).not.toBe(secrets[1]?.sessions_token);
  });

  test("holds a long poll until work arrives", async () => {
    await using rig = await startRig();
    const poll = rig.client.poll({ block_ms: 999 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    const { id } = rig.simulator.enqueue(rig.environmentId);
    expect((await poll)?.id).toBe(id);
  });

  test("ends a long poll with null when its time is up, and not before", async () => {
    await using rig = await startRig();
    const poll = rig.client.poll({ block_ms: 500 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    await rig.clock.advance(499);
    expect(rig.simulator.pollsWaiting(rig.environmentId)).toBe(1);
    await rig.clock.advance(1);
    expect(await poll).toBeNull();
  });

  test("gives work to the poll that has waited longest, one item each", async () => {
    await using rig = await startRig();
    const polls = [];
    for (const waiting of [1, 2]) {
      polls.push(rig.client.poll({ block_ms: 999 }));
      await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === waiting);
    }
    const first = rig.simulator.enqueue(rig.environmentId);
    expect(rig.simulator.pollsWaiting(rig.environmentId)).toBe(1);
    const second = rig.simulator.enqueue(rig.environmentId);
    expect((await Promise.all(polls)).map((work) => work?.id)).toEqual([first.id, second.id]);
  });

  test("gives no item to a client that disconnected", async () => {
    await using rig = await startRig();
    const abort = new AbortController();
    const { bearer } = rig.client.options;
    const headers = {
      authorization: `Bearer ${bearer}`,
      "anthropic-beta": "managed-agents-2026-04-01",
      "anthropic-version": "2023-06-01",
    };
    const gone = fetch(`${rig.simulator.url}${rig.client.work("/poll", { block_ms: 999 })}`, {
      headers,
      signal: abort.signal,
    });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    abort.abort();
    await expect(gone).rejects.toThrow();
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 0);
    const { id } = rig.simulator.enqueue(rig.environmentId);
    expect((await rig.client.take()).id).toBe(id);
  });

  test.each(["0", "1000", "-1", "1.5", "x", ""])("rejects block_ms=%s", async (blockMs) => {
    await using rig = await startRig();
    expect((await rig.client.pollRaw({ block_ms: blockMs })).status).toBe(400);
    expect(rig.simulator.violations.map((violation) => violation.kind)).toEqual(["invalid-poll"]);
  });

  test("offers an item again when it's older than the poll's own reclaim_older_than_ms", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId);
    await rig.client.take();
    await rig.clock.advance(4999);
    expect(await rig.client.poll()).toBeNull();
    expect(await rig.client.poll({ reclaim_older_than_ms: 15_000 })).toBeNull();
    await rig.clock.advance(1);
    expect((await rig.client.take()).id).toBe(id);
    await rig.clock.advance(100);
    expect((await rig.client.take({ reclaim_older_than_ms: 100 })).id).toBe(id);
    expect(rig.simulator.item(id).offers.map((offer) => offer.number)).toEqual([1, 2, 3]);
  });

  test("gives a waiting poll an item when it becomes old enough", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId);
    await rig.client.take();
    await rig.clock.advance(4500);
    const poll = rig.client.poll({ block_ms: 999 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    await rig.clock.advance(500);
    expect((await poll)?.id).toBe(id);
  });

  test("gives a waiting poll an item that was offered after the poll began to wait", async () => {
    await using rig = await startRig();
    const poll = rig.client.poll({ block_ms: 999, reclaim_older_than_ms: 100 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    const second = rig.client.with({ workerId: "poller-2" }).poll({ block_ms: 999 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 2);
    const ids = [0, 1].map(() => rig.simulator.enqueue(rig.environmentId).id);
    expect((await Promise.all([poll, second])).map((work) => work?.id)).toEqual(ids);
    const third = rig.client.poll({ block_ms: 999, reclaim_older_than_ms: 100 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    await rig.clock.advance(100);
    expect((await third)?.id).toBe(ids[0]);
  });

  test("shows the secret only in the reply of poll", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    const token = decodeSecret(work.secret).sessions_token;
    const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
    const answers = [await rig.client.ack(id), await user.retrieve(id), await rig.client.list()];
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(answer.text).toContain('"secret":null');
      expect(answer.text).not.toContain(token);
    }
    expect(JSON.stringify(rig.simulator.state())).not.toContain(token);
  });
});

describe("acknowledge", () => {
  test("moves a queued item to starting, removes it from the queue, and records the time", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const { id } = await rig.client.take();
    await rig.clock.advance(1 * SECOND);
    const work = workSchema.parse((await rig.client.ack(id)).json());
    expect(work.state).toBe("starting");
    expect(Date.parse(work.acknowledged_at ?? "")).toBe(rig.clock.now());
    await rig.clock.advance(10 * SECOND);
    expect(await rig.client.poll()).toBeNull();
  });

  test("answers 404 for an unknown item", async () => {
    await using rig = await startRig();
    expect((await rig.client.ack("work_none")).status).toBe(404);
  });

  test.each([
    ["refused", 409],
    ["unchanged", 200],
    ["renewed", 200],
  ] as const)("a second one is %s, as the switch says", async (secondAck, status) => {
    await using rig = await startRig({ switches: { secondAck } });
    rig.simulator.enqueue(rig.environmentId);
    const { id } = await rig.client.take();
    const first = workSchema.parse((await rig.client.ack(id)).json()).acknowledged_at;
    await rig.clock.advance(1 * SECOND);
    const again = await rig.client.ack(id);
    expect(again.status).toBe(status);
    const [listed] = await rig.client.listAll();
    expect(listed?.acknowledged_at === first).toBe(secondAck !== "renewed");
    rig.simulator.assertNoViolations();
  });

  test("of a stopped item is rejected", async () => {
    await using rig = await startRig({ switches: { secondAck: "unchanged" } });
    rig.simulator.enqueue(rig.environmentId);
    const { id } = await rig.client.take();
    rig.simulator.stopItem(id);
    expect((await rig.client.ack(id)).status).toBe(409);
  });
});

describe("heartbeat", () => {
  async function acked() {
    const rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    await rig.client.ack(work.id);
    return { ...rig, id: work.id, worker: workerOf(rig.client, work) };
  }

  test("activates the item at first, and later requires the previous value byte for byte", async () => {
    await using rig = await acked();
    const first = beatSchema.parse((await rig.worker.beat(rig.id, "NO_HEARTBEAT")).json());
    expect(first).toMatchObject({ state: "active", lease_extended: true, ttl_seconds: 90 });
    expect(first.last_heartbeat).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    const second = await rig.worker.mustBeat(rig.id, first.last_heartbeat);
    expect(second).not.toBe(first.last_heartbeat);
    const stale = await rig.worker.beat(rig.id, first.last_heartbeat);
    expect(stale.status).toBe(412);
    expect(errorSchema.parse(stale.json()).error.details).toEqual({
      error_code: "heartbeat_precondition_failed",
      current_state: { state: "active", last_heartbeat: second, lease_extended: false, ttl_seconds: 90 },
    });
    const [listed] = await rig.client.listAll();
    expect(listed?.latest_heartbeat_at).toBe(second);
    expect(rig.simulator.item(rig.id)).toMatchObject({ beats: 2, refusedBeats: 1 });
    rig.simulator.assertNoViolations();
  });

  test("with NO_HEARTBEAT after another heartbeat is 412 with the current value", async () => {
    await using rig = await acked();
    const value = await rig.client.mustBeat(rig.id, "NO_HEARTBEAT");
    const answer = await rig.worker.beat(rig.id, "NO_HEARTBEAT");
    expect(answer.status).toBe(412);
    expect(answer.text).toContain(value);
  });

  test("on a queued item is 412 and leaves it in the queue", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    const answer = await rig.client.beat(work.id, "NO_HEARTBEAT");
    expect(answer.status).toBe(412);
    expect(answer.text).toContain('"state":"queued","last_heartbeat":null');
    expect(rig.simulator.stats(rig.environmentId)).toMatchObject({ pending: 1 });
  });

  test("respects desired_ttl_seconds within limits, and treats 0 as no preference", async () => {
    await using rig = await acked();
    let value = "NO_HEARTBEAT";
    const seen = [];
    for (const wish of [0, 1, 45, 100_000, undefined]) {
      const body = beatSchema.parse((await rig.worker.beat(rig.id, value, wish)).json());
      value = body.last_heartbeat;
      seen.push(body.ttl_seconds);
    }
    expect(seen).toEqual([90, 10, 45, 600, 600]);
  });

  test("has different values for two heartbeats in the same instant", async () => {
    await using rig = await acked();
    const values = new Set<string>();
    let value = "NO_HEARTBEAT";
    for (let i = 0; i < 5; i += 1) {
      value = await rig.worker.mustBeat(rig.id, value);
      values.add(value);
    }
    expect(values.size).toBe(5);
  });

  test("tells the holder that the item is stopping, whatever it echoes, and that it's stopped", async () => {
    await using rig = await acked();
    await rig.worker.mustBeat(rig.id, "NO_HEARTBEAT");
    rig.simulator.stopItem(rig.id);
    const stopping = beatSchema.parse((await rig.worker.beat(rig.id, "NO_HEARTBEAT")).json());
    expect(stopping).toMatchObject({ state: "stopping", lease_extended: true });
    rig.simulator.stopItem(rig.id, { force: true });
    const stopped = beatSchema.parse((await rig.worker.beat(rig.id, "whatever")).json());
    expect(stopped).toMatchObject({ state: "stopped", lease_extended: false });
    rig.simulator.assertNoViolations();
  });

  test("has another format in the list if the switch says so", async () => {
    await using rig = await acked();
    rig.simulator.setSwitches({ listedHeartbeat: "reformatted" });
    const value = await rig.worker.mustBeat(rig.id, "NO_HEARTBEAT");
    const [listed] = await rig.client.listAll();
    expect(listed?.latest_heartbeat_at).not.toBe(value);
    expect(Date.parse(listed?.latest_heartbeat_at ?? "")).toBe(Date.parse(value));
    expect((await rig.worker.beat(rig.id, listed?.latest_heartbeat_at ?? "")).status).toBe(412);
    rig.simulator.assertNoViolations();
  });
});

describe("stop", () => {
  test("by force ends the item at once with an empty 204, and a second stop is 409", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    await rig.client.ack(work.id);
    await rig.client.mustBeat(work.id, "NO_HEARTBEAT");
    const answer = await rig.client.stop(work.id, true);
    expect([answer.status, answer.text, answer.headers.get("content-type")]).toEqual([204, "", null]);
    expect((await rig.client.stop(work.id, true)).status).toBe(409);
    const [listed] = await rig.client.listAll();
    expect(listed?.state).toBe("stopped");
    expect(Date.parse(listed?.stopped_at ?? "")).toBe(rig.clock.now());
    rig.simulator.assertNoViolations();
  });

  test("without force asks a live item to stop, also with an empty 204", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    await rig.client.ack(work.id);
    await rig.client.mustBeat(work.id, "NO_HEARTBEAT");
    expect((await rig.client.stop(work.id)).status).toBe(204);
    const [listed] = await rig.client.listAll();
    expect(listed).toMatchObject({ state: "stopping", stopped_at: null });
    expect(listed?.stop_requested_at).not.toBeNull();
  });

  test("ends a queued item at once because it has no holder", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId);
    const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
    expect((await user.stop(id)).status).toBe(204);
    expect(await rig.client.poll()).toBeNull();
    expect(rig.simulator.item(id).state).toBe("stopped");
    rig.simulator.assertNoViolations();
  });

  test("answers with the item if the switch says so", async () => {
    await using rig = await startRig({ switches: { stopReply: "work" } });
    const { id } = rig.simulator.enqueue(rig.environmentId);
    const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
    expect(workSchema.parse((await user.stop(id, true)).json()).state).toBe("stopped");
  });

  test("requires a boolean force", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId);
    const answer = await rig.client.request("POST", rig.client.work(`/${id}/stop`), { body: { force: "yes" } });
    expect(answer.status).toBe(400);
    expect(rig.simulator.item(id).state).toBe("queued");
  });
});

describe("stats", () => {
  const statsSchema = z.strictObject({
    type: z.literal("work_queue_stats"),
    depth: z.number(),
    pending: z.number(),
    oldest_queued_at: z.string().nullable(),
    workers_polling: z.number().nullable(),
  });

  test("count queued items and items that were polled but not acknowledged, and nothing else", async () => {
    await using rig = await startRig();
    const stats = async () => statsSchema.parse((await rig.client.stats()).json());
    expect(await stats()).toMatchObject({ depth: 0, pending: 0, oldest_queued_at: null, workers_polling: null });
    const start = rig.clock.now();
    rig.simulator.enqueue(rig.environmentId);
    await rig.clock.advance(1 * SECOND);
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    const both = await stats();
    expect(both).toMatchObject({ depth: 1, pending: 1, workers_polling: 1 });
    expect(Date.parse(both.oldest_queued_at ?? "")).toBe(start);
    await rig.client.ack(work.id);
    const left = await stats();
    expect(left).toMatchObject({ depth: 1, pending: 0 });
    expect(Date.parse(left.oldest_queued_at ?? "")).toBe(start + 1 * SECOND);
  });

  test("count workers by id over the last 30 seconds", async () => {
    await using rig = await startRig();
    await rig.client.poll();
    await rig.clock.advance(20 * SECOND);
    await rig.client.with({ workerId: "poller-2" }).poll();
    await rig.client.with({ workerId: undefined }).poll();
    expect((await rig.client.stats()).json()).toMatchObject({ workers_polling: 2 });
    await rig.clock.advance(11 * SECOND);
    expect((await rig.client.stats()).json()).toMatchObject({ workers_polling: 1 });
  });
});

describe("list", () => {
  async function listed(switches: Parameters<typeof startRig>[0]) {
    const rig = await startRig(switches);
    const ids = Array.from({ length: 25 }, () => rig.simulator.enqueue(rig.environmentId).id);
    return { ...rig, ids };
  }

  test("shows the newest first, in pages, with each item once", async () => {
    await using rig = await listed({});
    const all = await rig.client.listAll(10);
    expect(all.map((work) => work.id)).toEqual(rig.ids.toReversed());
  });

  test("shows the oldest first or an arbitrary order, as the switch says", async () => {
    await using rig = await listed({ switches: { listOrder: "oldest" } });
    expect((await rig.client.listAll(7)).map((work) => work.id)).toEqual(rig.ids);
    rig.simulator.setSwitches({ listOrder: "shuffled" });
    const shuffled = (await rig.client.listAll(7)).map((work) => work.id);
    expect(shuffled).not.toEqual(rig.ids);
    expect(shuffled.toSorted()).toEqual(rig.ids.toSorted());
  });

  test("doesn't repeat items when new ones arrive between pages", async () => {
    await using rig = await listed({});
    const first = z
      .object({ data: z.array(workSchema), next_page: z.string() })
      .parse((await rig.client.list({ limit: 10 })).json());
    rig.simulator.enqueue(rig.environmentId);
    const answer = await rig.client.list({ limit: 1000, page: first.next_page });
    const second = z.object({ data: z.array(workSchema) }).parse(answer.json());
    expect([...first.data, ...second.data].map((work) => work.id)).toEqual(rig.ids.toReversed());
  });

  test("keeps the number of stopped items that the switch says, those that stopped last", async () => {
    await using rig = await listed({ switches: { listKeepsStopped: 2 } });
    for (const id of rig.ids.slice(0, 5)) rig.simulator.stopItem(id, { force: true });
    const stopped = (await rig.client.listAll()).filter((work) => work.state === "stopped");
    expect(stopped.map((work) => work.id)).toEqual([rig.ids[4], rig.ids[3]]);
    expect((await rig.client.stop(rig.ids[0] ?? "", true)).status).toBe(404);
    expect(rig.simulator.item(rig.ids[0] ?? "").state).toBe("stopped");
  });

  test.each(["0", "1001", "x"])("rejects limit=%s", async (limit) => {
    await using rig = await startRig();
    expect((await rig.client.list({ limit })).status).toBe(400);
  });

  test("rejects an invalid cursor", async () => {
    await using rig = await startRig();
    expect((await rig.client.list({ page: "nonsense" })).status).toBe(400);
  });
});

describe("retrieve and update", () => {
  test("merges metadata, and null deletes a key", async () => {
    await using rig = await startRig();
    const { id } = rig.simulator.enqueue(rig.environmentId, { metadata: { keep: "1", drop: "2" } });
    const user = rig.client.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
    const patch = { body: { metadata: { drop: null, add: "3" } } };
    expect((await user.request("POST", user.work(`/${id}`), patch)).status).toBe(200);
    expect(workSchema.parse((await user.retrieve(id)).json()).metadata).toEqual({ keep: "1", add: "3" });
    const bad = await user.request("POST", user.work(`/${id}`), { body: { metadata: { add: 4 } } });
    expect(bad.status).toBe(400);
    expect(workSchema.parse((await user.retrieve(id)).json()).metadata).toEqual({ keep: "1", add: "3" });
  });
});

describe("every reply", () => {
  test("carries a request id and the simulator's own time as Date, even after a long poll", async () => {
    await using rig = await startRig({ scale: 10 });
    await rig.clock.advance(60 * SECOND);
    const poll = rig.client.pollRaw({ block_ms: 999 });
    await rig.simulator.waitFor(() => rig.simulator.pollsWaiting(rig.environmentId) === 1);
    await rig.clock.advance(100);
    const answer = await poll;
    const date = Date.parse(answer.headers.get("date") ?? "");
    expect(Math.abs(date - rig.simulator.clock.now())).toBeLessThanOrEqual(1 * SECOND);
    expect(date - rig.clock.now()).toBeGreaterThan(500 * SECOND);
    expect(answer.headers.get("request-id")).toMatch(/^req_/);
  });

  test("ignores an added ?beta=true", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take({ beta: "true" });
    const answer = await rig.client.request("POST", rig.client.work(`/${work.id}/ack`, { beta: "true" }));
    expect(answer.status).toBe(200);
  });
});
