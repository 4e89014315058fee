import type { Verdict } from "../api/conditions.ts";
import { Backoff, type Random } from "../core/backoff.ts";
import type { Clock, Timer } from "../core/clock.ts";
import { unended } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import { apiTime } from "../kube/objects.ts";
import type { Metrics } from "../observe/metrics.ts";
import { FAILURES_TO_OPEN, Starts, type Waking } from "../pods/starts.ts";
import { ApiHealth } from "../queue/api-health.ts";
import type { Claim } from "./claim.ts";
import { Creations } from "./creations.ts";
import { ACK_BACKOFF, afterFailure, type Failure, isReported, OVERDUE_MS } from "./failing-steps.ts";
import { type FailingByStep, type FailingStep, STEPS, type StepName } from "./tracked-steps.ts";

/** The longest pause after items that found no Pod. Polls go on sooner if a sleeping session's item is among the next. */
const UNFIT_MAX_MS = 4_000;

/** Whether a recent claim may still start. A claim that can't be settled must not block others forever. */
function mayStillStart(
  { record: { journal, ending }, lateAckUntilMs }: Claim,
  nowMs: number,
  { restartMs }: Pick<Timing, "restartMs">,
) {
  const isOpen = journal.use === "session" && !journal.opened && ending === null;
  return isOpen && nowMs < lateAckUntilMs + restartMs;
}

interface HoldsContext {
  readonly clock: Clock;
  readonly timing: Timing;
  readonly random: Random;
  readonly metrics: Pick<Metrics, "failingSteps">;
  readonly labels: { readonly namespace: string; readonly environment: string };
}

/** Steps that the next claim would take too: after a failure of one, new claims pause. */
const BEFORE_CLAIMS: ReadonlySet<StepName> = new Set(["hold", "journal", "read-pod", "assign", "acknowledge"]);

/** Steps without which no session starts: while they fail for one claim, no other claim begins. */
const STARTS: readonly StepName[] = ["open", "deliver", "take"];

/** Steps that are retried without a claim as well, whose records end when no work waits. */
const OF_WAITING = [...BEFORE_CLAIMS, ...STARTS, "poll", "wake", "claim"] as const;

/** Most items whose failed acknowledgements are remembered. */
const MOST_ITEMS = 1_000;

/**
 * What one Environment holds back, until when and why: polls, claims, wakes of sleeping sessions, and creations of Pods.
 * Whatever fails reports here, and whatever begins something asks here first:
 *
 * - **Steps** of claims, and of the loops that all claims share: after a failure of one that the next claim would take
 *   too, nothing is polled for a pause, and then one item at a time. A lasting failure is reported in the condition Ready
 *   and counted in `berth_failing_steps`.
 * - **Starts** by template, which hold its new and its sleeping sessions.
 * - **Creations** of Pods. They hold no wake: sleeping Pods already run.
 * - **Items** without the secret that their Pod needs, items that can't be acknowledged, and items that found no room.
 * - **The Work API**, which rejects the key.
 */
export class Holds {
  readonly starts: Starts;
  readonly creations: Creations;
  readonly health: ApiHealth;
  /** Items in a row that found no Pod. */
  readonly unfit: Backoff;
  readonly #context: HoldsContext;
  readonly #claims: Iterable<Claim>;
  readonly #onChange: () => void;
  readonly #shared: FailingByStep = new Map();
  readonly #gauged = new Set<StepName>();
  /** By work id, in the order of their last failure: items that could not be acknowledged. */
  readonly #items = new Map<string, Backoff>();
  #restUntilMs = Number.NEGATIVE_INFINITY;
  /** The first of consecutive items without a secret; null: the last item had one; undefined: no item came. */
  #missing: string | null | undefined;
  #missingInARow = 0;
  readonly #missingPause: Backoff;
  #usedCredential = "";
  readonly #times = new Map<string, { readonly atMs: number; readonly text: string }>();
  #ended = false;
  #timer: Timer | null = null;
  #timerMs = Number.POSITIVE_INFINITY;

  /** @param onChange called when something is held back, or no longer, or for another reason */
  constructor(context: HoldsContext, claims: Iterable<Claim>, onChange: () => void) {
    const { timing, random } = context;
    this.#context = context;
    this.#claims = claims;
    this.#onChange = onChange;
    this.starts = new Starts(timing);
    this.creations = new Creations(context);
    this.health = new ApiHealth({ ...context, onChange });
    this.unfit = new Backoff({ baseMs: timing.noRoomPauseMs, maxMs: UNFIT_MAX_MS }, random);
    this.#missingPause = new Backoff({ baseMs: timing.probeFirstMs, maxMs: timing.probeMaxMs, spread: 0 }, random);
  }

  /** A step failed: one of this claim or, without a claim, one that all claims share. */
  failed(step: StepName, failure: Failure, claim?: Claim): FailingStep {
    if (!claim) return this.#failed(this.#shared, step, failure);
    claim.failing ??= new Map();
    const named = { name: claim.name, ...failure };
    const after = this.#failed(claim.failing, step, named);
    // The next claim would fail in the same way, so the failure is reported until the step succeeds for any claim.
    this.#failed(this.#shared, step, named);
    return after;
  }

  #failed(of: FailingByStep, step: StepName, failure: Failure): FailingStep {
    const { timing } = this.#context;
    const nowMs = this.#nowMs;
    const before = of === this.#shared ? this.#fresh(step) : of.get(step);
    const after = afterFailure(before, step, failure, nowMs, this.#context);
    of.set(step, after);
    const isNew = before?.message !== after.message || !isReported(before, nowMs, timing);
    if (isNew && isReported(after, nowMs, timing)) this.#changed();
    this.#wakeForNext();
    return after;
  }

  /** A step succeeded. */
  succeeded(step: StepName, claim?: Claim): void {
    if (claim) this.#delete(this.#shared, step);
    this.notNeeded(step, claim);
  }

  /** This claim no longer needs the step, but the next one may, so its shared record stays. */
  notNeeded(step: StepName, claim?: Claim): void {
    this.#delete(claim ? claim.failing : this.#shared, step);
    if (claim?.failing?.size === 0) claim.failing = null;
  }

  /** The shared record of a step, unless it is outdated. */
  #fresh(step: StepName): FailingStep | undefined {
    const { timing } = this.#context;
    const found = this.#shared.get(step);
    return found && this.#nowMs <= found.untilMs + timing.restartMs + OVERDUE_MS ? found : undefined;
  }

  #delete(of: FailingByStep | null, step: StepName): void {
    const before = of?.get(step);
    if (!of || !before) return;
    of.delete(step);
    const { timing } = this.#context;
    if (isReported(before, this.#nowMs, timing, timing.restartMs + OVERDUE_MS)) this.#changed();
  }

  /** No work is waiting: without claims, no success would ever clear these records. */
  nothingWaits(): void {
    for (const step of OF_WAITING) this.#delete(this.#shared, step);
  }

  /** A claim was settled or dropped. */
  forget({ failing }: Claim): void {
    if (failing) this.#changed();
  }

  /** Until when (monotonic) nothing may be claimed for any session; negative infinity: claims are not held. */
  get claimsFromMs(): number {
    // No event reports that the steps of starts no longer hold claims back, so check again after a while.
    const startsMs = this.#startsOneByOne ? this.#nowMs + this.#context.timing.settleLookMs : Number.NEGATIVE_INFINITY;
    return Math.max(this.#missingPause.untilMs, startsMs);
  }

  /**
   * Until when (monotonic) nothing may be polled: there was no room for an item, or a step failed that the next claim
   * would take; negative infinity: polls are not held.
   */
  get pollsFromMs(): number {
    return Math.max(this.#restUntilMs, this.#pausedUntilMs);
  }

  /** Whether the result of each claim decides about the next one: a step that it would take too has failed. */
  get isOneByOne(): boolean {
    return this.#pausedUntilMs > Number.NEGATIVE_INFINITY;
  }

  /** What a session that sleeps in a Pod of `hash` does with its next work item now. */
  wakes(hash: string, session: string): Waking {
    const nowMs = this.#nowMs;
    return nowMs < this.#pausedUntilMs ? "waits" : this.starts.wakes(hash, session, nowMs);
  }

  /** For how many items free Pods may be prepared: while only probes are claimed, for one. */
  get mostDemand(): number {
    return this.starts.isOpen || this.#isMissingOften ? 1 : Number.POSITIVE_INFINITY;
  }

  /** When (monotonic) the next hold ends without an event; infinity: none does. */
  get againAtMs(): number {
    const dueMs = [this.claimsFromMs, this.pollsFromMs, this.starts.nextProbeAtMs];
    return Math.min(...dueMs.map((atMs) => (atMs > this.#nowMs ? atMs : Number.POSITIVE_INFINITY)));
  }

  /** There was no room for an item: other clients may take it, and immediate polls would only keep it from them. */
  rest(): void {
    this.#restUntilMs = this.#nowMs + this.#context.timing.noRoomPauseMs;
  }

  /**
   * Until when (monotonic) the item stays in the queue because it could not be acknowledged; null: it could. It is
   * offered before newer items, so without the pause, it would take every try and block all others.
   */
  itemFromMs(workId: string): number | null {
    return this.#items.get(workId)?.untilMs ?? null;
  }

  /** The item could not be acknowledged. */
  itemFailed(workId: string): void {
    const { timing, random } = this.#context;
    const policy = { baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs, ...ACK_BACKOFF };
    const item = this.#items.get(workId) ?? new Backoff(policy, random);
    const nowMs = this.#nowMs;
    item.postpone(nowMs + timing.othersReclaimMs, { leastMs: (this.fromMs("acknowledge") ?? nowMs) - nowMs });
    this.#items.delete(workId);
    this.#items.set(workId, item);
    const oldest = this.#items.keys().next();
    if (this.#items.size > MOST_ITEMS && !oldest.done) this.#items.delete(oldest.value);
  }

  /** The item was acknowledged. */
  itemSucceeded(workId: string): void {
    this.#items.delete(workId);
  }

  /** An item was acknowledged; `isMissing`: without the secret that its Pod needs. */
  credential(isMissing: boolean, workId: string): void {
    this.#missingInARow = isMissing ? this.#missingInARow + 1 : 0;
    if (this.#missingInARow === 0) this.#missingPause.reset();
    else if (this.#isMissingOften) this.#missingPause.postpone(this.#nowMs);
    // Name the first item: naming the last one would change the condition with every item.
    this.#missing = isMissing ? (this.#missing ?? workId) : null;
    this.#onChange();
  }

  /** Whether claims pause because too many items in a row came without a secret. */
  get #isMissingOften(): boolean {
    return this.#missingInARow >= FAILURES_TO_OPEN;
  }

  /** Called with `spec.sessions.credential`. If it changed, items without a secret are counted again. */
  watchCredential(credential: string): void {
    if (credential === this.#usedCredential) return;
    this.#usedCredential = credential;
    this.#missing = undefined;
    this.#missingInARow = 0;
    this.#missingPause.reset();
  }

  /** The environment key changed: tries it at once, and also items that may now have a secret. */
  keyChanged(): void {
    this.health.keyChanged();
    this.#missingPause.reset(this.#nowMs);
  }

  /** What is held, and why, for the status. */
  verdicts(): Verdict[] {
    return [this.health.key, this.health.queue, this.#startVerdict(), this.#credentialVerdict()];
  }

  #startVerdict(): Verdict {
    const { isOpen, failures, heldSession, isRefused, message, nextProbeAtMs, hasServed } = this.starts;
    if (isOpen) {
      const only = heldSession === null ? "" : `, all of session ${heldSession}; others are still claimed`;
      const fix = isRefused
        ? "fix what refuses the requests; Berth tries"
        : "fix the image or the template; Berth tries a changed template at once, and otherwise";
      return {
        reason: "StartsFailing",
        message: `${failures} starts in a row failed${only}: ${unended(message)}; ${fix} one session after ${this.#timeOf("starts", nextProbeAtMs)}`,
      };
    }
    return hasServed
      ? { reason: "Starting", message: "sessions of the current template start" }
      : { reason: "NoSessionYet", message: "no session of the current template has started yet" };
  }

  #credentialVerdict(): Verdict {
    if (this.#usedCredential === "EnvironmentKey")
      return { reason: "CredentialsPresent", message: "Pods use the environment key, so work items need no secret" };
    if (this.#missing === undefined) return { reason: "CredentialUnchecked", message: "no work item has come yet" };
    if (this.#missing === null)
      return { reason: "CredentialsPresent", message: "work items come with their own secret" };
    if (this.#isMissingOften) {
      return {
        reason: "CredentialMissing",
        message: `spec.sessions.credential: the last ${this.#missingInARow} work items came without their own secret and were stopped; claiming is paused, and Berth tries the next item after ${this.#timeOf("items", this.#missingPause.untilMs)}; set EnvironmentKey (every Pod then gets a key to the whole environment), or use an environment that issues secrets`,
      };
    }
    return {
      reason: "CredentialMissing",
      message: `spec.sessions.credential: work item ${this.#missing} came without its own secret and was stopped; set EnvironmentKey if this environment issues no secrets (every Pod then gets a key to the whole environment)`,
    };
  }

  /** A time of the monotonic clock as text. Computed once for each time, so that messages do not change. */
  #timeOf(what: string, atMs: number): string {
    const { clock } = this.#context;
    const known = this.#times.get(what);
    const time = known?.atMs === atMs ? known : { atMs, text: apiTime(clock.now() + atMs - clock.monotonic()) };
    this.#times.set(what, time);
    return time.text;
  }

  /**
   * Whether sessions are claimed one at a time, with a pause after each failure, because claimed ones don't start. It
   * ends when one starts.
   */
  get #startsOneByOne(): boolean {
    const { timing } = this.#context;
    const nowMs = this.#nowMs;
    const failed = STARTS.flatMap((step) => this.#fresh(step) ?? []).filter(({ times }) => times > 1);
    if (failed.length === 0) return false;
    if (failed.some(({ failedMs }) => nowMs < failedMs + timing.restartMs)) return true;
    for (const claim of this.#claims) if (mayStillStart(claim, nowMs, timing)) return true;
    return false;
  }

  /** Until when a failed step that the next claim would take is not retried; negative infinity: none has failed. */
  get #pausedUntilMs(): number {
    let pausedMs = Number.NEGATIVE_INFINITY;
    for (const [step, { untilMs }] of this.#shared) if (BEFORE_CLAIMS.has(step)) pausedMs = Math.max(pausedMs, untilMs);
    return pausedMs;
  }

  get #nowMs(): number {
    return this.#context.clock.monotonic();
  }

  /** When a step may be tried again (monotonic), for any claim; null: it has not failed since the last success. */
  fromMs(step: StepName): number | null {
    return this.#fresh(step)?.untilMs ?? null;
  }

  /** The reason and message of the first of these steps that is reported; null: none is. */
  failing(steps: readonly StepName[]): Verdict | null {
    const shown = this.#reported();
    for (const step of steps) {
      const [first] = shown.get(step) ?? [];
      if (first) return { reason: STEPS[step].reason, message: first.message };
    }
    return null;
  }

  /** Stops all reports and cancels the timer. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  #reported(): Map<StepName, FailingStep[]> {
    const { timing } = this.#context;
    const nowMs = this.#nowMs;
    const shown = new Map<StepName, FailingStep[]>();
    const add = (of: FailingByStep, overdueMs: number) => {
      for (const [step, failing] of of) {
        if (isReported(failing, nowMs, timing, overdueMs)) shown.set(step, [...(shown.get(step) ?? []), failing]);
      }
    };
    add(this.#shared, timing.restartMs + OVERDUE_MS);
    for (const { failing } of this.#claims) if (failing) add(failing, OVERDUE_MS);
    return shown;
  }

  #changed(): void {
    if (this.#ended) return;
    const { metrics, labels } = this.#context;
    const shown = this.#reported();
    for (const step of shown.keys()) this.#gauged.add(step);
    for (const step of this.#gauged) metrics.failingSteps.set({ ...labels, step }, this.#count(step, shown));
    this.#onChange();
  }

  /** The number of claims whose failure of this step is reported; 1 if only the shared record is. */
  #count(step: StepName, shown: ReadonlyMap<StepName, readonly FailingStep[]>): number {
    const all = shown.get(step) ?? [];
    return all.length > 1 && this.#shared.get(step) === all[0] ? all.length - 1 : all.length;
  }

  #wakeAt(atMs: number): void {
    const { clock } = this.#context;
    const waitMs = atMs - this.#nowMs;
    if (this.#ended || waitMs < 0 || (this.#timer && this.#timerMs <= atMs)) return;
    this.#timer?.cancel();
    this.#timerMs = atMs;
    this.#timer = clock.setTimer(() => {
      this.#timer = null;
      this.#changed();
      this.#wakeForNext();
    }, waitMs);
  }

  /** Wakes for the next change of the report: a failure has lasted long enough, or a reported one is outdated. */
  #wakeForNext(): void {
    const { timing } = this.#context;
    const nowMs = this.#nowMs;
    const times = ({ sinceMs, untilMs }: FailingStep, overdueMs: number) => [
      sinceMs + timing.stepPatienceMs,
      untilMs + overdueMs + 1,
    ];
    const next = [
      ...[...this.#shared.values()].flatMap((each) => times(each, timing.restartMs + OVERDUE_MS)),
      ...[...this.#claims].flatMap(({ failing }) =>
        [...(failing?.values() ?? [])].flatMap((each) => times(each, OVERDUE_MS)),
      ),
    ].filter((atMs) => atMs > nowMs);
    if (next.length > 0) this.#wakeAt(Math.min(...next));
  }
}
