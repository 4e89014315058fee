/** A virtual timeline with processes and lossy requests, for the property tests of the protocol. */

/** A sequence of events on its own clock, on which the protocol of a claim is tested. Times are in milliseconds. */
export class Timeline {
  nowMs = 0;
  #order = 0;
  #events: { readonly atMs: number; readonly order: number; readonly run: () => void }[] = [];
  readonly random: () => number;
  /** The events so far, for failure messages. */
  readonly log: string[] = [];

  constructor(seed: number) {
    this.random = mulberry32(seed);
  }

  /** A number in [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * this.random();
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  pick<T>(values: readonly T[]): T {
    const value = values[Math.floor(this.random() * values.length)];
    if (value === undefined) throw new RangeError("nothing to pick from");
    return value;
  }

  say(what: string): void {
    this.log.push(`${(this.nowMs / 1_000).toFixed(3)} ${what}`);
  }

  /** Runs `run` after `ms`. The returned function cancels it. */
  after(ms: number, run: () => void): () => void {
    const event = { atMs: this.nowMs + Math.max(0, ms), order: this.#order, run };
    this.#order += 1;
    const index = this.#events.findIndex((other) => other.atMs > event.atMs);
    this.#events.splice(index < 0 ? this.#events.length : index, 0, event);
    return () => {
      this.#events = this.#events.filter((other) => other !== event);
    };
  }

  /** Runs events until `isDone` or `untilMs`. Returns whether `isDone` was reached. */
  run(isDone: () => boolean, untilMs: number): boolean {
    let atOnce = 0;
    while (!isDone()) {
      const next = this.#events.shift();
      if (!next || next.atMs > untilMs) return false;
      atOnce = next.atMs > this.nowMs ? 0 : atOnce + 1;
      // A loop that never waits would hang the test instead of failing it.
      if (atOnce > MOST_AT_ONCE) throw new Error(`no end of events at one time\n${this.log.slice(-30).join("\n")}`);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    return true;
  }
}

/** The maximum number of events at one instant. */
const MOST_AT_ONCE = 10_000;

/** A small seeded generator (Tommy Ettinger's mulberry32, public domain). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What a process waits for: time (or a poke), or the answer to a request. */
export type Waiting =
  | { readonly for: "time"; readonly ms: number }
  | { readonly for: "answer"; readonly bound: number; readonly slow: number; readonly effect: () => unknown };

/** A request that got no answer in time. It may have taken effect. */
export class NoAnswerError extends Error {
  override name = "NoAnswerError";
}

export type Script<T = void> = Generator<Waiting, T, unknown>;

export function* sleep(ms: number): Script {
  yield { for: "time", ms };
}

/**
 * A request takes effect within its timeout or never. Its answer comes within the timeout or is lost.
 * @param slow the maximum usual one-way latency
 */
export function* request<T>(effect: () => T, bound: number, slow: number): Script<T> {
  return (yield { for: "answer", bound, slow, effect }) as T;
}

/** The share of requests, and of answers, that the network loses: from 0 to 1. */
export type Loss = () => number;

/** How many times more requests are slow than lost. */
const SLOW_PER_LOST = 5;

/**
 * Runs a script on a timeline. A process that ended or was killed receives nothing more, but its requests still take
 * effect.
 */
export class Process {
  readonly #timeline: Timeline;
  readonly #script: Script;
  readonly #loss: Loss;
  #alive = true;
  #wake: (() => void) | null = null;

  constructor(timeline: Timeline, script: Script, loss: Loss) {
    this.#timeline = timeline;
    this.#script = script;
    this.#loss = loss;
    this.#go(() => this.#script.next());
  }

  get alive(): boolean {
    return this.#alive;
  }

  kill(): void {
    this.#alive = false;
  }

  /** Ends a wait for time early. */
  poke(): void {
    this.#wake?.();
  }

  #go(resume: () => IteratorResult<Waiting, void>): void {
    if (!this.#alive) return;
    const { done, value } = resume();
    if (done) {
      this.#alive = false;
    } else if (value.for === "time") {
      const wake = () => {
        cancel();
        this.#wake = null;
        this.#go(() => this.#script.next());
      };
      const cancel = this.#timeline.after(value.ms, wake);
      this.#wake = wake;
    } else {
      this.#send(value);
    }
  }

  #send({ bound, slow, effect }: Waiting & { for: "answer" }): void {
    const timeline = this.#timeline;
    const loss = this.#loss();
    const thereMs = timeline.between(0, timeline.chance(loss * SLOW_PER_LOST) ? bound : slow);
    const backMs = timeline.between(0, timeline.chance(loss * SLOW_PER_LOST) ? bound : slow);
    const lost = timeline.chance(loss);
    const unheard = lost || thereMs + backMs >= bound || timeline.chance(loss);
    if (!lost) {
      timeline.after(thereMs, () => {
        const answer = this.#answerOf(effect);
        if (!unheard) timeline.after(backMs, () => this.#go(answer));
      });
    }
    if (unheard) {
      timeline.after(bound, () => this.#go(() => this.#script.throw(new NoAnswerError("no answer in time"))));
    }
  }

  #answerOf(effect: () => unknown): () => IteratorResult<Waiting, void> {
    try {
      const value = effect();
      return () => this.#script.next(value);
    } catch (error) {
      return () => this.#script.throw(error);
    }
  }
}
