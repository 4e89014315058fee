import { own } from "../claims/item-acts.ts";
import { markFinished, sameState, touchPod } from "../claims/pod-acts.ts";
import { MOST_RELEASES, type Releases } from "../claims/releases.ts";
import { dropSecret, openSecret, StaleClaimError } from "../claims/secret-acts.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isConflict, isForbidden, isInvalid, isNotFound, isQuotaExceeded, KubeApiError } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import type { Breaker } from "../pods/breaker.ts";
import { deletePod } from "../pods/delete.ts";
import { readPodState } from "../pods/pod-state.ts";
import type { DisruptionBudget } from "../pool/disruption-budget.ts";
import type { Retention } from "../pool/retention.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteAway, remember } from "../protocol/claim-lease.ts";
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
import { WorkQueue } from "../watch/workqueue.ts";
import { isRefusal, WorkApiError } from "../work/errors.ts";
import { asks, forgetPauses, heldBackUntilMs, stepNameOf } from "./ask-pause.ts";
import { ClaimFacts, isAssigned } from "./claim-facts.ts";
import { awayMessage, type ItemObservers, isGivenUp } from "./item-observer.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { LeaseSteps } from "./lease-steps.ts";
import { NOT_SEEN, SessionRecorder } from "./session-recorder.ts";

/**
 * Claims of one Environment that are worked on at the same time. Each does nothing but wait for answers, and all that wait
 * for a look share one walk: so many that a claim that was just acknowledged never waits for those that end.
 */
const CONCURRENCY = 1_000;

/** Everything is looked at again after so long, whatever it waits for: a wait of a day would outlive its claim. */
const LONGEST_WAIT_MS = 300_000;

/** A timer's resolution. After a shorter wait the clock may still show the same instant, and the same wait follows. */
const SHORTEST_WAIT_MS = 1;

/** Steps that one claim takes in one go before others get their turn; more would be a loop that leads nowhere. */
const MAX_STEPS = 12;

/** By then the watch has long shown that a Pod is being deleted; if not, the step is decided on anew. */
const DELETION_SHOWS_MS = 1_000;

const CAPPED = `the work item was released ${MOST_RELEASES} times before, which is the most that onPodFailure: Release allows, so it was stopped`;

export interface SessionLoopOptions {
  readonly context: SessionContext;
  readonly claims: ClaimTable;
  readonly observers: ItemObservers;
  readonly breaker: Breaker;
  /** Tells whether requests to the Work API make sense now: there is a key, and it was not rejected. */
  readonly gate: { readonly mayAsk: boolean };
  /** Counts a session before its Pod is marked as assigned. */
  readonly budget: Pick<DisruptionBudget, "cover">;
  /** What becomes of Pods whose sessions are over. */
  readonly retention: Pick<Retention, "isKept" | "release" | "marked">;
  readonly releases: Releases;
  /** Something changed that capacity or status depend on. */
  readonly onChange: () => void;
}

/**
 * Takes every claim of an Environment from its acknowledgement to its settled end, one step at a time: look at the Pod,
 * the Secret and the item, decide (decide.ts), perform (perform.ts). Level-based: whatever happened while nobody looked,
 * the next step follows from what is there.
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
  /** Settled claims whose Pod could not be marked: that step still fails. */
  readonly #unmarked = new WeakSet<Claim>();

  constructor(options: SessionLoopOptions) {
    const { context } = options;
    this.#options = options;
    this.#context = context;
    this.#claims = options.claims;
    this.#claimPriority = new ClaimPriority({ clock: context.clock, claims: options.claims });
    this.#recorder = new SessionRecorder(context, options.breaker, options.onChange);
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

  /** Look at this claim, if it is one: its Pod changed, or its item was seen. */
  poke(name: string): void {
    if (this.#claims.has(name)) this.#queue.add(name);
  }

  /** Look at all claims: what kept them waiting may be over. */
  pokeAll(): void {
    for (const claim of this.#claims) {
      forgetPauses(claim);
      this.#queue.add(claim.name);
    }
    this.#keeper.retry();
  }

  /** From now on running sessions are stopped at `deadlineMs` (monotonic), and nothing is opened any more. */
  drain(deadlineMs: number): void {
    if (this.#facts.drain(deadlineMs)) this.pokeAll();
  }

  /** A new view of an item: from a walk for a decision, from a sweep, or from a poll that was offered it. */
  saw(claim: Claim, view: ItemView): void {
    this.#recorder.saw(claim, view);
  }

  /** The queue offers the item of a claim again: whatever was thought of its lease is over. */
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
      // `pokeAll` follows when another key comes; should the one there be accepted after all, nobody says so.
      if (asks(step) && !this.#options.observers.isElsewhere(claim) && !this.#options.gate.mayAsk)
        return this.#queue.addAfter(name, this.#context.timing.retryMaxMs);
      const pauseMs = heldBackUntilMs(facts, step) - this.#context.clock.monotonic();
      // Another step may be due before that is over: to delete a Pod, say.
      if (pauseMs > 0) return this.#queue.addAfter(name, Math.min(pauseMs, this.#context.timing.retryMaxMs));
      await this.#perform(claim, step, pod);
      this.#options.onChange();
      // The cache shows the deletion in a moment; until then the same step would come out again.
      if (step.do === "delete-pod") return this.#queue.addAfter(name, DELETION_SHOWS_MS);
    }
    // Others first; this one goes on at the end of the queue.
    this.#queue.addAfter(name, this.#context.timing.retryBaseMs);
  }

  /** How long a step is held back that nobody waits for, in milliseconds. */
  #heldMs(claim: Claim, step: Step): number {
    const leavesWayMs = leavesWayUntil(step, claim);
    if (leavesWayMs === null) return 0;
    const lateMs = step.do === "touch" ? (claim.record.touchedMs ?? 0) + this.#recorder.starts.patienceMs : 0;
    // A drain has no claims to wait for.
    const isRush = !this.#facts.isDraining && this.#claimPriority.isRush;
    return Math.max(0, Math.max(lateMs, isRush ? leavesWayMs : 0) - this.#context.clock.monotonic());
  }

  /** What the next step is decided on. @throws KubeApiError when the Pod has to be read live, and cannot be. */
  async #read(claim: Claim): ReturnType<ClaimFacts["read"]> {
    try {
      const read = await this.#facts.read(claim);
      this.#context.failing.notNeeded("read-pod", claim);
      return read;
    } catch (error) {
      if (isStepFailure(error)) this.#context.failing.failed("read-pod", { error }, claim);
      throw error;
    }
  }

  async #perform(claim: Claim, step: Exclude<Step, { do: "wait" }>, pod: Pod | undefined): Promise<void> {
    const name = stepNameOf(step);
    try {
      await this.#performStep(claim, step, pod);
      // A heartbeat that is refused may follow one whose answer was lost: that one still fails.
      const isRefused = (step.do === "fence" || step.do === "take") && claim.lease.memory.is === "refused";
      if (isRefused && step.do === "take") this.#heartbeatRefused(claim, step);
      else if (name !== null && name !== "touch" && !isRefused && !this.#unmarked.has(claim))
        this.#context.failing.succeeded(name, claim);
      if (asks(step)) noteAway(claim, null);
    } catch (error) {
      const { clock } = this.#context;
      if (error instanceof StaleClaimError) return this.#afterConflict(claim, name, error);
      const away = this.#options.observers.isElsewhere(claim) ? claim.record.journal.api : null;
      this.#noteFailure(claim, name, { error, message: awayMessage(error, away) });
      if (isGivenUp(claim, away, error, clock.monotonic())) {
        return this.#settled(claim, `${away} does not take its requests any more`, pod);
      }
      // What is given up is settled at once: another pause, and its item would be in the queue again.
      if (this.#givesUpOpening(claim, step, error)) return;
      throw error;
    }
  }

  /** No other client should send heartbeats for an item that was just acknowledged: repeated refusals are a fault. */
  #heartbeatRefused(claim: Claim, step: Step): void {
    const error = new Error("the Work API says that another client sent a heartbeat");
    this.#noteFailure(claim, "take", { error });
    this.#givesUpOpening(claim, step, error);
  }

  /** What is read after the first conflict is news; a conflict that comes again is a failure as any other. */
  async #afterConflict(claim: Claim, name: StepName | null, error: StaleClaimError): Promise<void> {
    try {
      await this.#reread(claim);
    } catch (failure) {
      this.#noteFailure(claim, name, { error: failure });
      throw failure;
    }
    // A request of ours whose answer was lost has done it.
    if (name === "open" && claim.record.journal.opened) this.#context.failing.succeeded(name, claim);
    else this.#noteFailure(claim, name, { error, atOnce: !claim.failing?.has(name ?? "open") });
  }

  #noteFailure(claim: Claim, name: StepName | null, failure: Failure): void {
    const isThere = this.#claims.get(claim.name) === claim;
    if (name !== null && isThere && isStepFailure(failure.error)) this.#context.failing.failed(name, failure, claim);
  }

  /**
   * Whether a claim that is acknowledged and cannot be opened will not be started any more. It counts as a failed start: what
   * refuses it would refuse the next one, too. A Work API that does not answer refuses nothing: the item is opened, or is in
   * the queue again, when it does. Where the container runs all the same, an opening took effect that was not answered.
   */
  #givesUpOpening(claim: Claim, step: Step, error: unknown): boolean {
    const { clock, timing } = this.#context;
    if (claim.record.acknowledgedAt === null || claim.record.journal.opened || claim.record.ending !== null)
      return false;
    // A Work API that fails refuses nothing.
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
        // It is not opened: other claims of its template do not wait for it.
        if (step.late) this.#options.breaker.released(claim.templateHash, claim.name);
        return;
      case "take":
        return this.#orLookAnew(claim, () => this.#leases.take(claim, step.expected));
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
      case "snapshot":
        // What goes on from a beat that was seen is nothing new to the protocol: it remembers the value before that.
        if (step.beatenSinceMs === undefined) {
          context.points.note("session.snapshot", ofClaim(claim), { value: step.value });
        }
        remember(claim, remembered(step, claim, context.clock.monotonic()));
        return;
      case "fence":
        return this.#orLookAnew(claim, () => this.#leases.fence(claim, step.expected));
      case "stop":
        return this.#orLookAnew(claim, () => this.#leases.stop(claim, step.force, this.#facts.isDraining));
      case "delete-pod":
        return this.#deletePod(claim, step);
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
      () => this.#options.observers.of(claim).look(workId),
      ({ state, acknowledgedAt, latestHeartbeatAt }) => ({ state, acknowledgedAt, latestHeartbeatAt }),
    );
    this.saw(claim, view);
  }

  #lose(claim: Claim, message: string): void {
    this.#context.points.note("session.lose", ofClaim(claim), { why: message });
    this.#leases.lose(claim, message);
  }

  /** A final refusal (an item that the API no longer knows) says that what was seen of the item is outdated. */
  async #orLookAnew(claim: Claim, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (isRefusal(error)) replaceItem(claim, null);
      throw error;
    }
  }

  /** A touch that fails holds nothing up: kubelet starts the container without it. */
  async #touch(claim: Claim, pod: Pod): Promise<void> {
    const { clock, failing, logger } = this.#context;
    try {
      await this.#options.budget.cover();
      await touchPod(this.#context, claim, pod);
      failing.succeeded("touch", claim);
    } catch (error) {
      if (!(error instanceof KubeApiError)) throw error;
      noteTouched(claim, clock.monotonic());
      // A conflict says that the Pod is another one: the watch shows it.
      if (!isConflict(error)) failing.failed("touch", { error }, claim);
      logger.warn({ pod: claim.name, error: errorText(error) }, "a Pod could not be touched");
    }
  }

  async #open(claim: Claim, acknowledgedAt: string, pod: Pod | undefined): Promise<void> {
    await openSecret(this.#context, claim, acknowledgedAt);
    const { clock } = this.#context;
    noteOpened(claim, acknowledgedAt, { nowMs: clock.monotonic(), wallMs: clock.now() });
    if (!pod) return;
    await this.#touch(claim, pod);
    this.#recorder.opened(claim);
  }

  async #deletePod(claim: Claim, step: Step & { do: "delete-pod" }): Promise<void> {
    // lease: Operator: SIGTERM is all the notice there is, so the time that a drain has left for it starts now.
    const { graceMs } = this.#facts.limits(claim);
    const about = { by: "session", name: claim.name, workId: claim.record.journal.workId } as const;
    const grace =
      this.#facts.isDraining && claim.record.journal.lease === "Operator" ? Math.floor(graceMs / SECOND_MS) : undefined;
    const against = await deletePod(this.#context, about, (live) => !sameState(live, step), grace);
    // The cache was behind: the watch brings what is true.
    if (against) throw new Error(`the Pod is not as it was seen: ${readPodState(against).is}`);
    decideEnding(claim, step.why, step.message);
    if (step.why === "StartFailed") {
      this.#recorder.ended(claim, { ...NOT_SEEN, cause: "StartFailed", message: step.message });
    }
  }

  async #drop(claim: Claim, because: string): Promise<void> {
    const context = this.#context;
    await dropSecret(context, claim, "session.drop", because);
    this.#forget(claim, "dropped");
    context.metrics.claims.inc({ ...context.labels, result: "dropped" });
    this.#options.breaker.released(claim.templateHash, claim.name);
    context.logger.info({ workId: claim.record.journal.workId, pod: claim.name, because }, "claim dropped");
  }

  async #settled(claim: Claim, because: string, pod: Pod | undefined): Promise<void> {
    const context = this.#context;
    const hasEnded = because === "stopped" || because === "absent";
    // Once its Secret is gone, its item can be claimed again.
    const counts = !hasEnded && !claim.record.lateAck && isReleased({ claim, limits: this.#facts.limits(claim) });
    if (counts) await this.#countRelease(claim);
    await dropSecret(context, claim, "session.settled", because);
    const told = this.#outcomeOf(claim, because, pod);
    // Before its Pod is marked, which tells the next process what is known by then.
    this.#recorder.judge(claim, told);
    if (pod && told && claim.record.journal.opened) {
      // The claim stays in the table until its Pod is marked: a Pod that is assigned without a claim gets deleted. So one
      // that is not kept needs no mark; but where its touch was refused it would pass for a free one.
      if (!this.#options.retention.isKept(told) && isAssigned(pod)) this.#options.retention.release(pod);
      else if (await this.#mark(claim, pod, told)) this.#options.retention.marked(pod);
    }
    if (hasEnded) this.#options.releases.ended(claim);
    this.#forget(claim, "settled");
    this.#recorder.settled(claim, because, told);
  }

  /** A count that cannot be written must not keep the claim's Secret, whose room a quota may need for the count. */
  async #countRelease(claim: Claim): Promise<void> {
    const { clock, timing, logger } = this.#context;
    try {
      await this.#options.releases.note(claim);
    } catch (error) {
      const isLate = isOutOfPatience(claim.failing?.get("settled"), clock.monotonic(), timing);
      if (!isQuotaExceeded(error) && !isLate) throw error;
      logger.warn(
        { workId: claim.record.journal.workId, error: errorText(error) },
        "a release could not be counted durably",
      );
    }
  }

  #outcomeOf(claim: Claim, because: string, pod: Pod | undefined): Outcome | null {
    const { opened, use } = claim.record.journal;
    if (opened || use !== "session" || claim.record.ending !== null) {
      const outcome = outcomeOf(claim);
      return this.#isCapped(claim, because) ? { ...outcome, message: `${outcome.message}; ${CAPPED}` } : outcome;
    }
    return unopenedOutcome(claim, because, pod ? readPodState(pod) : { is: "gone" }, this.#facts.isDraining);
  }

  /** Its item was stopped because it may not be released again. */
  #isCapped(claim: Claim, because: string): boolean {
    const limits = { ...this.#facts.limits(claim), onPodFailure: "Release" } as const;
    const isAsked = this.#context.environment().spec.sessions?.onPodFailure === "Release";
    const isOurStop = because === "stopped" && claim.observed.stoppingSinceMs === null;
    return isAsked && isOurStop && this.#options.releases.isSpent(claim) && isReleased({ claim, limits });
  }

  /** A mark that keeps failing must not keep a claim that is settled: its Pod is deleted without having been kept. */
  async #mark(claim: Claim, pod: Pod, outcome: Outcome): Promise<boolean> {
    try {
      const start = { failed: isStartFailure(claim), inARow: this.#options.breaker.failuresOf(claim.templateHash) };
      await markFinished(this.#context, claim, pod, outcome, start);
      return true;
    } catch (error) {
      const { clock, timing, logger } = this.#context;
      const isFinal = isForbidden(error) || isInvalid(error);
      if (!isFinal && !isOutOfPatience(claim.failing?.get("settled"), clock.monotonic(), timing)) throw error;
      this.#unmarked.add(claim);
      logger.warn({ pod: claim.name, error: errorText(error) }, "a finished Pod could not be marked");
      return false;
    }
  }

  #forget(claim: Claim, why: string): void {
    this.#context.points.note("session.forget", ofClaim(claim), { why });
    this.#keeper.forget(claim);
    this.#claims.remove(claim);
    this.#queue.forget(claim.name);
  }

  /** Reads the Secret anew after a conflict: what stands in it decides whether this claim still is one. */
  async #reread(claim: Claim): Promise<void> {
    try {
      const { kube, points, namespace } = this.#context;
      const read = () => kube.get(SECRETS, { namespace, name: claim.name });
      const isOurs = (secret: Secret) => readJournal(secret)?.workId === claim.record.journal.workId;
      const secret = await points.run("session.reread", ofClaim(claim), read, (found) => ({ ours: isOurs(found) }));
      const journal = readJournal(secret);
      if (!journal || !isOurs(secret)) {
        this.#context.logger.warn({ pod: claim.name }, "the claim's Secret is somebody else's now: left alone");
        this.#forget(claim, "taken");
        this.#options.breaker.released(claim.templateHash, claim.name);
        return;
      }
      noteReread(claim, secret, journal, this.#context.clock.monotonic());
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // Somebody deleted the record of a live claim. The memory of it is all that is left: settle with that.
      this.#context.logger.warn({ pod: claim.name, error: errorText(error) }, "the claim's Secret is gone");
      noteRecordGone(claim);
    }
  }
}
