import { once } from "node:events";
import { mkdtemp, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Anthropic } from "@anthropic-ai/sdk";
import { describe, expect, test } from "vitest";
import { newWebhookSecret, signedHeaders } from "../../simulator/webhooks.ts";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { WebhookEvent } from "../../src/webhook/event.ts";
import { MAX_BODY_BYTES, type Receiver, startReceiver } from "../../src/webhook/receiver.ts";
import { SigningSecrets } from "../../src/webhook/secrets.ts";
import { keyOfSecret } from "../../src/webhook/signature.ts";
import { sendPipelined } from "../support/pipelined-requests.ts";
import { silentConnections } from "../support/silent-connections.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECRET = newWebhookSecret();
const RUN_STARTED = {
  type: "event",
  id: "event_1",
  created_at: "2026-01-01T00:00:00Z",
  data: { type: "session.status_run_started", id: "sesn_1", organization_id: "o", workspace_id: "wrkspc_1" },
};

interface Bench extends AsyncDisposable {
  readonly receiver: Receiver;
  readonly events: WebhookEvent[];
  /** Posts a signed delivery. Returns the status. */
  post(delivery?: {
    id?: string;
    body?: string;
    secret?: string;
    ageSeconds?: number;
    headers?: object;
  }): Promise<number>;
  /** The number of deliveries counted with this result. */
  counted(result: string): Promise<number>;
}

async function startBench(clock: Clock = realClock, rate?: { perSecond: number; burst: number }): Promise<Bench> {
  const events: WebhookEvent[] = [];
  const metrics = createMetrics();
  const key = keyOfSecret(SECRET) ?? Buffer.alloc(0);
  const receiver = await startReceiver({
    bindAddress: "127.0.0.1:0",
    secrets: { keys: async () => [key] },
    clock,
    metrics,
    logger: silentLogger,
    onEvent: (event) => events.push(event),
    ...(rate && { rate }),
  });
  let count = 0;
  return {
    receiver,
    events,
    post: async ({ id, body = JSON.stringify(RUN_STARTED), secret = SECRET, ageSeconds = 0, headers = {} } = {}) => {
      count += 1;
      const seconds = Math.floor(clock.now() / 1_000) - ageSeconds;
      const signed = signedHeaders(secret, { id: id ?? `msg_${count}`, seconds, body });
      const init = { method: "POST", body, headers: { ...signed, ...headers } };
      return (await fetch(`http://${receiver.address}/webhook`, init)).status;
    },
    counted: async (result) => {
      const { values } = await metrics.webhookDeliveries.get();
      return values.find(({ labels }) => labels.result === result)?.value ?? 0;
    },
    [Symbol.asyncDispose]: () => receiver.close(),
  };
}

describe("a delivery", () => {
  test("with a valid signature is accepted and reported once", async () => {
    await using bench = await startBench();
    expect(await bench.post({ id: "msg_a" })).toBe(204);
    expect(bench.events).toEqual([{ type: "run-started", sessionId: "sesn_1", workspaceId: "wrkspc_1" }]);
    expect(await bench.post({ id: "msg_a" })).toBe(204);
    expect(bench.events).toHaveLength(1);
    expect([await bench.counted("hint"), await bench.counted("duplicate")]).toEqual([1, 1]);
  });

  test("of another type gets a 204, so that it is not sent again", async () => {
    await using bench = await startBench();
    expect(await bench.post({ body: '{"type":"event","data":{"type":"vault.created","id":"vlt_1"}}' })).toBe(204);
    expect(bench.events).toEqual([{ type: "other" }]);
    expect(await bench.counted("other-event")).toBe(1);
  });

  test.each<[string, number, Parameters<Bench["post"]>[0]]>([
    ["forged", 401, { secret: newWebhookSecret() }],
    ["stale", 401, { ageSeconds: 301 }],
    ["stale", 401, { ageSeconds: -301 }],
    ["malformed", 400, { headers: { "webhook-signature": "" } }],
    ["malformed", 400, { headers: { "webhook-timestamp": "soon" } }],
    ["malformed", 400, { body: "no JSON" }],
    ["too-large", 413, { body: " ".repeat(MAX_BODY_BYTES + 1) }],
  ])("that is %s gets a %i and is not reported", async (result, status, delivery) => {
    await using bench = await startBench();
    expect(await bench.post(delivery)).toBe(status);
    expect(bench.events).toEqual([]);
    expect(await bench.counted(result)).toBe(1);
  });

  test("within the clock tolerance is accepted", async () => {
    await using bench = await startBench();
    expect(await bench.post({ ageSeconds: 290 })).toBe(204);
  });

  test("forged under an id does not block the real one", async () => {
    await using bench = await startBench();
    expect(await bench.post({ id: "msg_a", secret: newWebhookSecret() })).toBe(401);
    expect(await bench.post({ id: "msg_a" })).toBe(204);
    expect(bench.events).toHaveLength(1);
  });

  test("is signed and verified like in the SDK", async () => {
    await using bench = await startBench();
    const client = new Anthropic({ apiKey: "unused", webhookKey: SECRET });
    const body = JSON.stringify(RUN_STARTED);
    const seconds = Math.floor(Date.now() / 1_000);
    const headers = signedHeaders(SECRET, { id: "msg_a", seconds, body });
    expect(client.beta.webhooks.unwrap(body, { headers })).toEqual(RUN_STARTED);
    expect(await bench.post({ id: "msg_a", body })).toBe(204);
  });
});

describe("a client that is not a webhook sender", () => {
  test("finds only POST on one path", async () => {
    await using bench = await startBench();
    const ask = async (path: string, method: string) =>
      (await fetch(`http://${bench.receiver.address}${path}`, { method })).status;
    expect(await ask("/", "POST")).toBe(404);
    expect(await ask("/metrics", "GET")).toBe(404);
    expect(await ask("/webhook", "GET")).toBe(405);
    expect(await ask("/webhook", "PUT")).toBe(405);
  });

  test("is cut off when its body has no end, whatever its headers say", async () => {
    await using bench = await startBench();
    const headers = signedHeaders(SECRET, { id: "msg_a", seconds: Math.floor(Date.now() / 1_000), body: "" });
    const asked = request(`http://${bench.receiver.address}/webhook`, { method: "POST", agent: false, headers });
    asked.on("error", () => {});
    const chunk = Buffer.alloc(16 * 1_024);
    // Without a content-length: in chunks.
    for (let sent = 0; sent <= MAX_BODY_BYTES; sent += chunk.length) asked.write(chunk);
    const [response] = (await once(asked, "response")) as [{ statusCode: number; headers: { connection?: string } }];
    expect([response.statusCode, response.headers.connection]).toEqual([413, "close"]);
    asked.destroy();
  });

  test("is cut off when it pipelines requests", async () => {
    await using bench = await startBench();
    const unsigned = "POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    await sendPipelined(
      bench.receiver.address,
      Array.from({ length: 200 }, () => unsigned),
    );
    expect(await bench.counted("malformed")).toBe(1);
    expect(await bench.post()).toBe(204);
  });

  test("is cut off when its body does not arrive", async () => {
    await using bench = await startBench();
    const [host = "", port = ""] = bench.receiver.address?.split(":") ?? [];
    const socket = connect(Number(port), host);
    socket.on("error", () => {});
    const signed = "webhook-id: a\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,a\r\n";
    socket.write(`POST /webhook HTTP/1.1\r\nhost: x\r\n${signed}content-length: 10\r\n\r\n{`);
    const closed = once(socket, "close");
    socket.resume();
    await closed;
    // Other clients are served meanwhile and afterwards.
    expect(await bench.post()).toBe(204);
  });

  test("can't block senders with silent connections", async () => {
    await using bench = await startBench();
    using _ = await silentConnections(bench.receiver.address, 300);
    expect(await bench.post()).toBe(204);
  });

  test("is refused unread above the rate, and admitted again later", async () => {
    const clock = new VirtualClock();
    await using bench = await startBench(clock, { perSecond: 1, burst: 50 });
    const secret = newWebhookSecret();
    const answers = await Promise.all(Array.from({ length: 80 }, () => bench.post({ secret })));
    expect(answers.filter((status) => status === 401)).toHaveLength(50);
    expect(answers.filter((status) => status === 429)).toHaveLength(30);
    expect(await bench.post()).toBe(429);
    await clock.advance(1_000);
    expect(await bench.post()).toBe(204);
    expect(bench.events).toHaveLength(1);
  });
});

describe("a flood", () => {
  const LIMIT = { perSecond: 1, burst: 10 };

  test("of unsigned requests takes nothing from signed ones", async () => {
    await using bench = await startBench(new VirtualClock(), LIMIT);
    const unsigned = { headers: { "webhook-signature": "" } };
    const answers = await Promise.all(Array.from({ length: 50 }, () => bench.post(unsigned)));
    expect(new Set(answers)).toEqual(new Set([400]));
    expect(await bench.post()).toBe(204);
  });

  test("of forged deliveries does not block another address that sent real ones", async () => {
    await using bench = await startBench(new VirtualClock(), LIMIT);
    expect(await bench.post()).toBe(204);
    const elsewhere = () => postFrom("127.0.0.2", bench.receiver.address ?? "");
    const answers = await Promise.all(Array.from({ length: 50 }, elsewhere));
    expect(answers.filter((status) => status === 429)).toHaveLength(50 - LIMIT.burst + 1);
    expect(await bench.post()).toBe(204);
    expect(bench.events).toHaveLength(2);
  });

  test("of one replayed delivery proves nothing", async () => {
    await using bench = await startBench(new VirtualClock(), { perSecond: 1, burst: 2 });
    expect(await bench.post({ id: "msg_a" })).toBe(204);
    const body = JSON.stringify(RUN_STARTED);
    const headers = { ...signedHeaders(SECRET, { id: "msg_a", seconds: SECONDS, body }) };
    const again = () => postFrom("127.0.0.2", bench.receiver.address ?? "", headers, body);
    expect([await again(), await again()]).toEqual([204, 429]);
  });
});

/** On the virtual clock. */
const SECONDS = Math.floor(new VirtualClock().now() / 1_000);

/** Posts from another local address, forged unless headers are given. Returns the status. */
async function postFrom(localAddress: string, to: string, headers?: Record<string, string>, body = "{}") {
  const forged = signedHeaders(newWebhookSecret(), { id: "msg_forged", seconds: SECONDS, body });
  const asked = request(`http://${to}/webhook`, {
    method: "POST",
    agent: false,
    localAddress,
    headers: { ...(headers ?? forged) },
  });
  asked.end(body);
  const [response] = (await once(asked, "response")) as [{ statusCode: number; resume(): void }];
  response.resume();
  return response.statusCode;
}

test("an address of 0 does not listen", async () => {
  const none = await startReceiver({
    bindAddress: "0",
    secrets: { keys: async () => [] },
    clock: realClock,
    metrics: createMetrics(),
    logger: silentLogger,
    onEvent: () => {},
  });
  expect(none.address).toBeUndefined();
  await none.close();
});

describe("signing secrets in a folder", () => {
  async function folder(files: Record<string, string>): Promise<AsyncDisposable & { readonly path: string }> {
    const path = await mkdtemp(join(tmpdir(), "berth-webhook-"));
    for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
    return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
  }

  const open = (path: string, clock: Clock = realClock) =>
    SigningSecrets.open({ folder: path, clock, logger: silentLogger });

  test("are read one per file, with or without a final line break, and other texts are skipped", async () => {
    const other = newWebhookSecret();
    await using files = await folder({ a: `${SECRET}\n`, b: other, c: "no secret", ".hidden": newWebhookSecret() });
    expect(await (await open(files.path)).keys()).toEqual([keyOfSecret(SECRET), keyOfSecret(other)]);
  });

  test("are read through the links of a mounted Secret, and again when it changes", async () => {
    const clock = new VirtualClock();
    await using before = await folder({ key: SECRET });
    const next = newWebhookSecret();
    await using after = await folder({ key: next });
    await using mount = await folder({});
    const link = join(mount.path, "key");
    await symlink(join(before.path, "key"), link);
    const secrets = await open(mount.path, clock);
    expect(await secrets.keys()).toEqual([keyOfSecret(SECRET)]);
    await unlink(link);
    await symlink(join(after.path, "key"), link);
    await clock.advance(9_000);
    expect(await secrets.keys()).toEqual([keyOfSecret(SECRET)]);
    await clock.advance(1_000);
    expect(await secrets.keys()).toEqual([keyOfSecret(next)]);
  });

  test("stay in use while the folder can't be read, and are dropped when their file is deleted", async () => {
    const clock = new VirtualClock();
    const files = await folder({ key: SECRET });
    const secrets = await open(files.path, clock);
    await unlink(join(files.path, "key"));
    await clock.advance(10_000);
    expect(await secrets.keys()).toEqual([]);
    await writeFile(join(files.path, "key"), SECRET);
    await clock.advance(10_000);
    expect(await secrets.keys()).toHaveLength(1);
    await files[Symbol.asyncDispose]();
    await clock.advance(10_000);
    expect(await secrets.keys()).toHaveLength(1);
  });

  test("a folder without secrets is a ConfigError that says what to write", async () => {
    await using empty = await folder({ note: "put it here" });
    await expect(open(empty.path)).rejects.toThrow(ConfigError);
    await expect(open(empty.path)).rejects.toThrow(/whsec_/);
    await expect(open(join(empty.path, "gone"))).rejects.toThrow(/--webhook-secrets/);
  });
});
