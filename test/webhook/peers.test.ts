import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { newWebhookSecret, signedHeaders } from "../../simulator/webhooks.ts";
import { realClock } from "../../src/core/clock.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { WebhookEvent } from "../../src/webhook/event.ts";
import { type Delivery, PASSED_ON_BY, Peers } from "../../src/webhook/peers.ts";
import { startReceiver } from "../../src/webhook/receiver.ts";
import { keyOfSecret } from "../../src/webhook/signature.ts";
import { freePort } from "../support/free-port.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECRET = newWebhookSecret();
const KEY = keyOfSecret(SECRET) ?? Buffer.alloc(0);
const HINT = JSON.stringify({ type: "event", data: { type: "session.status_run_started", id: "sesn_1" } });
const OTHER = JSON.stringify({ type: "event", data: { type: "vault.created", id: "vlt_1" } });

/** A replica with its own loopback address, and everything it receives. */
async function startReplica(address: string, port: number, identity: string, addresses: readonly string[]) {
  const metrics = createMetrics();
  const events: WebhookEvent[] = [];
  /** Ids of the deliveries that it forwarded before it answered them. */
  const passed: string[] = [];
  const told = Promise.withResolvers<void>();
  const peers = new Peers({
    host: "replicas",
    port,
    identity,
    clock: realClock,
    metrics,
    logger: silentLogger,
    timing: DEFAULT_TIMING,
    resolve: async () => addresses,
  });
  const receiver = await startReceiver({
    bindAddress: `${address}:${port}`,
    secrets: { keys: async () => [KEY] },
    clock: realClock,
    metrics,
    logger: silentLogger,
    onEvent: (event) => {
      events.push(event);
      told.resolve();
    },
    peers: {
      identity,
      passOn: (delivery) => {
        passed.push(delivery.headers.id);
        peers.pass(delivery);
      },
    },
  });
  return {
    events,
    passed,
    peers,
    told: told.promise,
    counted: (result: string) => metricValue(metrics.webhookDeliveries, { result }),
    passedOn: (result: string) => metricValue(metrics.webhookPassedOn, { result }),
    post: async (body: string, more: Readonly<Record<string, string>> = {}, secret = SECRET) => {
      const headers = signedHeaders(secret, { id: "msg_1", seconds: Math.floor(Date.now() / 1_000), body });
      const url = `http://${address}:${port}/webhook`;
      return (await fetch(url, { method: "POST", body, headers: { ...headers, ...more } })).status;
    },
    async [Symbol.asyncDispose]() {
      await receiver.close();
      await peers.close();
    },
  };
}

async function startThree() {
  const port = await freePort();
  const addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
  const replicas = await Promise.all(
    addresses.map((address, index) => startReplica(address, port, `replica-${index}`, addresses)),
  );
  const [one, two, three] = replicas;
  if (!(one && two && three)) throw new Error("three replicas are needed");
  return {
    one,
    two,
    three,
    async [Symbol.asyncDispose]() {
      await Promise.all(replicas.map((replica) => replica[Symbol.asyncDispose]()));
    },
  };
}

const delivery = (): Delivery => ({
  headers: { id: "msg_1", timestamp: "1", signature: "v1,x" },
  body: Buffer.from(HINT),
});

describe("a delivery to one of three replicas", () => {
  test("reaches each of them once, and is not forwarded again", async () => {
    await using replicas = await startThree();
    const { one, two, three } = replicas;
    expect(await one.post(HINT)).toBe(204);
    await Promise.all([one.told, two.told, three.told]);
    await expect.poll(() => one.passedOn("passed-on")).toBe(3);
    for (const { events } of [one, two, three]) expect(events).toHaveLength(1);
    // The replica's own echo is not a delivery.
    expect([await one.counted("hint"), await one.counted("duplicate")]).toEqual([1, 0]);
    expect(await one.passedOn("failed")).toBe(0);
    expect([one.passed, two.passed, three.passed]).toEqual([["msg_1"], [], []]);
  });

  test("is forwarded only if it is a signed hint", async () => {
    await using replicas = await startThree();
    const { one, two } = replicas;
    expect(await one.post(HINT, {}, newWebhookSecret())).toBe(401);
    expect(await one.post(OTHER)).toBe(204);
    expect(one.passed).toEqual([]);
    expect(two.events).toEqual([]);
  });

  test("is verified by each replica, because anyone could claim to be one", async () => {
    await using replicas = await startThree();
    expect(await replicas.two.post(HINT, { [PASSED_ON_BY]: "replica-0" }, newWebhookSecret())).toBe(401);
    expect(replicas.two.events).toEqual([]);
  });
});

/** A replica that forwards to one address, with its log. */
function sender(resolve: () => Promise<readonly string[]>, port: number, clock = new VirtualClock()) {
  const lines: string[] = [];
  const metrics = createMetrics();
  const logger = createLogger("warn", { write: (line) => void lines.push(line) });
  const peers = new Peers({
    host: "replicas",
    port,
    identity: "one",
    clock,
    metrics,
    logger,
    timing: DEFAULT_TIMING,
    resolve,
  });
  const count = (result: string) => metricValue(metrics.webhookPassedOn, { result });
  return { peers, lines, count, clock };
}

describe("an unreachable replica", () => {
  test("causes one log line for any number of deliveries", async () => {
    const { peers, lines, count } = sender(async () => ["127.0.0.1"], await freePort());
    for (let at = 0; at < 3; at += 1) peers.pass(delivery());
    await expect.poll(() => count("failed")).toBe(3);
    await peers.close();
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual([
      "cannot forward webhooks to all replicas, so they find work by polling",
    ]);
  });

  test("with an unresolvable name causes no error for the sender", async () => {
    const tried = Promise.withResolvers<void>();
    const { peers, count } = sender(async () => {
      tried.resolve();
      throw new Error("ENOTFOUND");
    }, 1);
    peers.pass(delivery());
    await tried.promise;
    await peers.close();
    expect(await count("failed")).toBe(1);
  });

  test("with an unresponsive name server does not delay the shutdown", async () => {
    const { peers, count } = sender(() => new Promise(() => {}), 1);
    peers.pass(delivery());
    await peers.close();
    expect(await count("failed")).toBe(1);
  });

  test("with a slow name server causes one lookup at a time, for any number of deliveries that give up", async () => {
    const asked: PromiseWithResolvers<readonly string[]>[] = [];
    const resolve = () => {
      const lookup = Promise.withResolvers<readonly string[]>();
      asked.push(lookup);
      return lookup.promise;
    };
    const { peers, count, clock } = sender(resolve, await freePort());
    for (let second = 0; second < 10; second += 1) {
      peers.pass(delivery());
      await clock.advance(1_000);
    }
    // Each lookup would hold one of the threads that the operator's other connections and token requests need.
    expect(asked).toHaveLength(1);
    expect(await count("failed")).toBe(9);
    asked[0]?.reject(new Error("EAI_AGAIN"));
    await expect.poll(() => count("failed")).toBe(10);
    peers.pass(delivery());
    await expect.poll(() => asked.length).toBe(2);
    await peers.close();
  });

  test("is waited for two seconds by a bounded number of deliveries, and the rest is dropped", async () => {
    const silent = createServer(() => {});
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const { peers, count, clock } = sender(async () => ["127.0.0.1"], port);
    const asked = once(silent, "request");
    for (let at = 0; at < 257; at += 1) peers.pass(delivery());
    expect(await count("dropped")).toBe(1);
    await asked;
    await clock.advance(2_000);
    await peers.close();
    expect(await count("failed")).toBe(256);
    silent.close();
    silent.closeAllConnections();
  });
});
