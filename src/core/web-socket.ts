import { createHash, randomBytes } from "node:crypto";

/**
 * The client side of the WebSocket protocol (RFC 6455), without extensions. The WebSockets of undici and Node also load
 * fetch, which takes megabytes, and report no reason when a server refuses the handshake.
 */
export const OPCODES = { continuation: 0x0, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;

/** Servers send far smaller frames: a kubelet copies at most 32 KiB at a time. */
const MAX_FRAME_BYTES = 1024 * 1024;

const FINAL = 0x80;
const RESERVED = 0x70;
const OPCODE = 0x0f;
const MASKED = 0x80;
const MASK_BYTES = 4;
/** A longer body has its length in the next two bytes, or in the next eight. */
const MAX_SHORT_BYTES = 125;
const LENGTH_IN_TWO_BYTES = 126;
const LENGTH_IN_EIGHT_BYTES = 127;
const MAX_TWO_BYTES = 0xffff;

/** From section 1.3 of the RFC. */
const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** The headers of a handshake, and the `Sec-WebSocket-Accept` that the server must answer. */
export function webSocketHandshake(protocol: string) {
  const key = randomBytes(16).toString("base64");
  return {
    headers: { "sec-websocket-key": key, "sec-websocket-version": "13", "sec-websocket-protocol": protocol },
    accept: createHash("sha1").update(key).update(ACCEPT_SUFFIX).digest("base64"),
  };
}

/** A frame from a client, which must be masked. At most 64 KiB. */
export function clientFrame(opcode: number, body: Uint8Array): Buffer {
  if (body.length > MAX_TWO_BYTES) throw new RangeError(`a frame of ${body.length} bytes is too long`);
  const isShort = body.length <= MAX_SHORT_BYTES;
  const length = isShort ? [body.length] : [LENGTH_IN_TWO_BYTES, body.length >> 8, body.length & 0xff];
  const head = Buffer.from([FINAL | opcode, ...length]);
  head[1] = (head[1] ?? 0) | MASKED;
  const mask = randomBytes(MASK_BYTES);
  return Buffer.concat([head, mask, body.map((byte, at) => byte ^ (mask[at % MASK_BYTES] ?? 0))]);
}

/** What a close frame says. */
export function closeText(body: Buffer): string {
  const code = body.length < 2 ? "" : ` with code ${body.readUInt16BE(0)} ${body.subarray(2).toString("utf8")}`;
  return `the server closed the stream${code}`.trimEnd();
}

export interface Frame {
  readonly opcode: number;
  readonly body: Buffer;
}

/** Splits what a server sends into frames. */
export class FrameDecoder {
  #pending: Buffer = Buffer.alloc(0);

  /** Yields the frames that this chunk completes. Throws TypeError for bytes that no server may send. */
  *push(chunk: Buffer): Generator<Frame, void, undefined> {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= 2) {
      const [first = 0, second = 0] = this.#pending;
      if ((first & RESERVED) !== 0 || (second & MASKED) !== 0) throw new TypeError("the server sent a malformed frame");
      const start = second === LENGTH_IN_TWO_BYTES ? 4 : second === LENGTH_IN_EIGHT_BYTES ? 10 : 2;
      if (this.#pending.length < start) return;
      const length =
        start === 2 ? second : start === 4 ? this.#pending.readUInt16BE(2) : Number(this.#pending.readBigUInt64BE(2));
      if (length > MAX_FRAME_BYTES) throw new TypeError(`the server sent a frame longer than ${MAX_FRAME_BYTES} bytes`);
      if (this.#pending.length < start + length) return;
      const body = this.#pending.subarray(start, start + length);
      this.#pending = this.#pending.subarray(start + length);
      yield { opcode: first & OPCODE, body };
    }
  }
}
