import { describeState } from "../../../model/describe.ts";
import { tellSteps } from "../../../model/explore.ts";
import { Moment } from "../../../model/moment.ts";
import type { Layout, State } from "../../../model/state.ts";
import type { Step } from "../../../model/steps.ts";

/** A step that may be taken, with where it leads. */
export interface Successor {
  readonly next: State;
  readonly step: Step;
}

/** One way in which things may stand: a state of the model, and which of the requests under way took effect already. */
export interface Candidate {
  readonly state: State;
  /** By call: the outcome of the step that was taken for it, or what a read saw. */
  readonly taken: ReadonlyMap<string, string>;
}

/** A request under way, between its two entries in the trace. */
export interface UnderWay {
  readonly call: string;
  /** How it may take effect in a state: the state after it, and a word for how. A read changes nothing. */
  effects(state: State, successors: readonly Successor[]): readonly (readonly [next: State, how: string])[];
}

/** All ways in which things may stand, given what was seen so far. */
export class Candidates {
  readonly #layout: Layout;
  readonly #isHidden: (step: Step) => boolean;
  readonly #steps = new Map<string, readonly Successor[]>();
  #all = new Map<string, Candidate>();

  /** @param isHidden whether a step may have happened without a trace */
  constructor(layout: Layout, isHidden: (step: Step) => boolean) {
    this.#layout = layout;
    this.#isHidden = isHidden;
    this.#put({ state: layout.initial(), taken: new Map() });
  }

  get size(): number {
    return this.#all.size;
  }

  get states(): State[] {
    return [...this.#all.values()].map(({ state }) => state);
  }

  /** Lets everything happen that nobody sees, and what is under way take effect. */
  spread(underWay: readonly UnderWay[]): void {
    for (const { state, taken } of this.#all.values()) {
      const successors = this.successors(state);
      for (const { next, step } of successors) if (this.#isHidden(step)) this.#put({ state: next, taken });
      for (const { call, effects } of underWay) {
        if (taken.has(call)) continue;
        for (const [next, how] of effects(state, successors)) {
          this.#put({ state: next, taken: new Map(taken).set(call, how) });
        }
      }
    }
  }

  /** Keeps only what agrees with what was seen; `forget` is a call that is over. */
  keep(agrees: (candidate: Candidate) => boolean, forget?: string): void {
    const kept = [...this.#all.values()].filter(agrees);
    this.#all = new Map();
    for (const { state, taken } of kept) {
      if (forget === undefined) this.#put({ state, taken });
      else this.#put({ state, taken: new Map([...taken].filter(([call]) => call !== forget)) });
    }
  }

  /** Goes on to where each candidate's successors lead. */
  go(to: (state: State, successors: readonly Successor[]) => readonly State[]): void {
    const before = [...this.#all.values()];
    this.#all = new Map();
    for (const { state, taken } of before) {
      for (const next of to(state, this.successors(state))) this.#put({ state: next, taken });
    }
  }

  /** What may be done in a state. */
  successors(state: State): readonly Successor[] {
    const key = keyOf(state);
    const known = this.#steps.get(key);
    if (known) return known;
    const found: Successor[] = [];
    const moment = new Moment(this.#layout, (next, step) => found.push({ next: next.slice(), step }));
    moment.state = state;
    tellSteps(moment);
    this.#steps.set(key, found);
    return found;
  }

  /** Some of the states, in words. */
  describe(most: number): string[] {
    const words = this.states.map((state) => describeState(this.#layout, state));
    return [...new Set(words)].slice(0, most);
  }

  #put(candidate: Candidate): void {
    const taken = [...candidate.taken].map(([call, how]) => `${call}=${how}`).sort();
    const key = `${keyOf(candidate.state)} ${taken.join()}`;
    if (!this.#all.has(key)) this.#all.set(key, candidate);
  }
}

function keyOf(state: State): string {
  return String.fromCharCode(...state);
}
