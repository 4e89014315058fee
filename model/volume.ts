import type { Moment } from "./moment.ts";
import type { Rules } from "./rules.ts";
import { BODY, isAlive, KNOWN, MEMORY, OBJECT, POD, type State, VOLUME, WITH } from "./state.ts";
import type { Outcome, Step, VolumeStep } from "./steps.ts";

/** What a step of a volume adds to its name. */
interface Told {
  /** The Pod that is made; -1: none. */
  readonly pod?: number;
  readonly fault?: boolean;
  readonly breaks?: string | null;
}

/** A volume, with the Pods that mount it: the input of a step about it. */
export class Volume {
  readonly moment: Moment;
  readonly rules: Rules;
  readonly index: number;
  readonly operator: number;
  /** The offset of its bytes. */
  readonly at: number;

  constructor(moment: Moment, index: number) {
    this.moment = moment;
    this.rules = moment.rules;
    this.index = index;
    this.operator = moment.layout.operatorOfVolume(index);
    this.at = moment.layout.volume(index);
  }

  get exists(): boolean {
    return this.#byte(VOLUME.object) !== OBJECT.none;
  }

  /** Whether it is being deleted: it exists until no Pod mounts it. */
  get isGoing(): boolean {
    return this.#byte(VOLUME.object) === OBJECT.terminating;
  }

  /** The session that it is assigned to; 0: none. */
  get session(): number {
    return this.#byte(VOLUME.session);
  }

  get files(): number {
    return this.#byte(VOLUME.files);
  }

  /** What its operator knows of it (KNOWN). */
  get view(): number {
    return this.#byte(VOLUME.known);
  }

  get mark(): number {
    return this.#byte(VOLUME.mark);
  }

  get wasUsed(): boolean {
    return this.#byte(VOLUME.used) === 1;
  }

  /** What a request says that may still take effect; 0: there is none. */
  late(byte: "lateAssign" | "lateMark" | "lateDelete" | "latePod"): number {
    return this.#byte(VOLUME[byte]);
  }

  /** Whether its operator thinks that it has no session. */
  get isThoughtUnassigned(): boolean {
    const isUnlisted = this.view === KNOWN.nothing && this.rules.volumeList === "never";
    return this.view === KNOWN.unassigned || isUnlisted;
  }

  /** The Pods that mount it, by their first turns. Those of lost nodes are unknown. */
  get pods(): number[] {
    const { layout } = this.moment;
    return layout
      .podsOf(this.operator)
      .filter(
        (pod) =>
          this.moment.byte(layout.mount(pod) + WITH.volume) === this.index + 1 &&
          this.moment.byte(layout.pod(pod) + POD.object) !== OBJECT.none,
      );
  }

  /** Whether a program runs with it. */
  get isRunning(): boolean {
    const { layout } = this.moment;
    return this.pods.some((pod) =>
      layout.turnsOf(pod).some((turn) => isAlive(this.moment.byte(layout.pod(turn) + POD.body))),
    );
  }

  /** Whether a Pod mounts it that has not ended. A Pod with turns lives on after they have ended. */
  get isMounted(): boolean {
    return this.pods.some((pod) => !hasPodEnded(this.moment, pod));
  }

  get isDeleted(): boolean {
    return this.moment.isDeleted(this.operator);
  }

  fork(): State {
    return this.moment.fork();
  }

  tell(next: State, name: VolumeStep, told: Told & { readonly outcome?: Outcome } = {}): void {
    const { outcome = "ok", pod = -1, fault = false, breaks = null } = told;
    const about = { operator: this.operator, pod, item: -1, volume: this.index };
    this.moment.tell(next, { name, outcome, ...about, fault, breaks });
  }

  /** Reports a step of no operator. */
  hide(next: State, name: Step["name"], { pod = -1, fault = false, breaks = null }: Told = {}): void {
    const about = { operator: -1, pod, item: -1, volume: this.index };
    this.moment.tell(next, { name, outcome: "", ...about, fault, breaks });
  }

  #byte(byte: number): number {
    return this.moment.byte(this.at + byte);
  }
}

/** The volume that a Pod mounts; null: it is a place for a Pod only. */
export function volumeOf(moment: Moment, pod: number): Volume | null {
  const index = moment.byte(moment.layout.mount(pod) + WITH.volume) - 1;
  return index < 0 ? null : new Volume(moment, index);
}

/** The session that a Pod was made for; 0: it was made for any. */
export function madeFor(moment: Moment, pod: number): number {
  return moment.byte(moment.layout.mount(pod) + WITH.session);
}

/** The volumes of an operator. */
export function volumesOf(moment: Moment, operator: number): Volume[] {
  return moment.layout.volumesOf(operator).map((index) => new Volume(moment, index));
}

/** Whether the Pod has ended or is gone. One with turns lives on after they have ended. */
export function hasPodEnded(moment: Moment, pod: number): boolean {
  const { layout } = moment;
  return layout.turnsOf(pod).every((turn) => {
    const body = moment.byte(layout.pod(turn) + POD.body);
    return body === BODY.gone || (body === BODY.ended && !layout.hasTurns);
  });
}

/** Whether a new Pod may take this place: no Pod is there, and no Secret and no operator knows of a claim. */
export function isPlace(moment: Moment, pod: number): boolean {
  const { layout } = moment;
  const isUnclaimed = layout.turnsOf(pod).every((turn) => {
    const at = layout.pod(turn);
    return !moment.byte(at + POD.record) && moment.byte(at + POD.memory) === MEMORY.none;
  });
  return isUnclaimed && hasPodEnded(moment, pod);
}

/** A program starts with the volume of its Pod. Returns the property that this breaks. */
export function useVolume(moment: Moment, next: State, pod: number, session: number): string | null {
  const { layout } = moment;
  if (!layout.hasVolumes) return null;
  const volume = volumeOf(moment, pod);
  const isKnown = moment.byte(layout.pod(pod) + POD.object) !== OBJECT.none;
  const others = volumesOf(moment, layout.operatorOf(pod)).filter(({ index }) => index !== volume?.index);
  const isWithout = others.some((other) => other.exists && !other.isGoing && other.session === session);
  if (isWithout && isKnown) return "S14 a session that has a volume runs without it";
  if (!volume?.exists) return null;
  if (!volume.files) next[volume.at + VOLUME.files] = session;
  if (isKnown) next[volume.at + VOLUME.used] = 1;
  const isOthers = [volume.session, volume.files].some((own) => own !== 0 && own !== session);
  return isOthers ? "S13 a session runs with the volume of another" : null;
}
