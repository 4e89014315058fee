import { expect, test } from "vitest";
import { WorkApiClient } from "../../src/work/client.ts";
import { HttpFailure, type HttpRequest } from "../../src/work/http.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

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
