import type { AttachStream } from "../../src/kube/attach.ts";

/** An attach stream that a test prints to and cuts. */
export class FakeStream implements AttachStream {
  readonly #closed = Promise.withResolvers<string>();
  readonly closed = this.#closed.promise;
  readonly sent: string[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #onSend: (stream: FakeStream) => void;
  isOpen = true;
  output = "";

  /** @param onSend called after each text, for example to print the marker or to throw */
  constructor(onSend: (stream: FakeStream) => void = () => {}) {
    this.#onSend = onSend;
  }

  send(text: string): void {
    this.sent.push(text);
    this.#onSend(this);
  }

  waitFor(text: string, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const check = () => {
        const found = this.output.includes(text);
        if (found || signal.aborted || !this.isOpen) resolve(found);
      };
      this.#waiters.add(check);
      signal.addEventListener("abort", check);
      check();
    });
  }

  /** Pings are answered unless the test sets this. */
  isSilent = false;

  answers(signal: AbortSignal): Promise<boolean> {
    if (!this.isSilent) return Promise.resolve(this.isOpen);
    return new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(false));
      void this.closed.then(() => resolve(false));
    });
  }

  print(text: string): void {
    this.output += text;
    this.#wake();
  }

  close(reason = "closed by this client"): void {
    this.isOpen = false;
    this.#closed.resolve(reason);
    this.#wake();
  }

  #wake(): void {
    for (const check of this.#waiters) check();
  }
}
