import { ANNOTATION_LEASE, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Notifier } from "../core/notifier.ts";
import type { Pod, Secret } from "../kube/resource.ts";
import { newPodName } from "../pods/pod-render.ts";
import { isFor, isPerSession } from "../pods/workspace-pods.ts";
import { AckWindow, ackWindowMs, type Offer, windowMs } from "../protocol/ack-window.ts";
import type { Breaker } from "../protocol/breaker.ts";
import type { Claim } from "../protocol/claim.ts";
import { remember } from "../protocol/claim-lease.ts";
import { type ItemView, viewOf } from "../protocol/claim-observed.ts";
import { noteHandedOver } from "../protocol/claim-record.ts";
import { type ClaimTable, newClaim } from "../protocol/claim-table.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import type { Journal } from "../protocol/journal.ts";
import type { ApiHealth, Attempt } from "../queue/api-health.ts";
import type { PollPace } from "../queue/poll-pace.ts";
import type { ServerTimes } from "../queue/server-times.ts";
import type { Answer } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import { DATA_TYPE_SESSION, type WorkItem } from "../work/types.ts";
import { Acknowledging } from "./acknowledging.ts";
import { ClaimJournal } from "./claim-journal.ts";
import { ClaimLimiter } from "./claim-limiter.ts";
import { credentialFor, serves } from "./credential.ts";
import { dropSecret } from "./secret-acts.ts";

/** What the claim loop asks of the runtime around it. */
export interface ClaimGate {
  /** Resolves when claims may be made (or the signal aborts): not paused, key accepted, template accepted. */
  mayClaim(signal: AbortSignal): Promise<void>;
  /** Makes sure that the Environment carries the finalizer before the first claim; false: it must not claim. */
  holdEnvironment(): Promise<boolean>;
  /** True while nothing new may be acknowledged: the Environment is being deleted, paused, or not accepted as it is. */
  readonly isClosing: boolean;
}

/** The parked Pods that claims take from; `src/pool` has them. */
export interface ParkedPods {
  /** An item of this session waits and needs its own Pod. Returns false when there is no room for one. */
  offered(sessionId: string): boolean;
  /** The Pod to claim next, or null. Put its claim into the table in the same turn. */
  take(except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Pod | null;
  /** A claim ended without its Pod: the Pod may be free again. */
  poke(): void;
}

/** How a claim came out; the values of the metric's label. */
type Result =
  | "claimed"
  | "duplicate"
  | "refused"
  | "late"
  | "no-slot"
  | "session-runs"
  | "awaits-pod"
  | "not-a-session"
  | "no-credential"
  | "unreadable"
  | "failed";

/** Between two looks whether a session's earlier Pod is over: its end is seen about as late. */
const SESSION_LOOK_MS = 200;

/** What becomes of an item while claims work: acknowledged, refused for what it is, or left in the queue for a known reason. */
const PROGRESS: ReadonlySet<Result> = new Set([
  "claimed",
  "duplicate",
  "session-runs",
  "awaits-pod",
  "not-a-session",
  "no-credential",
]);

/** The item may be tried in another slot, as long as its window lasts. */
type SlotResult = Result | "slot-taken";

/**
 * Steps 2 to 4 of the protocol: poll while a parked Pod is free, journal, acknowledge. From then on the session loop
 * has the claim. An item is acknowledged only with its secret durable and a Pod ready (invariant 1).
 */
export class ClaimLoop {
  readonly #context: ClaimContext;
  readonly #claims: ClaimTable;
  readonly #pool: ParkedPods;
  readonly #gate: ClaimGate;
  readonly #health: ApiHealth;
  readonly #breaker: Breaker;
  readonly #serverTimes: ServerTimes;
  readonly #pace: PollPace;
  readonly #room: ClaimLimiter;
  readonly #handOver: (claim: Claim) => void;
  readonly #onCredentialMissing: (missing: boolean, workId: string) => void;
  readonly #onWork: () => void;
  readonly #onLetGo: () => void;
  readonly #onReoffer: (claim: Claim, view: ItemView) => void;
  readonly #onProgress: () => void;
  readonly #refuse: (item: WorkItem, api: string) => Promise<void>;
  readonly #runs: (sessionId: string, api: string) => boolean;
  readonly #journal: ClaimJournal;
  readonly #acknowledging: Acknowledging;
  readonly #changed: Notifier;
  readonly #backoff: Backoff;
  /** Claims under way, each with the address that its item came from. */
  readonly #underWay = new Map<Promise<void>, string>();
  /** Where the poll under way asks; null: none is. */
  #pollsAt: string | null = null;
  #pauseUntilMs = 0;

  constructor(options: {
    context: ClaimContext;
    claims: ClaimTable;
    pool: ParkedPods;
    gate: ClaimGate;
    health: ApiHealth;
    breaker: Breaker;
    serverTimes: ServerTimes;
    pace: PollPace;
    /** Told when a claim got on, was let go, or was handed over. */
    changed: Notifier;
    /** So many claims are under way that no other is begun for now. */
    onFull: () => void;
    /** The claim is acknowledged, or nobody knows: the session loop goes on with it. */
    handOver: (claim: Claim) => void;
    onCredentialMissing: (missing: boolean, workId: string) => void;
    /** An item came: the queue is not idle. */
    onWork: () => void;
    /** A Pod's slot is taken by a Secret that no claim here knows. */
    onForeignSlot: (secret: Secret) => void;
    /** A claim came to nothing: its slot is free again. */
    onLetGo: () => void;
    /** A poll was answered with the item of a claim: it is queued again. */
    onReoffer: (claim: Claim, view: ItemView) => void;
    /** An item was acknowledged, or is left alone for a known reason. */
    onProgress: () => void;
    /** Acknowledges and stops an item that is no session. */
    refuse: (item: WorkItem, api: string) => Promise<void>;
    /** Whether a Pod runs this session, or may come to, of this Environment or of another one with its environmentId. */
    runs: (sessionId: string, api: string) => boolean;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#pool = options.pool;
    this.#gate = options.gate;
    this.#health = options.health;
    this.#breaker = options.breaker;
    this.#serverTimes = options.serverTimes;
    this.#pace = options.pace;
    this.#handOver = options.handOver;
    this.#onCredentialMissing = options.onCredentialMissing;
    this.#onWork = options.onWork;
    this.#onLetGo = options.onLetGo;
    this.#onReoffer = options.onReoffer;
    this.#refuse = options.refuse;
    this.#runs = options.runs;
    this.#changed = options.changed;
    const { retryBaseMs: baseMs, retryMaxMs: maxMs } = options.context.timing;
    this.#backoff = new Backoff({ baseMs, maxMs }, options.context.random);
    const { context, serverTimes, gate, changed, onForeignSlot } = options;
    this.#room = new ClaimLimiter({
      ...{ clock: context.clock, claims: options.claims, changed, onFull: options.onFull },
      longestMs: context.timing.othersReclaimMs,
    });
    this.#onProgress = options.onProgress;
    this.#journal = new ClaimJournal({ context, onForeignSlot });
    this.#acknowledging = new Acknowledging({ context, serverTimes, gate });
  }

  /** Polls until the signal aborts; then waits for the claims under way. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.#context.clock, this.#pauseLeft(), signal);
      // Room first: whether anything may be claimed is asked at the last moment.
      await this.#room.wait(signal);
      await this.#gate.mayClaim(signal);
      if (signal.aborted) break;
      await sleep(this.#context.clock, await this.#pollOnce(signal), signal);
    }
    await Promise.allSettled(this.#underWay.keys());
  }

  /** The addresses that claims may come to name by what is under way, whatever the spec names by now. */
  get addresses(): readonly string[] {
    return [...(this.#pollsAt === null ? [] : [this.#pollsAt]), ...this.#underWay.values()];
  }

  /** One poll. Returns how long to wait before the next, in milliseconds. */
  async #pollOnce(signal: AbortSignal): Promise<number> {
    const { points, timing } = this.#context;
    const work = this.#context.work();
    let answer: Answer<WorkItem | null>;
    const attempt = this.#health.attempt("poll");
    this.#pollsAt = work.baseUrl;
    this.#pace.noteLook();
    try {
      const asked = { blockMs: timing.pollBlockMs, reclaimOlderThanMs: this.#reclaimOlderThanMs(), signal };
      answer = await points.run("claim.poll", {}, () => work.poll(asked), offerTold);
    } catch (error) {
      if (signal.aborted) return 0;
      if (error instanceof WorkApiError && error.kind === "bad-item") return this.#oddItem(attempt, error);
      return attempt.failed(error, this.#backoff);
    } finally {
      // The item is begun before anybody else runs.
      this.#pollsAt = null;
    }
    attempt.answered();
    this.#serverTimes.of(work.baseUrl).observe(answer.sentAtMs, answer.answeredAtMs, answer.serverDateMs);
    this.#backoff.reset();
    if (answer.value === null) {
      await this.#pace.restAfterPoll(signal);
      return 0;
    }
    this.#pace.noteWork();
    this.#onWork();
    this.#context.hinted?.found({ workId: answer.value.id, sessionId: answer.value.data.id });
    const claiming = this.#begin(answer.value, { ...answer, api: work.baseUrl });
    // Whether this item is stopped for its missing secret decides whether another one is claimed.
    if (this.#lacksSecret(answer.value)) await claiming;
    return 0;
  }

  /**
   * Comes again when the server takes it back, no sooner. With a backoff several of them would keep all others from their
   * turn: they are offered before what came later. Some two dozen would still: then the platform has changed.
   */
  #oddItem(attempt: Attempt, error: WorkApiError): number {
    attempt.answered();
    this.#health.unreadable(error);
    this.#count("unreadable");
    return this.#context.timing.retryBaseMs;
  }

  /** For how long no item should be asked for, in milliseconds. */
  #pauseLeft(): number {
    const { clock, failing } = this.#context;
    return Math.max(0, Math.max(this.#pauseUntilMs, failing.pausedUntilMs) - clock.monotonic());
  }

  /**
   * Polls follow one another about once a second. An item that was let go because it came at the end of one would come at
   * the end of another one, whole seconds later, again and again: so the time is another one in each poll.
   */
  #reclaimOlderThanMs(): number {
    const { random, timing, environment } = this.#context;
    // An item whose session's Pod was only made for it is to come back as soon as to anybody else.
    const leastMs = isPerSession(environment()) ? timing.othersReclaimMs : timing.ownReclaimMs;
    return leastMs + Math.floor(random() * timing.pollBlockMs);
  }

  #begin(item: WorkItem, answer: Offer): Promise<void> {
    const claiming = this.#claim(item, answer)
      .catch((error: unknown): Result => {
        this.#context.logger.error({ workId: item.id, error: errorText(error) }, "claim failed");
        return "failed";
      })
      .then((result) => {
        this.#context.points.note("claim.offer", { workId: item.id }, { result });
        this.#count(result);
        if (PROGRESS.has(result)) this.#onProgress();
        if (result === "claimed") this.#context.failing.succeeded("poll");
        const { timing, failing } = this.#context;
        const tookMs = Math.round(answer.answeredAtMs - answer.sentAtMs);
        if (result === "late" && tookMs > timing.pollBlockMs + timing.requestBoundMs) {
          failing.failed("poll", { error: new Error(`it was offered ${tookMs} ms after it was asked for`) });
        }
      })
      .finally(() => this.#underWay.delete(claiming));
    this.#underWay.set(claiming, answer.api);
    return claiming;
  }

  #count(result: Result): void {
    this.#context.metrics.claims.inc({ ...this.#context.labels, result });
  }

  async #claim(item: WorkItem, answer: Offer): Promise<Result> {
    // One of our Secrets names it already: it is not journaled again (M).
    if (!(await this.#isFree(item, answer))) return "duplicate";
    if (item.data.type !== DATA_TYPE_SESSION) {
      const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
      if (!window.isOpen || this.#gate.isClosing) return "late";
      await this.#refuse(item, answer.api);
      return "not-a-session";
    }
    if (this.#lacksSecret(item)) return settled(await this.#claimSlot(item, answer, null));
    if (!(await this.#isSessionsTurn(item, answer))) {
      this.#context.logger.info(
        { workId: item.id, sessionId: item.data.id },
        "the session's previous Pod still runs, maybe in another Environment: the queue offers the item again",
      );
      return "session-runs";
    }
    const tried = new Set<string>();
    const isOwn = isPerSession(this.#context.environment());
    if (isOwn && !this.#gate.isClosing && !this.#pool.offered(item.data.id)) this.#rest();
    for (;;) {
      // Checked again in the same turn as the claim is registered: another item of the session may have been faster.
      if (this.#runs(item.data.id, answer.api)) return "session-runs";
      const pod = this.#pool.take(tried, (free) => this.#fits(free, item, answer));
      if (!pod && isOwn) {
        if (!(await this.#mayHaveOwnPod(answer))) return "awaits-pod";
        continue;
      }
      if (!pod) {
        this.#context.logger.info(
          { workId: item.id },
          "no parked Pod is left for this item: the queue offers it again",
        );
        return "no-slot";
      }
      tried.add(pod.metadata.name ?? "");
      const result = await this.#claimSlot(item, answer, pod);
      if (result !== "slot-taken") return result;
    }
  }

  #fits(free: Pod, item: WorkItem, { api }: Offer): boolean {
    const isItsOwn = isFor(free, this.#context.environment(), item.data.id);
    return isItsOwn && serves(free, api) && credentialFor(this.#context, free, item) !== null;
  }

  /**
   * `workspace: PerSession`: waits for the session's own Pod as long as the window lasts. One that takes longer is there when
   * the queue offers the item again: nothing is acknowledged for it before. Resolves with whether to look again.
   */
  async #mayHaveOwnPod(answer: Offer): Promise<boolean> {
    if (this.#gate.isClosing) return false;
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    return window.waitsFor((signal) => this.#changed.wait(signal));
  }

  /** No room for what the queue offers: others may have it, and polls that follow at once would only keep it from them. */
  #rest(): void {
    const { clock, timing } = this.#context;
    this.#pauseUntilMs = Math.max(this.#pauseUntilMs, clock.monotonic() + timing.noRoomPauseMs);
  }

  /** A session that needs a secret of its own and came without one. */
  #lacksSecret({ secret, data }: WorkItem): boolean {
    const { sessions } = this.#context.environment().spec;
    return !secret && data.type === DATA_TYPE_SESSION && sessions?.credential === "WorkSecret";
  }

  /**
   * Whether no Secret of ours names this item. A re-offer of our own is news of it: it is queued again. The record of one
   * whose Pod is over goes at once then, and what was released can be claimed anew with this very offer.
   */
  async #isFree(item: WorkItem, answer: Offer): Promise<boolean> {
    const known = this.#claims.ofWork(item.id);
    if (!known) return true;
    if (item.state === "queued") this.#onReoffer(known, viewOf(item, answer.sentAtMs));
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    while (this.#claims.ofWork(item.id)?.observed.end) {
      if (!(await window.waitsFor((signal) => this.#claims.removed.wait(signal)))) break;
    }
    return !this.#claims.ofWork(item.id);
  }

  /**
   * Whether no Pod runs the item's session (invariant 2). A session may be queued again, as another item, while its
   * worker still leaves: two at a time would both answer its tool calls. Waits for the end as long as the window lasts.
   */
  async #isSessionsTurn(item: WorkItem, answer: Offer): Promise<boolean> {
    const window = new AckWindow(this.#context.clock, answer, windowMs(this.#context.timing));
    while (this.#runs(item.data.id, answer.api)) {
      if (this.#gate.isClosing || !(await window.waits(SESSION_LOOK_MS))) return false;
    }
    return true;
  }

  /** Journals the item in a slot and acknowledges it. Without a Pod: to stop an item that cannot run. */
  async #claimSlot(item: WorkItem, answer: Offer, pod: Pod | null): Promise<SlotResult> {
    const claim = this.#register(item, answer, pod);
    const window = new AckWindow(this.#context.clock, answer, ackWindowMs(this.#context.timing, claim.record.journal));
    let keep = false;
    try {
      if (!(await this.#hold())) return "failed";
      if (!window.isOpen) return "late";
      const journaled = await this.#journal.write(claim, pod && credentialFor(this.#context, pod, item), window);
      if (journaled === "taken" || journaled === "failed") return journaled === "taken" ? "slot-taken" : "failed";
      if (journaled === "unknown") {
        // It may stand or come to stand: the session loop finds out, as it would after a restart.
        keep = true;
        return "failed";
      }
      keep = true;
      const read = pod ? await this.#acknowledging.readPod(claim) : null;
      if (read && !read.isParked) {
        keep = !(await this.#tryDrop(
          claim,
          read.isRefused ? "its Pod cannot be read" : "its Pod is not parked any more",
        ));
        return keep || read.isRefused ? "failed" : "slot-taken";
      }
      const result = await this.#acknowledging.acknowledge(claim, window);
      keep = result !== "refused" && result !== "late" ? true : !(await this.#tryDrop(claim, result));
      if (result === "acked" || result === "unanswered") this.#onCredentialMissing(pod === null, item.id);
      return result === "acked" || result === "unanswered" ? (pod ? "claimed" : "no-credential") : result;
    } finally {
      this.#release(claim, keep);
    }
  }

  /** Whether the Environment carries the finalizer now. */
  async #hold(): Promise<boolean> {
    const { failing } = this.#context;
    try {
      const held = await this.#gate.holdEnvironment();
      failing.succeeded("hold");
      return held;
    } catch (error) {
      if (isStepFailure(error)) failing.failed("hold", { error });
      throw error;
    }
  }

  #register(item: WorkItem, answer: Offer, pod: Pod | null): Claim {
    const { uid, name, timing } = this.#context;
    const server = this.#serverTimes.of(answer.api).at(answer.sentAtMs);
    const journal: Journal = {
      use: pod ? "session" : "refusal",
      lease: pod?.metadata.annotations?.[ANNOTATION_LEASE] === "Operator" ? "Operator" : "Worker",
      environmentUid: uid,
      podUid: pod?.metadata.uid ?? "",
      api: answer.api,
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
      journal,
      secretVersion: "",
      secretUid: "",
      claiming: true,
      acknowledgedBefore: item.state === "queued" ? item.acknowledged_at : null,
      memory: { is: "journaled" },
      lateAckUntilMs: answer.sentAtMs + timing.othersReclaimMs,
      templateHash: pod?.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    });
    this.#claims.add(claim);
    this.#room.begun(claim);
    this.#pool.poke();
    return claim;
  }

  /** The claim loop is through with it: the session loop has it from here, or nobody. */
  #release(claim: Claim, keep: boolean): void {
    noteHandedOver(claim);
    if (claim.lease.memory.is === "journaled") remember(claim, { is: "none" });
    if (keep) {
      this.#handOver(claim);
      return;
    }
    this.#claims.remove(claim);
    this.#breaker.released(claim.templateHash, claim.name);
    this.#onLetGo();
  }

  /** Deletes the Secret of a claim that will not be acknowledged. False: it may still stand; the session loop sees to it. */
  async #tryDrop(claim: Claim, because: string): Promise<boolean> {
    try {
      await dropSecret(this.#context, claim, "claim.drop", because);
      return true;
    } catch (error) {
      this.#context.logger.warn(
        { pod: claim.name, error: errorText(error) },
        "a claim's Secret could not be dropped yet",
      );
      return false;
    }
  }
}

/** What a poll brought, for a trace. */
function offerTold({ value }: Answer<WorkItem | null>) {
  return value ? { workId: value.id, state: value.state, type: value.data.type } : { workId: null };
}

/** Without a Pod there is no other slot to try. */
function settled(result: SlotResult): Result {
  return result === "slot-taken" ? "failed" : result;
}
