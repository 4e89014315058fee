import type { Verdict } from "../api/conditions.ts";
import type { Clock } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";

/** What is known of an Environment's own pollers when statistics are read. */
export interface OwnPollers {
  /** The most of them that the Work API can count. */
  readonly most: number;
  /** Whether at least one of them should poll. */
  readonly shouldPoll: boolean;
}

export interface PollersOptions {
  readonly clock: Clock;
  readonly timing: Pick<Timing, "pollersLastMs">;
  readonly own: () => OwnPollers;
  /** `spec.api.otherPollers`. */
  readonly expected: () => number;
}

/**
 * Compares the pollers that the Work API counts with those that an Environment has. The API counts a poller for 30 s
 * after its last poll, by its `Anthropic-Worker-ID`. So an earlier process of the operator, and a worker that has
 * ended, are counted for a while, and only a difference that lasts is reported.
 */
export class Pollers {
  readonly #options: PollersOptions;
  #moreSinceMs: number | null = null;
  #noneSinceMs: number | null = null;
  #verdict: Verdict = { reason: "PollersUnknown", message: "the Work API has not reported the queue's pollers yet" };

  constructor(options: PollersOptions) {
    this.#options = options;
  }

  get verdict(): Verdict {
    return this.#verdict;
  }

  /** @param polling `workers_polling` of the statistics; null: the Work API does not report it */
  noteReading(polling: number | null): void {
    const { clock, own, expected, timing } = this.#options;
    const nowMs = clock.monotonic();
    const { most, shouldPoll } = own();
    const lasts = (sinceMs: number | null) => sinceMs !== null && nowMs - sinceMs >= timing.pollersLastMs;
    this.#moreSinceMs = polling !== null && polling > most + expected() ? (this.#moreSinceMs ?? nowMs) : null;
    this.#noneSinceMs = polling === 0 && shouldPoll ? (this.#noneSinceMs ?? nowMs) : null;
    if (polling === null) {
      this.#verdict = {
        reason: "PollersUnknown",
        message: "the Work API does not report the queue's pollers, or has seen none yet",
      };
    } else if (lasts(this.#moreSinceMs)) {
      this.#verdict = {
        reason: "OtherPollers",
        message:
          "other clients also poll this environment's queue, so Berth does not get all of its items; stop them, or set spec.api.otherPollers to their number if they are expected",
      };
    } else if (lasts(this.#noneSinceMs)) {
      this.#verdict = {
        reason: "NoPollers",
        message:
          "workers are ready and not busy, but none polls the queue; read the log of a worker, and check its key and its network access",
      };
    } else if (this.#moreSinceMs === null && this.#noneSinceMs === null) {
      this.#verdict = { reason: "PollersExpected", message: "only expected clients poll this environment's queue" };
    }
  }
}
