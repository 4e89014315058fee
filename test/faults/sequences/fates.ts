import type { Pod } from "../../../src/kube/resource.ts";
import { newestTurn } from "../../../src/pods/turns.ts";
import type { FateInput } from "../../../testbed/node/node.ts";

/** The node divides the times of fates by its time scale. */
export const SOON_MS = 800;

/** Fates that any container may have, whatever it runs. */
export const FATES_OF_ANY = {
  "fate:crash": { kind: "exit", code: 1, afterMs: 0 },
  "fate:exit-code": { kind: "exit", code: 3, afterMs: SOON_MS },
  "fate:start-error": { kind: "start-error" },
  "fate:create-error": { kind: "create-error" },
  "fate:never-starts": { kind: "never-starts" },
  "fate:image-error": { kind: "pull-error" },
  "fate:sandbox-error": { kind: "sandbox", times: 2 },
  "fate:evicted": { kind: "evicted", afterMs: SOON_MS },
  "fate:refused": { kind: "refused" },
} as const satisfies Record<string, FateInput>;

/** The fates of one Environment's containers: those that steps have added, each for one Pod, then good ones. */
export class Fates<Kind extends string> {
  readonly #coming: Kind[] = [];
  readonly #given = new Map<string, { readonly kind: Kind | null; readonly fate: FateInput }>();
  readonly #fateOf: (kind: Kind | null, pod: Pod) => FateInput;
  readonly #onGiven: (kind: Kind) => void;
  #isCalm = false;

  /** @param fateOf null: a Pod that serves */
  constructor(fateOf: (kind: Kind | null, pod: Pod) => FateInput, onGiven: (kind: Kind) => void) {
    this.#fateOf = fateOf;
    this.#onGiven = onGiven;
  }

  add(kind: Kind): void {
    this.#coming.push(kind);
  }

  get hasComing(): boolean {
    return this.#coming.length > 0;
  }

  get isCalm(): boolean {
    return this.#isCalm;
  }

  /** From now on every new Pod serves. */
  calm(): void {
    this.#isCalm = true;
    this.#coming.length = 0;
  }

  /** Whether this Pod was given one of these fates. */
  isOneOf(kinds: ReadonlySet<Kind>, pod: Pod): boolean {
    const kind = this.#given.get(keyOf(pod, newestTurn(pod)))?.kind;
    return kind !== null && kind !== undefined && kinds.has(kind);
  }

  /**
   * The same answer for each call with the same Pod and turn. The first turn has its Pod's fate.
   * @param turn 0: any other container
   */
  of(pod: Pod, turn = 0): FateInput {
    const key = keyOf(pod, turn);
    const given = this.#given.get(key);
    if (given) return given.fate;
    const kind = this.#isCalm ? null : this.#next(turn > 1);
    const fate = this.#fateOf(kind, pod);
    this.#given.set(key, { kind, fate });
    if (kind) this.#onGiven(kind);
    return fate;
  }

  /** @param isLater whether the Pod has already started */
  #next(isLater: boolean): Kind | null {
    const [kind = null] = this.#coming;
    if (kind === null || (isLater && OF_PODS.has(kind))) return null;
    this.#coming.shift();
    return kind;
  }
}

/** What happens before the first container of a Pod starts. */
const OF_PODS: ReadonlySet<string> = new Set(["fate:refused", "fate:sandbox-error"]);

function keyOf({ metadata: { uid = "" } }: Pod, turn: number): string {
  return turn > 1 ? `${uid} ${turn}` : uid;
}
