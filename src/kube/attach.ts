import type { Duplex } from "node:stream";
import type { Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import { clientFrame, closeText, type Frame, FrameDecoder, OPCODES, webSocketHandshake } from "../core/web-socket.ts";
import { KubeApiError, MALFORMED } from "./errors.ts";
import type { Call, Exchange } from "./exchange.ts";
import { errorOfEvent } from "./status.ts";

/** Time limit of the handshake, which passes through the API server to a kubelet. */
export const ATTACH_TIMEOUT_MS = 10_000;

/** The API server passes this version through to the kubelet. It translates later ones to SPDY. */
const PROTOCOL = "v4.channel.k8s.io";

/** The first byte of a message. */
const STDIN = 0;
const STDOUT = 1;
const ERROR = 3;

/** Only the start of the output is kept: the marker is there, and a container may print without end. */
const MAX_OUTPUT = 64 * 1024;

/** Below the idle timeouts of common load balancers (60 s and more). */
const PING_INTERVAL_MS = 20_000;
const PONG_TIMEOUT_MS = 10_000;

/** A stream to the standard input and output of a container. */
export interface AttachStream {
  /**
   * Writes to standard input, and forgets the output so far. Throws if the stream is not open, and the error of the
   * fence.
   */
  send(text: string): void;
  /** False from the moment that the connection is known to be dead. */
  readonly isOpen: boolean;
  /** The first 64 Ki characters of standard output since the last text was sent. The rest is dropped. */
  readonly output: string;
  /** Resolves true when the output contains `text`; false when the stream closes or the signal aborts. */
  waitFor(text: string, signal: AbortSignal): Promise<boolean>;
  /** The same for the answer to a ping that is sent now. The API server passes pings on, so the node answers. */
  answers(signal: AbortSignal): Promise<boolean>;
  /** Resolves with the reason. */
  readonly closed: Promise<string>;
  close(): void;
}

/** Opens a WebSocket like any other request: with the same credentials, retries and errors. See KubeClient.attach. */
export async function openAttach(exchange: Exchange, call: Call): Promise<AttachStream> {
  const handshake = webSocketHandshake(PROTOCOL);
  // The request reaches the kubelet unchanged, which answers 406 to a client that only accepts JSON.
  const { status, headers, socket } = await exchange.send({ ...call, accept: "*/*", handshake: handshake.headers });
  const isAccepted = headers["sec-websocket-accept"] === handshake.accept;
  if (socket && isAccepted && headers["sec-websocket-protocol"] === PROTOCOL) {
    return new Attached(exchange, call, socket);
  }
  socket?.destroy();
  const text = `${call.about}: the answer (HTTP ${status}) is not a WebSocket with the protocol ${PROTOCOL}`;
  throw new KubeApiError(text, { status: 0, reason: MALFORMED });
}

class Attached implements AttachStream {
  readonly #closed = Promise.withResolvers<string>();
  readonly closed = this.#closed.promise;
  output = "";
  isOpen = true;
  readonly #exchange: Exchange;
  readonly #call: Call;
  readonly #socket: Duplex;
  readonly #frames = new FrameDecoder();
  readonly #text = new TextDecoder();
  readonly #changed = new Notifier();
  /** Of the current message. */
  #channel: number | undefined;
  /** Why the container's streams ended, from the kubelet. */
  #failure: string | undefined;
  #heard = false;
  /** The numbers of the last ping that asked for an answer, and of the last one that got it. */
  #asked = 0;
  #answered = 0;
  #timer: Timer | undefined;

  constructor(exchange: Exchange, call: Call, socket: Duplex) {
    this.#exchange = exchange;
    this.#call = call;
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => this.#end(`the connection was lost: ${errorText(error)}`));
    socket.on("close", () => this.#end("the connection was lost"));
    this.#pingIn(PING_INTERVAL_MS * exchange.random());
  }

  send(text: string): void {
    if (!this.isOpen) throw new KubeApiError(`${this.#call.about}: the stream is closed`, { status: 0 });
    this.#call.fence?.();
    // What the container printed before is no answer.
    this.output = "";
    this.#write(OPCODES.binary, Buffer.concat([Buffer.of(STDIN), Buffer.from(text)]));
  }

  waitFor(text: string, signal: AbortSignal): Promise<boolean> {
    return this.#until(() => this.output.includes(text), signal);
  }

  answers(signal: AbortSignal): Promise<boolean> {
    this.#asked += 1;
    const number = this.#asked;
    this.#write(OPCODES.ping, Buffer.from(`${number}`));
    return this.#until(() => this.#answered >= number, signal);
  }

  async #until(isSo: () => boolean, signal: AbortSignal): Promise<boolean> {
    await this.#changed.until(() => isSo() || !this.isOpen, signal);
    return isSo();
  }

  close(): void {
    this.#end("closed by this client");
  }

  #read(chunk: Buffer): void {
    // Any data proves that the connection works.
    this.#heard = true;
    try {
      for (const frame of this.#frames.push(chunk)) if (this.isOpen) this.#receive(frame);
      this.#changed.notify();
    } catch (error) {
      this.#end(errorText(error));
    }
  }

  #receive({ opcode, body }: Frame): void {
    if (opcode === OPCODES.ping) this.#write(OPCODES.pong, body);
    if (opcode === OPCODES.pong) this.#answered = Math.max(this.#answered, Number(body.toString("utf8")) || 0);
    if (opcode === OPCODES.close) this.#end(this.#failure ?? closeText(body));
    if (opcode === OPCODES.binary) this.#channel = body[0];
    if (opcode !== OPCODES.binary && opcode !== OPCODES.continuation) return;
    const content = opcode === OPCODES.binary ? body.subarray(1) : body;
    if (this.#channel === STDOUT && this.output.length < MAX_OUTPUT) {
      this.output = (this.output + this.#text.decode(content, { stream: true })).slice(0, MAX_OUTPUT);
    } else if (this.#channel === ERROR) {
      this.#failure = failureOf(this.#call, content);
    }
  }

  #pingIn(delayMs: number): void {
    const { clock } = this.#exchange;
    this.#timer = clock.setTimer(() => {
      this.#heard = false;
      this.#write(OPCODES.ping);
      this.#timer = clock.setTimer(() => {
        if (this.#heard) this.#pingIn(PING_INTERVAL_MS - PONG_TIMEOUT_MS);
        else this.#end(`no answer to a ping within ${PONG_TIMEOUT_MS / 1000} s, so the connection is dead`);
      }, PONG_TIMEOUT_MS);
    }, delayMs);
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#timer?.cancel();
    this.#write(OPCODES.close);
    this.#socket.end(() => this.#socket.destroy());
    this.#closed.resolve(reason);
    this.#changed.notify();
  }

  #write(opcode: number, body: Uint8Array = Buffer.alloc(0)): void {
    this.#socket.write(clientFrame(opcode, body));
  }
}

/** Returns the message of the Status at the end of a stream; undefined for a success. The kubelet omits its kind. */
function failureOf({ about }: Call, content: Buffer): string | undefined {
  try {
    const status = JSON.parse(content.toString("utf8"));
    return status.status === "Success" ? undefined : errorOfEvent(about, { ...status, kind: "Status" }).message;
  } catch {
    return `${about}: the stream ended with an unreadable Status`;
  }
}
