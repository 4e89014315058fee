import { ANNOTATION_LEASE } from "../../../src/api/names.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import type { FateInput } from "../../../testbed/node/node.ts";
import type { Kind } from "./steps.ts";

type FateKind = Extract<Kind, `fate:${string}`>;

/** Times of fates are divided by the node's time scale. */
const SOON_MS = 800;
const SERVES_MS = 1_600;

/** What becomes of the containers of one Environment: the fates that steps have put on, each for one Pod, then good ones. */
export class Fates {
  readonly #coming: FateKind[] = [];
  readonly #given = new Map<string, { readonly kind: FateKind | null; readonly fate: FateInput }>();
  readonly #onGiven: (kind: FateKind) => void;
  #isCalm = false;

  constructor(onGiven: (kind: FateKind) => void) {
    this.#onGiven = onGiven;
  }

  add(kind: FateKind): void {
    this.#coming.push(kind);
  }

  get hasComing(): boolean {
    return this.#coming.length > 0;
  }

  /** From now on every new Pod serves. */
  calm(): void {
    this.#isCalm = true;
    this.#coming.length = 0;
  }

  /** The session that this Pod runs never ends by itself. */
  isEndless(pod: Pod): boolean {
    const kind = this.#given.get(pod.metadata.uid ?? "")?.kind;
    return kind !== null && kind !== undefined && ENDLESS.has(kind);
  }

  /** Asked more than once of a Pod: the answer stays. */
  of(pod: Pod): FateInput {
    const uid = pod.metadata.uid ?? "";
    const given = this.#given.get(uid);
    if (given) return given.fate;
    const kind = this.#isCalm ? null : (this.#coming.shift() ?? null);
    // A program that its operator beats for knows nothing of work items.
    const isPlain = pod.metadata.annotations?.[ANNOTATION_LEASE] === "Operator";
    const fate = kind ? fateOf(kind, isPlain) : serves(isPlain);
    this.#given.set(uid, { kind, fate });
    if (kind) this.#onGiven(kind);
    return fate;
  }
}

/** What starts after its sandbox failed runs until it is told to end, as a node's Pods do to which nothing else befalls. */
const ENDLESS: ReadonlySet<FateKind> = new Set([
  "fate:endless",
  "fate:ignores-sigterm",
  "fate:never-beats",
  "fate:sandbox-error",
]);

function serves(isPlain: boolean): FateInput {
  return isPlain ? { kind: "exit", code: 0, afterMs: SERVES_MS } : { kind: "worker", workMs: SERVES_MS };
}

function fateOf(kind: FateKind, isPlain: boolean): FateInput {
  switch (kind) {
    case "fate:crash":
      return { kind: "exit", code: 1, afterMs: 0 };
    case "fate:exit-code":
      return { kind: "exit", code: 3, afterMs: SOON_MS };
    case "fate:oom":
      return isPlain ? { kind: "oom", afterMs: SOON_MS } : { kind: "worker", workMs: SOON_MS, end: "oom" };
    case "fate:killed":
      return isPlain ? { kind: "killed", afterMs: SOON_MS } : { kind: "worker", workMs: SOON_MS, end: "killed" };
    case "fate:silent-exit":
      return isPlain ? { kind: "exit", code: 0 } : { kind: "worker", workMs: SOON_MS, end: "exit-without-stop" };
    case "fate:endless":
      return isPlain ? { kind: "run" } : { kind: "worker", end: "hang" };
    case "fate:ignores-sigterm":
      return isPlain ? { kind: "run", onTerm: "ignore" } : { kind: "worker", end: "hang", onTerm: "ignore" };
    case "fate:never-beats":
      return isPlain ? { kind: "run" } : { kind: "worker", end: "hang", neverBeats: true };
    case "fate:start-error":
      return { kind: "start-error" };
    case "fate:create-error":
      return { kind: "create-error" };
    case "fate:never-starts":
      return { kind: "never-starts" };
    case "fate:image-error":
      return { kind: "pull-error" };
    case "fate:sandbox-error":
      return { kind: "sandbox", times: 2 };
    case "fate:evicted":
      return { kind: "evicted", afterMs: SOON_MS };
    case "fate:refused":
      return { kind: "refused" };
    case "fate:slow-start":
      return { ...serves(isPlain), startDelayMs: 6_000 };
  }
}
