import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { sleepMsOf } from "../pods/sleep-mark.ts";
import { isPerSession } from "../pods/workspace-pods.ts";
import type { ClaimContext } from "../protocol/context.ts";
import type { Attempt } from "../queue/api-health.ts";
import type { PollPace } from "../queue/poll-pace.ts";
import type { Answer } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import type { WorkItem } from "../work/types.ts";
import { ClaimLimiter } from "./claim-limiter.ts";
import { Claiming, type ClaimingOptions, type ClaimResult } from "./claiming.ts";

/**
 * Results that show that claims work: the item was acknowledged, refused by its type, or left in the queue for a
 * reason.
 */
const PROGRESS: ReadonlySet<ClaimResult> = new Set([
  "claimed",
  "duplicate",
  "session-runs",
  "awaits-turn",
  "awaits-pod",
  "not-a-session",
  "no-credential",
  "too-long",
  "stop-ignored",
]);

export interface ClaimLoopOptions extends Omit<ClaimingOptions, "limiter"> {
  readonly pace: PollPace;
}

/** Step 2 of the protocol: poll while a parked Pod is free, and begin a claim for each polled item. */
export class ClaimLoop {
  readonly #options: ClaimLoopOptions;
  readonly #context: ClaimContext;
  readonly #limiter: ClaimLimiter;
  readonly #claiming: Claiming;
  readonly #backoff: Backoff;
  /** The claims under way. */
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: ClaimLoopOptions) {
    const { context, claims, changed, report } = options;
    const { retryBaseMs: baseMs, retryMaxMs: maxMs, othersReclaimMs: longestMs } = context.timing;
    this.#options = options;
    this.#context = context;
    this.#backoff = new Backoff({ baseMs, maxMs }, context.random);
    const onFull = () => report.full();
    this.#limiter = new ClaimLimiter({ clock: context.clock, claims, changed, longestMs, onFull });
    this.#claiming = new Claiming({ ...options, limiter: this.#limiter });
  }

  /** Polls until the signal aborts; then waits for the claims under way. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#rest(signal);
      // The limiter comes first, so that the gate is checked right before the poll.
      await this.#limiter.wait(signal);
      await this.#options.gate.mayClaim(signal);
      if (signal.aborted) break;
      await this.#pause(await this.#pollOnce(signal), signal);
    }
    await Promise.allSettled(this.#underWay);
  }

  /** Waits before the next poll. A change may end the wait early. */
  async #rest(signal: AbortSignal): Promise<void> {
    const { clock } = this.#context;
    for (let ms = this.#pauseLeft(); ms > 0 && !signal.aborted; ms = this.#pauseLeft()) {
      await this.#options.changed.waitAtMost(clock, ms, signal);
    }
  }

  /** Even a timer of 0 ms takes a turn of the event loop, which lasts several milliseconds in a burst. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (ms > 0) await sleep(this.#context.clock, ms, signal);
  }

  /** One poll. Returns how long to wait before the next, in milliseconds. */
  async #pollOnce(signal: AbortSignal): Promise<number> {
    const { points, timing } = this.#context;
    const work = this.#context.work();
    let answer: Answer<WorkItem | null>;
    const attempt = this.#context.holds.health.attempt("poll");
    this.#options.pace.noteLook();
    try {
      const asked = { blockMs: timing.pollBlockMs, reclaimOlderThanMs: this.#reclaimOlderThanMs(), signal };
      answer = await points.run("claim.poll", {}, () => work.poll(asked), offerTold);
    } catch (error) {
      if (signal.aborted) return 0;
      if (error instanceof WorkApiError && error.kind === "bad-item") return this.#oddItem(attempt, error);
      return attempt.failed(error, this.#backoff);
    }
    attempt.answered();
    this.#options.serverTime.observe(answer.sentAtMs, answer.answeredAtMs, answer.serverDateMs);
    this.#backoff.reset();
    if (answer.value === null) {
      this.#claiming.noteEmpty();
      await this.#options.pace.restAfterPoll(signal, answer.answeredAtMs - answer.sentAtMs);
      return 0;
    }
    this.#options.pace.noteWork();
    this.#options.report.work();
    this.#context.hinted?.found({ workId: answer.value.id, sessionId: answer.value.data.id });
    const claiming = this.#begin(answer.value, answer);
    // The result decides whether another item is claimed: the stop of an item without a secret, or a probe.
    if (this.#claiming.lacksSecret(answer.value) || this.#context.holds.isOneByOne) await claiming;
    return 0;
  }

  /**
   * A malformed item returns when the server requeues it. The server offers older items first, so with a backoff, a few
   * malformed items would block all later ones. About two dozen still would, but then the platform has changed.
   */
  #oddItem(attempt: Attempt, error: WorkApiError): number {
    attempt.answered();
    this.#context.holds.health.unreadable(error);
    this.#count("unreadable");
    return this.#context.timing.retryBaseMs;
  }

  /** How long to wait before the next poll, in milliseconds. */
  #pauseLeft(): number {
    return Math.max(0, this.#claiming.restUntilMs() - this.#context.clock.monotonic());
  }

  /**
   * Polls follow one another about once a second. An item that came too late in one poll would be requeued whole
   * seconds later, and come too late again and again. So the time is random for each poll.
   */
  #reclaimOlderThanMs(): number {
    const { random, timing, environment } = this.#context;
    // Polls for sleeping sessions also return items of others before a Pod is free for them. As soon as one is, these items
    // should return.
    const isAwaited = sleepMsOf(environment()) > 0 && this.#options.pool.hasClaimable;
    // With a Pod per session, the Pod is only created for an offer: the item should return as early as to other
    // clients.
    const leastMs = isPerSession(environment()) || isAwaited ? timing.othersReclaimMs : timing.ownReclaimMs;
    return leastMs + Math.ceil(this.#claiming.searchedMs) + Math.floor(random() * timing.pollBlockMs);
  }

  #begin(item: WorkItem, answer: Answer<unknown>): Promise<void> {
    const claiming = this.#claiming
      .claim(item, answer)
      .catch((error: unknown): ClaimResult => {
        this.#context.logger.error({ workId: item.id, error: errorText(error) }, "claim failed");
        return "failed";
      })
      .then((result) => {
        this.#context.points.note("claim.offer", { workId: item.id }, { result });
        this.#count(result);
        if (PROGRESS.has(result)) this.#options.report.progress();
        if (result === "no-slot") this.#options.report.returned();
        if (result === "claimed") this.#context.holds.succeeded("poll");
        const { timing, holds } = this.#context;
        const tookMs = Math.round(answer.answeredAtMs - answer.sentAtMs);
        if (result === "late" && tookMs > timing.pollBlockMs + timing.requestBoundMs) {
          holds.failed("poll", { error: new Error(`the Work API offered it ${tookMs} ms after the poll began`) });
        }
      })
      .finally(() => this.#underWay.delete(claiming));
    this.#underWay.add(claiming);
    return claiming;
  }

  #count(result: ClaimResult): void {
    this.#context.metrics.claims.inc({ ...this.#context.labels, result });
  }
}

/** The result of a poll, for a trace. */
function offerTold({ value }: Answer<WorkItem | null>) {
  return value ? { workId: value.id, state: value.state, type: value.data.type } : { workId: null };
}
