import { backoffCeiling, type Random } from "../core/backoff.ts";
import type { Clock, Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { unended } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import {
  apiErrorText,
  isForbidden,
  isInvalid,
  isUnauthorized,
  KubeApiError,
  LeadershipLostError,
} from "../kube/errors.ts";
import type { Metrics } from "../observe/metrics.ts";
import { withoutItem } from "../queue/api-health.ts";
import { askedPauseMs, WorkApiError } from "../work/errors.ts";
import type { Claim } from "./claim.ts";
import { type FailingByStep, type FailingStep, STEPS, type StepInfo, type StepName } from "./tracked-steps.ts";

/** Whether a recent claim may still start. A claim that can't be settled must not block others forever. */
function mayStillStart(
  { record: { journal, ending }, lateAckUntilMs }: Claim,
  nowMs: number,
  { restartMs }: Pick<Timing, "restartMs">,
) {
  const isOpen = journal.use === "session" && !journal.opened && ending === null;
  return isOpen && nowMs < lateAckUntilMs + restartMs;
}

/** A claim's step that was not retried within this time after it was due is no longer needed. */
const OVERDUE_MS = 60_000;

/**
 * Whether the failure is reported: immediately if only a person can fix it, otherwise once it has lasted long enough.
 */
export function isReported(
  failing: FailingStep,
  nowMs: number,
  { stepPatienceMs }: Pick<Timing, "stepPatienceMs">,
  overdueMs = OVERDUE_MS,
): boolean {
  if (nowMs > failing.untilMs + overdueMs) return false;
  return failing.isFinal || (failing.times > 1 && nowMs >= failing.sinceMs + stepPatienceMs);
}

/** One lost request must not count as a blocked claim. */
const FAILURES_TO_HOLD_UP = 3;

/** Whether a step that keeps failing blocks this claim. */
export function isHeldUp({ failing }: Readonly<Claim>): boolean {
  return failing !== null && [...failing.values()].some(({ times }) => times >= FAILURES_TO_HOLD_UP);
}

/** Whether a step has failed for so long that the claim gives up on it. */
export function isOutOfPatience(failing: FailingStep | undefined, nowMs: number, timing: Timing): boolean {
  return failing !== undefined && nowMs >= failing.sinceMs + timing.stepPatienceMs;
}

/** One failure of a step. */
export interface Failure {
  readonly error: unknown;
  /** The name of the Pod and Secret, which messages leave out since it differs at each try. */
  readonly name?: string;
  /** Replaces the error's message, and is reported immediately. */
  readonly message?: string | undefined;
  /** Retry immediately: the next try uses what this failure showed. */
  readonly atOnce?: boolean;
}

/** `spread`: the share of a pause that is random. */
const USUAL_BACKOFF = { factor: 2, spread: 0.5 };
/** Each try takes an item from the queue for seconds. The pauses of Environments differ by their polls. */
export const ACK_BACKOFF = { factor: 4, spread: 0 };

/** The record after another failure. Failures within one pause count as one: many claims may fail at the same time. */
export function afterFailure(
  before: FailingStep | undefined,
  step: StepName,
  failure: Failure,
  nowMs: number,
  { timing, random }: { readonly timing: Timing; readonly random: Random },
): FailingStep {
  const { error } = failure;
  const times = (before?.times ?? 0) + (before && nowMs < before.untilMs ? 0 : 1);
  const sinceMs = before?.sinceMs ?? nowMs;
  const askedMs = askedPauseMs(error, random) ?? (error instanceof KubeApiError ? (error.retryAfterMs ?? null) : null);
  const { factor, spread } = step === "acknowledge" ? ACK_BACKOFF : USUAL_BACKOFF;
  const ceilingMs = backoffCeiling({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs, factor }, times - 1);
  const pauseMs = failure.atOnce ? 0 : ceilingMs * (1 - spread + spread * random());
  // The last try is made when patience ends, just before the claim is given up.
  const lastMs = step === "acknowledge" ? nowMs : sinceMs + timing.stepPatienceMs;
  const dueMs = nowMs < lastMs ? Math.min(nowMs + pauseMs, lastMs) : nowMs + pauseMs;
  const untilMs = Math.max(dueMs, before?.untilMs ?? dueMs, nowMs + (askedMs ?? 0));
  const code = codeOf(error);
  const isSame = before?.code === code && failure.message === undefined;
  return {
    times,
    sinceMs,
    failedMs: nowMs,
    untilMs,
    isAsked: askedMs !== null,
    isFinal: failure.message !== undefined || isForbidden(error) || isInvalid(error),
    code,
    message: isSame ? before.message : (failure.message ?? messageOf(step, failure)),
  };
}

function codeOf(error: unknown): string {
  if (error instanceof KubeApiError) return `${error.status} ${error.reason}`;
  if (error instanceof WorkApiError) return `${error.kind} ${error.status ?? ""}`;
  return error instanceof Error ? error.name : "";
}

function messageOf(step: StepName, { error, name = "" }: Failure): string {
  const { effect, permission }: StepInfo = STEPS[step];
  const words = unended(withoutItem(name === "" ? errorText(error) : apiErrorText(error, name)));
  const said = words === "" ? effect : `${effect}: ${words}`;
  if (!(error instanceof KubeApiError)) return said;
  if (isForbidden(error) || isUnauthorized(error)) {
    return permission === null ? said : `${said}; give the operator permission to ${permission}`;
  }
  return `${said}; fix what refuses it (an admission webhook, a quota, the API server)`;
}

/** Whether an error counts as a failure of the step, and not as this process losing its lease or shutting down. */
export function isStepFailure(error: unknown): boolean {
  if (error instanceof LeadershipLostError) return false;
  return error instanceof WorkApiError ? error.kind !== "aborted" : true;
}

interface FailingContext {
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

/**
 * Tracks failing steps of one Environment, whatever the cause: those of its claims, and those of the loops that all
 * claims share. A lasting failure is reported in the condition Ready and counted in `berth_failing_steps`.
 */
export class FailingSteps {
  readonly #context: FailingContext;
  readonly #claims: Iterable<Claim>;
  readonly #onChange: () => void;
  readonly #shared: FailingByStep = new Map();
  readonly #gauged = new Set<StepName>();
  #ended = false;
  #timer: Timer | null = null;
  #timerMs = Number.POSITIVE_INFINITY;

  /** @param onChange called when the reported failures may have changed. */
  constructor(context: FailingContext, claims: Iterable<Claim>, onChange: () => void) {
    this.#context = context;
    this.#claims = claims;
    this.#onChange = onChange;
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
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
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
    const { clock, timing } = this.#context;
    const found = this.#shared.get(step);
    return found && clock.monotonic() <= found.untilMs + timing.restartMs + OVERDUE_MS ? found : undefined;
  }

  #delete(of: FailingByStep | null, step: StepName): void {
    const before = of?.get(step);
    if (!of || !before) return;
    of.delete(step);
    const { clock, timing } = this.#context;
    if (isReported(before, clock.monotonic(), timing, timing.restartMs + OVERDUE_MS)) this.#changed();
  }

  /** No work is waiting: without claims, no success would ever clear these records. */
  nothingWaits(): void {
    for (const step of [...BEFORE_CLAIMS, ...STARTS, "poll", "wake", "claim"] as const)
      this.#delete(this.#shared, step);
  }

  /** A claim was settled or dropped. */
  forget({ failing }: Claim): void {
    if (failing) this.#changed();
  }

  /**
   * Whether claims are held back because claimed sessions don't start. Until one starts, sessions are claimed one at a
   * time, with a pause after each failure.
   */
  get holdsClaims(): boolean {
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    const failed = STARTS.flatMap((step) => this.#fresh(step) ?? []).filter(({ times }) => times > 1);
    if (failed.length === 0) return false;
    if (failed.some(({ failedMs }) => nowMs < failedMs + timing.restartMs)) return true;
    for (const claim of this.#claims) if (mayStillStart(claim, nowMs, timing)) return true;
    return false;
  }

  /** When a step may be tried again (monotonic), for any claim; null: it has not failed since the last success. */
  fromMs(step: StepName): number | null {
    return this.#fresh(step)?.untilMs ?? null;
  }

  /**
   * Until when (monotonic) nothing may be claimed, because a step that the next claim would take failed; negative
   * infinity: none has failed since it last succeeded.
   */
  get pausedUntilMs(): number {
    let pausedMs = Number.NEGATIVE_INFINITY;
    for (const [step, { untilMs }] of this.#shared) if (BEFORE_CLAIMS.has(step)) pausedMs = Math.max(pausedMs, untilMs);
    return pausedMs;
  }

  /** The message of the first of these steps that is reported; null: none is. */
  messageOf(steps: readonly StepName[]): string | null {
    const shown = this.#reported();
    for (const step of steps) {
      const [first] = shown.get(step) ?? [];
      if (first) return first.message;
    }
    return null;
  }

  /** Stops all reports and cancels the timer. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  #reported(): Map<StepName, FailingStep[]> {
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
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
    const waitMs = atMs - clock.monotonic();
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
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
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
