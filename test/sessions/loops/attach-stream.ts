import type { Random } from "../../../src/core/backoff.ts";
import type { Clock } from "../../../src/core/clock.ts";
import type { AttachStream } from "../../../src/kube/attach.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import type { RunningContainer } from "./api-server.ts";
import type { Link } from "./network.ts";

/** How often attaching fails while faults are on, as fractions of 1. */
export interface AttachWeather {
  /** The kubelet refuses to attach a client. */
  readonly refused: number;
  /** What a client writes is lost, and with it the connection. */
  readonly lineLost: number;
  /** What the container prints is lost, and with it the connection. */
  readonly markerLost: number;
  /** The connection breaks off within its first minute. */
  readonly breaks: number;
}

export const FAIR_ATTACH: AttachWeather = { refused: 0, lineLost: 0, markerLost: 0, breaks: 0 };

/** What may happen to the bytes of one stream, for a test that decides about each. */
export type Passage = "line" | "marker";

/** The longest that bytes may be on their way: a proxy may hold them. They may arrive after the stream was closed. */
const PASSAGE_MS = 10_000;
/** A dead connection is noticed by its pings. */
const DEAD_MS = 30_000;
const BREAKS_WITHIN_MS = 60_000;
/** How long the answer to a ping takes. */
const PONG_MS = 2;

export interface StreamParts {
  readonly link: Link;
  readonly clock: Clock;
  readonly random: Random;
  readonly weather: () => AttachWeather;
  /** Whether these bytes are lost, in addition to the weather. */
  readonly loses: (what: Passage) => boolean;
  /** Throws when the process may no longer write. */
  readonly fence: () => void;
  /** Whether the container's node answers. */
  readonly answers: () => boolean;
  /** Called with each text before it is on its way. */
  readonly wrote: (text: string) => void;
  readonly container: RunningContainer;
}

/** An attach stream of one process over its link. */
export class FakeAttachStream implements AttachStream {
  readonly #closed = Promise.withResolvers<string>();
  readonly closed = this.#closed.promise;
  isOpen = true;
  output = "";
  readonly #parts: StreamParts;
  readonly #unfollow: () => void;
  readonly #waiters = new Set<() => void>();
  /** Nothing passes any more, and this end doesn't know it yet. */
  #isDead = false;

  constructor(parts: StreamParts) {
    this.#parts = parts;
    const { clock, random, weather, container } = parts;
    this.#unfollow = container.follow((text) => this.#printed(text));
    void container.ended.then(() => this.#end("the server closed the stream"));
    if (this.#chance(weather().breaks)) clock.setTimer(() => this.#end(BROKEN), random() * BREAKS_WITHIN_MS);
  }

  send(text: string): void {
    if (!this.isOpen) throw new KubeApiError("attach: the stream is closed", { status: 0 });
    const { fence, wrote, container } = this.#parts;
    fence();
    wrote(text);
    if (this.#passes("line")) this.#pass(() => container.write(text));
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

  answers(signal: AbortSignal): Promise<boolean> {
    const { answers, clock } = this.#parts;
    return new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(false));
      void this.closed.then(() => resolve(false));
      if (!this.#isDead && answers()) clock.setTimer(() => resolve(this.isOpen), PONG_MS);
    });
  }

  close(): void {
    this.#end("closed by this client");
  }

  /** The connection breaks, and this end knows it. */
  cut(): void {
    this.#end(BROKEN);
  }

  #printed(text: string): void {
    if (!this.#passes("marker")) return;
    this.#pass(
      () => {},
      () => {
        if (!this.isOpen) return;
        this.output += text;
        this.#wake();
      },
    );
  }

  #passes(what: Passage): boolean {
    const { weather, loses, clock, random } = this.#parts;
    if (this.#isDead || !this.#parts.answers()) return false;
    const share = what === "line" ? weather().lineLost : weather().markerLost;
    if (!this.#chance(share) && !loses(what)) return true;
    this.#isDead = true;
    clock.setTimer(() => this.#end("no answer to a ping"), random() * DEAD_MS);
    return false;
  }

  /** Sends bytes over the network. `arrived` is called in this process, unless it was killed. */
  #pass(effect: () => void, arrived: () => void = () => {}): void {
    this.#parts.link.send({ effect, boundMs: PASSAGE_MS }).then(arrived, () => this.#end(BROKEN));
  }

  #chance(share: number): boolean {
    return share > 0 && this.#parts.random() < share;
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#unfollow();
    this.#closed.resolve(reason);
    this.#wake();
  }

  #wake(): void {
    for (const check of this.#waiters) check();
  }
}

const BROKEN = "the connection was lost";
