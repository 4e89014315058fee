/** Offers `Play`, which evaluates the scaling policies over time and writes every decision. */

import { decideScale, type ScaleDecision } from "../../src/autoscale/decide-scale.ts";
import {
  recordScale,
  type ScaleHistory,
  type ScalingBehavior,
  startHistory,
} from "../../src/autoscale/scale-history.ts";
import { inputOf } from "./scale-inputs.ts";

/** The loop around the policies. It writes every decision at once and records it. */
export class Play {
  current: number;
  history: ScaleHistory;
  nowMs = 0;
  readonly #options: { behavior: ScalingBehavior; min?: number; max?: number };

  constructor(options: { current: number; behavior: ScalingBehavior; min?: number; max?: number }) {
    this.current = options.current;
    this.history = startHistory(options.current, this.nowMs);
    this.#options = options;
  }

  /** One evaluation, `afterSeconds` after the last one. */
  step(afterSeconds: number, sessions: number): ScaleDecision {
    this.nowMs += afterSeconds * 1_000;
    const decision = decideScale(
      inputOf({ ...this.#options, current: this.current, sessions, history: this.history, nowMs: this.nowMs }),
    );
    this.history = recordScale(
      decision.history,
      { from: this.current, to: decision.replicas, atMs: this.nowMs },
      this.#options.behavior,
    );
    this.current = decision.replicas;
    return decision;
  }

  /** The count after each of `times` evaluations with a constant demand. */
  steps(times: number, everySeconds: number, sessions: number): number[] {
    return Array.from({ length: times }, () => this.step(everySeconds, sessions).replicas);
  }
}
