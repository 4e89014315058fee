import { type Deliverer, delivered, deliverSession, findStart } from "../claims/delivery-acts.ts";
import { own } from "../claims/item-acts.ts";
import { asAssigned, markFinished, putToSleep, type StartMark, sameState, touchPod } from "../claims/pod-acts.ts";
import { MOST_RELEASES, type Releases } from "../claims/releases.ts";
import { dropSecret, openSecret, StaleClaimError } from "../claims/secret-acts.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isConflict, isForbidden, isInvalid, isNotFound, KubeApiError } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import { deletePod } from "../pods/delete.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { readPodState } from "../pods/pod-state.ts";
import { sleepMsOf } from "../pods/sleep-mark.ts";
import { hasTurns, livesOn, MOST_TURNS } from "../pods/turns.ts";
import type { Retention } from "../pool/finished-retention.ts";
import type { Claim } from "../protocol/claim.ts";
import { remember } from "../protocol/claim-lease.ts";
import { type ItemView, replaceItem } from "../protocol/claim-observed.ts";
import { ClaimPriority, leavesWayUntil } from "../protocol/claim-priority.ts";
import { decideEnding, noteOpened, noteRecordGone, noteReread, noteTouched } from "../protocol/claim-record.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import { nextStep } from "../protocol/decide.ts";
import { isReleased, remembered } from "../protocol/facts.ts";
import { type Failure, isOutOfPatience, isStepFailure } from "../protocol/failing-steps.ts";
import { isStartFailure } from "../protocol/first-heartbeat.ts";
import { readJournal } from "../protocol/journal.ts";
import { type Outcome, outcomeOf, unopenedOutcome } from "../protocol/outcome.ts";
import { ofClaim } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";
import type { StepName } from "../protocol/tracked-steps.ts";
import type { SleepReport } from "../sleep/sleep-report.ts";
import type { TurnAdding } from "../sleep/turn-adding.ts";
import { WorkQueue } from "../watch/workqueue.ts";
import { isRefusal, WorkApiError } from "../work/errors.ts";
import { asks, forgetPauses, heldBackUntilMs, stepNameOf } from "./ask-pause.ts";
import { ClaimFacts, isAssigned } from "./claim-facts.ts";
import type { ItemObserver } from "./item-observer.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { LeaseSteps } from "./lease-steps.ts";
import { NOT_SEEN, SessionRecorder } from "./session-recorder.ts";

/**
 * Claims of one Environment that the loop works on concurrently. The number is large because a worker only waits for
 * answers, and waiting item reads share one walk. So a newly acknowledged claim never waits for claims that end.
 */
const CONCURRENCY = 1_000;

/** Longest time between two passes over a claim, whatever it waits for: a wait of a day would outlive the claim. */
const LONGEST_WAIT_MS = 300_000;

/** A timer's resolution. After a shorter wait the clock may still show the same instant, and the same wait follows. */
const SHORTEST_WAIT_MS = 1;

/** Steps that one claim takes before other claims get their turn. More suggests an endless loop. */
const MAX_STEPS = 12;

/** The watch normally reports a Pod's deletion well before this. If it does not, the step is decided again. */
const DELETION_SHOWS_MS = 1_000;

const CAPPED = `the work item was released ${MOST_RELEASES} times, the maximum of onPodFailure: Release, so Berth stopped it`;

export interface SessionLoopOptions {
  readonly context: SessionContext;
  readonly claims: ClaimTable;
  readonly observer: ItemObserver;
  /** `mayAsk`: the reconciler allows requests to the Work API, and the key was not rejected. */
  readonly gate: { readonly mayAsk: boolean };
  /** Keeps or deletes the Pods of ended sessions. */
  readonly retention: Pick<Retention, "isKept" | "release" | "marked">;
  readonly releases: Releases;
  readonly streams: Deliverer;
  readonly sleeps: SleepReport;
  /** Gives a Pod its next turn. */
  readonly turns: Pick<TurnAdding, "add">;
  /** Called when something changed that capacity or status depends on. */
  readonly onChange: () => void;
}

/**
 * Takes every claim of an Environment from its acknowledgement until it is settled, one step at a time: read the Pod,
 * the Secret and the item, decide (decide.ts), perform. It is level-based: the next step follows from the current
 * state, so a missed event does no harm.
 */
export class SessionLoop {
  readonly #options: SessionLoopOptions;
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #claimPriority: ClaimPriority;
  readonly #queue: WorkQueue;
  readonly #recorder: SessionRecorder;
  readonly #facts: ClaimFacts;
  readonly #keeper: LeaseKeeper;
  readonly #leases: LeaseSteps;
  /** Settled claims whose Pod could not be marked. Their `settled` step still counts as failing. */
  readonly #unmarked = new WeakSet<Claim>();
  /** Until when (monotonic) the Pods of woken sessions are left to programs that did not serve. */
  readonly #spared = new WeakMap<Claim, number>();

  constructor(options: SessionLoopOptions) {
    const { context } = options;
    this.#options = options;
    this.#context = context;
    this.#claims = options.claims;
    this.#claimPriority = new ClaimPriority({ clock: context.clock, claims: options.claims });
    this.#recorder = new SessionRecorder(context, options.sleeps, options.onChange);
    this.#facts = new ClaimFacts(context, this.#recorder, options.releases, options.onChange);
    this.#keeper = new LeaseKeeper(context, (claim) => this.poke(claim.name));
    this.#leases = new LeaseSteps(context, this.#keeper);
    this.#queue = new WorkQueue({
      name: "sessions",
      clock: context.clock,
      logger: context.logger,
      metrics: context.metrics,
      random: context.random,
      backoff: { baseMs: context.timing.retryBaseMs, maxMs: context.timing.retryMaxMs },
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const steps = this.#queue.run({ workers: CONCURRENCY, handle: (name) => this.#advance(name), signal });
    await Promise.all([steps, this.#keeper.run(signal)]);
  }

  /**
   * Starts acknowledged sessions after the loops have ended. Otherwise they would wait for the next process, and one of a
   * version without waiting shells would take their Pods for running sessions. Never throws.
   */
  async finishStarts(): Promise<void> {
    const starting = [...this.#claims].filter(
      ({ record: { journal, acknowledgedAt } }) =>
        journal.use === "session" && acknowledgedAt !== null && !journal.opened,
    );
    await Promise.allSettled(starting.map(({ name }) => this.#advance(name)));
  }

  /** Queues the claim of this name, if there is one: its Pod changed, or a list showed its item. */
  poke(name: string): void {
    if (this.#claims.has(name)) this.#queue.add(name);
  }

  /** Queues all claims and ends their pauses: the cause of their failures may be fixed. */
  pokeAll(): void {
    for (const claim of this.#claims) {
      forgetPauses(claim);
      this.#queue.add(claim.name);
    }
    this.#keeper.retry();
  }

  /** Opens nothing from now on, and stops running sessions at `deadlineMs` (monotonic). */
  drain(deadlineMs: number): void {
    if (this.#facts.drain(deadlineMs)) this.pokeAll();
  }

  /** Records a new view of an item, from a walk for a decision, from a sweep, or from a poll that returned it. */
  saw(claim: Claim, view: ItemView): void {
    this.#recorder.saw(claim, view);
  }

  /** The queue offers the item of a claim again, so this process no longer holds its lease. */
  reoffered(claim: Claim, view: ItemView): void {
    this.saw(claim, view);
    const { own: lease } = claim.lease;
    if (lease?.is === "held" && lease.state === "active" && view.askedMs > lease.sentMs) {
      this.#lose(claim, "the queue offers the work item again");
    }
    this.poke(claim.name);
  }

  async #advance(name: string): Promise<void> {
    for (let steps = 0; steps < MAX_STEPS; steps += 1) {
      const claim = this.#claims.get(name);
      if (!claim || claim.record.claiming) return;
      const { facts, pod } = await this.#read(claim);
      const step = nextStep(facts);
      if (step.do === "wait") {
        if (step.untilMs !== null) {
          const waitMs = step.untilMs - this.#context.clock.monotonic();
          this.#queue.addAfter(name, Math.min(LONGEST_WAIT_MS, Math.max(SHORTEST_WAIT_MS, waitMs)));
        }
        return;
      }
      const heldMs = this.#heldMs(claim, step);
      if (heldMs > 0) return this.#queue.addAfter(name, heldMs);
      // A new key calls `pokeAll`. But nothing reports that the current key is accepted after all, so check again.
      if (asks(step) && !this.#options.gate.mayAsk) return this.#queue.addAfter(name, this.#context.timing.retryMaxMs);
      const pauseMs = heldBackUntilMs(facts, step) - this.#context.clock.monotonic();
      // Another step may be due before the pause ends, for example to delete a Pod.
      if (pauseMs > 0) return this.#queue.addAfter(name, Math.min(pauseMs, this.#context.timing.retryMaxMs));
      await this.#perform(claim, step, pod);
      this.#options.onChange();
      // Until the cache shows the deletion, the loop would decide on the same step again.
      if (step.do === "delete-pod") return this.#queue.addAfter(name, DELETION_SHOWS_MS);
    }
    // Other claims come first. This one continues at the end of the queue.
    this.#queue.addAfter(name, this.#context.timing.retryBaseMs);
  }

  /** How long to hold back a step that is not urgent, in milliseconds; 0: perform it now. */
  #heldMs(claim: Claim, step: Step): number {
    if (step.do === "delete-pod" && step.why === "NoFirstBeat" && !this.#facts.isDraining)
      return Math.max(0, (this.#spared.get(claim) ?? 0) - this.#context.clock.monotonic());
    const leavesWayMs = leavesWayUntil(step, claim);
    if (leavesWayMs === null) return 0;
    const lateMs = step.do === "touch" ? (claim.record.touchedMs ?? 0) + this.#recorder.starts.patienceMs : 0;
    // Nothing is claimed during a drain, so there is nothing to give way to.
    const isRush = !this.#facts.isDraining && this.#claimPriority.isRush;
    return Math.max(0, Math.max(lateMs, isRush ? leavesWayMs : 0) - this.#context.clock.monotonic());
  }

  /** Reads what the next step is decided on. @throws KubeApiError when a live read of the Pod is needed and fails. */
  async #read(claim: Claim): ReturnType<ClaimFacts["read"]> {
    try {
      const read = await this.#facts.read(claim);
      this.#context.holds.notNeeded("read-pod", claim);
      return read;
    } catch (error) {
      if (isStepFailure(error)) this.#context.holds.failed("read-pod", { error }, claim);
      throw error;
    }
  }

  async #perform(claim: Claim, step: Exclude<Step, { do: "wait" }>, pod: Pod | undefined): Promise<void> {
    const name = stepNameOf(step);
    try {
      await this.#performStep(claim, step, pod);
      // A refused heartbeat may follow one whose answer was lost. Keep the failure of the lost one.
      const isRefused = (step.do === "fence" || step.do === "take") && claim.lease.memory.is === "refused";
      if (isRefused && step.do === "take") this.#heartbeatRefused(claim, step);
      else if (step.do === "deliver" && claim.record.delivery !== "done") return;
      else if (name !== null && name !== "touch" && !isRefused && !this.#unmarked.has(claim))
        this.#context.holds.succeeded(name, claim);
    } catch (error) {
      if (error instanceof StaleClaimError) return this.#afterConflict(claim, name, error);
      this.#noteFailure(claim, name, { error });
      // Settle a claim that is given up at once: after another pause its item would be in the queue again.
      if (this.#givesUpOpening(claim, step, error)) return;
      throw error;
    }
  }

  /** No other client should send heartbeats for a newly acknowledged item, so repeated refusals are a fault. */
  #heartbeatRefused(claim: Claim, step: Step): void {
    const error = new Error("the Work API says that another client sent a heartbeat");
    this.#noteFailure(claim, "take", { error });
    this.#givesUpOpening(claim, step, error);
  }

  /** The first conflict calls for another read of the Secret. A repeated conflict is a failure like any other. */
  async #afterConflict(claim: Claim, name: StepName | null, error: StaleClaimError): Promise<void> {
    try {
      await this.#reread(claim);
    } catch (failure) {
      this.#noteFailure(claim, name, { error: failure });
      throw failure;
    }
    // An earlier request whose answer was lost did open it.
    if (name === "open" && claim.record.journal.opened) this.#context.holds.succeeded(name, claim);
    else this.#noteFailure(claim, name, { error, atOnce: !claim.failing?.has(name ?? "open") });
  }

  #noteFailure(claim: Claim, name: StepName | null, failure: Failure): void {
    const isThere = this.#claims.get(claim.name) === claim;
    if (name !== null && isThere && isStepFailure(failure.error)) this.#context.holds.failed(name, failure, claim);
  }

  /**
   * Gives up an acknowledged claim that could not be opened for too long. Returns whether it did. That counts as a
   * failed start, because the next claim would be refused too. An outage of the Work API does not count: once the API
   * answers, the item is opened or is in the queue again. If the container runs anyway, an unanswered opening took
   * effect.
   */
  #givesUpOpening(claim: Claim, step: Step, error: unknown): boolean {
    const { clock, timing } = this.#context;
    if (claim.record.acknowledgedAt === null || claim.record.journal.opened || claim.record.ending !== null)
      return false;
    // A Work API that fails does not refuse anything.
    const isOutage = error instanceof WorkApiError && !isRefusal(error);
    if ((step.do !== "open" && step.do !== "take") || isOutage) return false;
    const failing = claim.failing?.get(step.do);
    if (!isOutOfPatience(failing, clock.monotonic(), timing)) return false;
    decideEnding(claim, "StartFailed", failing?.message ?? errorText(error));
    this.#recorder.judge(claim, outcomeOf(claim));
    return true;
  }

  async #performStep(claim: Claim, step: Exclude<Step, { do: "wait" }>, pod: Pod | undefined): Promise<void> {
    const context = this.#context;
    context.logger.debug({ step: step.do, pod: claim.name, workId: claim.record.journal.workId }, "session step");
    switch (step.do) {
      case "look":
        return this.#look(claim);
      case "own":
        own(context, claim, step);
        // It will not be opened, so other claims of its template need not wait for its start.
        if (step.late) this.#context.holds.starts.released(claim.templateHash, claim.name);
        return;
      case "take":
        return this.#orForgetItem(claim, () => this.#leases.take(claim, step.expected));
      case "lose":
        return this.#lose(claim, step.message);
      case "let-go":
        context.points.note("session.let-go", ofClaim(claim));
        return this.#leases.letGo(claim);
      case "open":
        return this.#open(claim, step.acknowledgedAt, pod);
      case "touch":
        if (pod) await this.#touch(claim, pod);
        return;
      case "deliver":
        if (pod) await this.#deliver(claim, pod);
        return;
      case "read-log":
        if (pod) await findStart(context, this.#options.streams, claim, pod);
        return;
      case "delivered":
        return delivered(context, claim, step.by);
      case "snapshot":
        // The model has no `beatenSinceMs`: after such a step it still remembers the value from before the heartbeat.
        if (step.beatenSinceMs === undefined) {
          context.points.note("session.snapshot", ofClaim(claim), { value: step.value });
        }
        remember(claim, remembered(step, claim, context.clock.monotonic()));
        return;
      case "fence":
        await this.#orForgetItem(claim, () => this.#leases.fence(claim, step.expected));
        if (claim.record.ending?.why === "NoFirstBeat") this.#noteUnserved(claim);
        return;
      case "stop":
        return this.#orForgetItem(claim, () => this.#leases.stop(claim, step.force, this.#facts.isDraining));
      case "delete-pod":
        return this.#deletePod(claim, step, pod);
      case "drop":
        return this.#drop(claim, step.because);
      case "settled":
        return this.#settled(claim, step.because, pod);
      default:
        return step satisfies never;
    }
  }

  async #look(claim: Claim): Promise<void> {
    const { workId } = claim.record.journal;
    const view = await this.#context.points.run(
      "session.look",
      ofClaim(claim),
      () => this.#options.observer.look(workId),
      ({ state, acknowledgedAt, latestHeartbeatAt }) => ({ state, acknowledgedAt, latestHeartbeatAt }),
    );
    this.saw(claim, view);
  }

  /**
   * The program did not serve in time. If other sessions of its template don't start either, a woken session keeps its
   * Pod: the program ends once its own first heartbeat is refused.
   */
  #noteUnserved(claim: Claim): void {
    if (claim.observed.judged) return;
    this.#recorder.judge(claim, outcomeOf(claim));
    if (claim.turn <= 1 || !this.#context.holds.starts.isFailing(claim.templateHash)) return;
    const { clock, environment } = this.#context;
    const { prepareTimeoutSeconds = 0 } = environment().spec.sessions ?? {};
    this.#spared.set(claim, clock.monotonic() + prepareTimeoutSeconds * SECOND_MS);
  }

  #lose(claim: Claim, message: string): void {
    this.#context.points.note("session.lose", ofClaim(claim), { why: message });
    this.#leases.lose(claim, message);
  }

  /** A final refusal (the API no longer knows the item, for example) proves the last view of the item outdated. */
  async #orForgetItem(claim: Claim, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (isRefusal(error)) replaceItem(claim, null);
      throw error;
    }
  }

  /** A failed touch delays the session but does not block it: the kubelet starts the container without it. */
  async #touch(claim: Claim, pod: Pod): Promise<void> {
    const { clock, holds, logger } = this.#context;
    try {
      await touchPod(this.#context, claim, pod);
      holds.succeeded("touch", claim);
    } catch (error) {
      if (!(error instanceof KubeApiError)) throw error;
      noteTouched(claim, clock.monotonic(), false);
      // A conflict means that another Pod has this name. The watch will report it.
      if (!isConflict(error)) holds.failed("touch", { error }, claim);
      logger.warn({ pod: claim.name, error: errorText(error) }, "cannot assign a Pod to its session");
    }
  }

  async #open(claim: Claim, acknowledgedAt: string, pod: Pod | undefined): Promise<void> {
    const { clock } = this.#context;
    const waitsForLine = pod !== undefined && parkingOf(pod) !== "Key";
    const opening = openSecret(this.#context, claim, acknowledgedAt, waitsForLine).then(() =>
      noteOpened(claim, acknowledgedAt, { nowMs: clock.monotonic(), wallMs: clock.now() }),
    );
    // Neither patch starts the container, so they need no order: the line is sent after both. A woken Pod is assigned
    // after its line: the patch of a Pod with many turns keeps the API server busy.
    const touching = waitsForLine && claim.turn <= 1 ? this.#touch(claim, pod) : undefined;
    const [opened] = await Promise.allSettled([opening, touching]);
    if (opened.status === "rejected") throw opened.reason;
    if (pod && !waitsForLine) await this.#touch(claim, pod);
    if (pod) this.#recorder.opened(claim);
  }

  async #deliver(claim: Claim, pod: Pod): Promise<void> {
    const delivery = await deliverSession(this.#context, this.#options.streams, claim, pod);
    if (delivery === "started") return;
    const error = new Error("the container did not confirm its session's line");
    this.#noteFailure(claim, "deliver", { error });
    this.#context.logger.info({ pod: claim.name }, `${error.message}, so Berth reads its log`);
  }

  async #deletePod(claim: Claim, step: Step & { do: "delete-pod" }, pod: Pod | undefined): Promise<void> {
    // With lease: Operator, SIGTERM is the only notice that the program gets. So a drain's share of time starts now.
    const { graceMs } = this.#facts.limits(claim);
    const target = { by: "session", name: claim.name, workId: claim.record.journal.workId } as const;
    const grace =
      this.#facts.isDraining && claim.record.journal.lease === "Operator" ? Math.floor(graceMs / SECOND_MS) : undefined;
    // The Pod of a session that sleeps meanwhile must stay, so the deletion of a Pod with turns names what was read (M).
    const how = { graceSeconds: grace, asRead: hasTurns };
    const isOver = (live: Pod) => !sameState(asAssigned(this.#context, claim, live), step, claim.turn);
    const against = await deletePod(this.#context, target, isOver, how);
    // The cache was stale. The watch will bring the current state.
    if (against) throw new Error(`the Pod has changed: ${readPodState(against).is}`);
    decideEnding(claim, step.why, step.message);
    // A waiting container may still read a line that is on its way, so its end must be seen.
    if (step.why === "StartFailed" && !(pod && parkingOf(pod) !== "Key")) {
      this.#recorder.ended(claim, { ...NOT_SEEN, cause: "StartFailed", message: step.message });
    }
  }

  async #drop(claim: Claim, because: string): Promise<void> {
    const context = this.#context;
    await dropSecret(context, claim, "session.drop", because);
    this.#forget(claim, "dropped");
    context.metrics.claims.inc({ ...context.labels, result: "dropped" });
    this.#context.holds.starts.released(claim.templateHash, claim.name);
    context.logger.info({ workId: claim.record.journal.workId, pod: claim.name, because }, "claim dropped");
  }

  async #settled(claim: Claim, because: string, pod: Pod | undefined): Promise<void> {
    const context = this.#context;
    const hasEnded = because === "stopped" || because === "absent";
    // Count before the Secret is deleted: after that, the item can be claimed again.
    const counts = !hasEnded && !claim.record.lateAck && isReleased({ claim, limits: this.#facts.limits(claim) });
    const wasStopped = claim.observed.item?.wasStopped === true;
    if (counts || wasStopped) await this.#countRelease(claim, wasStopped);
    const outcome = this.#outcomeOf(claim, because, pod);
    // Judge before the Pod is marked: the mark holds the number of failed starts for the next process.
    this.#recorder.judge(claim, outcome);
    const asleep = pod ? await this.#putToSleep(claim, pod, outcome) : null;
    await dropSecret(context, claim, "session.settled", because);
    if (asleep) {
      // An earlier process that had marked it has told so.
      if (asleep !== pod) this.#recorder.asleep(claim, asleep);
    } else if (pod && outcome && claim.record.journal.opened) {
      // The claim stays in the table until its Pod is marked, because retention deletes an assigned Pod without one.
      // For the same reason a Pod that is not kept needs no mark, unless its touch was refused: it would look free.
      if (!this.#options.retention.isKept(outcome) && isAssigned(pod)) this.#options.retention.release(pod);
      else if (await this.#mark(claim, pod, outcome)) this.#options.retention.marked(pod);
    }
    this.#forget(claim, "settled");
    this.#recorder.settled(claim, because, outcome);
    if (asleep) this.#options.turns.add(asleep, asleep !== pod);
  }

  /**
   * The session sleeps in its Pod, if that lives on; null: it doesn't, and the Pod is finished, or it was never woken. A
   * mark that keeps failing must not keep the claim.
   */
  async #putToSleep(claim: Claim, pod: Pod, outcome: Outcome | null): Promise<Pod | null> {
    const isWanted = !this.#facts.isDraining && sleepMsOf(this.#context.environment()) > 0;
    // The first program of the Pod never served, so there is nothing to keep.
    const isUseless = claim.turn === 1 && isStartFailure(claim);
    if (!isWanted || isUseless || !claim.record.journal.opened || !livesOn(pod, claim.turn)) return null;
    if (claim.turn >= MOST_TURNS) {
      this.#options.sleeps.ended(claim.record.journal.sessionId, pod, "TooManyTurns");
      return null;
    }
    const { clock, timing, logger, holds } = this.#context;
    try {
      const asleep = await putToSleep(this.#context, claim, pod, {
        ...this.#startOf(claim),
        message: outcome?.message ?? "",
      });
      if (asleep) holds.succeeded("sleep", claim);
      return asleep;
    } catch (error) {
      if (!isStepFailure(error)) throw error;
      const failed = holds.failed("sleep", { error }, claim);
      const isFinal = isForbidden(error) || isInvalid(error);
      if (!isFinal && !isOutOfPatience(failed, clock.monotonic(), timing)) throw error;
      logger.warn({ pod: claim.name, error: errorText(error) }, "cannot mark a Pod as sleeping");
      return null;
    }
  }

  /** A count that keeps failing must not keep the claim's Secret. */
  async #countRelease(claim: Claim, wasStopped: boolean): Promise<void> {
    const { clock, timing, logger } = this.#context;
    const { releases } = this.#options;
    try {
      await (wasStopped ? releases.noteStopped(claim) : releases.note(claim));
    } catch (error) {
      const isLate = isOutOfPatience(claim.failing?.get("settled"), clock.monotonic(), timing);
      if (!isNotFound(error) && !isLate) throw error;
      logger.warn({ workId: claim.record.journal.workId, error: errorText(error) }, "cannot record a release");
    }
  }

  #outcomeOf(claim: Claim, because: string, pod: Pod | undefined): Outcome | null {
    const { opened, use } = claim.record.journal;
    if (opened || use !== "session" || claim.record.ending !== null) {
      const outcome = outcomeOf(claim);
      return this.#isCapped(claim, because) ? { ...outcome, message: `${outcome.message}; ${CAPPED}` } : outcome;
    }
    return unopenedOutcome(
      claim,
      because,
      pod ? readPodState(pod, claim.turn) : { is: "gone" },
      this.#facts.isDraining,
    );
  }

  /** Whether the item was stopped only because it had been released too often. */
  #isCapped(claim: Claim, because: string): boolean {
    const limits = { ...this.#facts.limits(claim), onPodFailure: "Release" } as const;
    const isAsked = this.#context.environment().spec.sessions?.onPodFailure === "Release";
    const isOurStop = because === "stopped" && claim.observed.stoppingSinceMs === null;
    return isAsked && isOurStop && this.#options.releases.isSpent(claim) && isReleased({ claim, limits });
  }

  /** A mark that keeps failing must not keep a settled claim. Its Pod is then deleted instead of kept. */
  async #mark(claim: Claim, pod: Pod, outcome: Outcome): Promise<boolean> {
    try {
      await markFinished(this.#context, claim, pod, outcome, this.#startOf(claim));
      return true;
    } catch (error) {
      const { clock, timing, logger } = this.#context;
      const isFinal = isForbidden(error) || isInvalid(error);
      if (!isFinal && !isOutOfPatience(claim.failing?.get("settled"), clock.monotonic(), timing)) throw error;
      this.#unmarked.add(claim);
      logger.warn({ pod: claim.name, error: errorText(error) }, "cannot mark an ended Pod");
      return false;
    }
  }

  /** What the Pod records of its last start, for the next process. */
  #startOf(claim: Claim): StartMark {
    return { failed: isStartFailure(claim), inARow: this.#context.holds.starts.failuresOf(claim.templateHash) };
  }

  #forget(claim: Claim, why: string): void {
    this.#context.points.note("session.forget", ofClaim(claim), { why });
    this.#keeper.forget(claim);
    this.#claims.remove(claim);
    this.#queue.forget(claim.name);
  }

  /** Reads the Secret again after a conflict. Its content decides whether the claim still exists. */
  async #reread(claim: Claim): Promise<void> {
    try {
      const { kube, points, namespace } = this.#context;
      const read = () => kube.get(SECRETS, { namespace, name: claim.slot });
      const isOurs = (secret: Secret) => readJournal(secret)?.workId === claim.record.journal.workId;
      const secret = await points.run("session.reread", ofClaim(claim), read, (found) => ({ ours: isOurs(found) }));
      const journal = readJournal(secret);
      if (!journal || !isOurs(secret)) {
        this.#context.logger.warn({ pod: claim.name }, "another client owns the claim's Secret now");
        this.#forget(claim, "taken");
        this.#context.holds.starts.released(claim.templateHash, claim.name);
        return;
      }
      noteReread(claim, secret, journal, this.#context.clock.monotonic());
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // Another client deleted the record of a live claim. Settle it from what this process remembers.
      this.#context.logger.warn({ pod: claim.name, error: errorText(error) }, "the claim's Secret was deleted");
      noteRecordGone(claim);
    }
  }
}
