import { describeStep } from "../../../model/describe.ts";
import { CODE, type Rules } from "../../../model/rules.ts";
import { BODY, ITEM, isAlive, KNOWN, Layout, OBJECT, POD, STATE, type State, VOLUME } from "../../../model/state.ts";
import type { Step } from "../../../model/steps.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import type { Timing } from "../../../src/core/timing.ts";
import { Candidates, type UnderWay } from "./candidates.ts";
import { Knowledge } from "./knowledge.ts";
import {
  type Actor,
  agrees,
  effectsOf,
  lateEffectsOf,
  mayBeLate,
  OTHER_SESSION,
  OUR_SESSION,
  READINGS,
  type Reading,
} from "./mapping.ts";
import { callOf, type Projection, type SessionEntry } from "./projection.ts";
import { VolumeKnowledge } from "./volume-knowledge.ts";

/** The circumstances in which a trace was recorded. */
export interface Circumstances {
  /** The behavior of the Work API and the side that holds the lease. All other rules are those of the code. */
  readonly rules: Partial<Rules>;
  readonly timing: Timing;
  /** Whether a list may show a state from some seconds ago. */
  readonly listsBehind?: boolean;
  /** Whether the trace shows when a container has ended. */
  readonly showsEnds?: boolean;
  /** How long a session's volume is kept after its last use. */
  readonly retainMs?: number;
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
  readonly actor: Actor;
  readonly isLate: boolean;
}

/** Other steps that have an entry: that of an operator's start or end, or of a turn that is added. */
const SHOWN: ReadonlySet<string> = new Set(["fault.crash", "operator.restart", "turn.skip"]);

/** Points that are about no Pod and no volume. */
const OF_ALL: ReadonlySet<string> = new Set(["claim.poll", "workspace.list"]);

/** Heartbeats name the value of the one before, and writes to a volume its resourceVersion. */
const kindOf = (point: string): string =>
  /^session\.(take|beat|fence)$/.test(point)
    ? "heartbeat"
    : /^workspace\.(?!create|list|read)/.test(point)
      ? "volume"
      : point;

const isOfVolume = ({ point }: PointEvent): boolean => point.startsWith("workspace.");

class SessionCheck {
  readonly #projection: Projection;
  readonly #layout: Layout;
  readonly #candidates: Candidates;
  /** By item. */
  readonly #knowledge: readonly Knowledge[];
  /** Names of steps, or names with the Pod that they may hit. */
  readonly #allowed = new Set<string>();
  readonly #volumeKnowledge: VolumeKnowledge;
  readonly #underWay = new Map<string, Request>();
  /** Pods that were journaled for an item. */
  readonly #claimed = new Set<number>();
  /** By item and Pod, the index of its last entry. */
  readonly #lasts = new Map<string, number>();
  readonly #listsBehind: boolean;
  #steps = 0;
  #widest = 0;

  constructor(projection: Projection, circumstances: Circumstances) {
    const { rules, timing, listsBehind = false, showsEnds = false, retainMs = 0 } = circumstances;
    this.#listsBehind = listsBehind;
    this.#volumeKnowledge = new VolumeKnowledge(projection, retainMs);
    const { lease, parking } = { ...CODE, ...rules };
    const { workIds, turns, environments } = projection;
    const most = (names: readonly (readonly string[])[]) => Math.max(...names.map(({ length }) => length));
    const [pods, volumes] = [most(projection.pods), most(projection.volumes)];
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
      ...{ pods, turns, volumes, newVolumes: true, volumeLoss: true, isTrace: true, oneSession: true },
      acknowledgements: MOST_ACKNOWLEDGEMENTS,
      deletion: true,
      // A request without an answer may take effect later all the same: the check follows it.
      lateRequests: false,
    });
    this.#candidates = new Candidates(this.#layout, (step) => this.#isHidden(step));
    for (const [index, entry] of projection.entries.entries()) {
      if (entry.is === "lost") this.#lasts.set(`volume ${this.#volumeOf(entry.environment, entry.volume)}`, index);
      if (entry.is !== "point") continue;
      const { pod, volume } = this.#placeOf(entry);
      this.#lasts.set(`item ${entry.item}`, index);
      this.#lasts.set(`pod ${Math.floor(pod / turns)}`, index);
      this.#lasts.set(`volume ${volume}`, index);
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
        this.#allow(entry);
        return;
      case "ended":
        this.#operatorStep("fault.crash", entry.environment, index);
        return;
      case "began":
        this.#operatorStep("operator.restart", entry.environment, index);
        return;
      case "over":
        for (const each of this.#knowledge) each.over({ ...entry, pod: nameOf(entry.pod, entry.turn) });
        this.#over(entry, index);
        return;
      case "lost":
        this.#lost(entry, index);
        return;
      case "point":
        this.#point(entry, index);
        return;
      default:
        entry satisfies never;
    }
  }

  #allow({ steps, of }: SessionEntry & { is: "allowed" }): void {
    if (of === undefined) {
      for (const step of steps) this.#allowed.add(step);
      return;
    }
    const turn = this.#turnOf(of.environment, of.pod, 1);
    for (const step of steps) this.#allowed.add(`${step} ${Math.floor(turn / this.#layout.rules.turns)}`);
  }

  /** A container was seen ended: its end is a step of the model, too. */
  #over({ environment, pod, turn }: SessionEntry & { is: "over" }, index: number): void {
    const place = this.#turnOf(environment, pod, turn);
    if (place < 0 || turn > this.#layout.rules.turns) return;
    this.#spread();
    const before = this.#candidates.describe(MOST_STATES);
    this.#candidates.keep(({ state }) => !isAlive(state[this.#layout.pod(place) + POD.body] ?? 0));
    this.#judge(index, before, null);
  }

  #lost({ environment, volume }: SessionEntry & { is: "lost" }, index: number): void {
    const row = this.#volumeOf(environment, volume);
    const isGone = (state: State) => state[this.#layout.volume(row) + VOLUME.object] === OBJECT.none;
    this.#spread();
    const before = this.#candidates.describe(MOST_STATES);
    this.#candidates.go((_, successors) =>
      successors
        .filter(({ step, next }) => step.name === "user.delete-volume" && step.volume === row && isGone(next))
        .map(({ next }) => next),
    );
    this.#judge(index, before, null);
  }

  /** Steps that may happen without an entry: those that no operator takes, within what the test allowed. */
  #isHidden({ name, fault, pod }: Step): boolean {
    const { turns } = this.#layout.rules;
    if (name in READINGS || SHOWN.has(name)) return false;
    // What happens to a Pod before its first claim can as well happen at the claim.
    if (pod >= 0 && !this.#claimed.has(Math.floor(pod / turns))) return false;
    return !fault || this.#allowed.has(name) || this.#allowed.has(`${name} ${Math.floor(pod / turns)}`);
  }

  /** After its last entry, the ways in which an item or a lost Pod could stand make no difference. */
  #forgetOver(index: number): void {
    const { rules } = this.#layout;
    if (![...this.#lasts.values()].includes(index)) return;
    const overOf = (kind: string, count: number) => range(count).filter((at) => this.#isOver(`${kind} ${at}`, index));
    const over = {
      items: overOf("item", this.#layout.items),
      pods: overOf("pod", this.#layout.pods / rules.turns),
      volumes: overOf("volume", this.#layout.volumes),
    };
    for (const [call, { actor }] of this.#underWay) {
      const isOver = actor.item < 0 ? over.volumes.includes(actor.volume) : over.items.includes(actor.item);
      if (isOver) this.#forget(call);
    }
    this.#candidates.merge((state) => withoutPast(this.#layout, state, over));
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
    const isAboutOurs = isOfVolume(event) ? actor.volume >= 0 : actor.pod >= 0;
    if (!isAboutOurs && !OF_ALL.has(event.point)) return;
    const isMadeFor = event.point === "prepare.create-pod" && actor.session === OUR_SESSION;
    if (event.point === "claim.journal" || isMadeFor) {
      this.#claimed.add(Math.floor(actor.pod / this.#layout.rules.turns));
    }
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
    const broken = this.#volumeKnowledge.take(event, turn);
    if (broken !== null) this.#fail(index, broken, this.#candidates.describe(MOST_STATES), null);
  }

  /**
   * The operator, the turn and the volume by the model's numbers. Each Pod of the model waits in its first turn already.
   */
  #placeOf({ event, turn }: SessionEntry & { is: "point" }): Omit<Actor, "layout" | "item"> {
    const { environments, volumeOf, sessionId } = this.#projection;
    const { environment, point, pod = "", asks } = event;
    const operator = environments.indexOf(environment);
    const own = isOfVolume(event) ? -1 : this.#turnOf(environment, pod, turn);
    const isFirst = point === "turn.add" && turn === 1;
    const mounted = isOfVolume(event) ? pod : volumeOf(environment, pod);
    const asked = asks["sessionId"];
    return {
      operator,
      pod: isFirst ? -1 : own,
      volume: this.#volumeOf(environment, mounted ?? ""),
      session: typeof asked !== "string" ? 0 : asked === sessionId ? OUR_SESSION : OTHER_SESSION,
    };
  }

  /** The volume by the model's number; -1: it is none of the session's Pods'. */
  #volumeOf(environment: string, name: string): number {
    const operator = this.#projection.environments.indexOf(environment);
    const index = this.#projection.volumes[operator]?.indexOf(name) ?? -1;
    return index < 0 ? -1 : operator * this.#layout.rules.volumes + index;
  }

  /** The turn of a Pod by the model's number; -1: it is none of the session's Pods. */
  #turnOf(environment: string, pod: string, turn: number): number {
    const { environments, pods } = this.#projection;
    const { rules } = this.#layout;
    const operator = environments.indexOf(environment);
    const own = pods[operator]?.indexOf(pod) ?? -1;
    return own < 0 ? -1 : (operator * rules.pods + own) * rules.turns + turn - 1;
  }

  #send(sent: PointEvent, reading: Reading, actor: Actor): void {
    // What happened before the request was sent can't be its effect.
    this.#spread();
    this.#underWay.set(callOf(sent), {
      call: callOf(sent),
      ...{ actor, isLate: false },
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
    const isLate = outcome === "unanswered" && mayBeLate(reading) && !reading.counts?.includes(outcome);
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
      const alike = [event.point, event.environment, event.pod, actor.item, JSON.stringify(asks)].join();
      this.#underWay.set(call, { ...under, effects, isLate, alike });
      this.#candidates.confuse([...this.#underWay.values()].flatMap((each) => (each.alike === alike ? each.call : [])));
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
    for (const [call, { sent, actor, isLate }] of this.#underWay) {
      const isSameClaim = sent.environment === environment && sent.pod === pod && actor.item === item;
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
  over: Readonly<Record<"items" | "pods" | "volumes", readonly number[]>>,
): State {
  const next = state.slice();
  for (const volume of over.volumes) {
    next.fill(0, layout.volume(volume), layout.volume(volume + 1));
    next[layout.volume(volume) + VOLUME.known] = KNOWN.settled;
  }
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
    layout.clear(next, first);
  }
  return next;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

/** The name of a turn. The first one has that of its Pod. */
const nameOf = (pod: string, turn: number): string => (turn > 1 ? `${pod} turn ${turn}` : pod);

function describeEntry(entry: SessionEntry): string {
  if (entry.is === "allowed") return `allowed from here on: ${entry.steps.join(", ")} ${entry.of?.pod ?? ""}`;
  if (entry.is === "over") return `${entry.environment} ${nameOf(entry.pod, entry.turn)} has ended`;
  if (entry.is === "lost") return `${entry.environment} ${entry.volume} is gone`;
  if (entry.is !== "point") return `operator of ${entry.environment} ${entry.is}`;
  const { point, phase, outcome, asks, details, pod = "", environment, atMs } = entry.event;
  const said = { ...asks, ...details };
  const words = Object.entries(said).map(([name, value]) => `${name} ${value}`);
  return `${atMs} ${environment} ${point} ${phase}${outcome ? ` ${outcome}` : ""} ${nameOf(pod, entry.turn)} ${words.join(", ")}`;
}
