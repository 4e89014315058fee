import type { Random } from "../../../src/core/backoff.ts";
import type { Clock, Timer } from "../../../src/core/clock.ts";

/** How often requests fail while faults are on, as fractions of 1. */
export interface Weather {
  /** The request or its answer is lost. The sender notices at its timeout, or earlier when the connection breaks. */
  readonly lost: number;
  /** The request or its answer is slow, up to the sender's timeout. */
  readonly slow: number;
  /** The server refuses the request without any effect. */
  readonly refused: number;
}

export const FAIR: Weather = { lost: 0, slow: 0, refused: 0 };

/** The usual one-way latency, in milliseconds. */
const USUAL_MS = 12;

/** A request without an answer. */
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
  /** Creates the server's refusal when the weather calls for one. */
  readonly refuse?: (() => Error) | undefined;
}

/** The network of one process. After a cut, the process gets no answer, but its requests may take effect. */
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
   * A request takes effect within its timeout or never (the model's F). Its answer arrives within the timeout or is
   * lost.
   * @throws NoAnswer, or the error of the effect
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
      // A lost packet leads to a timeout, or to an earlier connection error.
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

  /** Ends the process. Some of its pending requests take effect, but no answer is delivered. */
  cut(): void {
    this.#cut = true;
    for (const { atServer } of this.#pending) if (this.#random() < 0.5) atServer.cancel();
    this.#pending.clear();
  }
}

async function run<T>(effect: () => T | Promise<T>): Promise<T> {
  return effect();
}

/** A clock that stops when its process is killed: none of its timers runs afterwards. */
export class ProcessClock implements Clock {
  readonly #clock: Clock;
  /** How far this wall clock is ahead of the shared clock, in milliseconds. Negative: behind. */
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
