import { randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { duplexPair } from "node:stream";
import { describe, expect, test } from "vitest";
import { offeredProtocols, WebSocketConnection } from "../../../testbed/node/web-socket.ts";

const HEADERS = {
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  "sec-websocket-protocol": "v5.channel.k8s.io, v4.channel.k8s.io",
};
const FINAL = 0x80;

/** A client's frame. */
function frame(first: number, payload: Buffer): Buffer {
  const mask = randomBytes(4);
  const masked = payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0));
  const length = payload.length < 126 ? Buffer.of(0x80 | payload.length) : Buffer.from([0xfe, 0, 0]);
  if (payload.length >= 126) length.writeUInt16BE(payload.length, 1);
  return Buffer.concat([Buffer.of(first), length, mask, masked]);
}

/** A connection whose handshake is done. `sent` is what the server wrote since then. */
function connected(head: Buffer = Buffer.alloc(0)) {
  const [near, far] = duplexPair();
  const connection = new WebSocketConnection({ headers: HEADERS } as IncomingMessage, far, head, "v4.channel.k8s.io");
  const messages: string[] = [];
  connection.onMessage = (message) => void messages.push(message.toString());
  let all: Buffer = Buffer.alloc(0);
  near.on("data", (bytes: Buffer) => {
    all = Buffer.concat([all, bytes]);
  });
  return {
    connection,
    near,
    messages,
    handshake: () => all.toString("latin1", 0, all.indexOf("\r\n\r\n")),
    sent: () => all.subarray(all.indexOf("\r\n\r\n") + 4).toString("hex"),
  };
}

test("a handshake answers the sample key of RFC 6455, and names the subprotocol", async () => {
  const { handshake } = connected();
  await expect.poll(handshake).toMatch(/^HTTP\/1.1 101 .*Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/s);
  expect(handshake()).toContain("Sec-WebSocket-Protocol: v4.channel.k8s.io");
});

test("only a request for version 13 with a key offers subprotocols", () => {
  const offered = (over: object) => offeredProtocols({ headers: { ...HEADERS, ...over } } as IncomingMessage);
  expect(offered({})).toEqual(["v5.channel.k8s.io", "v4.channel.k8s.io"]);
  expect(offered({ upgrade: "SPDY/3.1" })).toBeUndefined();
  expect(offered({ "sec-websocket-version": "8" })).toBeUndefined();
  expect(offered({ "sec-websocket-key": undefined })).toBeUndefined();
});

describe("a client's frames", () => {
  test("are messages whole, in fragments around a ping, byte by byte, and right behind the handshake", async () => {
    const { near, messages, sent } = connected(frame(FINAL | 2, Buffer.from("early")));
    near.write(frame(FINAL | 2, Buffer.from("whole")));
    near.write(
      Buffer.concat([
        frame(2, Buffer.from("in ")),
        frame(FINAL | 9, Buffer.from("?")),
        frame(FINAL, Buffer.from("parts")),
      ]),
    );
    for (const byte of frame(FINAL | 2, Buffer.from("slow"))) near.write(Buffer.of(byte));
    near.write(frame(FINAL | 2, Buffer.from("x".repeat(4_000))));
    await expect.poll(() => messages).toEqual(["early", "whole", "in parts", "slow", "x".repeat(4_000)]);
    // The pong.
    expect(sent()).toBe("8a013f");
  });

  test.each([
    ["without a mask", Buffer.of(FINAL | 2, 1, 65), "03ea"],
    ["of text", frame(FINAL | 1, Buffer.from("a")), "03eb"],
    ["that continue nothing", frame(FINAL, Buffer.from("a")), "03ea"],
    ["with an extension's bit", frame(FINAL | 0x42, Buffer.from("a")), "03ea"],
    ["that are too big", Buffer.from([FINAL | 2, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]), "03f1"],
  ])("%s close the connection", async (_what, bytes, code) => {
    const { near, messages, sent } = connected();
    near.write(bytes);
    await expect.poll(sent).toBe(`8802${code}`);
    expect(messages).toEqual([]);
  });

  test("that close the connection are answered with their code", async () => {
    const { near, sent } = connected();
    near.write(frame(FINAL | 8, Buffer.of(0x03, 0xe8)));
    await expect.poll(sent).toBe("880203e8");
  });
});

test("a silent connection answers no ping and sends nothing", async () => {
  const { connection, near, messages, sent } = connected();
  connection.fallSilent();
  near.write(frame(FINAL | 9, Buffer.from("?")));
  near.write(frame(FINAL | 2, Buffer.from("lost")));
  connection.send(Buffer.from("never sent"));
  await new Promise((resolve) => setImmediate(resolve));
  expect([sent(), messages]).toEqual(["", []]);
});

test.each([
  [3, "8203"],
  [200, "827e00c8"],
  [70_000, "827f0000000000011170"],
])("a message of %i bytes has the right header", async (size, header) => {
  const { connection, sent } = connected();
  connection.send(Buffer.alloc(size));
  await expect.poll(() => sent().length).toBe(header.length + 2 * size);
  expect(sent().startsWith(header)).toBe(true);
});
