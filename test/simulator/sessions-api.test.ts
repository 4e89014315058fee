import { describe, expect, test } from "vitest";
import { z } from "zod";
import { bashScript } from "../../simulator/script.ts";
import { type Client, type Work, workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const SECOND = 1000;
const pageSchema = z.strictObject({
  data: z.array(z.looseObject({ id: z.string(), type: z.string(), processed_at: z.string() })),
  next_page: z.string().nullable(),
});

async function claimed(
  rig: Rig,
  script: Parameters<Rig["simulator"]["enqueue"]>[1],
): Promise<{ work: Work; worker: Client }> {
  rig.simulator.enqueue(rig.environmentId, script);
  const work = await rig.client.take();
  await rig.client.ack(work.id);
  return { work, worker: workerOf(rig.client, work) };
}

function answer(worker: Client, sessionId: string, toolUseId: string | undefined, text: string) {
  const event = {
    type: "user.tool_result",
    tool_use_id: toolUseId,
    is_error: false,
    content: [{ type: "text", text }],
  };
  return worker.request("POST", `/v1/sessions/${sessionId}/events`, { body: { events: [event] } });
}

/** Opens the event stream and reads one event at a time. */
async function openStream(worker: Client, sessionId: string) {
  const { url, bearer } = worker.options;
  const headers = {
    authorization: `Bearer ${bearer}`,
    "anthropic-beta": "managed-agents-2026-04-01",
    "anthropic-version": "1",
  };
  const abort = new AbortController();
  const response = await fetch(`${url}/v1/sessions/${sessionId}/events/stream`, { headers, signal: abort.signal });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const next = async (): Promise<{ event: string; data: { id?: string; type?: string } } | undefined> => {
    for (let end = text.indexOf("\n\n"); ; end = text.indexOf("\n\n")) {
      if (end >= 0) {
        const [event = "", data = ""] = text.slice(0, end).split("\n");
        text = text.slice(end + 2);
        return { event: event.replace("event: ", ""), data: JSON.parse(data.replace("data: ", "")) };
      }
      const chunk = await reader?.read();
      if (!chunk || chunk.done) return undefined;
      text += chunk.value;
    }
  };
  return { next, close: () => abort.abort() };
}

describe("the scripted agent", () => {
  test("plays one turn after the other, and continues when every call of a turn is answered", async () => {
    await using rig = await startRig();
    const turn = {
      say: "Two at once.",
      tools: [{ input: { command: "a" } }, { name: "read", input: { file_path: "b" } }],
    };
    const { work, worker } = await claimed(rig, {
      script: { turns: [turn, { tools: [{ input: { command: "c" } }] }] },
    });
    const types = () => rig.simulator.session(work.data.id).events.map((event) => event.type);
    const calls = () => rig.simulator.session(work.data.id).toolCalls;
    expect(types().slice(2)).toEqual(["agent.message", "agent.tool_use", "agent.tool_use", "session.status_idle"]);
    const idle = rig.simulator.session(work.data.id).events.at(-1);
    expect(idle?.stop_reason).toEqual({ type: "requires_action", event_ids: calls().map((call) => call.id) });
    expect((await answer(worker, work.data.id, calls()[1]?.id, "B")).status).toBe(200);
    expect(calls()).toHaveLength(2);
    await rig.clock.advance(2 * SECOND);
    expect((await answer(worker, work.data.id, calls()[0]?.id, "A")).status).toBe(200);
    expect(calls()).toHaveLength(3);
    await answer(worker, work.data.id, calls()[2]?.id, "C");
    expect(calls().map((call) => call.output)).toEqual(["A", "B", "C"]);
    expect(rig.simulator.session(work.data.id).status).toBe("idle");
    expect(rig.simulator.session(work.data.id).events.at(-1)?.stop_reason).toEqual({ type: "end_turn" });
    expect(calls()[0]?.answeredBy).toBe(work.id);
    rig.simulator.assertNoViolations();
  });

  test("thinks for as long as the script says", async () => {
    await using rig = await startRig();
    const turns = [{ delayMs: 10 * SECOND, tools: [{ input: { command: "a" } }] }];
    const { sessionId = "" } = rig.simulator.enqueue(rig.environmentId, { script: { turns } });
    expect(rig.simulator.session(sessionId)).toMatchObject({ status: "running", toolCalls: [] });
    await rig.clock.advance(10 * SECOND);
    expect(rig.simulator.session(sessionId).toolCalls).toHaveLength(1);
  });

  test("ignores a second result", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, { script: bashScript("a") });
    const [call] = rig.simulator.session(work.data.id).toolCalls;
    await answer(worker, work.data.id, call?.id, "first");
    await answer(worker, work.data.id, call?.id, "second");
    expect(rig.simulator.session(work.data.id).toolCalls[0]?.output).toBe("first");
    const results = rig.simulator.session(work.data.id).events.filter((event) => event.type === "user.tool_result");
    expect(results).toHaveLength(1);
    rig.simulator.assertNoViolations();
  });

  test("ends the session after its last turn if the script says so", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, { script: { ...bashScript("a"), end: "terminated" } });
    const [call] = rig.simulator.session(work.data.id).toolCalls;
    await answer(worker, work.data.id, call?.id, "A");
    expect(rig.simulator.session(work.data.id).status).toBe("terminated");
    expect((await answer(worker, work.data.id, call?.id, "A")).status).toBe(400);
  });

  test("ends a denied call without a result", async () => {
    await using rig = await startRig();
    const turns = [{ tools: [{ input: { command: "rm" }, ask: true }] }];
    const { sessionId = "" } = rig.simulator.enqueue(rig.environmentId, { script: { turns } });
    const [call] = rig.simulator.session(sessionId).toolCalls;
    expect(rig.simulator.session(sessionId).events.find((event) => event.id === call?.id)?.evaluated_permission).toBe(
      "ask",
    );
    expect(rig.simulator.confirm(sessionId, call?.id ?? "", false)).toBe(true);
    expect(rig.simulator.session(sessionId)).toMatchObject({ status: "idle", toolCalls: [{ denied: true }] });
    expect(rig.simulator.confirm(sessionId, call?.id ?? "", true)).toBe(false);
  });

  test("drops open calls when it's interrupted", async () => {
    await using rig = await startRig();
    const { sessionId = "" } = rig.simulator.enqueue(rig.environmentId, { script: bashScript("a", "b") });
    rig.simulator.interrupt(sessionId);
    const session = rig.simulator.session(sessionId);
    expect([session.status, session.events.at(-1)?.type]).toEqual(["idle", "session.status_idle"]);
    expect(session.toolCalls).toHaveLength(1);
  });
});

describe("a session", () => {
  test("shows what a worker reads", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    const body = (await worker.request("GET", `/v1/sessions/${work.data.id}`)).json();
    expect(body).toMatchObject({
      id: work.data.id,
      type: "session",
      environment_id: rig.environmentId,
      status: "idle",
      resources: [],
      agent: { skills: [] },
    });
  });

  test("queues a new work item for a message only after its worker left", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    await worker.mustBeat(work.id, "NO_HEARTBEAT");
    rig.simulator.sendMessage(work.data.id, bashScript("again"));
    expect(rig.simulator.items()).toHaveLength(1);
    await worker.stop(work.id, true);
    rig.simulator.sendMessage(work.data.id, bashScript("and again"));
    const second = await rig.client.take();
    expect(second.id).not.toBe(work.id);
    expect(second.data.id).toBe(work.data.id);
    expect(rig.simulator.session(work.data.id).workIds).toEqual([work.id, second.id]);
    expect((await worker.request("GET", `/v1/sessions/${work.data.id}`)).status).toBe(200);
  });

  test("queues a new work item for a message that comes while its worker is told to stop", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    await worker.mustBeat(work.id, "NO_HEARTBEAT");
    rig.simulator.stopItem(work.id);
    rig.simulator.sendMessage(work.data.id, bashScript("again"));
    rig.simulator.sendMessage(work.data.id, bashScript("and again"));
    expect(rig.simulator.items()).toHaveLength(1);
    await worker.stop(work.id, true);
    await rig.clock.advance(0);
    expect(rig.simulator.session(work.data.id).workIds).toHaveLength(2);
    expect((await rig.client.take()).data.id).toBe(work.data.id);
  });

  test("that was deleted is 404 for every call, and its item stays in the queue", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    rig.simulator.deleteSession(work.data.id);
    for (const path of ["", "/events", "/events/stream"]) {
      expect((await worker.request("GET", `/v1/sessions/${work.data.id}${path}`)).status).toBe(404);
    }
    await rig.clock.advance(90 * SECOND);
    expect((await rig.client.take()).id).toBe(work.id);
  });

  test("accepts user messages from the application but not from a worker", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    const body = { events: [{ type: "user.message", content: [{ type: "text", text: "Go on." }] }] };
    const path = `/v1/sessions/${work.data.id}/events`;
    expect((await worker.request("POST", path, { body })).status).toBe(403);
    const user = worker.with({ bearer: undefined, apiKey: rig.simulator.apiKey });
    const sent = await user.request("POST", path, { body });
    expect(sent.json()).toMatchObject({ data: [{ type: "user.message", content: [{ text: "Go on." }] }] });
    expect((await user.request("POST", path, { body: { events: [] } })).status).toBe(400);
    expect((await user.request("POST", path, { body: { events: [{ type: "user.novelty" }] } })).status).toBe(400);
  });
});

describe("the list of events", () => {
  test("has pages, oldest first, with each event once", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, { script: bashScript("a") });
    const all = rig.simulator.session(work.data.id).events.map((event) => event.id);
    const seen: string[] = [];
    for (let page: string | null = ""; page !== null; ) {
      const path = `/v1/sessions/${work.data.id}/events?limit=2${page && `&page=${page}`}`;
      const body = pageSchema.parse((await worker.request("GET", path)).json());
      expect(body.data.length).toBeLessThanOrEqual(2);
      seen.push(...body.data.map((event) => event.id));
      page = body.next_page;
    }
    expect(seen).toEqual(all);
  });

  test("can be reversed and filtered by type", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, { script: bashScript("a") });
    const path = `/v1/sessions/${work.data.id}/events?order=desc&types=agent.tool_use&types=user.message`;
    const body = pageSchema.parse((await worker.request("GET", path)).json());
    expect(body.data.map((event) => event.type)).toEqual(["agent.tool_use", "user.message"]);
  });

  test.each(["limit=0", "limit=1001", "page=nonsense"])("rejects %s", async (query) => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    expect((await worker.request("GET", `/v1/sessions/${work.data.id}/events?${query}`)).status).toBe(400);
  });
});

describe("the event stream", () => {
  test("carries events from its opening on, and ends with the session", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, { script: bashScript("a") });
    const stream = await openStream(worker, work.data.id);
    await rig.simulator.waitFor(() => rig.simulator.session(work.data.id).streams === 1);
    const [call] = rig.simulator.session(work.data.id).toolCalls;
    await answer(worker, work.data.id, call?.id, "A");
    const first = await stream.next();
    expect(first).toMatchObject({
      event: "user.tool_result",
      data: { type: "user.tool_result", tool_use_id: call?.id },
    });
    rig.simulator.terminateSession(work.data.id);
    const rest = [];
    for (let event = await stream.next(); event; event = await stream.next()) rest.push(event.event);
    expect(rest).toEqual(["session.status_running", "session.status_idle", "session.status_terminated"]);
  });

  test("stays open with pings while nothing happens, and is removed when the client disconnects", async () => {
    await using rig = await startRig();
    const { work, worker } = await claimed(rig, {});
    const stream = await openStream(worker, work.data.id);
    await rig.clock.advance(15 * SECOND);
    expect((await stream.next())?.event).toBe("ping");
    await rig.clock.advance(15 * SECOND);
    expect((await stream.next())?.event).toBe("ping");
    const gone = rig.simulator.waitFor(() => rig.simulator.session(work.data.id).streams === 0);
    stream.close();
    await gone;
  });
});
