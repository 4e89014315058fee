import { createLogUpdate } from "log-update";
import type { BoardEvent } from "./board.ts";
import { renderFrame, type Scene, type Screen } from "./frame.ts";
import { eventLine } from "./lines.ts";

/** Shows the demo. */
export interface View {
  /** Takes in an event. */
  event(event: BoardEvent): void;
  /** Prints a line that stays. */
  line(text: string): void;
  /** Keeps the last picture and draws no more. Idempotent. */
  close(): void;
}

/** Fast enough to look live, slow enough for a slow terminal. */
const FRAME_MS = 125;

/** Moves the cursor to the top left corner, and erases everything below. */
const CLEAR = "\x1b[H\x1b[J";

/** For a terminal that reports no size. */
const DEFAULT_SCREEN = { columns: 80, rows: 24 };

/** Redraws one picture on a terminal. */
export class LiveView implements View {
  readonly #stream: NodeJS.WriteStream;
  readonly #scene: () => Scene;
  readonly #update: ReturnType<typeof createLogUpdate>;
  readonly #colour: boolean;
  readonly #timer: NodeJS.Timeout;
  #closed = false;

  constructor(stream: NodeJS.WriteStream, colour: boolean, scene: () => Scene) {
    this.#stream = stream;
    this.#scene = scene;
    this.#colour = colour;
    this.#update = createLogUpdate(stream);
    this.#timer = setInterval(() => this.#draw(), FRAME_MS);
    this.#stream.on("resize", this.#redraw);
    this.#draw();
  }

  event(): void {}

  line(text: string): void {
    this.#update.persist(text);
    this.#draw();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.#stream.off("resize", this.#redraw);
    this.#draw();
    this.#update.done();
  }

  /** A terminal that changes its size wraps the lines of the picture, so that they can't be erased one by one. */
  readonly #redraw = (): void => {
    this.#update.done();
    this.#stream.write(CLEAR);
    this.#draw();
  };

  #draw(): void {
    this.#update(renderFrame(this.#scene(), this.#screen).join("\n"));
  }

  get #screen(): Screen {
    const { columns, rows } = this.#stream;
    return {
      columns: columns || DEFAULT_SCREEN.columns,
      rows: rows || DEFAULT_SCREEN.rows,
      colour: this.#colour,
    };
  }
}

/** Writes one line per event. */
export class PlainView implements View {
  readonly #stream: NodeJS.WritableStream;
  readonly #startedAt: number;

  /** @param startedAt on the clock of the events */
  constructor(stream: NodeJS.WritableStream, startedAt: number) {
    this.#stream = stream;
    this.#startedAt = startedAt;
  }

  event(event: BoardEvent): void {
    const text = eventLine(event, this.#startedAt);
    if (text !== undefined) this.line(text);
  }

  line(text: string): void {
    this.#stream.write(`${text}\n`);
  }

  close(): void {}
}

/** Whether styles may be used: on a terminal, unless NO_COLOR or a dumb terminal forbids it (https://no-color.org). */
export function wantsColour(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";
}

/** Whether a picture can be redrawn in place. */
export function wantsLive(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && env["TERM"] !== "dumb" && !env["CI"];
}
