import { ANNOTATION_LEASE, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isMaybeApplied, isNotFound, LeadershipLostError } from "../kube/errors.ts";
import { PODS, type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import type { Answer } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import { DATA_TYPE_SESSION, type WorkItem } from "../work/types.ts";
import { isSomebodyElses } from "./acknowledgement.ts";
import type { ApiHealth } from "./api-health.ts";
import type { Breaker } from "./breaker.ts";
import type { Claim, ItemView } from "./claim.ts";
import { type ClaimTable, newClaim } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";
import { credentialFor, serves } from "./credential.ts";
import type { IdlePace } from "./idle-pace.ts";
import { viewOf } from "./item-observer.ts";
import { type Journal, readJournal, renderJournal, storedCredential } from "./journal.ts";
import { dropSecret, isRefusal } from "./perform.ts";
import { newPodName } from "./pod-render.ts";
import { readPodState } from "./pod-state.ts";
import type { Pool } from "./pool.ts";
import { refusalWords } from "./refusal-words.ts";
import type { ServerTimes } from "./server-time.ts";

/** What the claim loop asks of the runtime around it. */
export interface ClaimGate {
  /** Resolves when claims may be made (or the signal aborts): not paused, key accepted, template accepted. */
  mayClaim(signal: AbortSignal): Promise<void>;
  /** Makes sure that the Environment carries the finalizer before the first claim; false: it must not claim. */
  holdEnvironment(): Promise<boolean>;
  /** True from the moment when nothing new may be acknowledged: the Environment is being deleted. */
  readonly isClosing: boolean;
}

/** How a claim came out; the values of the metric's label. */
type Result = "claimed" | "duplicate" | "refused" | "late" | "no-slot" | "not-a-session" | "no-credential" | "failed";

/**
 * A first answer leaves the server's clock uncertain by the second of a Date header and its own way. More (a server that
 * sends no Date) must not close the window: an acknowledgement without an answer is then taken for lost.
 */
const MAX_UNKNOWN_MS = 1_500;

/** The item may be tried in another slot, as long as its window lasts. */
type SlotResult = Result | "slot-taken";

/** What became of a claim's Secret; `unknown`: no answer, it may stand or come to stand. */
type Journaled = "done" | "taken" | "failed" | "unknown";

/**
 * Steps 2 to 4 of the protocol: poll while a parked Pod is free, journal, acknowledge. From then on the session loop
 * has the claim. An item is acknowledged only with its secret durable and a Pod ready (invariant 1).
 */
export class ClaimLoop {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #pool: Pool;
  readonly #gate: ClaimGate;
  readonly #health: ApiHealth;
  readonly #breaker: Breaker;
  readonly #serverTimes: ServerTimes;
  readonly #pace: IdlePace;
  readonly #handOver: (claim: Claim) => void;
  readonly #onCredentialMissing: (missing: boolean, workId: string) => void;
  readonly #onWork: () => void;
  readonly #onForeignSlot: (secret: Secret) => void;
  readonly #onLetGo: () => void;
  readonly #onReoffer: (claim: Claim, view: ItemView) => void;
  readonly #onJournal: (refusal: string | null) => void;
  readonly #refuse: (item: WorkItem, api: string) => Promise<void>;
  readonly #backoff: Backoff;
  readonly #underWay = new Set<Promise<void>>();
  #pauseUntilMs = 0;

  constructor(options: {
    context: SessionContext;
    claims: ClaimTable;
    pool: Pool;
    gate: ClaimGate;
    health: ApiHealth;
    breaker: Breaker;
    serverTimes: ServerTimes;
    pace: IdlePace;
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
    /** The API server took a claim's Secret, or refused it in these words. */
    onJournal: (refusal: string | null) => void;
    /** Acknowledges and stops an item that is no session. */
    refuse: (item: WorkItem, api: string) => Promise<void>;
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
    this.#onForeignSlot = options.onForeignSlot;
    this.#onLetGo = options.onLetGo;
    this.#onReoffer = options.onReoffer;
    this.#onJournal = options.onJournal;
    this.#refuse = options.refuse;
    const { retryBaseMs: baseMs, retryMaxMs: maxMs } = options.context.timing;
    this.#backoff = new Backoff({ baseMs, maxMs }, options.context.random);
  }

  /** Polls until the signal aborts; then waits for the claims under way. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#gate.mayClaim(signal);
      if (signal.aborted) break;
      await sleep(this.#context.clock, await this.#pollOnce(signal), signal);
    }
    await Promise.allSettled(this.#underWay);
  }

  /** One poll. Returns how long to wait before the next, in milliseconds. */
  async #pollOnce(signal: AbortSignal): Promise<number> {
    const { clock, timing } = this.#context;
    const work = this.#context.work();
    let answer: Answer<WorkItem | null>;
    const attempt = this.#health.attempt("poll");
    try {
      answer = await work.poll({ blockMs: timing.pollBlockMs, reclaimOlderThanMs: timing.ownReclaimMs, signal });
    } catch (error) {
      if (signal.aborted) return 0;
      return attempt.failed(error, this.#backoff);
    }
    attempt.answered();
    this.#serverTimes.of(work.baseUrl).observe(answer.sentAtMs, answer.answeredAtMs, answer.serverDateMs);
    const nowMs = clock.monotonic();
    const pauseMs = Math.max(0, this.#pauseUntilMs - nowMs);
    if (pauseMs === 0) this.#backoff.reset();
    if (answer.value === null) {
      await this.#pace.restAfterPoll(signal);
      return 0;
    }
    this.#pace.noteWork();
    this.#onWork();
    this.#begin(answer.value, { ...answer, api: work.baseUrl });
    return pauseMs;
  }

  #begin(item: WorkItem, answer: Offer): void {
    const claiming = this.#claim(item, answer)
      .catch((error: unknown): Result => {
        this.#context.logger.error({ workId: item.id, error: errorText(error) }, "claim failed");
        return "failed";
      })
      .then((result) => this.#context.metrics.claims.inc({ ...this.#context.labels, result }))
      .finally(() => this.#underWay.delete(claiming));
    this.#underWay.add(claiming);
  }

  async #claim(item: WorkItem, answer: Offer): Promise<Result> {
    // One of our Secrets names it already: it is not journaled again (M).
    if (!(await this.#isFree(item, answer))) return "duplicate";
    if (item.data.type !== DATA_TYPE_SESSION) {
      if (!new AckWindow(this.#context.clock, answer, this.#windowMs()).isOpen) return "late";
      await this.#refuse(item, answer.api);
      return "not-a-session";
    }
    if (!item.secret && this.#givesWorkSecret) return settled(await this.#claimSlot(item, answer, null));
    const tried = new Set<string>();
    for (;;) {
      const fits = (free: Pod) => serves(free, answer.api) && credentialFor(this.#context, free, item) !== null;
      const pod = this.#pool.take(tried, fits);
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

  get #givesWorkSecret(): boolean {
    return this.#context.environment().spec.sessions?.credential === "WorkSecret";
  }

  /**
   * Whether no Secret of ours names this item. A re-offer of our own is news of it: it is queued again. The record of one
   * whose Pod is over goes at once then, and what was released can be claimed anew with this very offer.
   */
  async #isFree(item: WorkItem, answer: Offer): Promise<boolean> {
    const known = this.#claims.ofWork(item.id);
    if (!known) return true;
    if (item.state === "queued") this.#onReoffer(known, viewOf(item, answer.sentAtMs));
    const window = new AckWindow(this.#context.clock, answer, this.#windowMs());
    while (this.#claims.ofWork(item.id)?.end) {
      if (!(await window.waitsFor((signal) => this.#claims.removed.wait(signal)))) break;
    }
    return !this.#claims.ofWork(item.id);
  }

  /** Journals the item in a slot and acknowledges it. Without a Pod: to stop an item that cannot run. */
  async #claimSlot(item: WorkItem, answer: Offer, pod: Pod | null): Promise<SlotResult> {
    const claim = this.#register(item, answer, pod);
    const window = new AckWindow(this.#context.clock, answer, this.#ackWindowMs(claim.journal));
    let keep = false;
    try {
      if (!(await this.#hold())) return "failed";
      if (!window.isOpen) return "late";
      const journaled = await this.#journal(claim, pod && credentialFor(this.#context, pod, item), window);
      if (journaled === "taken" || journaled === "failed") return journaled === "taken" ? "slot-taken" : "failed";
      if (journaled === "unknown") {
        // It may stand or come to stand: the session loop finds out, as it would after a restart.
        keep = true;
        return "failed";
      }
      keep = true;
      if (pod && !(await this.#isParkedLive(claim))) {
        keep = !(await this.#tryDrop(claim));
        return keep ? "failed" : "slot-taken";
      }
      const result = await this.#acknowledge(claim, window);
      keep = result !== "refused" && result !== "late" ? true : !(await this.#tryDrop(claim));
      if (result === "acked" || result === "unanswered") this.#onCredentialMissing(pod === null, item.id);
      return result === "acked" || result === "unanswered" ? (pod ? "claimed" : "no-credential") : result;
    } finally {
      this.#release(claim, keep);
    }
  }

  /** Whether the Environment is held. An API server that does not answer lets the next item fare no better. */
  async #hold(): Promise<boolean> {
    try {
      return await this.#gate.holdEnvironment();
    } catch (error) {
      this.#pause();
      throw error;
    }
  }

  #pause(): void {
    this.#pauseUntilMs = this.#context.clock.monotonic() + this.#backoff.next();
  }

  /** Ack until: nobody else can have been offered the item, and our request has landed by then (F + 1, clock.py). */
  #ackWindowMs({ polledFromMs, polledUntilMs }: Journal): number {
    // What is not known of the server's clock comes off, so that the evidence rule can tell ours from everybody else's.
    return this.#windowMs() - Math.min(polledUntilMs - polledFromMs, MAX_UNKNOWN_MS);
  }

  /** The same where no evidence will be asked for. */
  #windowMs(): number {
    const { othersReclaimMs, requestBoundMs, marginMs } = this.#context.timing;
    return othersReclaimMs - requestBoundMs - marginMs;
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
      lateAckUntilMs: answer.sentAtMs + timing.othersReclaimMs,
      templateHash: pod?.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    });
    claim.claiming = true;
    if (item.state === "queued") claim.acknowledgedBefore = item.acknowledged_at;
    claim.memory = { is: "journaled" };
    this.#claims.add(claim);
    this.#pool.poke();
    return claim;
  }

  /** The claim loop is through with it: the session loop has it from here, or nobody. */
  #release(claim: Claim, keep: boolean): void {
    claim.claiming = false;
    if (claim.memory.is === "journaled") claim.memory = { is: "none" };
    if (keep) {
      this.#handOver(claim);
      return;
    }
    this.#claims.remove(claim);
    this.#breaker.released(claim.templateHash, claim.name);
    this.#onLetGo();
  }

  // --- 3. Journal -------------------------------------------------------------------------------------------------

  async #journal(claim: Claim, credential: string | null, window: AckWindow): Promise<Journaled> {
    const { kube, namespace, name, timing, metrics, labels } = this.#context;
    const secret = renderJournal({ name: claim.name, namespace, environment: name }, claim.journal, credential);
    const backoff = this.#repeats();
    let maybe = false;
    for (;;) {
      try {
        this.#adopt(claim, await kube.create(SECRETS, secret, {}, { timeoutMs: timing.requestBoundMs }));
        metrics.journals.inc({ ...labels, result: "created" });
        this.#onJournal(null);
        return "done";
      } catch (error) {
        if (isAlreadyExists(error)) return this.#existingJournal(claim);
        maybe ||= isMaybeApplied(error);
        metrics.journals.inc({ ...labels, result: "failed" });
        if (!maybe) {
          this.#onJournal(refusalWords(error, claim.name));
          this.#context.logger.warn({ workId: claim.journal.workId, error: errorText(error) }, "claim not journaled");
          // The next item would fare alike: whoever refuses Secrets does so for a while.
          this.#pause();
          return "failed";
        }
        if (error instanceof LeadershipLostError || !(await window.waits(backoff.next()))) return "unknown";
      }
    }
  }

  /** The slot is taken: by a repeat of our own request, which names the same item, or by somebody else. */
  async #existingJournal(claim: Claim): Promise<Journaled> {
    const { kube, namespace, timing } = this.#context;
    try {
      const ref = { namespace, name: claim.name };
      const secret = await kube.get(SECRETS, ref, { timeoutMs: timing.requestBoundMs });
      const journal = readJournal(secret);
      if (journal?.workId !== claim.journal.workId || journal.podUid !== claim.journal.podUid) {
        this.#onForeignSlot(secret);
        return "taken";
      }
      this.#adopt(claim, secret);
      return "done";
    } catch (error) {
      return isNotFound(error) ? "taken" : "unknown";
    }
  }

  #adopt(claim: Claim, secret: Secret): void {
    claim.secretVersion = secret.metadata.resourceVersion ?? "";
    claim.secretUid = secret.metadata.uid ?? "";
    claim.credential = storedCredential(secret);
  }

  // --- 4. Acknowledge ---------------------------------------------------------------------------------------------

  /** The Pod read live: an item is never acknowledged on a cache's word (M). */
  async #isParkedLive(claim: Claim): Promise<boolean> {
    const { kube, namespace, timing } = this.#context;
    try {
      const live = await kube.get(PODS, { namespace, name: claim.name }, { timeoutMs: timing.requestBoundMs });
      const same = live.metadata.uid === claim.journal.podUid && !live.metadata.deletionTimestamp;
      return same && readPodState(live).is === "parked";
    } catch (error) {
      this.#context.logger.warn(
        { pod: claim.name, error: errorText(error) },
        "the Pod could not be read before the acknowledgement",
      );
      return false;
    }
  }

  /** Sends the acknowledgement, again inside the window where no answer came. */
  async #acknowledge(claim: Claim, window: AckWindow): Promise<"acked" | "unanswered" | "refused" | "late"> {
    const { metrics, labels } = this.#context;
    const backoff = this.#repeats();
    let sent = false;
    while (window.isOpen && !this.#gate.isClosing) {
      // A Pod that was lost meanwhile: what may not have been acknowledged yet stays in the queue.
      if (sent && claim.journal.use === "session" && !(await this.#isParkedLive(claim))) break;
      const result = await this.#ackOnce(claim, sent);
      metrics.acks.inc({ ...labels, result: result.is });
      if (result.is === "acked") return "acked";
      if (result.is === "refused") return sent ? this.#unanswered(claim) : "refused";
      sent ||= result.is === "unanswered";
      await window.waits(Math.max(backoff.next(), result.is === "not-sent" ? result.waitMs : 0));
    }
    if (sent) return this.#unanswered(claim);
    metrics.acks.inc({ ...labels, result: "late" });
    return "late";
  }

  /** Between repeats inside one window: a server that refuses at once must not be asked in a hot loop. */
  #repeats(): Backoff {
    const { timing, random } = this.#context;
    return new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.othersReclaimMs }, random);
  }

  #unanswered(claim: Claim): "unanswered" {
    claim.memory = { is: "unanswered" };
    return "unanswered";
  }

  async #ackOnce(
    claim: Claim,
    repeated: boolean,
  ): Promise<{ is: "acked" } | { is: "unanswered" } | { is: "refused" } | { is: "not-sent"; waitMs: number }> {
    this.#context.guard();
    const { api } = claim.journal;
    const sentAt = this.#serverTimes.of(api).at(this.#context.clock.monotonic());
    try {
      const answer = await this.#context.work(api).ack(claim.journal.workId);
      const at = answer.value.acknowledged_at;
      // After a repeat ours may be the older one.
      const oldestMs = repeated ? claim.journal.polledFromMs : sentAt.earliestMs;
      if (at !== null && isSomebodyElses(at, claim.acknowledgedBefore, oldestMs)) return { is: "refused" };
      claim.acknowledgedAt = at;
      claim.item = viewOf(answer.value, answer.sentAtMs);
      return at === null ? { is: "unanswered" } : { is: "acked" };
    } catch (error) {
      if (isRefusal(error)) return { is: "refused" };
      if (error instanceof WorkApiError && !error.maybeApplied) {
        return { is: "not-sent", waitMs: error.retryAfterMs ?? 0 };
      }
      return { is: "unanswered" };
    }
  }

  /** Deletes the Secret of a claim that will not be acknowledged. False: it may still stand; the session loop sees to it. */
  async #tryDrop(claim: Claim): Promise<boolean> {
    try {
      await dropSecret(this.#context, claim);
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

/** The answer of a poll, and the `api.baseUrl` that it came from: a spec may name another one by now. */
type Offer = Answer<unknown> & { readonly api: string };

/**
 * The time in which an item may be acknowledged, from the sending of its poll. The larger of the monotonic and the wall
 * clock's time counts: one of them stands still while a machine sleeps, the other may be set.
 */
class AckWindow {
  readonly #clock: Clock;
  readonly #polled: Pick<Answer<unknown>, "sentAtMs" | "sentAtWallMs">;
  readonly #lengthMs: number;

  constructor(clock: Clock, polled: Pick<Answer<unknown>, "sentAtMs" | "sentAtWallMs">, lengthMs: number) {
    this.#clock = clock;
    this.#polled = polled;
    this.#lengthMs = lengthMs;
  }

  get isOpen(): boolean {
    return this.#leftMs > 0;
  }

  /** Waits so long, but not beyond the window. Resolves with whether it is still open. */
  async waits(ms: number): Promise<boolean> {
    if (this.isOpen) await sleep(this.#clock, Math.min(ms, this.#leftMs));
    return this.isOpen;
  }

  /** Waits for what is to happen, but not beyond the window. Resolves with whether it is still open. */
  async waitsFor(event: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    const either = new AbortController();
    if (this.isOpen) await Promise.race([event(either.signal), sleep(this.#clock, this.#leftMs, either.signal)]);
    either.abort();
    return this.isOpen;
  }

  get #leftMs(): number {
    const { sentAtMs, sentAtWallMs } = this.#polled;
    const passedMs = Math.max(this.#clock.monotonic() - sentAtMs, this.#clock.now() - sentAtWallMs);
    return this.#lengthMs - passedMs;
  }
}

/** Without a Pod there is no other slot to try. */
function settled(result: SlotResult): Result {
  return result === "slot-taken" ? "failed" : result;
}
