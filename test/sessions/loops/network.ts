import type { Random } from "../../../src/core/backoff.ts";
import type { Clock, Timer } from "../../../src/core/clock.ts";

/** How often requests go wrong while faults are on; shares of 1. */
export interface Weather {
  /** Request or answer lost: the sender finds out by its time-out, or at once by a broken connection. */
  readonly lost: number;
  /** Request or answer slow: up to the sender's bound. */
  readonly slow: number;
  /** Refused by the server without any effect. */
  readonly refused: number;
}

export const FAIR: Weather = { lost: 0, slow: 0, refused: 0 };

/** Usual latency of one way, in milliseconds. */
const USUAL_MS = 12;

/** No answer to a request. `sent` false: it never left. */
export class NoAnswer extends Error {
  readonly kind: "timeout" | "aborted" | "network";
  constructor(kind: "timeout" | "aborted" | "network") {
    super(kind);
    this.kind = kind;
  }
}

interface Pending {
  readonly atServer: Timer;
}

export interface Sending<T> {
  readonly effect: (delayed: boolean) => T | Promise<T>;
  readonly boundMs: number;
  readonly signal?: AbortSignal | undefined;
  /** A refusal by the server, when the weather says so. */
  readonly refuse?: (() => Error) | undefined;
}

/** Where requests of one process travel. A process that is cut off hears no answer any more; its requests may land. */
export class Link {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #weather: () => Weather;
  readonly #pending = new Set<Pending>();
  #cut = false;

  constructor(clock: Clock, random: Random, weather: () => Weather) {
    this.#clock = clock;
    this.#random = random;
    this.#weather = weather;
  }

  /**
   * A request takes effect within its bound or never (the model's F); its answer comes within the bound or is lost.
   * @throws NoAnswer, or what the effect throws.
   */
  send<T>({ effect, boundMs, signal, refuse }: Sending<T>): Promise<T> {
    if (this.#cut) return new Promise(() => {});
    const { lost, slow, refused } = this.#weather();
    const chance = (share: number) => share > 0 && this.#random() < share;
    if (signal?.aborted) return Promise.reject(new NoAnswer("aborted"));
    const thereMs = this.#random() * (chance(slow) ? boundMs : USUAL_MS);
    const backMs = this.#random() * (chance(slow) ? boundMs : USUAL_MS);
    const requestLost = chance(lost);
    const answerLost = chance(lost);
    const refusal = refuse && chance(refused) ? refuse() : undefined;
    return new Promise<T>((resolve, reject) => {
      let settled = false;
      const settle = (act: () => void) => {
        if (settled || this.#cut) return;
        settled = true;
        bound.cancel();
        signal?.removeEventListener("abort", onAbort);
        act();
      };
      const onAbort = () => settle(() => reject(new NoAnswer("aborted")));
      const fail = (kind: "timeout" | "network") => settle(() => reject(new NoAnswer(kind)));
      const bound = this.#clock.setTimer(() => fail("timeout"), boundMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      // A lost packet shows as a time-out, or as a connection that breaks meanwhile.
      if (requestLost || answerLost) {
        if (chance(0.5)) this.#clock.setTimer(() => fail("network"), thereMs + backMs);
      }
      if (requestLost) return;
      const pending: Pending = {
        atServer: this.#clock.setTimer(() => {
          this.#pending.delete(pending);
          const done = refusal ? Promise.reject(refusal) : run(() => effect(thereMs > USUAL_MS));
          done.then(
            (value) => answer(() => resolve(value)),
            (error: unknown) => answer(() => reject(error)),
          );
        }, thereMs),
      };
      const answer = (act: () => void) => {
        if (!answerLost) this.#clock.setTimer(() => settle(act), backMs);
      };
      this.#pending.add(pending);
    });
  }

  /** The process is gone: of its requests under way some still land, nobody hears of any. */
  cut(): void {
    this.#cut = true;
    for (const { atServer } of this.#pending) if (this.#random() < 0.5) atServer.cancel();
    this.#pending.clear();
  }
}

async function run<T>(effect: () => T | Promise<T>): Promise<T> {
  return effect();
}

/** A clock that stops for a process that is killed: none of its timers runs any more. */
export class ProcessClock implements Clock {
  readonly #clock: Clock;
  /** How far its wall clock is ahead of everybody else's; negative: behind. */
  readonly #aheadMs: number;
  readonly #timers = new Set<Timer>();
  #stopped = false;

  constructor(clock: Clock, aheadMs = 0) {
    this.#clock = clock;
    this.#aheadMs = aheadMs;
  }

  now(): number {
    return this.#clock.now() + this.#aheadMs;
  }

  monotonic(): number {
    return this.#clock.monotonic();
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    if (this.#stopped) return { cancel: () => {} };
    const timer = this.#clock.setTimer(() => {
      this.#timers.delete(timer);
      fn();
    }, delayMs);
    this.#timers.add(timer);
    return {
      cancel: () => {
        this.#timers.delete(timer);
        timer.cancel();
      },
    };
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}
