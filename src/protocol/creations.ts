import { Backoff, type Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { CapacityProblem } from "./capacity-problem.ts";

/** Longer than an item takes to be offered again. */
const REPORT_MS = 15_000;

/** Long enough for an item to be offered again after a pause and for its session's volume to be tried. */
const TRY_MS = 45_000;

/** How long a quota takes to count the end of a Pod. */
const QUOTA_LAG_MS = 1_000;

/** Problems of creations, which end when a creation succeeds. */
const CREATIONS: ReadonlySet<string> = new Set<NonNullable<CapacityProblem>["is"]>(["quota", "refused", "volume"]);

/**
 * When Pods may be created again after a creation or preparation failed, and the problem to report until one succeeds.
 */
export class Creations {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  #hash = "";
  #fromMs = 0;
  /** Whether a quota refused the last creation. */
  #isQuotaFull = false;
  /** Pods created so far. */
  #created = 0;
  /** When a Pod of this Environment last ended or was gone. */
  #freedMs = Number.NEGATIVE_INFINITY;
  /** When to try again because a Pod ended, within the pause that a quota caused. */
  #retryMs = Number.POSITIVE_INFINITY;
  #problem: CapacityProblem = null;
  /** The session whose volume the problem is about. */
  #sessionId: string | undefined;
  /** How long to report a problem of one session's volume, even if no other Pod waits for it (monotonic). */
  #reportUntilMs = 0;

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

  /** The last problem of a Pod, until it is resolved; null: none known. */
  get problem(): CapacityProblem {
    return this.#problem;
  }

  /** No creation before this (monotonic). */
  get fromMs(): number {
    return this.#fromMs;
  }

  /** Time until the next creation, in milliseconds; 0 or less: now. */
  get waitMs(): number {
    return Math.min(this.#fromMs, this.#retryMs) - this.#clock.monotonic();
  }

  /**
   * Whether a quota refused the last creation, so that creations are tried one at a time until it refuses one again.
   */
  get isQuotaFull(): boolean {
    return this.#isQuotaFull;
  }

  /**
   * The creation that a full quota refuses, as a name; null: it refuses none. The next one has another name, although
   * callers may have missed the success of this one.
   */
  get refusedByQuota(): string | null {
    return this.#isQuotaFull ? `quota-${this.#created}` : null;
  }

  /** Notes the template that Pods are made from. What is known about another one is dropped. */
  useTemplate(hash: string): void {
    if (hash === this.#hash) return;
    this.#hash = hash;
    this.#backoff.reset();
    this.#endPause();
    this.#problem = null;
  }

  /** Pauses creations, since the next ones would also fail. */
  pause(by: "quota" | "other" = "other"): void {
    const nowMs = this.#clock.monotonic();
    // Several failures of one batch count as one.
    if (nowMs >= this.#fromMs) {
      this.#fromMs = nowMs + this.#backoff.next();
      this.#isQuotaFull = by === "quota";
    }
    // The quota may not have counted the ended Pod yet. One extra try is enough: after that, other Pods have taken the
    // room.
    const isEarly = this.#isQuotaFull && by === "quota" && nowMs - this.#freedMs < QUOTA_LAG_MS;
    this.#retryMs = isEarly ? nowMs + QUOTA_LAG_MS : Number.POSITIVE_INFINITY;
  }

  /** Notes that a Pod of this Environment ended or is gone: a quota that refused a creation may have room now. */
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

  /** Reports what blocks Pods, or the volume of one session. */
  say(problem: CapacityProblem, sessionId?: string): void {
    this.#problem = problem;
    this.#sessionId = sessionId;
  }

  /** Reports what blocks the Pod of one session. The report expires, since no other event would end it. */
  sayForAWhile(problem: CapacityProblem): void {
    this.say(problem);
    this.#reportUntilMs = this.#clock.monotonic() + REPORT_MS;
  }

  /**
   * Notes that a Pod was created. It may still fail to become ready, so an earlier preparation problem remains until a
   * Pod is parked. A full quota is reported until all wanted Pods have been created.
   */
  created(sessionId?: string): void {
    this.#created += 1;
    if (sessionId === this.#sessionId) this.#sessionId = undefined;
    if (this.#isAboutCreation && this.#problem?.is !== "quota") this.#clear();
    if (this.#isQuotaFull) this.#endPause();
  }

  /** Notes that a Pod of this template was parked. */
  parked(hash: string): void {
    if (hash === this.#hash) this.#backoff.reset();
    this.#clear();
  }

  /**
   * Another session's Pod proves nothing about this session's volume, so that problem remains until the volume is tried
   * again.
   */
  #clear(): void {
    const isOpen = this.#sessionId !== undefined && this.#clock.monotonic() < this.#fromMs + 2 * TRY_MS;
    if (!isOpen) this.#problem = null;
  }

  /**
   * Forgets the problem when no Pod is wanted, since no creation would show that it was fixed. Returns how long to keep
   * reporting it, in milliseconds; 0: it was forgotten now; null: there is nothing to forget.
   * @param preparing the number of Pods in preparation, which will show whether the problem persists
   */
  forget(preparing: number): number | null {
    if (!this.#problem || (!this.#isAboutCreation && preparing > 0)) return null;
    const triedMs = this.#problem.is === "volume" ? this.waitMs + TRY_MS : this.waitMs;
    const waitMs = Math.max(triedMs, this.#reportUntilMs - this.#clock.monotonic());
    if (waitMs > 0) return waitMs;
    this.#problem = null;
    return 0;
  }

  get #isAboutCreation(): boolean {
    return this.#problem !== null && CREATIONS.has(this.#problem.is);
  }
}
