import { Backoff, type Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { CapacityProblem } from "./capacity-problem.ts";

/** Longer than an item takes to be offered again. */
const TOLD_MS = 15_000;

/** An item is offered again after a pause, and its session's volume tried: by then it is known what comes of that. */
const TRY_MS = 45_000;

/** By then a quota has counted the end of a Pod. */
const QUOTA_LAG_MS = 1_000;

/** What is said of creations: it is over when one succeeds. */
const CREATIONS: ReadonlySet<string> = new Set<NonNullable<CapacityProblem>["is"]>(["quota", "refused", "volume"]);

/** When Pods may be created again after one could not be, or did not get ready; and what is said of it until one does. */
export class CreationBackoff {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  #hash = "";
  #fromMs = 0;
  /** A quota refused the last creation. */
  #isQuotaFull = false;
  /** When a Pod of this Environment last ended or was gone. */
  #freedMs = Number.NEGATIVE_INFINITY;
  /** When to try again because a Pod ended, within the pause that a quota caused. */
  #retryMs = Number.POSITIVE_INFINITY;
  #problem: CapacityProblem = null;
  /** Whose volume the problem is about. */
  #sessionId: string | undefined;
  /** So long (monotonic) what is said of one session's volume stands, though nothing else waits for it. */
  #toldUntilMs = 0;

  constructor({
    clock,
    timing,
    random,
  }: {
    clock: Clock;
    timing: Pick<Timing, "prepareBackoffBaseMs" | "prepareBackoffMaxMs">;
    random: Random;
  }) {
    this.#clock = clock;
    const { prepareBackoffBaseMs: baseMs, prepareBackoffMaxMs: maxMs } = timing;
    this.#backoff = new Backoff({ baseMs, maxMs }, random);
  }

  /** The last that stood in the way of a Pod, until it is over; null: nothing does, as far as is known. */
  get problem(): CapacityProblem {
    return this.#problem;
  }

  /** No creation before this (monotonic). */
  get fromMs(): number {
    return this.#fromMs;
  }

  /** For how long there is to be no creation, in milliseconds; 0 or less: there may be one now. */
  get waitMs(): number {
    return Math.min(this.#fromMs, this.#retryMs) - this.#clock.monotonic();
  }

  /** A quota refused the last creation, so the next ones are tried one at a time until it refuses one. */
  get isQuotaFull(): boolean {
    return this.#isQuotaFull;
  }

  /** The template that Pods are made from now: of another one nothing is known. */
  useTemplate(hash: string): void {
    if (hash === this.#hash) return;
    this.#hash = hash;
    this.#backoff.reset();
    this.#endPause();
    this.#problem = null;
  }

  /** No creation for a while: the next ones would fail alike. */
  pause(by: "quota" | "other" = "other"): void {
    const nowMs = this.#clock.monotonic();
    // Several failures of one batch are one failure.
    if (nowMs >= this.#fromMs) {
      this.#fromMs = nowMs + this.#backoff.next();
      this.#isQuotaFull = by === "quota";
    }
    // The quota may not have counted the end yet. One more try is enough: after that, other Pods have taken the room.
    const isEarly = this.#isQuotaFull && by === "quota" && nowMs - this.#freedMs < QUOTA_LAG_MS;
    this.#retryMs = isEarly ? nowMs + QUOTA_LAG_MS : Number.POSITIVE_INFINITY;
  }

  /** A Pod of this Environment ended or is gone: a quota that refused a creation may have room now. */
  freed(): void {
    this.#freedMs = this.#clock.monotonic();
    if (!this.#isQuotaFull) return;
    this.#backoff.reset();
    this.#fromMs = Math.min(this.#fromMs, this.#freedMs + this.#backoff.next());
    this.#retryMs = this.#freedMs;
  }

  #endPause(): void {
    this.#fromMs = 0;
    this.#retryMs = Number.POSITIVE_INFINITY;
    this.#isQuotaFull = false;
  }

  /** Says what stands in the way of Pods, or of the volume of one session. */
  say(problem: CapacityProblem, sessionId?: string): void {
    this.#problem = problem;
    this.#sessionId = sessionId;
  }

  /** Says what stands in the way of the Pod of one session, of which nothing else would tell that it is over. */
  sayForAWhile(problem: CapacityProblem): void {
    this.say(problem);
    this.#toldUntilMs = this.#clock.monotonic() + TOLD_MS;
  }

  /**
   * A Pod was created. Whether it gets ready is another matter: what was said of the one before it stands until one is
   * parked. A quota is said to be full until all Pods that are wanted have been created.
   */
  created(sessionId?: string): void {
    if (sessionId === this.#sessionId) this.#sessionId = undefined;
    if (this.#saysOfCreation && this.#problem?.is !== "quota") this.#clear();
    if (this.#isQuotaFull) this.#endPause();
  }

  /** A Pod of this template was parked. */
  parked(hash: string): void {
    if (hash === this.#hash) this.#backoff.reset();
    this.#clear();
  }

  /** The Pod of one session says nothing of the volume of another: what was said of that stands until it is tried again. */
  #clear(): void {
    const isOpen = this.#sessionId !== undefined && this.#clock.monotonic() < this.#fromMs + 2 * TRY_MS;
    if (!isOpen) this.#problem = null;
  }

  /**
   * No Pod is wanted any more, so that nobody would ever find out that the fault is mended: for how long what is said of it
   * still stands, in milliseconds; 0: it is forgotten now; null: nothing is said that could be.
   * @param preparing Pods on their way to being parked, which will tell
   */
  forget(preparing: number): number | null {
    if (!this.#problem || (!this.#saysOfCreation && preparing > 0)) return null;
    const triedMs = this.#problem.is === "volume" ? this.waitMs + TRY_MS : this.waitMs;
    const waitMs = Math.max(triedMs, this.#toldUntilMs - this.#clock.monotonic());
    if (waitMs > 0) return waitMs;
    this.#problem = null;
    return 0;
  }

  get #saysOfCreation(): boolean {
    return this.#problem !== null && CREATIONS.has(this.#problem.is);
  }
}
