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
import {
  type FailingByStep,
  type FailingStep,
  STEP_NAMES,
  STEPS,
  type StepInfo,
  type StepName,
} from "./tracked-steps.ts";

/** Whether a claim that was begun lately may still be started. One that cannot be settled must not hold up others forever. */
function isTried(
  { record: { journal, ending }, lateAckUntilMs }: Claim,
  nowMs: number,
  { restartMs }: Pick<Timing, "restartMs">,
) {
  const isOpen = journal.use === "session" && !journal.opened && ending === null;
  return isOpen && nowMs < lateAckUntilMs + restartMs;
}

/** A claim's step that was not tried again so long after it was due is not needed any more. */
const OVERDUE_MS = 60_000;

/** Whether a person hears of it: at once where only a person can help, else once it has failed for long enough. */
function isShown(
  failing: FailingStep,
  nowMs: number,
  { stepPatienceMs }: Pick<Timing, "stepPatienceMs">,
  overdueMs = OVERDUE_MS,
): boolean {
  if (nowMs > failing.untilMs + overdueMs) return false;
  return failing.isFinal || (failing.times > 1 && nowMs >= failing.sinceMs + stepPatienceMs);
}

/** One lost request holds nothing up. */
const FAILURES_TO_HOLD_UP = 3;

/** Whether a claim waits for a step that fails again and again. */
export function isHeldUp({ failing }: Readonly<Claim>): boolean {
  return failing !== null && [...failing.values()].some(({ times }) => times >= FAILURES_TO_HOLD_UP);
}

/** Whether a step has failed for so long that the claim gives up on it. */
export function isOutOfPatience(failing: FailingStep | undefined, nowMs: number, timing: Timing): boolean {
  return failing !== undefined && nowMs >= failing.sinceMs + timing.stepPatienceMs;
}

/** What became known while a step failed. */
export interface Failure {
  readonly error: unknown;
  /** The name of the Pod and Secret it is about, which messages leave out: it differs at each try. */
  readonly name?: string;
  /** Replaces the message that the error gives, and is reported at once. */
  readonly message?: string | undefined;
  /** Try again at once: the next try is made with what is known now. */
  readonly atOnce?: boolean;
}

/** The record after one more failure. Failures within one pause count as one: many claims may fail at the same time. */
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
  const ceilingMs = backoffCeiling({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, times - 1);
  const pauseMs = failure.atOnce ? 0 : ceilingMs / 2 + (ceilingMs / 2) * random();
  // One try comes when patience ends: a claim that is given up then was tried once more.
  const lastMs = sinceMs + timing.stepPatienceMs;
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
  return `${said}; fix what refuses it (an admission webhook, a quota, the API server): it is tried again with backoff`;
}

/** Whether a failure says that a step keeps failing: not that this process may not act, or ends. */
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

/** Steps that the next claim would take, too: while one fails, none is begun for a while. */
const BEFORE_CLAIMS: ReadonlySet<StepName> = new Set(["hold", "journal", "read-pod", "acknowledge"]);

/** Steps without which no claim starts: while a claim fails there, no other is begun. */
const STARTS: readonly StepName[] = ["open", "take"];

/**
 * What keeps failing in one Environment, whatever the cause: steps of its claims, and of the loops that all claims share.
 * A failure that lasts is reported in the condition Ready and counted in `berth_failing_steps`.
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

  /** @param onChange called when what is reported may have changed. */
  constructor(context: FailingContext, claims: Iterable<Claim>, onChange: () => void) {
    this.#context = context;
    this.#claims = claims;
    this.#onChange = onChange;
  }

  /** A step failed: of this claim, or of what all claims share. */
  failed(step: StepName, failure: Failure, claim?: Claim): FailingStep {
    if (!claim) return this.#failed(this.#shared, step, failure);
    claim.failing ??= new Map();
    const named = { name: claim.name, ...failure };
    const after = this.#failed(claim.failing, step, named);
    // The claim ends, and the next one fails in the same way: a person hears of it until the step is done for one of them.
    this.#failed(this.#shared, step, named);
    return after;
  }

  #failed(of: FailingByStep, step: StepName, failure: Failure): FailingStep {
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    const before = of === this.#shared ? this.#fresh(step) : of.get(step);
    const after = afterFailure(before, step, failure, nowMs, this.#context);
    of.set(step, after);
    const isNew = before?.message !== after.message || !isShown(before, nowMs, timing);
    if (isNew && isShown(after, nowMs, timing)) this.#changed();
    this.#wakeForNext();
    return after;
  }

  /** A step was done. */
  succeeded(step: StepName, claim?: Claim): void {
    if (claim) this.#delete(this.#shared, step);
    this.notNeeded(step, claim);
  }

  /** A claim does not need a step any more: the next one may. */
  notNeeded(step: StepName, claim?: Claim): void {
    this.#delete(claim ? claim.failing : this.#shared, step);
    if (claim?.failing?.size === 0) claim.failing = null;
  }

  /** The shared record of a step, unless it is so old that it says nothing of now. */
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
    if (isShown(before, clock.monotonic(), timing, timing.restartMs + OVERDUE_MS)) this.#changed();
  }

  /** Nothing waits any more: nothing would show that what all claims share works again. */
  nothingWaits(): void {
    for (const step of [...BEFORE_CLAIMS, ...STARTS, "poll", "claim"] as const) this.#delete(this.#shared, step);
  }

  /** A claim is settled or dropped. */
  forget({ failing }: Claim): void {
    if (failing) this.#changed();
  }

  /**
   * Claimed sessions do not start, and the next one would not either. Until one does, they are claimed one at a time, a while
   * after the last one failed.
   */
  get holdsClaims(): boolean {
    const fromMs = this.startsFromMs;
    if (fromMs === 0) return false;
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    if (nowMs < fromMs) return true;
    for (const claim of this.#claims) if (isTried(claim, nowMs, timing)) return true;
    return false;
  }

  /** Until when (monotonic) claims are held for that at least; 0: they are not. */
  get startsFromMs(): number {
    const { timing } = this.#context;
    const failed = STARTS.flatMap((step) => this.#fresh(step) ?? []).filter(({ times }) => times > 1);
    return Math.max(0, ...failed.map(({ failedMs }) => failedMs + timing.restartMs));
  }

  /** Nothing is to be claimed before then (monotonic): a step that the next claim would take failed shortly before. */
  get pausedUntilMs(): number {
    let pausedMs = Number.NEGATIVE_INFINITY;
    for (const [step, { untilMs, times }] of this.#shared) {
      // One lost race for an item says nothing of the next.
      if (BEFORE_CLAIMS.has(step) && (step !== "acknowledge" || times > 1)) pausedMs = Math.max(pausedMs, untilMs);
    }
    return pausedMs;
  }

  /** What a person is told: the first step, in their order, that has failed for long enough. Null: none has. */
  get message(): string | null {
    return this.messageOf(STEP_NAMES);
  }

  /** The same of some steps. */
  messageOf(steps: readonly StepName[]): string | null {
    const shown = this.#shown();
    for (const step of steps) {
      const [first] = shown.get(step) ?? [];
      if (first) return first.message;
    }
    return null;
  }

  /** Nothing is reported any more, and no timer is left. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  #shown(): Map<StepName, FailingStep[]> {
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    const shown = new Map<StepName, FailingStep[]>();
    const add = (of: FailingByStep, overdueMs: number) => {
      for (const [step, failing] of of) {
        if (isShown(failing, nowMs, timing, overdueMs)) shown.set(step, [...(shown.get(step) ?? []), failing]);
      }
    };
    add(this.#shared, timing.restartMs + OVERDUE_MS);
    for (const { failing } of this.#claims) if (failing) add(failing, OVERDUE_MS);
    return shown;
  }

  #changed(): void {
    if (this.#ended) return;
    const { metrics, labels } = this.#context;
    const shown = this.#shown();
    for (const step of shown.keys()) this.#gauged.add(step);
    for (const step of this.#gauged) metrics.failingSteps.set({ ...labels, step }, this.#count(step, shown));
    this.#onChange();
  }

  /** Claims whose step is shown, or 1 where it is that of none. */
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

  /** Others may have begun to fail later; and what was reported is no news any more when it was not tried for long. */
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
