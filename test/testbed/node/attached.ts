import { type Agent, WebSocket } from "undici";
import { Notifier } from "../../../src/core/notifier.ts";

/** One client that is attached to a container, with the subprotocol that the API server passes through to a node. */
export class Attached {
  readonly #socket: WebSocket;
  readonly #changed = new Notifier();
  /** The container's standard output since the client attached. */
  output = "";
  /** The status that the node sent when the container ended. */
  status = "";
  /** Resolves with the close code. */
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => this.#receive(Buffer.from(data as ArrayBuffer)));
    this.closed = new Promise((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)));
  }

  /** Resolves when the connection is open. */
  static async open(url: string, dispatcher: Agent, headers: Record<string, string> = {}): Promise<Attached> {
    const socket = new WebSocket(url, { protocols: ["v4.channel.k8s.io"], dispatcher, headers });
    const attached = new Attached(socket);
    await new Promise<void>((resolve, reject) => {
      socket.addEventListener("open", () => resolve());
      socket.addEventListener("error", (event) => reject(new Error(`not attached: ${event.message}`)));
    });
    return attached;
  }

  send(text: string): void {
    this.#socket.send(Buffer.concat([Buffer.of(0), Buffer.from(text)]));
  }

  /** Waits until the output contains the text. */
  async printed(text: string): Promise<void> {
    while (!this.output.includes(text)) await this.#changed.wait();
  }

  close(): void {
    this.#socket.close();
  }

  #receive(message: Buffer): void {
    const text = message.subarray(1).toString();
    if (message[0] === 1) this.output += text;
    if (message[0] === 3) this.status += text;
    this.#changed.notify();
  }
}
