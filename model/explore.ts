import { describeState, describeStep } from "./describe.ts";
import { Moment } from "./moment.ts";
import { nodeSteps } from "./node.ts";
import { operatorSteps } from "./operator.ts";
import { NumberList, StateStore } from "./packed.ts";
import { brokenBy, isSettled } from "./properties.ts";
import type { Rules } from "./rules.ts";
import { lateAckSteps, serverSteps } from "./server.ts";
import { Layout, type State } from "./state.ts";
import type { Step } from "./steps.ts";
import { volumeNodeSteps } from "./volumes.ts";

export interface Exploration {
  readonly states: number;
  /** False: the limit was reached first, and L was not checked. */
  readonly isComplete: boolean;
  /** The broken properties by their text, each with a shortest path to the failure. */
  readonly failures: ReadonlyMap<string, readonly string[]>;
}

/** More than any scope needs. Without it, a rule that counts forever would fill the memory. */
const LIMIT = 8_000_000;

/** Reports all steps that are possible in the moment's state. */
export function tellSteps(moment: Moment): void {
  const { layout } = moment;
  for (let item = 0; item < layout.items; item += 1) serverSteps(moment, item);
  for (let pod = 0; pod < layout.pods; pod += 1) nodeSteps(moment, pod);
  volumeNodeSteps(moment);
  for (let operator = 0; operator < layout.operators; operator += 1) {
    lateAckSteps(moment, operator);
    operatorSteps(moment, operator);
  }
}

interface Found {
  readonly from: number;
  readonly step: Step;
  readonly next: State;
}

/** Visits all reachable states, breadth first: the first failure of each kind has a shortest path. */
export function explore(rules: Rules, limit = LIMIT): Exploration {
  const layout = new Layout(rules);
  const store = new StateStore(layout.size);
  const parents = new NumberList();
  // Steps without faults, for the backward search.
  const froms = new NumberList();
  const tos = new NumberList();
  const found = new Map<string, Found>();
  let from = 0;
  const moment = new Moment(layout, (next, step) => {
    const before = store.count;
    const to = store.add(next);
    if (to === before) {
      parents.push(from);
      const broken = brokenBy(layout, next);
      if (broken && !found.has(broken)) found.set(broken, { from, step, next: next.slice() });
    }
    if (!step.fault && to !== from) {
      froms.push(from);
      tos.push(to);
    }
    if (step.breaks && !found.has(step.breaks)) found.set(step.breaks, { from, step, next: next.slice() });
  });
  store.add(layout.initial());
  parents.push(-1);
  for (; from < store.count && store.count <= limit; from += 1) {
    moment.state = store.at(from).slice();
    tellSteps(moment);
  }
  const isComplete = from === store.count;
  const way = new Way(layout, store, parents);
  const failures = new Map([...found].map(([words, last]) => [words, way.through(last)]));
  const stranded = isComplete ? firstStranded(layout, store, froms, tos) : -1;
  if (stranded >= 0) failures.set("L no way without a fault to a settled end", way.to(stranded));
  return { states: store.count, isComplete, failures };
}

/** The first state from which no steps without faults lead to a settled one; -1: none. */
function firstStranded(layout: Layout, store: StateStore, froms: NumberList, tos: NumberList): number {
  // Edges grouped by target: those to `to` are at starts[to] up to starts[to + 1].
  const starts = new Int32Array(store.count + 2);
  for (let edge = 0; edge < tos.length; edge += 1) bump(starts, tos.at(edge) + 2, 1);
  for (let index = 2; index < starts.length; index += 1) bump(starts, index, starts[index - 1] ?? 0);
  const sources = new Int32Array(tos.length);
  for (let edge = 0; edge < tos.length; edge += 1) {
    const slot = tos.at(edge) + 1;
    sources[starts[slot] ?? 0] = froms.at(edge);
    bump(starts, slot, 1);
  }
  const leads = new Uint8Array(store.count);
  const work: number[] = [];
  const reach = (index: number) => {
    if (leads[index]) return;
    leads[index] = 1;
    work.push(index);
  };
  for (let index = 0; index < store.count; index += 1) if (isSettled(layout, store.at(index))) reach(index);
  for (let to = work.pop(); to !== undefined; to = work.pop()) {
    for (let edge = starts[to] ?? 0; edge < (starts[to + 1] ?? 0); edge += 1) reach(sources[edge] ?? 0);
  }
  return leads.indexOf(0);
}

function bump(counts: Int32Array, index: number, by: number): void {
  counts[index] = (counts[index] ?? 0) + by;
}

/** The path to a state, as text. Its steps are recomputed instead of stored, since most are never needed. */
class Way {
  readonly #layout: Layout;
  readonly #store: StateStore;
  readonly #parents: NumberList;

  constructor(layout: Layout, store: StateStore, parents: NumberList) {
    this.#layout = layout;
    this.#store = store;
    this.#parents = parents;
  }

  to(index: number): string[] {
    return [...this.#steps(index), `=> ${describeState(this.#layout, this.#store.at(index))}`];
  }

  through({ from, step, next }: Found): string[] {
    return [...this.#steps(from), describeStep(step), `=> ${describeState(this.#layout, next)}`];
  }

  #steps(index: number): string[] {
    const words: string[] = [];
    for (let to = index; to > 0; to = this.#parents.at(to)) words.push(this.#stepTo(to));
    return words.reverse();
  }

  #stepTo(index: number): string {
    const target = this.#store.at(index).slice();
    let words = "";
    const moment = new Moment(this.#layout, (next, step) => {
      if (words === "" && next.every((byte, at) => byte === target[at])) words = describeStep(step);
    });
    moment.state = this.#store.at(this.#parents.at(index)).slice();
    tellSteps(moment);
    return words;
  }
}
