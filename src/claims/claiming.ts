import { ANNOTATION_LEASE } from "../api/names.ts";
import type { PodStreams } from "../attach/pod-streams.ts";
import { errorText } from "../core/errors.ts";
import type { Notifier } from "../core/notifier.ts";
import type { ServerTime } from "../core/server-time.ts";
import type { Pod, Secret } from "../kube/resource.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { credentialOf, fitsInLine, frameFor, parkingOf, TOO_LONG } from "../pods/pod-gate.ts";
import { newPodName } from "../pods/pod-render.ts";
import { sessionContainerName } from "../pods/pod-state.ts";
import { hasTurns, isAsleep, openTurn, turnContainerId } from "../pods/turns.ts";
import { isPerSession, workspaceOf } from "../pods/workspace-pods.ts";
import type { Claim } from "../protocol/claim.ts";
import { remember } from "../protocol/claim-lease.ts";
import { viewOf } from "../protocol/claim-observed.ts";
import { noteHandedOver } from "../protocol/claim-record.ts";
import { type ClaimTable, newClaim } from "../protocol/claim-table.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import type { Journal, SlotUse } from "../protocol/journal.ts";
import type { Answer } from "../work/client.ts";
import { DATA_TYPE_SESSION, type WorkItem } from "../work/types.ts";
import { AckWindow, ackWindowMs, windowMs } from "./ack-window.ts";
import { Acknowledging } from "./acknowledging.ts";
import { ClaimJournal } from "./claim-journal.ts";
import type { ClaimLimiter } from "./claim-limiter.ts";
import type { Gate, HandOver, ParkedPods, Report, SessionPods, Volumes } from "./ports.ts";
import type { RefusedItems } from "./refused-items.ts";
import type { Releases } from "./releases.ts";
import { dropSecret } from "./secret-acts.ts";
import { SleeperSearch } from "./sleeper-search.ts";

/** The result of a claim; the values of the metric's label. */
export type ClaimResult =
  | "claimed"
  | "duplicate"
  | "refused"
  | "late"
  | "no-slot"
  | "session-runs"
  | "awaits-turn"
  | "awaits-pod"
  | "not-a-session"
  | "no-credential"
  | "too-long"
  | "stop-ignored"
  | "unreadable"
  | "failed";

/** Between two checks whether a session's earlier Pod has ended: the watch shows the end about as late. */
const SESSION_LOOK_MS = 200;

/** Why an item gets no Pod. */
type Refusal = Extract<SlotUse, "refusal" | "too-long" | "stop">;

/** The result of an acknowledged claim. */
const USE_RESULTS = {
  session: "claimed",
  refusal: "no-credential",
  "too-long": "too-long",
  stop: "stop-ignored",
} as const satisfies Record<"session" | Refusal, ClaimResult>;

/** With `slot-taken`, the item may be tried in another slot while its window is open. */
type SlotResult = ClaimResult | "slot-taken";

export interface ClaimingOptions {
  readonly context: ClaimContext;
  readonly claims: ClaimTable;
  readonly pool: ParkedPods;
  readonly sessionPods: SessionPods;
  readonly volumes: Volumes;
  /** Gets an answer from a Pod's node while its claim is written. */
  readonly streams: Pick<PodStreams, "reach">;
  readonly gate: Gate;
  readonly handOver: HandOver;
  readonly report: Report;
  readonly refused: RefusedItems;
  readonly releases: Pick<Releases, "mustStop">;
  readonly serverTime: ServerTime;
  readonly limiter: ClaimLimiter;
  /** Notified when a claim made progress, was dropped, or was handed over. */
  readonly changed: Notifier;
}

/**
 * Steps 3 and 4 of the protocol, for one polled item: find a Pod, journal, acknowledge, hand over. An item is
 * acknowledged only once its secret is durable and a Pod is ready (invariant 1).
 */
export class Claiming {
  readonly #options: ClaimingOptions;
  readonly #context: ClaimContext;
  readonly #claims: ClaimTable;
  readonly #journal: ClaimJournal;
  readonly #acknowledging: Acknowledging;
  /** When (monotonic) the last item came that found no Pod. */
  #unfitMs = 0;
  readonly #search: SleeperSearch;

  constructor(options: ClaimingOptions) {
    const { context, serverTime, gate } = options;
    this.#options = options;
    this.#context = context;
    this.#claims = options.claims;
    this.#search = new SleeperSearch(context.clock, () => options.sessionPods.isAwaited);
    this.#journal = new ClaimJournal(context);
    this.#acknowledging = new Acknowledging({ context, serverTime, gate });
  }

  /** When to poll next (monotonic). It may begin or end a search. */
  restUntilMs(): number {
    // The next item may fit, and to search, the list must be read.
    const { clock, holds } = this.#context;
    const { failures, untilMs } = holds.unfit;
    const pauseMs = failures > 1 && clock.monotonic() < untilMs ? this.#search.nextPauseMs() : null;
    return Math.max(holds.pollsFromMs, pauseMs === null ? untilMs : this.#unfitMs + pauseMs);
  }

  /** For how long polls have searched for the item of a sleeping session, in milliseconds. */
  get searchedMs(): number {
    return this.#search.lastsMs;
  }

  /** The queue offers no item now. */
  noteEmpty(): void {
    this.#search.ended();
  }

  /** Claims the item, or returns why it was not claimed. */
  async claim(item: WorkItem, answer: Answer<unknown>): Promise<ClaimResult> {
    // An item that one of our Secrets already names is not journaled again (M).
    if (!(await this.#isFree(item, answer))) return "duplicate";
    if (this.#context.clock.monotonic() < (this.#context.holds.itemFromMs(item.id) ?? 0)) return "failed";
    if (item.data.type !== DATA_TYPE_SESSION) {
      const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
      if (!window.isOpen || this.#options.gate.isClosing) return "late";
      await this.#options.refused.refuse(item);
      return "not-a-session";
    }
    if (this.#options.releases.mustStop(item.id)) return settled(await this.#claimSlot(item, answer, "stop"));
    if (this.lacksSecret(item)) return settled(await this.#claimSlot(item, answer, "refusal"));
    if (this.#isTooLong(item)) return this.#refuseTooLong(item, answer);
    if (!(await this.#isSessionsTurn(item, answer))) {
      this.#context.logger.info(
        { workId: item.id, sessionId: item.data.id },
        "the session's previous Pod still runs, so the queue offers the item again",
      );
      return "session-runs";
    }
    const { timing } = this.#context;
    const tried = new Set<string>();
    const isOwn = isPerSession(this.#context.environment());
    const mayMake = isOwn && !this.#options.gate.isClosing && this.#options.sessionPods.of(item.data.id) === null;
    if (mayMake && !this.#options.pool.offered(item.data.id)) this.#foundNoPod(item, timing.noRoomPauseMs);
    for (;;) {
      // Checked again in the same turn in which the claim is registered: another item of the session may have been
      // faster.
      if (this.#options.gate.runs(item.data.id)) return "session-runs";
      const own = this.#options.sessionPods.of(item.data.id);
      if (own) {
        const pod = own.is === "ready" ? this.#awaken(own.pod, item, tried) : null;
        if (pod) {
          tried.add(pod.metadata.name ?? "");
          const result = await this.#claimSlot(item, answer, pod);
          if (result !== "slot-taken") return result;
        } else if (!(await this.#mayWait(answer))) return "awaits-turn";
        continue;
      }
      const isFull = this.#options.pool.isFull;
      const fits = (free: Pod) => this.#fits(free, item);
      const pod = isFull ? null : this.#options.pool.take(item.data.id, tried, fits);
      if (!pod && isOwn) {
        if (!(await this.#mayWait(answer))) return "awaits-pod";
        continue;
      }
      if (!pod) {
        this.#foundNoPod(item);
        this.#context.logger.info(
          { workId: item.id },
          "no waiting Pod is left for this item, so the queue offers it again",
        );
        return "no-slot";
      }
      tried.add(pod.metadata.name ?? "");
      const result = await this.#claimSlot(item, answer, pod);
      if (result !== "slot-taken") return result;
    }
  }

  #fits(free: Pod, item: WorkItem): boolean {
    if (!this.#options.volumes.mayServe(free, item.data.id)) return false;
    if (!this.#context.holds.starts.admits(templateHashOf(free), this.#context.clock.monotonic(), item.data.id))
      return false;
    const credential = credentialFor(this.#context, free, item);
    return credential !== null && hasRoom(free, item, credential);
  }

  /** The session's sleeping Pod, if its next item may run there now. */
  #awaken(pod: Pod, item: WorkItem, tried: ReadonlySet<string>): Pod | null {
    if (tried.has(pod.metadata.name ?? "")) return null;
    // Its Secret may be being replaced. Until then, nothing can be acknowledged, and the session keeps its files.
    if (this.#context.environmentKey() === "") {
      this.#context.holds.rest();
      return null;
    }
    const credential = credentialFor(this.#context, pod, item);
    if (credential === null || !hasRoom(pod, item, credential)) {
      this.#options.sessionPods.giveUp(pod);
      return null;
    }
    if (this.#options.pool.isFull) {
      this.#context.holds.rest();
      return null;
    }
    if (!this.#mayWake(pod, item.data.id)) return null;
    return pod;
  }

  /** Asks whether wakes are held. Gives up a Pod of a template that was replaced because it did not start sessions. */
  #mayWake(pod: Pod, sessionId: string): boolean {
    const { pool, sessionPods } = this.#options;
    const { clock, holds } = this.#context;
    const waking = holds.wakes(templateHashOf(pod), sessionId);
    if (waking === "wakes")
      holds.starts.claimed(templateHashOf(pod), pod.metadata.name, { session: sessionId, wakes: true });
    // Files outside a volume are lost with the Pod, so a Pod of the new template must wait.
    if (waking === "moves" && (workspaceOf(pod) !== null || pool.hasClaimable)) {
      holds.starts.moved(clock.monotonic());
      sessionPods.giveUp(pod, "Replaced");
    }
    return waking === "wakes";
  }

  /**
   * Waits for the session's Pod while the window is open: it is made with a volume, or its next turn is added. If the
   * Pod takes longer, the item is not acknowledged, and the Pod is ready when the queue offers the item again. Resolves
   * with whether to try again.
   */
  async #mayWait(answer: Answer<unknown>): Promise<boolean> {
    if (this.#options.gate.isClosing) return false;
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    return window.waitsFor((signal) => this.#options.changed.wait(signal));
  }

  /** Only sleeping Pods keep the polls going now, and each offer keeps its item from other clients for a while. */
  #foundNoPod({ id }: WorkItem, mostMs = Number.POSITIVE_INFINITY): void {
    this.#search.passed(id);
    this.#unfitMs = this.#context.clock.monotonic();
    this.#context.holds.unfit.postpone(this.#unfitMs, { mostMs });
  }

  /** Whether a waiting shell or program can't be given the item: its line would be too long. */
  #isTooLong(item: WorkItem): boolean {
    const { sessions } = this.#context.environment().spec;
    const { parking } = this.#context.template();
    if (!sessions || parking.mode === "Key") return false;
    const credential = sessions.credential === "EnvironmentKey" ? this.#context.environmentKey() : item.secret;
    return !fitsInLine(parking.mode, { workId: item.id, sessionId: item.data.id, credential: credential ?? "" });
  }

  /** The item must not return forever: the next one finds a Pod with a key, or, if the spec forbids that, it is stopped. */
  async #refuseTooLong(item: WorkItem, answer: Answer<unknown>): Promise<ClaimResult> {
    if (this.#context.environment().spec.sessions?.parking === undefined) {
      this.#context.shellFailed(TOO_LONG);
      return "no-slot";
    }
    return settled(await this.#claimSlot(item, answer, "too-long"));
  }

  /** Whether a session needs its own secret and came without one. */
  lacksSecret({ secret, data }: WorkItem): boolean {
    const { sessions } = this.#context.environment().spec;
    return !secret && data.type === DATA_TYPE_SESSION && sessions?.credential === "WorkSecret";
  }

  /**
   * Whether none of our Secrets names this item. If one does, the offer shows that the item was queued again. If its
   * Pod has ended, or its acknowledgement can't take effect any more, its record is then deleted immediately, so that
   * this offer can claim the item again.
   */
  async #isFree(item: WorkItem, answer: Answer<unknown>): Promise<boolean> {
    const known = this.#claims.ofWork(item.id);
    if (!known) return true;
    if (item.state === "queued") {
      this.#options.handOver.reoffered(known, { ...viewOf(item, answer.sentAtMs), isOffered: true });
    }
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    while (isBeingSettled(this.#claims.ofWork(item.id))) {
      if (!(await window.waitsFor((signal) => this.#claims.removed.wait(signal)))) break;
    }
    return !this.#claims.ofWork(item.id);
  }

  /**
   * Whether no Pod runs the item's session (invariant 2). A session may be queued again as another item while its
   * worker is still exiting: two workers would both answer its tool calls. Waits for the worker's end while the window
   * is open.
   */
  async #isSessionsTurn(item: WorkItem, answer: Answer<unknown>): Promise<boolean> {
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    while (this.#options.gate.runs(item.data.id)) {
      if (this.#options.gate.isClosing || !(await window.waits(SESSION_LOOK_MS))) return false;
    }
    return true;
  }

  /**
   * Journals the item in a slot and acknowledges it. Without a Pod, the claim only serves to stop an item that can't
   * run.
   */
  async #claimSlot(item: WorkItem, answer: Answer<unknown>, slot: Pod | Refusal): Promise<SlotResult> {
    const pod = typeof slot === "string" ? null : slot;
    const use = typeof slot === "string" ? slot : "session";
    const claim = this.#register(item, answer, pod, use);
    const reached = pod ? this.#isReached(pod) : true;
    this.#context.holds.unfit.reset();
    const window = new AckWindow(this.#context.clock, answer, ackWindowMs(this.#context.timing, claim.record.journal));
    let keep = false;
    let takenBy: Secret | null = null;
    try {
      if (!(await this.#hold())) return "failed";
      if (!window.isOpen) return "late";
      const journaled = await this.#journal.write(claim, pod && credentialFor(this.#context, pod, item), window);
      if (journaled === "failed") return "failed";
      if (typeof journaled === "object") {
        takenBy = journaled.takenBy;
        return "slot-taken";
      }
      if (journaled === "unknown") {
        // The Secret may exist or be created later: the session loop finds out, as it would after a restart.
        keep = true;
        return "failed";
      }
      keep = true;
      if (!(await reached)) {
        keep = !(await this.#tryDrop(claim, "cannot attach to its Pod"));
        return keep ? "failed" : "slot-taken";
      }
      const read = pod ? await this.#acknowledging.readPod(claim) : null;
      if (read && !read.isParked) {
        keep = !(await this.#tryDrop(claim, read.isRefused ? "cannot read its Pod" : "its Pod no longer waits"));
        return keep || read.isRefused ? "failed" : "slot-taken";
      }
      // A session's volume is on record before its first item is acknowledged, and in use before each one. A Pod whose
      // claim is dropped after that serves only this session.
      const assigned = pod ? await this.#options.volumes.assign(pod, item.data.id) : "assigned";
      if (assigned !== "assigned") {
        keep = !(await this.#tryDrop(claim, "its volume could not be assigned"));
        return keep || assigned === "failed" ? "failed" : "slot-taken";
      }
      const result = await this.#acknowledging.acknowledge(claim, window);
      keep = result !== "refused" && result !== "late" ? true : !(await this.#tryDrop(claim, result));
      if (result !== "acked" && result !== "unanswered") return result;
      this.#context.holds.credential(use === "refusal", item.id);
      return USE_RESULTS[use];
    } finally {
      this.#release(claim, keep);
      // Only now, because a record of this claim's slot is ignored.
      if (takenBy) this.#options.handOver.foreignSlot(takenBy);
    }
  }

  /**
   * Whether the Pod can be given its line: its node answers now. An acknowledged item whose Pod can't be attached to
   * would end its session, and cost a sleeping one its files. Never throws.
   */
  async #isReached(pod: Pod): Promise<boolean> {
    const { holds, logger, timing } = this.#context;
    const { name = "" } = pod.metadata;
    try {
      await this.#options.streams.reach(pod, timing.requestBoundMs);
      if (!isAsleep(pod)) return true;
      holds.succeeded("wake");
      this.#options.sessionPods.noteReach(pod, true);
      return true;
    } catch (error) {
      logger.warn({ pod: name, error: errorText(error) }, "cannot attach to a Pod, so it is not given an item");
      if (!isAsleep(pod)) return false;
      this.#options.sessionPods.noteReach(pod, false);
      if (isStepFailure(error)) holds.failed("wake", { error, name });
      return false;
    }
  }

  /** Adds the finalizer to the Environment if it is missing. Resolves with whether the claim may continue. */
  async #hold(): Promise<boolean> {
    const { holds } = this.#context;
    try {
      const held = await this.#options.gate.holdEnvironment();
      holds.succeeded("hold");
      return held;
    } catch (error) {
      if (isStepFailure(error)) holds.failed("hold", { error });
      throw error;
    }
  }

  #register(item: WorkItem, answer: Answer<unknown>, pod: Pod | null, use: "session" | Refusal): Claim {
    const { uid, name, timing } = this.#context;
    const server = this.#options.serverTime.at(answer.sentAtMs);
    const turn = pod && hasTurns(pod) ? openTurn(pod) : 0;
    const journal: Journal = {
      use,
      lease: pod?.metadata.annotations?.[ANNOTATION_LEASE] === "Operator" ? "Operator" : "Worker",
      environmentUid: uid,
      podUid: pod?.metadata.uid ?? "",
      container: pod ? turnContainerId(pod, turn) : undefined,
      workId: item.id,
      sessionId: item.data.id,
      queuedAt: item.created_at,
      polledFromMs: Math.floor(server.earliestMs),
      polledUntilMs: Math.ceil(server.latestMs),
      acknowledgedAt: null,
      opened: false,
    };
    const claim = newClaim({
      name: pod?.metadata.name ?? newPodName(name),
      turn,
      journal,
      secretVersion: "",
      secretUid: "",
      claiming: true,
      acknowledgedBefore: item.state === "queued" ? item.acknowledged_at : null,
      memory: { is: "journaled" },
      lateAckUntilMs: answer.sentAtMs + timing.othersReclaimMs,
      templateHash: pod ? templateHashOf(pod) : this.#context.template().hash,
    });
    this.#claims.add(claim);
    this.#options.limiter.begun(claim);
    this.#options.pool.poke();
    return claim;
  }

  /** The claim loop has finished with the claim: the session loop gets it, or it is removed. */
  #release(claim: Claim, keep: boolean): void {
    noteHandedOver(claim);
    if (claim.lease.memory.is === "journaled") remember(claim, { is: "none" });
    if (keep) {
      this.#options.handOver.claimed(claim);
      return;
    }
    this.#claims.remove(claim);
    this.#context.holds.starts.released(claim.templateHash, claim.name);
    this.#options.report.dropped();
  }

  /**
   * Deletes the Secret of a claim that won't be acknowledged. False: it may still exist, and the session loop deletes
   * it.
   */
  async #tryDrop(claim: Claim, because: string): Promise<boolean> {
    try {
      await dropSecret(this.#context, claim, "claim.drop", because);
      return true;
    } catch (error) {
      this.#context.logger.warn(
        { pod: claim.name, error: errorText(error) },
        "cannot delete the Secret of a dropped claim yet",
      );
      return false;
    }
  }
}

/** Whether a claim whose item is in the queue again may be settled soon: no container runs for it. */
function isBeingSettled(claim: Claim | undefined): boolean {
  if (!claim || claim.record.claiming) return false;
  return claim.observed.end !== null || !claim.record.journal.opened;
}

/**
 * The credential with which this Pod's program serves the item, as stored in the claim's Secret; null: the credential
 * that the Pod needs is missing. An environment key is the current one: a later key doesn't affect this session.
 */
export function credentialFor(
  context: Pick<ClaimContext, "environmentKey">,
  pod: Pod,
  item: Pick<WorkItem, "secret">,
): string | null {
  const taken = credentialOf(pod, sessionContainerName(pod));
  return (taken === "EnvironmentKey" ? context.environmentKey() : item.secret) || null;
}

/** Whether this Pod can be given the item: a waiting shell or program gets it in one line. */
function hasRoom(pod: Pod, { id, data }: WorkItem, credential: string): boolean {
  if (parkingOf(pod) === "Key") return true;
  return frameFor(pod, sessionContainerName(pod), { workId: id, sessionId: data.id, credential }) !== null;
}

/** Without a Pod, there is no other slot to try. */
function settled(result: SlotResult): ClaimResult {
  return result === "slot-taken" ? "failed" : result;
}
