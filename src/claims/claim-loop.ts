import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isPerSession } from "../pods/workspace-pods.ts";
import type { Offer } from "../protocol/ack-window.ts";
import type { ClaimContext } from "../protocol/context.ts";
import type { ApiHealth, Attempt } from "../queue/api-health.ts";
import type { PollPace } from "../queue/poll-pace.ts";
import type { Answer } from "../work/client.ts";
import { WorkApiError } from "../work/errors.ts";
import type { WorkItem } from "../work/types.ts";
import { ClaimLimiter } from "./claim-limiter.ts";

import { Claiming, type ClaimingOptions, type ClaimResult } from "./claiming.ts";

/** What becomes of an item while claims work: acknowledged, refused for what it is, or left in the queue for a known reason. */
const PROGRESS: ReadonlySet<ClaimResult> = new Set([
  "claimed",
  "duplicate",
  "session-runs",
  "awaits-pod",
  "not-a-session",
  "no-credential",
]);

export interface ClaimLoopOptions extends Omit<ClaimingOptions, "limiter"> {
  readonly health: ApiHealth;
  readonly pace: PollPace;
}

/** Step 2 of the protocol: poll while a parked Pod is free, and begin a claim of each item that comes. */
export class ClaimLoop {
  readonly #options: ClaimLoopOptions;
  readonly #context: ClaimContext;
  readonly #limiter: ClaimLimiter;
  readonly #claiming: Claiming;
  readonly #backoff: Backoff;
  /** Claims under way, each with the address that its item came from. */
  readonly #underWay = new Map<Promise<void>, string>();
  /** Where the poll under way asks; null: none is. */
  #pollsAt: string | null = null;

  constructor(options: ClaimLoopOptions) {
    const { context, claims, changed, report } = options;
    const { retryBaseMs: baseMs, retryMaxMs: maxMs, othersReclaimMs: longestMs } = context.timing;
    this.#options = options;
    this.#context = context;
    this.#backoff = new Backoff({ baseMs, maxMs }, context.random);
    this.#limiter = new ClaimLimiter({
      ...{ clock: context.clock, claims, changed, longestMs },
      onFull: () => report.full(),
    });
    this.#claiming = new Claiming({ ...options, limiter: this.#limiter });
  }

  /** Polls until the signal aborts; then waits for the claims under way. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.#context.clock, this.#pauseLeft(), signal);
      // Room first: whether anything may be claimed is asked at the last moment.
      await this.#limiter.wait(signal);
      await this.#options.gate.mayClaim(signal);
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
    const attempt = this.#options.health.attempt("poll");
    this.#pollsAt = work.baseUrl;
    this.#options.pace.noteLook();
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
    this.#options.serverTimes.of(work.baseUrl).observe(answer.sentAtMs, answer.answeredAtMs, answer.serverDateMs);
    this.#backoff.reset();
    if (answer.value === null) {
      await this.#options.pace.restAfterPoll(signal);
      return 0;
    }
    this.#options.pace.noteWork();
    this.#options.report.work();
    this.#context.hinted?.found({ workId: answer.value.id, sessionId: answer.value.data.id });
    const claiming = this.#begin(answer.value, { ...answer, api: work.baseUrl });
    // Whether this item is stopped for its missing secret decides whether another one is claimed.
    if (this.#claiming.lacksSecret(answer.value)) await claiming;
    return 0;
  }

  /**
   * Comes again when the server takes it back, no sooner. With a backoff several of them would keep all others from their
   * turn: they are offered before what came later. Some two dozen would still: then the platform has changed.
   */
  #oddItem(attempt: Attempt, error: WorkApiError): number {
    attempt.answered();
    this.#options.health.unreadable(error);
    this.#count("unreadable");
    return this.#context.timing.retryBaseMs;
  }

  /** For how long no item should be asked for, in milliseconds. */
  #pauseLeft(): number {
    const { clock, failing } = this.#context;
    return Math.max(0, Math.max(this.#claiming.restUntilMs, failing.pausedUntilMs) - clock.monotonic());
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

  #count(result: ClaimResult): void {
    this.#context.metrics.claims.inc({ ...this.#context.labels, result });
  }
}

/** What a poll brought, for a trace. */
function offerTold({ value }: Answer<WorkItem | null>) {
  return value ? { workId: value.id, state: value.state, type: value.data.type } : { workId: null };
}
