import type { PointEvent } from "../../../src/core/points.ts";
import { callOf, type Projection } from "./projection.ts";

/** The operator's estimate of the API server's clock, which marks follow, and its own clock. */
const CLOCKS_APART_MS = 2_000;

/** Checks what the model leaves open about the volumes of a session: how long they are kept, and which writes come first. */
export class VolumeKnowledge {
  readonly #projection: Projection;
  readonly #retainMs: number;
  readonly #sent = new Map<string, PointEvent>();
  /** Operators that listed the volumes. */
  readonly #listed = new Set<string>();
  /** Volumes that were given to the session. */
  readonly #assigned = new Set<string>();
  /** Volumes that an operator wrote to for a claim, since its journal. */
  readonly #written = new Set<string>();
  /** By volume, since when it is unused: by the marks that may be in force. */
  readonly #unusedMs = new Map<string, readonly number[]>();

  /** @param retainMs how long a volume is kept after its last use */
  constructor(projection: Projection, retainMs: number) {
    this.#projection = projection;
    this.#retainMs = retainMs;
  }

  /** Records one entry about the session, and the turn of its Pod. Returns the rule that it breaks; null if none. */
  take(event: PointEvent, turn: number): string | null {
    if (event.phase === "before") {
      this.#sent.set(callOf(event), event);
      return this.#mayBeSent(event, turn);
    }
    if (event.phase === "after") this.#learn(event, this.#sent.get(callOf(event)) ?? event);
    return null;
  }

  #mayBeSent({ point, environment, operator, pod = "", atMs }: PointEvent, turn: number): string | null {
    const volume = this.#projection.volumeOf(environment, pod);
    if (point === "claim.journal") this.#written.delete(`${operator} ${volume}`);
    // The model requires the assignment. A Pod that sleeps has used the volume since its first turn.
    const mustWrite = point === "claim.ack" && turn === 1 && this.#assigned.has(`${environment} ${volume}`);
    if (mustWrite && !this.#written.has(`${operator} ${volume}`))
      return "acknowledged without having written to the session's volume";
    if (point === "workspace.assign" && !this.#listed.has(operator)) return "assigned a volume before it listed them";
    const marks = this.#unusedMs.get(`${environment} ${pod}`) ?? [];
    if (point !== "workspace.delete" || marks.length === 0) return null;
    const earlyMs = Math.min(...marks) + this.#retainMs - atMs;
    return earlyMs > CLOCKS_APART_MS
      ? `deleted a volume ${earlyMs} ms before the end of the time that it is kept`
      : null;
  }

  #learn({ point, environment, operator, pod = "", outcome }: PointEvent, { asks }: PointEvent): void {
    const volume = `${environment} ${pod}`;
    if (point === "workspace.list" && outcome === "ok") this.#listed.add(operator);
    const isOurs = asks["sessionId"] === this.#projection.sessionId;
    if (!isOurs || (outcome !== "ok" && outcome !== "unanswered")) return;
    const isOk = outcome === "ok";
    if (isOk && (point === "workspace.assign" || point === "workspace.take")) this.#written.add(`${operator} ${pod}`);
    if (isOk && point === "workspace.assign") this.#assigned.add(volume);
    if (isOk && point === "workspace.take") this.#unusedMs.delete(volume);
    if (point !== "workspace.leave") return;
    const sinceMs = Date.parse(String(asks["lastUsed"]));
    this.#unusedMs.set(volume, [...(isOk ? [] : (this.#unusedMs.get(volume) ?? [])), sinceMs]);
  }
}
