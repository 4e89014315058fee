import { expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { HttpFailure, type HttpRequest, WorkHttp } from "../../src/work/http.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { BEAT, POLLED, STARTING, STATS } from "./samples.ts";
import { failure, itemCall, LONG_MS, Setup } from "./setup.ts";
import { json, StrictServer } from "./strict-server.ts";

/** A guard that the test opens and closes. */
function guard() {
  const one = {
    isOpen: true,
    ask: () => {
      if (!one.isOpen) throw new Error("not the leader");
    },
  };
  return one;
}

test.each(["ack", "heartbeat", "stop", "poll"] as const)("a closed guard keeps %s unsent", async (name) => {
  const fence = guard();
  await using setup = await Setup.start({ guard: fence.ask });
  const call = () =>
    name === "poll" ? setup.client.poll({ reclaimOlderThanMs: 5_000 }) : itemCall(setup.client, name, STARTING.id);
  setup.server.fallback = json(200, name === "heartbeat" ? BEAT : name === "poll" ? POLLED : STARTING);
  await call();
  fence.isOpen = false;
  const error = await failure(call());
  expect([error.kind, error.maybeApplied]).toEqual(["aborted", false]);
  expect(setup.server.seen).toHaveLength(1);
});

test("reads pass a closed guard, because they change nothing", async () => {
  const fence = guard();
  fence.isOpen = false;
  await using setup = await Setup.start({ guard: fence.ask });
  setup.server.next(json(200, STATS), json(200, { data: [], next_page: null }));
  await setup.client.stats();
  await setup.client.list();
  expect(setup.server.seen).toHaveLength(2);
});

test("the guard is checked when a connection is ready, and does not stop a request in flight", async () => {
  const fence = guard();
  await using server = await StrictServer.start();
  const http = new WorkHttp({ clock: realClock, maxConnectionsPerOrigin: 1 });
  let answer: (() => void) | undefined;
  server.next((response) => {
    answer = () => response.end("{}");
  });
  const post = {
    method: "POST",
    origin: server.origin,
    path: "/",
    headers: {},
    lane: "bulk",
    timeoutMs: LONG_MS,
    maxBytes: 1_000,
    beforeSend: fence.ask,
  } as const;
  const first = http.send(post);
  await server.sawRequests(1);
  const second = http.send(post);
  // The Lease expires with one request on the wire and one that waits for its connection.
  fence.isOpen = false;
  answer?.();
  expect((await first).status).toBe(200);
  await expect(second).rejects.toMatchObject({ kind: "aborted", sent: false });
  expect(server.seen).toHaveLength(1);
  await http.destroy();
});

const PROTOCOL_MS = 1_500;

/** The request that a call sends. It gets no answer. */
async function sent(call: (client: WorkApiClient) => Promise<unknown>): Promise<HttpRequest | undefined> {
  let request: HttpRequest | undefined;
  const client = new WorkApiClient({
    ...{
      baseUrl: "https://work.test",
      environmentId: "env_1",
      key: () => "key",
      workerId: "w",
      clock: new VirtualClock(),
    },
    ...{ requestTimeoutMs: 10_000, protocolTimeoutMs: PROTOCOL_MS },
    http: {
      send: (each) => {
        request = each;
        throw new HttpFailure("network", { sent: true, times: undefined, status: undefined }, undefined);
      },
    },
  });
  await call(client).catch(() => {});
  return request;
}

test.each<[string, (client: WorkApiClient) => Promise<unknown>]>([
  ["an acknowledgement", (client) => client.ack("work_1")],
  ["a heartbeat", (client) => client.heartbeat("work_1", { expected: "x" })],
  ["a stop", (client) => client.stop("work_1", { force: true })],
  ["a list for a decision", (client) => client.list({ urgent: true })],
])("%s uses the protocol connections and timeout", async (_, call) => {
  expect(await sent(call)).toMatchObject({ lane: "protocol", timeoutMs: PROTOCOL_MS });
});

test.each<[string, (client: WorkApiClient) => Promise<unknown>]>([
  ["a poll", (client) => client.poll()],
  ["the statistics", (client) => client.stats()],
  ["a list", (client) => client.list()],
])("%s uses the bulk connections and the timeout of the spec", async (_, call) => {
  expect(await sent(call)).toMatchObject({ lane: "bulk", timeoutMs: 10_000 });
});
