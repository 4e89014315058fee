import { type Actor, actorOf, type Caller, partyOf, SERVER } from "./caller.ts";
import { type SimulatorClock, timestamp } from "./clock.ts";
import { type Deadline, type Deadlines, ROUNDING_MS } from "./deadlines.ts";
import { ApiError, conflict, notFound } from "./errors.ts";
import { newId } from "./ids.ts";
import { type Offer, WorkItem } from "./item.ts";
import { judgeAck, judgeBeat, judgeHolder, judgeStop, Sides, sideOf } from "./protocol.ts";
import { DEFAULT_RECLAIM_MS, type Limits, NO_HEARTBEAT, type Switches, WORKERS_POLLING_MS } from "./switches.ts";
import type { Finding } from "./violations.ts";

const MS_PER_SECOND = 1000;

/** What an environment needs of the simulator around it. */
export interface Surroundings {
  readonly clock: SimulatorClock;
  readonly deadlines: Deadlines;
  readonly switches: Switches;
  readonly limits: Limits;
  created(item: WorkItem): void;
  changed(item: WorkItem, event: string): void;
  /** The number of long polls that wait changed. */
  waiting(environment: Environment): void;
  found(finding: Finding, caller: Caller, item: WorkItem): void;
}

interface Waiter {
  readonly workerId: string | undefined;
  readonly reclaimMs: number;
  readonly until: number;
  deadline: Deadline | undefined;
  resolve(found: Found | undefined): void;
}

/** An item and the offer it was just given out with. */
export interface Found {
  readonly item: WorkItem;
  readonly offer: Offer;
}

export interface PollRequest {
  readonly workerId: string | undefined;
  readonly reclaimMs: number;
  readonly blockMs: number | undefined;
  /** Give out an item that somebody else has in hand, if there is one. */
  readonly duplicate: boolean;
  readonly signal: AbortSignal;
}

/**
 * One environment's queue and leases.
 *
 * `ready` holds queued items that nobody has in hand, `offered` those that a poll gave out and nobody acknowledged, by
 * age of their last offer; a queued item is in exactly one of the two, any other in none. Both keep insertion order, so
 * every step of a poll looks at a head only.
 */
export class Environment {
  readonly id: string;
  readonly workspaceId: string | undefined;
  readonly items = new Map<string, WorkItem>();
  readonly sides = new Sides();
  readonly #around: Surroundings;
  readonly #ready = new Set<WorkItem>();
  readonly #offered = new Set<WorkItem>();
  readonly #waiters = new Set<Waiter>();
  readonly #pollers = new Map<string, number>();
  /** What the list call shows, in the order of creation, and the stopped ones of it, in the order of their end. */
  readonly #listed = new Set<WorkItem>();
  readonly #listedStopped = new Set<WorkItem>();
  #seq = 0;
  #pollersSeen = false;

  constructor(around: Surroundings, options: { id?: string | undefined; workspaceId?: string | undefined }) {
    this.#around = around;
    this.id = options.id ?? newId("env");
    this.workspaceId = options.workspaceId;
  }

  get #now(): number {
    return this.#around.clock.now();
  }

  /** Long polls that wait for work at this moment. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Some item was polled and not acknowledged yet. */
  get hasOffered(): boolean {
    return this.#offered.size > 0;
  }

  /** Queues a new item. */
  enqueue(
    data: { type: string; id: string },
    options: { secret: boolean; metadata?: Record<string, string> },
  ): WorkItem {
    const item = new WorkItem(this.id, this.#seq++, this.#now, {
      data,
      issuesSecret: options.secret,
      ttlMs: this.#around.limits.ttlSeconds * MS_PER_SECOND,
      metadata: { ...options.metadata },
    });
    this.items.set(item.id, item);
    this.#listed.add(item);
    this.#around.created(item);
    this.#around.changed(item, "created");
    this.#toReady(item);
    return item;
  }

  /** @throws {ApiError} 404 */
  item(workId: string): WorkItem {
    const item = this.items.get(workId);
    if (!item) throw notFound(`work item ${workId}`);
    return item;
  }

  // --- poll -----------------------------------------------------------------------------------------------------

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
    // Reclaimed ones first: they have waited longer.
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
    this.#around.changed(item, "offered");
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
      this.#around.waiting(this);
    });
  }

  #settle(waiter: Waiter, found: Found | undefined): void {
    if (!this.#waiters.delete(waiter)) return;
    waiter.deadline?.cancel();
    waiter.resolve(found);
    this.#around.waiting(this);
  }

  /** A waiter looks again when its time is over, or when the oldest offered item is old enough for it. */
  #armWaiter(waiter: Waiter): void {
    const oldest = first(this.#offered)?.lastOffer?.at;
    const at = oldest === undefined ? waiter.until : Math.min(waiter.until, oldest + waiter.reclaimMs);
    if (waiter.deadline?.at === at) return;
    waiter.deadline?.cancel();
    waiter.deadline = this.#around.deadlines.at(at, () => {
      waiter.deadline = undefined;
      const found = this.#take(waiter.workerId, waiter.reclaimMs);
      if (found || this.#now + ROUNDING_MS >= waiter.until) this.#settle(waiter, found);
      else this.#armWaiter(waiter);
    });
  }

  #toReady(item: WorkItem): void {
    this.#ready.add(item);
    const waiter = first(this.#waiters);
    if (!waiter) return;
    // The head of the queue, not necessarily this item.
    const found = this.#take(waiter.workerId, waiter.reclaimMs);
    if (found) this.#settle(waiter, found);
    for (const other of this.#waiters) this.#armWaiter(other);
  }

  // --- ack ------------------------------------------------------------------------------------------------------

  /** @throws {ApiError} 404, 409 */
  ack(workId: string, caller: Caller): WorkItem {
    const item = this.item(workId);
    const { secondAck, reackStamp } = this.#around.switches;
    this.#judge(judgeAck(item, caller, this.#now, this.sides), caller, item);
    if (item.state !== "queued") {
      if (secondAck === "refused" || item.state === "stopped") throw conflict(`work item is ${item.state}, not queued`);
      if (secondAck === "renewed") this.#acknowledge(item, caller);
      item.note(this.#now, "acknowledged again", actorOf(caller));
      this.#around.changed(item, "acknowledged again");
      return item;
    }
    const now = this.#now;
    this.#leaveQueue(item);
    const stamp = item.acknowledgedAt;
    this.#acknowledge(item, caller);
    if (reackStamp === "kept") item.acknowledgedAt = stamp ?? now;
    item.note(now, "acknowledged", actorOf(caller), "starting");
    this.#expireAt(item, this.#startingEnd(now));
    this.#around.changed(item, "acknowledged");
    return item;
  }

  #acknowledge(item: WorkItem, caller: Caller): void {
    item.acknowledgedAt = this.#now;
    // Where the request names no worker, only a sole candidate can be named.
    const offered = item.offers.filter((offer) => offer.generation === item.generation);
    const candidates = new Set(offered.map((offer) => offer.workerId));
    const workerId = caller.workerId ?? (candidates.size === 1 ? first(candidates) : undefined);
    item.acks.push({ at: this.#now, generation: item.generation, workerId });
  }

  #startingEnd(now: number): number | undefined {
    const { switches, limits } = this.#around;
    return switches.starting === "never" ? undefined : now + limits.startingTimeoutSeconds * MS_PER_SECOND;
  }

  // --- heartbeat ------------------------------------------------------------------------------------------------

  /** @throws {ApiError} 404, 412 */
  heartbeat(
    workId: string,
    caller: Caller,
    request: { expected: string | undefined; desiredTtlSeconds: number | undefined },
  ): { item: WorkItem; body: Record<string, unknown> } {
    const item = this.item(workId);
    const { expected } = request;
    this.#judge(judgeBeat(item, caller, expected, this.sides), caller, item);
    if (item.state === "stopped") return { item, body: this.#heartbeatBody(item, false) };
    if (item.state === "stopping") {
      const extends_ = this.#around.switches.stoppingBeat === "extends";
      if (extends_) this.#extend(item, caller, request.desiredTtlSeconds);
      return { item, body: this.#heartbeatBody(item, extends_) };
    }
    const isFirst = expected === undefined || expected === NO_HEARTBEAT;
    const matches =
      item.heartbeatUs === undefined ? isFirst : expected === undefined || expected === item.lastHeartbeat;
    if (!matches || !this.#takesBeats(item)) throw this.#refuse(item);
    this.#judge(judgeHolder(item, caller, this.#now), caller, item);
    this.#extend(item, caller, request.desiredTtlSeconds);
    if (item.state !== "active") this.#activate(item, caller);
    else this.#around.changed(item, "beat");
    return { item, body: this.#heartbeatBody(item, true) };
  }

  #takesBeats(item: WorkItem): boolean {
    return item.state !== "queued" || this.#around.switches.queuedBeat === "accepted";
  }

  #activate(item: WorkItem, caller: Caller): void {
    this.#leaveQueue(item);
    item.startedAt ??= this.#now;
    item.firstBeatAt ??= this.#now;
    item.note(this.#now, "first beat", actorOf(caller), "active");
    this.#around.changed(item, "first beat");
  }

  #extend(item: WorkItem, caller: Caller, desiredTtlSeconds: number | undefined): void {
    const now = this.#now;
    if (desiredTtlSeconds !== undefined) item.ttlMs = this.#ttlMs(desiredTtlSeconds);
    item.stampHeartbeat(now);
    item.beats += 1;
    item.beat = { at: now, party: partyOf(caller), side: sideOf(item, caller), kind: caller.credential.kind };
    this.#expireAt(item, now + item.ttlMs);
  }

  #ttlMs(desiredSeconds: number): number {
    const { minTtlSeconds, maxTtlSeconds } = this.#around.limits;
    return Math.min(Math.max(desiredSeconds, minTtlSeconds), maxTtlSeconds) * MS_PER_SECOND;
  }

  #heartbeatBody(item: WorkItem, extended: boolean): Record<string, unknown> {
    return {
      type: "work_heartbeat",
      last_heartbeat: item.lastHeartbeat ?? timestamp(item.createdAt),
      lease_extended: extended,
      state: item.state,
      ttl_seconds: Math.max(1, Math.round(item.ttlMs / MS_PER_SECOND)),
    };
  }

  #refuse(item: WorkItem): ApiError {
    item.refusedBeats += 1;
    this.#around.changed(item, "beat refused");
    return new ApiError(412, "invalid_request_error", "expected_last_heartbeat does not match the stored heartbeat", {
      error_code: "heartbeat_precondition_failed",
      current_state: {
        state: item.state,
        last_heartbeat: item.lastHeartbeat,
        lease_extended: false,
        ttl_seconds: Math.max(1, Math.round(item.ttlMs / MS_PER_SECOND)),
      },
    });
  }

  // --- stop -----------------------------------------------------------------------------------------------------

  /** A stop by a client. @throws {ApiError} 404, 409 */
  stop(workId: string, caller: Caller, force: boolean): WorkItem {
    const item = this.item(workId);
    if (item.state === "stopped") throw conflict("work item is already stopped");
    this.#judge(judgeStop(item, caller, force, this.sides), caller, item);
    this.end(item, actorOf(caller), force);
    return item;
  }

  /** The stop itself. A queued item has no holder that could see a graceful stop: it ends at once. */
  end(item: WorkItem, by: Actor, force: boolean): void {
    if (item.state === "stopped") return;
    const now = this.#now;
    item.stopRequestedAt ??= now;
    if (force || item.state === "queued") {
      this.#toStopped(item, force ? "stopped by force" : "stopped", by);
      return;
    }
    if (item.state === "stopping") return;
    // A starting item has no lease to lapse; its first beat is waited for as before.
    if (item.state === "starting") this.#expireAt(item, item.expiresAt ?? this.#startingEnd(now));
    item.note(now, "stop requested", by, "stopping");
    this.#around.changed(item, "stop requested");
  }

  #toStopped(item: WorkItem, event: string, by: Actor): void {
    this.#leaveQueue(item);
    item.stoppedAt = this.#now;
    item.expiresAt = undefined;
    item.expiry?.cancel();
    item.expiry = undefined;
    item.heartbeats.clear();
    item.note(this.#now, event, by, "stopped");
    this.#listedStopped.add(item);
    this.#trimList();
    this.#around.changed(item, event);
  }

  // --- time -----------------------------------------------------------------------------------------------------

  /** At most one live entry of the heap per item: a renewed lease is looked at when the old one would have lapsed. */
  #expireAt(item: WorkItem, at: number | undefined): void {
    item.expiresAt = at;
    if (at === undefined || (item.expiry && item.expiry.at <= at)) return;
    item.expiry?.cancel();
    item.expiry = this.#around.deadlines.at(at, () => {
      item.expiry = undefined;
      if (item.expiresAt === undefined) return;
      if (item.expiresAt > this.#now + ROUNDING_MS) this.#expireAt(item, item.expiresAt);
      else this.#expire(item);
    });
  }

  #expire(item: WorkItem): void {
    const { switches } = this.#around;
    item.expiresAt = undefined;
    if (item.state === "starting") this.#requeue(item, "no first beat");
    else if (item.state === "active" && switches.lapse === "requeue") this.#requeue(item, "lease lapsed");
    else if (item.state === "active") this.#toStopped(item, "lease lapsed", SERVER);
    else if (item.state === "stopping" && switches.lapsedStopping === "ends") {
      this.#toStopped(item, "lease lapsed", SERVER);
    }
  }

  #requeue(item: WorkItem, why: string): void {
    if (this.#around.switches.requeueId === "new") {
      this.#toStopped(item, `${why}, comes back under a new id`, SERVER);
      this.enqueue(item.data, { secret: item.issuesSecret, metadata: item.metadata });
      return;
    }
    item.generation += 1;
    item.queuedAt = this.#now;
    item.heartbeatUs = undefined;
    item.beat = undefined;
    item.firstTokenBeatAnswered = undefined;
    item.note(this.#now, `${why}, queued again`, SERVER, "queued");
    this.#around.changed(item, "queued again");
    this.#toReady(item);
  }

  #leaveQueue(item: WorkItem): void {
    this.#ready.delete(item);
    this.#offered.delete(item);
  }

  // --- reading --------------------------------------------------------------------------------------------------

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

  /** What the list call shows, in the order of creation. */
  get listed(): WorkItem[] {
    this.#trimList();
    return [...this.#listed];
  }

  #trimList(): void {
    const keep = this.#around.switches.listKeepsStopped;
    if (keep === null) return;
    for (const item of this.#listedStopped) {
      if (this.#listedStopped.size <= keep) return;
      this.#listedStopped.delete(item);
      this.#listed.delete(item);
      this.items.delete(item.id);
    }
  }

  /** A stopped item that nobody will ask for any more. */
  forget(item: WorkItem): void {
    this.#listedStopped.delete(item);
    this.#listed.delete(item);
    this.items.delete(item.id);
  }

  #judge(finding: Finding | undefined, caller: Caller, item: WorkItem): void {
    if (finding) this.#around.found(finding, caller, item);
  }
}

/** reclaim_older_than_ms of a poll that does not say. */
export function reclaimMsOf(given: number | undefined): number {
  return given ?? DEFAULT_RECLAIM_MS;
}

function first<T>(set: ReadonlySet<T>): T | undefined {
  const [head] = set;
  return head;
}
