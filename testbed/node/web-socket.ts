import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

/** Part of every handshake (RFC 6455, 1.3). */
const HANDSHAKE_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Opcodes (RFC 6455, 5.2). */
const CONTINUATION = 0x0;
export const BINARY = 0x2;
export const CLOSE = 0x8;
export const PING = 0x9;
export const PONG = 0xa;

const FINAL = 0x80;
const MASKED = 0x80;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

/** Close codes (RFC 6455, 7.4.1). */
export const NORMAL_CLOSURE = 1_000;
const PROTOCOL_ERROR = 1_002;
const UNSUPPORTED_DATA = 1_003;
const TOO_BIG = 1_009;

/** Far more than any frame of an attached client. */
const MAX_MESSAGE_BYTES = 1_048_576;

interface Frame {
  readonly isFinal: boolean;
  readonly opcode: number;
  readonly payload: Buffer;
}

/** Returns the offered subprotocols of a request for a WebSocket, or undefined if it's none. */
export function offeredProtocols({ headers }: IncomingMessage): readonly string[] | undefined {
  const isOne = headers.upgrade?.toLowerCase() === "websocket" && headers["sec-websocket-version"] === "13";
  if (!isOne || headers["sec-websocket-key"] === undefined) return undefined;
  return (headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
}

/** The answer to a client's key in the handshake. */
export function acceptKeyOf({ headers }: IncomingMessage): string {
  return createHash("sha1").update(`${headers["sec-websocket-key"]}${HANDSHAKE_GUID}`).digest("base64");
}

/** The server's side of one WebSocket that carries binary messages. It answers pings. */
export class WebSocketConnection {
  readonly #socket: Duplex;
  #unread: Buffer = Buffer.alloc(0);
  #parts: Buffer[] | undefined;
  #closing = false;
  #silent = false;
  /** Called with each message. */
  onMessage: (message: Buffer) => void = () => {};
  /** Called once, when no more messages can arrive. */
  onEnd: () => void = () => {};

  /**
   * Completes the handshake.
   * @param head the bytes that arrived after the request
   */
  constructor(request: IncomingMessage, socket: Duplex, head: Buffer, protocol: string) {
    this.#socket = socket;
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${acceptKeyOf(request)}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
    );
    socket.on("error", () => {});
    socket.once("close", () => this.onEnd());
    // A client that only closes its half would never learn that its messages aren't read any more.
    socket.once("end", () => socket.end());
    socket.on("data", (bytes: Buffer) => this.#read(bytes));
    if (head.length > 0) queueMicrotask(() => this.#read(head));
  }

  send(message: Buffer): void {
    this.#write(BINARY, message);
  }

  close(code: number): void {
    if (this.#closing) return;
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#write(CLOSE, payload);
    this.#closing = true;
    this.#socket.end();
  }

  /** Breaks the connection off. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** From now on, nothing is read and nothing is sent, and the connection stays open: its other end is unreachable. */
  fallSilent(): void {
    this.#silent = true;
    this.#socket.pause();
  }

  #write(opcode: number, payload: Buffer): void {
    if (this.#closing || this.#silent || this.#socket.destroyed) return;
    this.#socket.write(Buffer.concat([header(opcode, payload.length), payload]));
  }

  #read(bytes: Buffer): void {
    this.#unread = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    while (!this.#closing && !this.#silent) {
      const taken = frameAt(this.#unread);
      if (taken === undefined) return;
      const isFrame = typeof taken !== "number";
      if (isFrame) this.#unread = this.#unread.subarray(taken.size);
      const code = isFrame ? this.#receive(taken.frame) : taken;
      if (code !== undefined) this.close(code);
    }
  }

  /** Returns a close code if the connection has to end. */
  #receive({ isFinal, opcode, payload }: Frame): number | undefined {
    if (opcode === CLOSE) return payload.length < 2 ? NORMAL_CLOSURE : payload.readUInt16BE();
    if (opcode === PING) this.#write(PONG, payload);
    if (opcode === PING || opcode === PONG) return undefined;
    const isFirst = opcode === BINARY;
    if (!isFirst && opcode !== CONTINUATION) return UNSUPPORTED_DATA;
    // A message either starts or continues.
    if (isFirst !== (this.#parts === undefined)) return PROTOCOL_ERROR;
    const parts = [...(this.#parts ?? []), payload];
    this.#parts = isFinal ? undefined : parts;
    if (parts.reduce((sum, { length }) => sum + length, 0) > MAX_MESSAGE_BYTES) return TOO_BIG;
    if (isFinal) this.onMessage(Buffer.concat(parts));
    return undefined;
  }
}

/** Reads one frame. Returns undefined if it isn't complete, or a close code if it's invalid. */
export function frameAt(bytes: Buffer): { readonly frame: Frame; readonly size: number } | number | undefined {
  if (bytes.length < 2) return undefined;
  const [first = 0, second = 0] = bytes;
  // Clients must mask their frames, and no extension was agreed on.
  if ((second & MASKED) === 0 || (first & 0x70) !== 0) return PROTOCOL_ERROR;
  const short = second & 0x7f;
  const lengthBytes = short === LENGTH_64 ? 8 : short === LENGTH_16 ? 2 : 0;
  const start = 2 + lengthBytes + 4;
  if (bytes.length < start) return undefined;
  const length = lengthBytes === 8 ? Number(bytes.readBigUInt64BE(2)) : lengthBytes ? bytes.readUInt16BE(2) : short;
  if (length > MAX_MESSAGE_BYTES) return TOO_BIG;
  const size = start + length;
  if (bytes.length < size) return undefined;
  const mask = bytes.subarray(start - 4, start);
  const payload = Buffer.from(bytes.subarray(start, size).map((byte, at) => byte ^ (mask[at % 4] ?? 0)));
  return { frame: { isFinal: (first & FINAL) !== 0, opcode: first & 0x0f, payload }, size };
}

/** The header of an unmasked, unfragmented frame. */
function header(opcode: number, length: number): Buffer {
  if (length < LENGTH_16) return Buffer.of(FINAL | opcode, length);
  if (length <= 0xffff) {
    const bytes = Buffer.of(FINAL | opcode, LENGTH_16, 0, 0);
    bytes.writeUInt16BE(length, 2);
    return bytes;
  }
  const bytes = Buffer.alloc(10);
  bytes.writeUInt8(FINAL | opcode, 0);
  bytes.writeUInt8(LENGTH_64, 1);
  bytes.writeBigUInt64BE(BigInt(length), 2);
  return bytes;
}
