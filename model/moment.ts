import type { Rules } from "./rules.ts";
import { type Layout, normalize, OPERATOR, type State } from "./state.ts";
import type { Outcome, Step } from "./steps.ts";

/** Receives every possible step with the state that it leads to. The state is reused: copy it. */
export type Sink = (next: State, step: Step) => void;

/** The largest number of states that one step builds on: a reported state may be changed further. */
const SCRATCH = 4;

/** One state whose steps are being reported. */
export class Moment {
  readonly layout: Layout;
  readonly rules: Rules;
  state: State;
  readonly #sink: Sink;
  readonly #scratch: State[];
  #used = 0;

  constructor(layout: Layout, sink: Sink) {
    this.layout = layout;
    this.rules = layout.rules;
    this.#sink = sink;
    this.state = layout.initial();
    this.#scratch = Array.from({ length: SCRATCH }, () => new Uint8Array(layout.size));
  }

  /** A byte of the state. */
  byte(at: number): number {
    return this.state[at] ?? 0;
  }

  /** Whether the Environment of an operator is being deleted. */
  isDeleted(operator: number): boolean {
    return this.byte(this.layout.operator(operator) + OPERATOR.deleted) === 1;
  }

  /** A copy of the state, to be changed into the next one. */
  fork(): State {
    this.#used = (this.#used + 1) % SCRATCH;
    const next = this.#scratch[this.#used] ?? this.layout.initial();
    next.set(this.state);
    return next;
  }

  tell(next: State, step: Step): void {
    normalize(this.layout, next);
    this.#sink(next, step);
  }

  /** Reports a step of no operator. */
  hidden(
    next: State,
    name: Step["name"],
    about: { pod?: number; item?: number; fault?: boolean; breaks?: string | null },
  ) {
    const { pod = -1, item = -1, fault = false, breaks = null } = about;
    this.tell(next, { name, outcome: "", operator: -1, pod, item, fault, breaks });
  }

  /** Reports a step of an operator, or a fault that hits it. */
  of(
    operator: number,
    next: State,
    name: Step["name"],
    about: { outcome?: Outcome; item?: number; fault?: boolean } = {},
  ) {
    const { outcome = "", item = -1, fault = false } = about;
    this.tell(next, { name, outcome, operator, pod: -1, item, fault, breaks: null });
  }
}
