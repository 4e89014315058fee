import { type SimulatorClock, timestamp } from "./clock.ts";
import { type Deadline, type Deadlines, ROUNDING_MS } from "./deadlines.ts";
import type { Offer, WorkItem } from "./item.ts";
import { WORKERS_POLLING_MS } from "./switches.ts";

interface Waiter {
  readonly workerId: string | undefined;
  readonly reclaimMs: number;
  readonly until: number;
  deadline: Deadline | undefined;
  resolve(found: Found | undefined): void;
}

/** An item and the offer that a poll got it with. */
export interface Found {
  readonly item: WorkItem;
  readonly offer: Offer;
}

export interface PollRequest {
  readonly workerId: string | undefined;
  readonly reclaimMs: number;
  readonly blockMs: number | undefined;
  /** Give out an item that another client holds, if there is one. */
  readonly duplicate: boolean;
  readonly signal: AbortSignal;
}

/** Gets notified of what happens in a queue. */
export interface QueueListener {
  offered(item: WorkItem): void;
  /** The number of waiting long polls changed. */
  waiting(): void;
}

/**
 * The queued items of one environment, and the polls that wait for them.
 *
 * `ready` holds the items that no client holds. `offered` holds the items that a poll gave out and no client
 * acknowledged, in the order of their last offer. A queued item is in exactly one of the two sets, any other item in
 * neither. Both keep insertion order, so a poll only needs to look at the first element.
 */
export class WorkQueue {
  readonly #clock: SimulatorClock;
  readonly #deadlines: Deadlines;
  readonly #tell: QueueListener;
  readonly #ready = new Set<WorkItem>();
  readonly #offered = new Set<WorkItem>();
  readonly #waiters = new Set<Waiter>();
  readonly #pollers = new Map<string, number>();
  #pollersSeen = false;

  constructor(clock: SimulatorClock, deadlines: Deadlines, tell: QueueListener) {
    this.#clock = clock;
    this.#deadlines = deadlines;
    this.#tell = tell;
  }

  get #now(): number {
    return this.#clock.now();
  }

  /** The number of long polls that wait for work now. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Whether an item was given to a poll and isn't acknowledged yet. */
  get hasOffered(): boolean {
    return this.#offered.size > 0;
  }

  /** Removes an item that was acknowledged or stopped. */
  remove(item: WorkItem): void {
    this.#ready.delete(item);
    this.#offered.delete(item);
  }

  /** Gives out an item now, or within `blockMs`. */
  async poll(request: PollRequest): Promise<Found | undefined> {
    const now = this.#now;
    if (request.workerId !== undefined) {
      this.#pollersSeen = true;
      this.#pollers.set(request.workerId, now);
    }
    const found = this.#take(request.workerId, request.reclaimMs, request.duplicate);
    if (found || request.blockMs === undefined || request.signal.aborted) return found;
    return await this.#wait(request, now + request.blockMs);
  }

  #take(workerId: string | undefined, reclaimMs: number, duplicate = false): Found | undefined {
    const oldest = first(this.#offered);
    if (oldest && duplicate) return this.#offer(oldest, workerId, reclaimMs, true);
    // Reclaimed items come first because they have waited longer.
    if (oldest?.lastOffer && this.#now + ROUNDING_MS - oldest.lastOffer.at >= reclaimMs)
      return this.#offer(oldest, workerId, reclaimMs);
    const next = first(this.#ready);
    return next && this.#offer(next, workerId, reclaimMs);
  }

  #offer(item: WorkItem, workerId: string | undefined, reclaimMs: number, duplicate = false): Found {
    const { generation } = item;
    const offer = { number: item.offers.length + 1, at: this.#now, reclaimMs, workerId, generation, duplicate };
    item.offers.push(offer);
    this.#ready.delete(item);
    this.#offered.delete(item);
    this.#offered.add(item);
    item.note(offer.at, duplicate ? "offered twice" : "offered", {
      as: "environment-key",
      ...(workerId !== undefined && { workerId }),
      offer: offer.number,
    });
    this.#tell.offered(item);
    for (const waiter of this.#waiters) this.#armWaiter(waiter);
    return { item, offer };
  }

  #wait(request: PollRequest, until: number): Promise<Found | undefined> {
    return new Promise((resolve) => {
      const leave = () => this.#settle(waiter, undefined);
      const waiter: Waiter = {
        workerId: request.workerId,
        reclaimMs: request.reclaimMs,
        until,
        deadline: undefined,
        resolve: (found) => {
          request.signal.removeEventListener("abort", leave);
          resolve(found);
        },
      };
      request.signal.addEventListener("abort", leave, { once: true });
      this.#waiters.add(waiter);
      this.#armWaiter(waiter);
      this.#tell.waiting();
    });
  }

  #settle(waiter: Waiter, found: Found | undefined): void {
    if (!this.#waiters.delete(waiter)) return;
    waiter.deadline?.cancel();
    waiter.resolve(found);
    this.#tell.waiting();
  }

  /** Checks the waiter again when its time is up, or when the oldest offered item is old enough for it. */
  #armWaiter(waiter: Waiter): void {
    const oldest = first(this.#offered)?.lastOffer?.at;
    const at = oldest === undefined ? waiter.until : Math.min(waiter.until, oldest + waiter.reclaimMs);
    if (waiter.deadline?.at === at) return;
    waiter.deadline?.cancel();
    waiter.deadline = this.#deadlines.at(at, () => {
      waiter.deadline = undefined;
      const found = this.#take(waiter.workerId, waiter.reclaimMs);
      if (found || this.#now + ROUNDING_MS >= waiter.until) this.#settle(waiter, found);
      else this.#armWaiter(waiter);
    });
  }

  /** Adds a queued item that no client holds, and gives a waiting poll an item at once. */
  add(item: WorkItem): void {
    this.#ready.add(item);
    const waiter = first(this.#waiters);
    if (!waiter) return;
    // The poll gets the head of the queue, which may be another item.
    const found = this.#take(waiter.workerId, waiter.reclaimMs);
    if (found) this.#settle(waiter, found);
    for (const other of this.#waiters) this.#armWaiter(other);
  }

  /** Returns the answer of the stats call. */
  stats(): Record<string, unknown> {
    const horizon = this.#now - WORKERS_POLLING_MS;
    for (const [id, at] of this.#pollers) if (at < horizon) this.#pollers.delete(id);
    const waiting = [...this.#offered];
    const head = first(this.#ready);
    if (head) waiting.push(head);
    const oldest = waiting.reduce<number | undefined>(
      (min, item) => Math.min(min ?? item.queuedAt, item.queuedAt),
      undefined,
    );
    return {
      type: "work_queue_stats",
      depth: this.#ready.size,
      pending: this.#offered.size,
      oldest_queued_at: oldest === undefined ? null : timestamp(oldest),
      workers_polling: this.#pollersSeen ? this.#pollers.size : null,
    };
  }
}

function first<T>(set: ReadonlySet<T>): T | undefined {
  const [head] = set;
  return head;
}
