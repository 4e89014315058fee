import { describeStep } from "../../../model/describe.ts";
import { CODE, type Rules } from "../../../model/rules.ts";
import { Layout } from "../../../model/state.ts";
import type { Step } from "../../../model/steps.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import type { Timing } from "../../../src/core/timing.ts";
import { Candidates, type UnderWay } from "./candidates.ts";
import { Knowledge } from "./knowledge.ts";
import { type Actor, agrees, effectsOf, lateEffectsOf, READINGS, type Reading } from "./mapping.ts";
import { callOf, type Projection } from "./projection.ts";
import type { Entry } from "./trace.ts";

/** The circumstances in which a trace was recorded. */
export interface Circumstances {
  /** The behavior of the Work API and the side that holds the lease. All other rules are those of the code. */
  readonly rules: Partial<Rules>;
  readonly timing: Timing;
  /** Whether a list may show a state from some seconds ago. */
  readonly listsBehind?: boolean;
  /** Whether the trace shows when a container has ended. */
  readonly showsEnds?: boolean;
}

/** The result of checking one item's trace. */
export interface Checked {
  /** Entries that map to a step of the model. */
  readonly steps: number;
  /** The most candidates at a time. */
  readonly widest: number;
}

/** The model does not allow the trace. */
export class TraceError extends Error {}

/** Far more than any trace needs. The model would silently leave out any beyond these. */
const MOST_PODS = 8;
const MOST_ACKNOWLEDGEMENTS = 200;
/** Limits for a message. */
const MOST_STATES = 6;
const MOST_STEPS = 24;

/** Checks the trace of one item against the model. @throws {TraceError} if the model does not allow the run */
export function checkItem(projection: Projection, circumstances: Circumstances): Checked {
  return new ItemCheck(projection, circumstances).run();
}

class ItemCheck {
  readonly #projection: Projection;
  readonly #layout: Layout;
  readonly #candidates: Candidates;
  readonly #knowledge: Knowledge;
  readonly #allowed = new Set<string>();
  readonly #underWay = new Map<string, UnderWay & { readonly sent: PointEvent }>();
  readonly #listsBehind: boolean;
  #steps = 0;
  #widest = 0;

  constructor(projection: Projection, { rules, timing, listsBehind = false, showsEnds = false }: Circumstances) {
    this.#listsBehind = listsBehind;
    const { lease, parking } = { ...CODE, ...rules };
    const pods = Math.max(...projection.pods.map(({ length }) => length));
    if (pods > MOST_PODS) throw new RangeError(`${projection.workId} was journaled for ${pods} Pods of one operator`);
    this.#projection = projection;
    this.#knowledge = new Knowledge(timing, { lease, waitsForEnds: showsEnds && parking === "Shell" });
    this.#layout = new Layout({
      ...CODE,
      graceful: "moved",
      ...rules,
      operators: projection.environments.length,
      pods,
      acknowledgements: MOST_ACKNOWLEDGEMENTS,
      deletion: true,
    });
    this.#candidates = new Candidates(this.#layout, (step) => this.#isHidden(step));
  }

  run(): Checked {
    for (const [index, entry] of this.#projection.entries.entries()) this.#take(entry, index);
    return { steps: this.#steps, widest: this.#widest };
  }

  #take(entry: Entry, index: number): void {
    switch (entry.is) {
      case "allowed":
        for (const step of entry.steps) this.#allowed.add(step);
        return;
      case "ended":
        this.#operatorStep("fault.crash", entry.environment, index);
        return;
      case "began":
        this.#operatorStep("operator.restart", entry.environment, index);
        return;
      case "over":
        this.#knowledge.over(entry);
        return;
      case "point":
        this.#point(entry.event, index);
        return;
      default:
        entry satisfies never;
    }
  }

  /** Steps that may happen without an entry: those that no operator takes, within what the test allowed. */
  #isHidden({ name, fault }: Step): boolean {
    if (name in READINGS || name === "fault.crash" || name === "operator.restart") return false;
    return !fault || this.#allowed.has(name);
  }

  #operatorStep(name: "fault.crash" | "operator.restart", environment: string, index: number): void {
    const operator = this.#projection.environments.indexOf(environment);
    this.#spread();
    // An operator that ended receives no further answers.
    for (const [call, { sent }] of this.#underWay) if (sent.environment === environment) this.#forget(call);
    this.#candidates.go((state, successors) => {
      const ways = successors.filter(({ step }) => step.name === name && step.operator === operator);
      // An operator that already runs or has ended does not change state again.
      return ways.length > 0 ? ways.map(({ next }) => next) : [state];
    });
    this.#judge(index, [], null);
  }

  #point(event: PointEvent, index: number): void {
    const broken = this.#knowledge.take(event);
    if (broken !== null) this.#fail(index, broken, this.#candidates.describe(MOST_STATES), null);
    const reading = READINGS[event.point];
    if (!reading) return;
    this.#steps += 1;
    const { environments, pods } = this.#projection;
    const operator = environments.indexOf(event.environment);
    const own = pods[operator]?.indexOf(event.pod ?? "") ?? -1;
    const pod = own < 0 ? -1 : operator * this.#layout.rules.pods + own;
    const actor: Actor = { layout: this.#layout, operator, pod };
    if (pod < 0 && event.point !== "claim.poll") return;
    if (event.phase === "before") this.#send(event, reading, actor);
    else if (event.phase === "after") this.#answer(event, reading, actor, index);
    else this.#decide(event, reading, actor, index);
  }

  #send(sent: PointEvent, reading: Reading, actor: Actor): void {
    // What happened before the request was sent can't be its effect.
    this.#spread();
    this.#underWay.set(callOf(sent), {
      call: callOf(sent),
      sent,
      effects: (state, successors) => effectsOf(reading, actor, sent.asks, state, successors),
    });
  }

  #answer(event: PointEvent, reading: Reading, actor: Actor, index: number): void {
    const call = callOf(event);
    const { asks } = this.#underWay.get(call)?.sent ?? event;
    this.#spread();
    const before = this.#candidates.describe(MOST_STATES);
    const could = this.#couldHave(actor);
    const isOld = this.#listsBehind && event.point === "session.look";
    const { outcome = "ok", details } = isOld ? { ...event, outcome: "unanswered" as const } : event;
    const isLate = outcome === "unanswered" && !reading.reads;
    this.#candidates.keep(
      ({ state, taken }) => agrees(reading, actor, { outcome, details, asks }, state, taken.get(call) ?? null),
      isLate ? undefined : call,
    );
    const under = this.#underWay.get(call);
    this.#underWay.delete(call);
    if (isLate && under) {
      // The request may still take effect.
      const effects: UnderWay["effects"] = (state, successors) =>
        lateEffectsOf(reading, actor, asks, state, successors);
      this.#underWay.set(call, { ...under, effects });
    }
    // If the request for the lease of a running container is refused, the lease is lost.
    if (event.point === "session.take" && outcome === "refused") this.#mayLose(actor);
    this.#judge(index, before, could);
  }

  #decide(event: PointEvent, reading: Reading, actor: Actor, index: number): void {
    this.#spread();
    const before = this.#candidates.describe(MOST_STATES);
    const could = this.#couldHave(actor);
    const { asks, details } = event;
    this.#candidates.go((state, successors) => [
      ...effectsOf(reading, actor, asks, state, successors).map(([next]) => next),
      ...(reading.isNothing?.(state, actor, { asks, details }) ? [state] : []),
    ]);
    this.#judge(index, before, could);
  }

  #forget(call: string): void {
    this.#underWay.delete(call);
    this.#candidates.keep(() => true, call);
  }

  #mayLose({ operator, pod }: Actor): void {
    this.#candidates.go((state, successors) => [
      state,
      ...successors
        .filter(({ step }) => step.name === "session.lose" && step.operator === operator && step.pod === pod)
        .map(({ next }) => next),
    ]);
  }

  #spread(): void {
    this.#candidates.spread([...this.#underWay.values()]);
    this.#widest = Math.max(this.#widest, this.#candidates.size);
  }

  /** Texts of the steps that the model would have allowed this operator. */
  #couldHave({ operator, pod }: Actor): string[] {
    const words = this.#candidates.states.flatMap((state) =>
      this.#candidates
        .successors(state)
        .filter(({ step }) => step.operator === operator && (pod < 0 || step.pod === pod) && step.name in READINGS)
        .map(({ step }) => describeStep(step)),
    );
    return [...new Set(words)].slice(0, MOST_STEPS);
  }

  #judge(index: number, before: readonly string[], could: readonly string[] | null): void {
    if (this.#candidates.size === 0) this.#fail(index, "the model does not allow this step", before, could);
  }

  #fail(index: number, why: string, states: readonly string[], could: readonly string[] | null): never {
    const { workId, entries } = this.#projection;
    const upTo = entries.slice(Math.max(0, index - 30), index + 1).map(describeEntry);
    throw new TraceError(
      [
        `${workId}: ${why}`,
        ...upTo.map((line, at) => `${at === upTo.length - 1 ? "  >" : "   "} ${line}`),
        "before it things could stand so:",
        ...states.map((line) => `    ${line}`),
        ...(could ? ["and the model would have allowed:", ...could.map((line) => `    ${line}`)] : []),
      ].join("\n"),
    );
  }
}

function describeEntry(entry: Entry): string {
  if (entry.is === "allowed") return `allowed from here on: ${entry.steps.join(", ")}`;
  if (entry.is === "over") return `${entry.environment} ${entry.pod} has ended`;
  if (entry.is !== "point") return `operator of ${entry.environment} ${entry.is}`;
  const { point, phase, outcome, asks, details, pod, environment, atMs } = entry.event;
  const said = { ...asks, ...details };
  const words = Object.entries(said).map(([name, value]) => `${name} ${value}`);
  return `${atMs} ${environment} ${point} ${phase}${outcome ? ` ${outcome}` : ""} ${pod ?? ""} ${words.join(", ")}`;
}
