import { ANNOTATION_DEADLINE } from "../../src/api/names.ts";
import type { Clock, Timer } from "../../src/core/clock.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { type ContainerExit, EXIT_SIGKILL, EXIT_SIGTERM, type LiveContainer } from "./runtime.ts";

/** The keeper's `$0`. */
const KEEPER_NAME = "berth-keeper";
/** Its exit code at the deadline. */
const EXIT_DEADLINE = 4;
/** The longest time between two looks at the deadline. */
export const KEEPER_LOOK_MS = 300_000;

/** Whether a container keeps its Pod while the Pod's session sleeps. */
export function isKeeper({ command }: Container): boolean {
  return command?.[3] === KEEPER_NAME;
}

/** Returns the Pod's deadline in seconds since the epoch, or undefined if it has none or an unreadable one. */
function deadlineOf({ metadata: { annotations } }: Pod): number | undefined {
  const text = annotations?.[ANNOTATION_DEADLINE] ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/**
 * A keeper without a process: it runs until its Pod is deleted, or until the deadline has passed. A deadline that
 * changes while it sleeps counts from its next look on, as for the real script.
 */
export class Keeper implements LiveContainer {
  readonly #clock: Clock;
  readonly #deadline: () => number | undefined;
  readonly #lookMs: number;
  readonly #onExit: (exit: ContainerExit) => void;
  #timer: Timer | undefined;
  #hasEnded = false;

  /**
   * @param pod the Pod as its node knows it now
   * @param lookMs the longest time between two looks at the deadline
   */
  constructor(clock: Clock, pod: () => Pod, onExit: (exit: ContainerExit) => void, lookMs = KEEPER_LOOK_MS) {
    this.#clock = clock;
    this.#deadline = () => deadlineOf(pod());
    this.#lookMs = lookMs;
    this.#onExit = onExit;
    this.#look();
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    this.#end(signal === "SIGTERM" ? EXIT_SIGTERM : EXIT_SIGKILL);
  }

  #look(): void {
    const nowSeconds = Math.floor(this.#clock.now() / 1_000);
    const leftSeconds = (this.#deadline() ?? Number.POSITIVE_INFINITY) - nowSeconds;
    if (leftSeconds <= 0) this.#end(EXIT_DEADLINE);
    else this.#timer = this.#clock.setTimer(() => this.#look(), Math.min(this.#lookMs, leftSeconds * 1_000));
  }

  #end(exitCode: number): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#timer?.cancel();
    this.#onExit({ exitCode });
  }
}
