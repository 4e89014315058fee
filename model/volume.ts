import type { Moment } from "./moment.ts";
import { Slot } from "./slot.ts";
import { BODY, isAlive, KNOWN, MEMORY, POD, type State, VOLUME } from "./state.ts";

/** A volume, with the Pod that mounts it: the input of a step about both. */
export class Volume extends Slot {
  get exists(): boolean {
    return this.#byte(VOLUME.object) === 1;
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

  /** The session of a request that may still take effect, or whether there is one. */
  late(byte: "lateAssign" | "lateMark" | "lateDelete" | "latePod"): number {
    return this.#byte(VOLUME[byte]);
  }

  /** Whether its operator thinks that it has no session. */
  get isThoughtUnassigned(): boolean {
    const isUnlisted = this.view === KNOWN.nothing && this.rules.volumeList === "never";
    return this.view === KNOWN.unassigned || isUnlisted;
  }

  /** Whether a program runs with it. The Pods of lost nodes are unknown. */
  get isRunning(): boolean {
    const { layout } = this.moment;
    const isTurnAlive = (turn: number) => isAlive(this.moment.byte(layout.pod(turn) + POD.body));
    return this.object && layout.turnsOf(this.pod).some(isTurnAlive);
  }

  /** Whether its Pod has ended or is gone. A Pod with turns lives on after they have ended. */
  get hasNoPod(): boolean {
    const { layout } = this.moment;
    return layout.turnsOf(this.pod).every((turn) => {
      const body = this.moment.byte(layout.pod(turn) + POD.body);
      return body === BODY.gone || (body === BODY.ended && !this.hasTurns);
    });
  }

  /** Whether no Secret and no operator knows of a claim of its Pod. */
  get hasNoClaim(): boolean {
    const { moment } = this;
    return moment.layout.turnsOf(this.pod).every((turn) => {
      const at = moment.layout.pod(turn);
      return !moment.byte(at + POD.record) && moment.byte(at + POD.memory) === MEMORY.none;
    });
  }

  #byte(byte: number): number {
    return this.moment.byte(this.volumeAt + byte);
  }
}

/** A program starts with the volume of its Pod. Returns the property that this breaks. */
export function useVolume(moment: Moment, next: State, pod: number, session: number): string | null {
  const { layout } = moment;
  if (!layout.hasVolumes) return null;
  const volume = new Volume(moment, pod);
  if (!volume.exists) return null;
  if (!volume.files) next[volume.volumeAt + VOLUME.files] = session;
  if (volume.object) next[volume.volumeAt + VOLUME.used] = 1;
  const isOthers = [volume.session, volume.files].some((own) => own !== 0 && own !== session);
  return isOthers ? "S13 a session runs with the volume of another" : null;
}
