import type { Clock, Timer } from "../../src/core/clock.ts";
import { type ScriptedInput, ScriptedStreams } from "./container-streams.ts";
import { type ContainerExit, EXIT_SIGKILL, EXIT_SIGTERM, type LiveContainer, type StartRequest } from "./runtime.ts";
import { FrameError, isStartedByShell, type Parking, readFrame, type SessionFrame, STARTED } from "./session-frame.ts";

/** The waiting shell's exit code when its standard input is closed, or when a frame fails. */
const EXIT_NO_FRAME = 75;
/** The shell's exit code when its program isn't in the image. */
const EXIT_NOT_FOUND = 127;

/**
 * A scripted container that waits for its session: it reads its standard input up to a right frame, prints the marker,
 * and starts its program with the frame's variables. Only then does its fate begin.
 */
export class WaitingContainer implements LiveContainer, ScriptedInput {
  readonly streams = new ScriptedStreams(this);
  readonly #clock: Clock;
  readonly #parking: Parking;
  readonly #request: StartRequest;
  readonly #run: (request: StartRequest) => LiveContainer;
  #unread = "";
  /** The line that started the program. */
  #line: string | undefined;
  #delay: Timer | undefined;
  #program: LiveContainer | undefined;
  #hasEnded = false;

  /** @param run starts the program */
  constructor(clock: Clock, parking: Parking, request: StartRequest, run: (request: StartRequest) => LiveContainer) {
    this.#clock = clock;
    this.#parking = parking;
    this.#request = request;
    this.#run = run;
    // A shell finds out before it waits.
    if (isStartedByShell(request.container) && request.fate?.kind === "start-error") this.#notFound();
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.#program) this.#program.signal(signal);
    else this.#end({ exitCode: signal === "SIGTERM" ? EXIT_SIGTERM : EXIT_SIGKILL });
  }

  read(bytes: Buffer): void {
    const lines = (this.#unread + bytes.toString("latin1")).split("\n");
    this.#unread = lines.pop() ?? "";
    for (const line of lines) this.#readLine(line);
  }

  closed(): void {
    if (this.#line === undefined) this.#end({ exitCode: EXIT_NO_FRAME });
  }

  #readLine(line: string): void {
    if (this.#hasEnded || line === this.#line) return;
    try {
      const frame = readFrame(line, this.#parking);
      if (!frame) return;
      if (this.#line !== undefined) throw new FrameError("a second session was sent to a container");
      this.#line = line;
      this.#start(frame);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#request.onFault?.(error);
      // A program that runs never sees the line.
      if (this.#line === undefined) this.#fail(EXIT_NO_FRAME, error.message);
    }
  }

  #start(variables: SessionFrame): void {
    const request = this.#request;
    const fate = request.fateNow ? request.fateNow() : request.fate;
    this.streams.print(STARTED);
    if (fate?.kind === "start-error") {
      this.#notFound();
      return;
    }
    const started = {
      ...request,
      fate,
      env: { ...request.env, ...variables },
      onExit: (exit: ContainerExit) => this.#end(exit),
    };
    this.#delay = this.#clock.setTimer(() => {
      this.#program = this.#run(started);
    }, request.latency.of(fate?.startDelayMs));
  }

  #notFound(): void {
    this.#fail(
      EXIT_NOT_FOUND,
      `${this.#request.container.command?.[4] ?? ""}: not found in the image, or not executable`,
    );
  }

  #fail(exitCode: number, message: string): void {
    this.streams.printError(message);
    const shows = this.#request.container["terminationMessagePolicy"] === "FallbackToLogsOnError";
    this.#end({ exitCode, ...(shows ? { message: `${message}\n` } : {}) });
  }

  #end(exit: ContainerExit): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#delay?.cancel();
    this.#request.onExit(exit);
  }
}
