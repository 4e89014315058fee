import { describeStep } from "../../../model/describe.ts";
import { CODE, type Rules } from "../../../model/rules.ts";
import { BODY, ITEM, Layout, OBJECT, POD, STATE, type State } from "../../../model/state.ts";
import type { Step } from "../../../model/steps.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import type { Timing } from "../../../src/core/timing.ts";
import { Candidates, type UnderWay } from "./candidates.ts";
import { Knowledge } from "./knowledge.ts";
import { type Actor, agrees, effectsOf, lateEffectsOf, READINGS, type Reading } from "./mapping.ts";
import { callOf, type Projection, type SessionEntry } from "./projection.ts";

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

/** The result of checking one session's trace. */
export interface Checked {
  /** Entries that map to a step of the model. */
  readonly steps: number;
  /** The most candidates at a time. */
  readonly widest: number;
}

/** The model does not allow the trace. */
export class TraceError extends Error {}

/** More than any trace needs. The model would silently leave out any beyond these. */
const MOST_ITEMS = 8;
const MOST_TURNS = 60;
const MOST_ACKNOWLEDGEMENTS = 200;
/** Limits for a message. */
const MOST_STATES = 6;
const MOST_STEPS = 24;

/** Checks the trace of one session against the model. @throws {TraceError} if the model does not allow the run */
export function checkSession(projection: Projection, circumstances: Circumstances): Checked {
  return new SessionCheck(projection, circumstances).run();
}

/** A request between its two entries, or later, if it got no answer. */
interface Request extends UnderWay {
  readonly sent: PointEvent;
  readonly item: number;
  readonly isLate: boolean;
}

/** Other steps that have an entry: that of an operator's start or end, or of a turn that is added. */
const SHOWN: ReadonlySet<string> = new Set(["fault.crash", "operator.restart", "turn.skip"]);

/** Heartbeats name the value of the one before. */
const kindOf = (point: string): string => (/^session\.(take|beat|fence)$/.test(point) ? "heartbeat" : point);

class SessionCheck {
  readonly #projection: Projection;
  readonly #layout: Layout;
  readonly #candidates: Candidates;
  /** By item. */
  readonly #knowledge: readonly Knowledge[];
  readonly #allowed = new Set<string>();
  readonly #underWay = new Map<string, Request>();
  /** Pods that were journaled for an item. */
  readonly #claimed = new Set<number>();
  /** By item and Pod, the index of its last entry. */
  readonly #lasts = new Map<string, number>();
  readonly #listsBehind: boolean;
  #steps = 0;
  #widest = 0;

  constructor(projection: Projection, { rules, timing, listsBehind = false, showsEnds = false }: Circumstances) {
    this.#listsBehind = listsBehind;
    const { lease, parking } = { ...CODE, ...rules };
    const { workIds, turns, environments } = projection;
    const pods = Math.max(...projection.pods.map(({ length }) => length));
    if (pods * turns > MOST_TURNS || workIds.length > MOST_ITEMS)
      throw new RangeError(`${workIds.join()}: ${pods} Pods of one operator, with ${turns} turns each`);
    this.#projection = projection;
    const waitsForEnds = showsEnds && parking === "Shell";
    this.#knowledge = workIds.map(() => new Knowledge(timing, { lease, waitsForEnds }));
    this.#layout = new Layout({
      ...CODE,
      graceful: "moved",
      ...rules,
      operators: environments.length,
      items: workIds.length,
      ...{ pods, turns, oneSession: true },
      acknowledgements: MOST_ACKNOWLEDGEMENTS,
      deletion: true,
      // A request without an answer may take effect later all the same: the check follows it.
      lateRequests: false,
    });
    this.#candidates = new Candidates(this.#layout, (step) => this.#isHidden(step));
    for (const [index, entry] of projection.entries.entries()) {
      if (entry.is !== "point") continue;
      this.#lasts.set(`item ${entry.item}`, index);
      this.#lasts.set(`pod ${Math.floor(this.#placeOf(entry).pod / turns)}`, index);
    }
  }

  run(): Checked {
    for (const [index, entry] of this.#projection.entries.entries()) {
      this.#take(entry, index);
      this.#forgetOver(index);
    }
    return { steps: this.#steps, widest: this.#widest };
  }

  #take(entry: SessionEntry, index: number): void {
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
        for (const each of this.#knowledge) each.over({ ...entry, pod: nameOf(entry.pod, entry.turn) });
        return;
      case "point":
        this.#point(entry, index);
        return;
      default:
        entry satisfies never;
    }
  }

  /** Steps that may happen without an entry: those that no operator takes, within what the test allowed. */
  #isHidden({ name, fault, pod }: Step): boolean {
    if (name in READINGS || SHOWN.has(name)) return false;
    // What happens to a Pod before its first claim can as well happen at the claim.
    if (pod >= 0 && !this.#claimed.has(Math.floor(pod / this.#layout.rules.turns))) return false;
    return !fault || this.#allowed.has(name);
  }

  /** After its last entry, the ways in which an item or a lost Pod could stand make no difference. */
  #forgetOver(index: number): void {
    const { items, pods, rules } = this.#layout;
    if (![...this.#lasts.values()].includes(index)) return;
    for (const [call, { item }] of this.#underWay) if (this.#isOver(`item ${item}`, index)) this.#forget(call);
    const overItems = range(items).filter((item) => this.#isOver(`item ${item}`, index));
    const overPods = range(pods / rules.turns).filter((pod) => this.#isOver(`pod ${pod}`, index));
    this.#candidates.merge((state) => withoutPast(this.#layout, state, { items: overItems, pods: overPods }));
  }

  #isOver(subject: string, index: number): boolean {
    const last = this.#lasts.get(subject);
    return last !== undefined && last <= index;
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

  #point(entry: SessionEntry & { is: "point" }, index: number): void {
    const { event, item } = entry;
    this.#know(entry, index);
    const reading = READINGS[event.point];
    if (!reading) return;
    this.#steps += 1;
    const actor = { layout: this.#layout, item, ...this.#placeOf(entry) };
    if (actor.pod < 0 && event.point !== "claim.poll") return;
    if (event.point === "claim.journal") this.#claimed.add(Math.floor(actor.pod / this.#layout.rules.turns));
    if (event.phase === "before") this.#send(event, reading, actor);
    else if (event.phase === "after") this.#answer(event, reading, actor, index);
    else this.#decide(event, reading, actor, index);
  }

  #know({ event, item, turn }: SessionEntry & { is: "point" }, index: number): void {
    const named = event.pod === undefined ? event : { ...event, pod: nameOf(event.pod, turn) };
    for (const [each, knowledge] of this.#knowledge.entries()) {
      if (each !== item && event.point !== "sweep.list") continue;
      const broken = knowledge.take(named);
      if (broken !== null) this.#fail(index, broken, this.#candidates.describe(MOST_STATES), null);
    }
  }

  /** The operator, and the turn by the model's numbers. Each Pod of the model waits in its first turn already. */
  #placeOf({ event, turn }: SessionEntry & { is: "point" }): Pick<Actor, "operator" | "pod"> {
    const { environments, pods } = this.#projection;
    const { rules } = this.#layout;
    const operator = environments.indexOf(event.environment);
    const own = pods[operator]?.indexOf(event.pod ?? "") ?? -1;
    const isFirst = event.point === "turn.add" && turn === 1;
    if (own < 0 || isFirst) return { operator, pod: -1 };
    return { operator, pod: (operator * rules.pods + own) * rules.turns + turn - 1 };
  }

  #send(sent: PointEvent, reading: Reading, actor: Actor): void {
    // What happened before the request was sent can't be its effect.
    this.#spread();
    this.#underWay.set(callOf(sent), {
      call: callOf(sent),
      ...{ item: actor.item, isLate: false },
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
    const isLate = outcome === "unanswered" && !reading.reads && !reading.counts?.includes(outcome);
    this.#candidates.keep(
      ({ state, taken }) => agrees(reading, actor, { outcome, details, asks }, state, taken.get(call) ?? null),
      isLate ? undefined : call,
    );
    const under = this.#underWay.get(call);
    this.#underWay.delete(call);
    if (outcome === "ok" || outcome === "refused") this.#forgetEarlier(event, actor);
    if (isLate && under) {
      // The request may still take effect.
      const effects: UnderWay["effects"] = (state, successors) =>
        lateEffectsOf(reading, actor, asks, state, successors);
      this.#underWay.set(call, { ...under, effects, isLate });
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

  /** Earlier requests of this kind that got no answer are refused, or change nothing any more. */
  #forgetEarlier({ point, environment, pod }: PointEvent, { item }: Actor): void {
    for (const [call, { sent, item: of, isLate }] of this.#underWay) {
      const isSameClaim = sent.environment === environment && sent.pod === pod && of === item;
      if (isLate && isSameClaim && kindOf(sent.point) === kindOf(point)) this.#forget(call);
    }
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
    const { workIds, entries } = this.#projection;
    const upTo = entries.slice(Math.max(0, index - 30), index + 1).map(describeEntry);
    throw new TraceError(
      [
        `${workIds.join()}: ${why}`,
        ...upTo.map((line, at) => `${at === upTo.length - 1 ? "  >" : "   "} ${line}`),
        "before it things could stand so:",
        ...states.map((line) => `    ${line}`),
        ...(could ? ["and the model would have allowed:", ...could.map((line) => `    ${line}`)] : []),
      ].join("\n"),
    );
  }
}

/** The state without what these items, and these Pods that are gone, have left. */
function withoutPast(
  layout: Layout,
  state: State,
  over: { readonly items: readonly number[]; readonly pods: readonly number[] },
): State {
  const next = state.slice();
  for (const item of over.items) {
    next.fill(0, layout.item(item), layout.item(item + 1));
    next[layout.item(item) + ITEM.state] = STATE.stopped;
  }
  for (const first of over.pods.map((pod) => pod * layout.rules.turns)) {
    const turns = layout.turnsOf(first);
    const isUsed = turns.some((turn) => {
      const item = (next[layout.pod(turn) + POD.serves] ?? 0) - 1;
      return next[layout.pod(turn) + POD.record] || (item >= 0 && !over.items.includes(item));
    });
    const hasEnded = !layout.hasTurns && next[layout.pod(first) + POD.body] === BODY.ended;
    if (isUsed || (next[layout.pod(first) + POD.object] && !hasEnded)) continue;
    for (const turn of turns) {
      layout.park(next, turn);
      next[layout.pod(turn) + POD.object] = OBJECT.none;
      next[layout.pod(turn) + POD.body] = BODY.gone;
    }
  }
  return next;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

/** The name of a turn. The first one has that of its Pod. */
const nameOf = (pod: string, turn: number): string => (turn > 1 ? `${pod} turn ${turn}` : pod);

function describeEntry(entry: SessionEntry): string {
  if (entry.is === "allowed") return `allowed from here on: ${entry.steps.join(", ")}`;
  if (entry.is === "over") return `${entry.environment} ${nameOf(entry.pod, entry.turn)} has ended`;
  if (entry.is !== "point") return `operator of ${entry.environment} ${entry.is}`;
  const { point, phase, outcome, asks, details, pod = "", environment, atMs } = entry.event;
  const said = { ...asks, ...details };
  const words = Object.entries(said).map(([name, value]) => `${name} ${value}`);
  return `${atMs} ${environment} ${point} ${phase}${outcome ? ` ${outcome}` : ""} ${nameOf(pod, entry.turn)} ${words.join(", ")}`;
}
