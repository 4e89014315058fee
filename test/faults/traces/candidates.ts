import { describeState } from "../../../model/describe.ts";
import { tellSteps } from "../../../model/explore.ts";
import { Moment } from "../../../model/moment.ts";
import { type Layout, type State, VOLUME } from "../../../model/state.ts";
import type { Step } from "../../../model/steps.ts";

/** A possible step and the state after it. */
export interface Successor {
  readonly next: State;
  readonly step: Step;
}

/** One possible situation: a state of the model, and which requests in flight have already taken effect. */
export interface Candidate {
  readonly state: State;
  /** By call: the outcome of the step that took effect for it, or the value that a read saw. */
  readonly taken: ReadonlyMap<string, string>;
}

/** A request in flight, between its two entries in the trace. */
export interface UnderWay {
  readonly call: string;
  /** Late requests with the same effects share this. The order in which they take effect makes no difference. */
  readonly alike?: string;
  /** How the request may take effect in a state: the next state, and a word for the outcome. A read changes nothing. */
  effects(state: State, successors: readonly Successor[]): readonly (readonly [next: State, how: string])[];
}

/** All situations that are possible, given what was observed so far. */
export class Candidates {
  readonly #layout: Layout;
  readonly #isHidden: (step: Step) => boolean;
  readonly #steps = new Map<string, readonly Successor[]>();
  #all = new Map<string, Candidate>();

  /** @param isHidden whether a step may happen without an entry in the trace */
  constructor(layout: Layout, isHidden: (step: Step) => boolean) {
    this.#layout = layout;
    this.#isHidden = isHidden;
    this.#put({ state: layout.hasVolumes ? layout.empty() : layout.initial(), taken: new Map() });
  }

  get size(): number {
    return this.#all.size;
  }

  get states(): State[] {
    return [...this.#all.values()].map(({ state }) => state);
  }

  /** Adds what hidden steps and requests in flight can lead to. */
  spread(underWay: readonly UnderWay[]): void {
    for (const { state, taken } of this.#all.values()) {
      const successors = this.successors(state);
      for (const { next, step } of successors) if (this.#isHidden(step)) this.#put({ state: next, taken });
      const alikes = new Set<string>();
      for (const { call, alike, effects } of underWay) {
        if (taken.has(call) || (alike !== undefined && alikes.has(alike))) continue;
        if (alike !== undefined) alikes.add(alike);
        for (const [next, how] of effects(state, successors)) {
          this.#put({ state: next, taken: new Map(taken).set(call, alike === undefined ? how : LATE) });
        }
      }
    }
  }

  /** Keeps the candidates that agree with the observation, and drops the finished call `forget` from them. */
  keep(agrees: (candidate: Candidate) => boolean, forget?: string): void {
    const kept = [...this.#all.values()].filter(agrees);
    this.#all = new Map();
    for (const { state, taken } of kept) {
      if (forget === undefined) this.#put({ state, taken });
      else this.#put({ state, taken: new Map([...taken].filter(([call]) => call !== forget)) });
    }
  }

  /** From now on, it makes no difference which of these late requests took effect, and how. */
  confuse(calls: readonly string[]): void {
    const before = [...this.#all.values()];
    this.#all = new Map();
    for (const { state, taken } of before) {
      const others = [...taken].filter(([call]) => !calls.includes(call));
      const late = calls.slice(0, taken.size - others.length).map((call) => [call, LATE] as const);
      this.#put({ state, taken: new Map([...others, ...late]) });
    }
  }

  /** Changes every state, so that candidates that differ in what no longer matters become one. */
  merge(change: (state: State) => State): void {
    const before = [...this.#all.values()];
    this.#all = new Map();
    for (const { state, taken } of before) this.#put({ state: change(state), taken });
  }

  /** Moves each candidate on to the states that `to` selects from its successors. */
  go(to: (state: State, successors: readonly Successor[]) => readonly State[]): void {
    const before = [...this.#all.values()];
    this.#all = new Map();
    for (const { state, taken } of before) {
      for (const next of to(state, this.successors(state))) this.#put({ state: next, taken });
    }
  }

  /** The steps that are possible in a state. */
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

  /** Texts of some of the states. */
  describe(most: number): string[] {
    const words = this.states.map((state) => describeState(this.#layout, state));
    return [...new Set(words)].slice(0, most);
  }

  #put({ state, taken: all }: Candidate): void {
    const candidate = { state: this.#layout.hasVolumes ? withoutFiles(this.#layout, state) : state, taken: all };
    const taken = [...candidate.taken].map(([call, how]) => `${call}=${how}`).sort();
    const key = `${keyOf(candidate.state)} ${taken.join()}`;
    if (!this.#all.has(key)) this.#all.set(key, candidate);
  }
}

/** How a request took effect that got no answer. */
const LATE = "late";

/** No step depends on the files of a volume: they only show that a promise was broken. */
function withoutFiles(layout: Layout, state: State): State {
  const next = state.slice();
  for (let volume = 0; volume < layout.volumes; volume += 1) {
    next[layout.volume(volume) + VOLUME.files] = 0;
    next[layout.volume(volume) + VOLUME.used] = 0;
  }
  return next;
}

function keyOf(state: State): string {
  return String.fromCharCode(...state);
}
