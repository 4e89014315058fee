import type { Duplex } from "node:stream";
import { type Dispatcher, ping, WebSocket } from "undici";
import type { Timer } from "../core/clock.ts";
import { KubeApiError, MALFORMED } from "./errors.ts";
import type { Call, Exchange } from "./exchange.ts";
import { errorOfEvent } from "./status.ts";

/** Bound of the handshake, which passes through the API server to a kubelet. */
export const ATTACH_TIMEOUT_MS = 10_000;

/** The API server passes this version through to the kubelet. It translates later ones to SPDY. */
const PROTOCOL = "v4.channel.k8s.io";

/** The first byte of a message. */
const STDIN = 0;
const STDOUT = 1;
const ERROR = 3;

/** Only the first line of the output counts. A container may print anything after it. */
const MAX_OUTPUT = 64 * 1024;

/** Below the idle timeouts of common load balancers (60 s and more). */
const PING_INTERVAL_MS = 20_000;
const PONG_TIMEOUT_MS = 10_000;

/** A stream to the standard input and output of a container. */
export interface AttachStream {
  /** Writes to standard input. Throws if the stream is not open, and the error of the fence. */
  send(text: string): void;
  /** False from the moment that the connection is known to be dead. */
  readonly isOpen: boolean;
  /** The first 64 KiB of standard output. The rest is dropped. */
  readonly output: string;
  /** Resolves true when the output contains `text`; false when the stream closes or the signal aborts. */
  waitFor(text: string, signal: AbortSignal): Promise<boolean>;
  /** Resolves with the reason. */
  readonly closed: Promise<string>;
  close(): void;
}

/**
 * Opens a WebSocket over the connections and credentials of `exchange`. undici's WebSocket does the handshake and the
 * frames, but doesn't tell why a server refuses. So its request goes through the exchange, which also repeats it.
 */
export function openAttach(exchange: Exchange, call: Call): Promise<AttachStream> {
  return new Promise((resolve, reject) => {
    let socket: Duplex | undefined;
    const upgrade = async (headers: Readonly<Record<string, string>>, handler: Dispatcher.DispatchHandler) => {
      // Without compression: a container could send a few bytes that expand.
      const wanted = Object.entries(headers).filter(([name]) => /^sec-websocket-(key|version|protocol)$/i.test(name));
      const answer = await exchange.send({ ...call, handshake: Object.fromEntries(wanted) });
      if (!answer.socket) throw notAttached(call, `HTTP ${answer.status}; does a proxy refuse WebSockets?`);
      socket = answer.socket;
      // The exchange aborts its requests, so the handler needs nothing else of a controller.
      const controller = { rawHeaders: Object.entries(answer.headers).flat() } as never;
      handler.onRequestUpgrade?.(controller, answer.status, answer.headers, socket);
    };
    const dispatcher = {
      dispatch({ headers }: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler) {
        upgrade(headers as Record<string, string>, handler).catch((error: Error) => {
          reject(error);
          handler.onResponseError?.({} as never, error);
        });
        return true;
      },
    } as Dispatcher;
    // The exchange knows the real address.
    const webSocket = new WebSocket("ws://pods.invalid", { protocols: PROTOCOL, dispatcher });
    webSocket.addEventListener("open", () => {
      if (socket) resolve(new Attached(exchange, call, webSocket, socket));
    });
    webSocket.addEventListener("error", ({ message }) => {
      socket?.destroy();
      reject(notAttached(call, message));
    });
  });
}

function notAttached(call: Call, why: string): KubeApiError {
  return new KubeApiError(`${call.about}: the answer is no WebSocket: ${why}`, { status: 0, reason: MALFORMED });
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

class Attached implements AttachStream {
  readonly #closed = Promise.withResolvers<string>();
  readonly closed = this.#closed.promise;
  output = "";
  readonly #exchange: Exchange;
  readonly #call: Call;
  readonly #webSocket: WebSocket;
  readonly #socket: Duplex;
  readonly #decoder = new TextDecoder();
  readonly #waiters = new Set<() => void>();
  /** Why the container's streams ended, from the kubelet. */
  #failure: string | undefined;
  #heard = false;
  #timer: Timer | undefined;
  #ended = false;

  constructor(exchange: Exchange, call: Call, webSocket: WebSocket, socket: Duplex) {
    this.#exchange = exchange;
    this.#call = call;
    this.#webSocket = webSocket;
    this.#socket = socket;
    webSocket.binaryType = "arraybuffer";
    webSocket.addEventListener("message", ({ data }) => this.#receive(Buffer.from(data)));
    webSocket.addEventListener("close", ({ code, reason }) => {
      this.#end(this.#failure ?? `the stream was closed with code ${code}${reason === "" ? "" : `: ${reason}`}`);
    });
    // Any data proves that the connection works.
    socket.on("data", () => {
      this.#heard = true;
    });
    this.#pingIn(PING_INTERVAL_MS * exchange.random());
  }

  get isOpen(): boolean {
    return !this.#ended && this.#webSocket.readyState === WebSocket.OPEN;
  }

  send(text: string): void {
    if (!this.isOpen) throw new KubeApiError(`${this.#call.about}: the stream is closed`, { status: 0 });
    this.#call.fence?.();
    this.#webSocket.send(Buffer.concat([Buffer.of(STDIN), Buffer.from(text)]));
  }

  waitFor(text: string, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const check = () => {
        const found = this.output.includes(text);
        if (!found && !signal.aborted && this.isOpen) return;
        this.#waiters.delete(check);
        signal.removeEventListener("abort", check);
        resolve(found);
      };
      this.#waiters.add(check);
      signal.addEventListener("abort", check);
      check();
    });
  }

  close(): void {
    this.#webSocket.close();
    this.#end("closed by this client");
  }

  #receive(message: Buffer): void {
    const content = message.subarray(1);
    if (message[0] === STDOUT && this.output.length < MAX_OUTPUT) {
      this.output = (this.output + this.#decoder.decode(content, { stream: true })).slice(0, MAX_OUTPUT);
      this.#wake();
    } else if (message[0] === ERROR) {
      this.#failure = failureOf(this.#call, content);
    }
  }

  #pingIn(delayMs: number): void {
    const { clock } = this.#exchange;
    this.#timer = clock.setTimer(() => {
      this.#heard = false;
      ping(this.#webSocket);
      this.#timer = clock.setTimer(() => {
        if (this.#heard) this.#pingIn(PING_INTERVAL_MS - PONG_TIMEOUT_MS);
        else this.#end(`no answer to a ping within ${PONG_TIMEOUT_MS / 1000} s: the connection is dead`);
      }, PONG_TIMEOUT_MS);
    }, delayMs);
  }

  #end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer?.cancel();
    this.#socket.end(() => this.#socket.destroy());
    this.#closed.resolve(reason);
    this.#wake();
  }

  #wake(): void {
    for (const check of this.#waiters) check();
  }
}
