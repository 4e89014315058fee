import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { LIST_MAX_PAGES } from "../work/client.ts";
import { isRefusal, retryDelayMs } from "../work/errors.ts";
import { DATA_TYPE_SESSION, type WorkItem, type WorkState } from "../work/types.ts";

/**
 * The states of items that were acknowledged and not stopped. `stopping`: another client told the item to stop, and no
 * worker would ever answer: some platforms keep stopping items forever.
 */
const LEFTOVER_STATES: ReadonlySet<WorkState> = new Set(["starting", "stopping"]);

/**
 * Refuses health checks and items of unknown types: it acknowledges and stops them immediately, without a Pod or a
 * Secret. Only the list shows which items this process or an earlier one acknowledged and did not stop. So the list is
 * searched at the start, and after every refusal that failed.
 */
export class RefusedItems {
  readonly #context: ClaimContext;
  readonly #changed = new Notifier();
  /** Such items may exist; the list is searched for them from `#searchFromMs` (monotonic) on. */
  #mayHaveLeftovers = true;
  #searchFromMs = Number.NEGATIVE_INFINITY;

  constructor(context: ClaimContext) {
    this.#context = context;
  }

  /**
   * Acknowledges and stops an item. If it fails, `run` stops the item later.
   * @throws WorkApiError
   */
  async refuse(item: WorkItem): Promise<void> {
    const { guard, work, points, metrics, labels, logger, clock, timing } = this.#context;
    const about = { workId: item.id };
    try {
      guard();
      await points.run("refuse.ack", about, () => work().ack(item.id));
      guard();
      await points.run("refuse.stop", about, () => work().stop(item.id, { force: true }));
    } catch (error) {
      // Until then, an unanswered acknowledgement may still take effect, or be missing from the list.
      this.#searchFromMs = clock.monotonic() + timing.othersReclaimMs + timing.lateAckMs + timing.listLagMs;
      this.#mayHaveLeftovers = true;
      this.#changed.notify();
      throw error;
    }
    const reason = item.data.type === "healthcheck" ? "HealthCheck" : "UnknownItem";
    metrics.sessionsEnded.inc({ ...labels, reason });
    logger.info({ workId: item.id, type: item.data.type }, "stopped a work item that needs no Pod");
  }

  /** Runs until the signal aborts; `mayAsk` resolves when requests make sense. Never throws. */
  async run(signal: AbortSignal, mayAsk: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    await mayAsk(signal);
    if (!signal.aborted) await sleep(clock, this.#firstPauseMs(), signal);
    while (!signal.aborted) {
      await mayAsk(signal);
      const waitMs = this.#searchFromMs - clock.monotonic();
      if (!this.#mayHaveLeftovers) await this.#changed.wait(signal);
      else if (waitMs > 0) await sleep(clock, waitMs, signal);
      else await this.#search(signal, backoff);
    }
  }

  /**
   * If many Environments share a request budget and start together, their first searches are spread over the group's
   * idle interval. All at once, these searches, which rarely find anything, would use up the budget that every
   * Environment needs to become ready.
   */
  #firstPauseMs(): number {
    const { work, random, timing } = this.#context;
    const { idleIntervalMs } = work();
    return idleIntervalMs <= timing.pollIdleGapMs ? 0 : random() * idleIntervalMs;
  }

  async #search(signal: AbortSignal, backoff: Backoff): Promise<void> {
    if (signal.aborted) return;
    this.#mayHaveLeftovers = false;
    try {
      await this.#stopLeftovers(signal);
      backoff.reset();
    } catch (error) {
      this.#mayHaveLeftovers = true;
      const { clock, logger, random } = this.#context;
      // The condition QueueReachable reports an API that does not answer.
      logger.debug({ error: errorText(error) }, "could not list partially rejected work items; Berth tries again");
      await sleep(clock, retryDelayMs(error, backoff, random), signal);
    }
  }

  async #stopLeftovers(signal: AbortSignal): Promise<void> {
    const { guard, work, points, logger } = this.#context;
    let page: string | undefined;
    for (let pages = 0; pages < LIST_MAX_PAGES; pages += 1) {
      const query = { signal, ...(page === undefined ? {} : { page }) };
      const { value } = await points.run("refuse.list", {}, () => work().list(query));
      for (const item of value.items) {
        if (!LEFTOVER_STATES.has(item.state) || item.data.type === DATA_TYPE_SESSION) continue;
        guard();
        const about = { workId: item.id, type: item.data.type };
        try {
          await points.run("refuse.stop-left", { workId: item.id }, () => work().stop(item.id, { force: true }));
          logger.info(about, "stopped a partially rejected work item");
        } catch (error) {
          // A permanent refusal for this item must not prevent the stops of other items.
          if (!isRefusal(error)) throw error;
          logger.info({ ...about, error: errorText(error) }, "could not stop a partially rejected work item");
        }
      }
      if (value.nextPage === null) return;
      page = value.nextPage;
    }
  }
}
