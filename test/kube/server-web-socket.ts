/** The server's side of one WebSocket, as a kubelet speaks it for `pods/attach`. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { acceptKeyOf, BINARY, CLOSE, frameAt, PING, PONG } from "../../testbed/node/web-socket.ts";

export interface Handshake {
  readonly protocol?: string | null;
  readonly accept?: string;
}

/** Accepts an upgrade, answers pings, and keeps what the client wrote to standard input. */
export class ServerWebSocket {
  /** Messages of the channel stdin, in order. */
  readonly stdin: string[] = [];
  readonly request: IncomingMessage;
  /** Pings received so far. */
  pings = 0;
  answersPings = true;
  /** Whether the client sent a close frame. */
  closedByClient = false;
  readonly #socket: Duplex;
  readonly #heard: () => void;
  #pending: Buffer = Buffer.alloc(0);

  /** @param heard called after each frame and at the end of the connection */
  constructor(request: IncomingMessage, socket: Duplex, heard: () => void, handshake: Handshake = {}) {
    this.request = request;
    this.#socket = socket;
    this.#heard = heard;
    const { protocol = "v4.channel.k8s.io" } = handshake;
    const lines = [
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${handshake.accept ?? acceptKeyOf(request)}`,
      ...(protocol === null ? [] : [`Sec-WebSocket-Protocol: ${protocol}`]),
    ];
    socket.write(`${lines.join("\r\n")}\r\n\r\n`);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("end", () => socket.end());
    socket.on("close", heard);
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  /** Sends one message of a channel: 1 is stdout, 3 is the error channel. */
  send(channel: number, content: string | Uint8Array): void {
    this.#socket.write(ServerWebSocket.message(channel, content));
  }

  /** The bytes of one message, for messages that are split or joined on their way. */
  static message(channel: number, content: string | Uint8Array): Buffer {
    return frame(BINARY, Buffer.concat([Buffer.of(channel), Buffer.from(content as string)]));
  }

  /** Writes raw bytes, without a frame. */
  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Sends a close frame, and ends the connection unless it `stays`. */
  close(code: number, reason = "", options: { stays?: boolean } = {}): void {
    const body = Buffer.concat([Buffer.of(code >> 8, code & 0xff), Buffer.from(reason)]);
    this.#socket.write(frame(CLOSE, body));
    if (!options.stays) this.#socket.end();
  }

  /** Ends the connection without a close frame. */
  cut(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    for (let read = frameAt(this.#pending); read !== undefined; read = frameAt(this.#pending)) {
      if (typeof read === "number") throw new Error(`the client sent a frame that ends the connection with ${read}`);
      this.#pending = this.#pending.subarray(read.size);
      this.#receive(read.frame.opcode, read.frame.payload);
    }
    this.#heard();
  }

  #receive(opcode: number, body: Buffer): void {
    if (opcode === BINARY && body[0] === 0) this.stdin.push(body.subarray(1).toString("utf8"));
    if (opcode === CLOSE) this.closedByClient = true;
    if (opcode !== PING) return;
    this.pings += 1;
    if (this.answersPings) this.#socket.write(frame(PONG, body));
  }
}

/** A whole frame; servers don't mask theirs. */
function frame(opcode: number, body: Buffer): Buffer {
  const long = body.length > 125;
  const head = Buffer.alloc(long ? 10 : 2);
  head[0] = 0x80 | opcode;
  head[1] = long ? 127 : body.length;
  if (long) head.writeBigUInt64BE(BigInt(body.length), 2);
  return Buffer.concat([head, body]);
}
