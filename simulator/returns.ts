import type { Random } from "../src/core/backoff.ts";
import type { ReturnsPlan } from "./arrivals.ts";
import { seededRandom } from "./ids.ts";
import type { ItemRecord } from "./item.ts";
import { DEFAULT_SCRIPT, type ScriptInput } from "./script.ts";
import type { World } from "./world.ts";

const MS_PER_SECOND = 1000;

/** Sends further messages to sessions. The world queues a work item for each. */
export class Returns {
  readonly #plan: ReturnsPlan;
  readonly #world: World;
  readonly #random: Random;
  /** What is left to say, by session. */
  readonly #left = new Map<string, { times: number; isDue: boolean; readonly script: ScriptInput }>();
  readonly #onItem = ({ state, sessionId }: ItemRecord) => {
    if (state === "stopped" && sessionId !== undefined) this.#stopped(sessionId);
  };
  #messages = 0;

  constructor(plan: ReturnsPlan, world: World) {
    this.#plan = plan;
    this.#world = world;
    this.#random = seededRandom(plan.seed);
    world.events.on("item", this.#onItem);
  }

  /** The number of messages so far. */
  get messages(): number {
    return this.#messages;
  }

  /** Decides whether a new session comes back. */
  follow(sessionId: string, script: ScriptInput = DEFAULT_SCRIPT): void {
    const { share, times } = this.#plan;
    if (this.#random() >= share) return;
    const { min, max } = rangeOf(times);
    const count = min === max ? min : min + Math.floor((max - min + 1) * this.#random());
    if (count > 0) this.#left.set(sessionId, { times: count, isDue: false, script: this.#plan.script ?? script });
  }

  stop(): void {
    this.#world.events.off("item", this.#onItem);
    this.#left.clear();
  }

  #stopped(sessionId: string): void {
    const left = this.#left.get(sessionId);
    if (!left || left.isDue) return;
    left.isDue = true;
    const { min, max } = rangeOf(this.#plan.afterSeconds);
    const idleMs = (min + (max - min) * this.#random()) * MS_PER_SECOND;
    this.#world.deadlines.after(idleMs, () => this.#speak(sessionId));
  }

  #speak(sessionId: string): void {
    const left = this.#left.get(sessionId);
    if (!left) return;
    const session = this.#world.sessions.get(sessionId);
    left.times -= 1;
    left.isDue = false;
    const isOver = !session || session.deleted || session.status === "terminated";
    if (isOver || left.times === 0) this.#left.delete(sessionId);
    if (isOver) return;
    this.#messages += 1;
    this.#world.converse(sessionId, left.script);
  }
}

interface Range {
  readonly min: number;
  readonly max: number;
}

function rangeOf(value: number | Range): Range {
  return typeof value === "number" ? { min: value, max: value } : value;
}
