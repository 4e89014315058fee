import { type Actor, actorOf, type Caller, partyOf, SERVER } from "./caller.ts";
import { type SimulatorClock, timestamp } from "./clock.ts";
import { type Deadlines, ROUNDING_MS } from "./deadlines.ts";
import { ApiError, conflict, notFound } from "./errors.ts";
import { newId } from "./ids.ts";
import { WorkItem } from "./item.ts";
import { judgeAck, judgeBeat, judgeHolder, judgeStop, Sides, sideOf } from "./protocol.ts";
import { type Found, type PollRequest, WorkQueue } from "./queue.ts";
import { DEFAULT_RECLAIM_MS, type Limits, NO_HEARTBEAT, type Switches } from "./switches.ts";
import type { Finding } from "./violations.ts";

const MS_PER_SECOND = 1000;

/** What an environment needs from the simulator. */
export interface Surroundings {
  readonly clock: SimulatorClock;
  readonly deadlines: Deadlines;
  readonly switches: Switches;
  readonly limits: Limits;
  created(item: WorkItem): void;
  changed(item: WorkItem, event: string): void;
  /** The number of waiting long polls changed. */
  waiting(environment: Environment): void;
  found(finding: Finding, caller: Caller, item: WorkItem): void;
}

/** The queue and the leases of one environment. */
export class Environment {
  readonly id: string;
  readonly workspaceId: string | undefined;
  readonly #ttlSeconds: number | undefined;
  readonly items = new Map<string, WorkItem>();
  readonly sides = new Sides();
  readonly #around: Surroundings;
  readonly #queue: WorkQueue;
  /**
   * The items that the list call shows, in creation order, and the stopped ones among them, in the order in which they
   * stopped.
   */
  readonly #listed = new Set<WorkItem>();
  readonly #listedStopped = new Set<WorkItem>();
  #seq = 0;

  /**
   * @param options `ttlSeconds` sets the TTL of its leases and overrides what clients request; defaults to the limits
   */
  constructor(
    around: Surroundings,
    options: { id?: string | undefined; workspaceId?: string | undefined; ttlSeconds?: number | undefined },
  ) {
    this.#around = around;
    this.id = options.id ?? newId("env");
    this.workspaceId = options.workspaceId;
    this.#ttlSeconds = options.ttlSeconds;
    this.#queue = new WorkQueue(around.clock, around.deadlines, {
      offered: (item) => around.changed(item, "offered"),
      waiting: () => around.waiting(this),
    });
  }

  get #now(): number {
    return this.#around.clock.now();
  }

  /** The number of long polls that wait for work now. */
  get waiting(): number {
    return this.#queue.waiting;
  }

  /** Whether an item was given to a poll and isn't acknowledged yet. */
  get hasOffered(): boolean {
    return this.#queue.hasOffered;
  }

  enqueue(
    data: { type: string; id: string },
    options: { secret: boolean; metadata?: Record<string, string> },
  ): WorkItem {
    const item = new WorkItem(this.id, this.#seq++, this.#now, {
      data,
      issuesSecret: options.secret,
      ttlMs: (this.#ttlSeconds ?? this.#around.limits.ttlSeconds) * MS_PER_SECOND,
      metadata: { ...options.metadata },
    });
    this.items.set(item.id, item);
    this.#listed.add(item);
    this.#around.created(item);
    this.#around.changed(item, "created");
    this.#queue.add(item);
    return item;
  }

  /** @throws {ApiError} 404 */
  item(workId: string): WorkItem {
    const item = this.items.get(workId);
    if (!item) throw notFound(`work item ${workId}`);
    return item;
  }

  /** Gives out an item now, or within `blockMs`. */
  poll(request: PollRequest): Promise<Found | undefined> {
    return this.#queue.poll(request);
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
    this.#queue.remove(item);
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
    // If the request names no worker, the worker is known only if a single one was offered the item.
    const offered = item.offers.filter((offer) => offer.generation === item.generation);
    const candidates = new Set(offered.map((offer) => offer.workerId));
    const workerId = caller.workerId ?? (candidates.size === 1 ? offered[0]?.workerId : undefined);
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
    else this.#around.changed(item, "heartbeat");
    return { item, body: this.#heartbeatBody(item, true) };
  }

  #takesBeats(item: WorkItem): boolean {
    return item.state !== "queued" || this.#around.switches.queuedBeat === "accepted";
  }

  #activate(item: WorkItem, caller: Caller): void {
    this.#queue.remove(item);
    item.startedAt ??= this.#now;
    item.firstBeatAt ??= this.#now;
    item.note(this.#now, "first heartbeat", actorOf(caller), "active");
    this.#around.changed(item, "first heartbeat");
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
    if (this.#ttlSeconds !== undefined) return this.#ttlSeconds * MS_PER_SECOND;
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
    this.#around.changed(item, "heartbeat refused");
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

  /** Handles a client's stop call. @throws {ApiError} 404, 409 */
  stop(workId: string, caller: Caller, force: boolean): WorkItem {
    const item = this.item(workId);
    if (item.state === "stopped") throw conflict("work item is already stopped");
    this.#judge(judgeStop(item, caller, force, this.sides), caller, item);
    this.end(item, actorOf(caller), force);
    return item;
  }

  /** Stops an item. A queued item ends at once because it has no holder that could see a graceful stop. */
  end(item: WorkItem, by: Actor, force: boolean): void {
    if (item.state === "stopped") return;
    const now = this.#now;
    item.stopRequestedAt ??= now;
    if (force || item.state === "queued") {
      this.#toStopped(item, force ? "stopped by force" : "stopped", by);
      return;
    }
    if (item.state === "stopping") return;
    // A starting item has no lease that could lapse, so its wait for the first heartbeat continues.
    if (item.state === "starting") this.#expireAt(item, item.expiresAt ?? this.#startingEnd(now));
    item.note(now, "stop requested", by, "stopping");
    this.#around.changed(item, "stop requested");
  }

  #toStopped(item: WorkItem, event: string, by: Actor): void {
    this.#queue.remove(item);
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

  /** Keeps at most one live heap entry per item. After a renewal, the entry of the old lease checks the item again. */
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
    if (item.state === "starting") this.#requeue(item, "no first heartbeat");
    else if (item.state === "active" && switches.lapse === "requeue") this.#requeue(item, "lease lapsed");
    else if (item.state === "active") this.#toStopped(item, "lease lapsed", SERVER);
    else if (item.state === "stopping" && switches.lapsedStopping === "ends") {
      this.#toStopped(item, "lease lapsed", SERVER);
    }
  }

  #requeue(item: WorkItem, why: string): void {
    if (this.#around.switches.requeueId === "new") {
      this.#toStopped(item, `${why}, queued again with a new id`, SERVER);
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
    this.#queue.add(item);
  }

  // --- reading --------------------------------------------------------------------------------------------------

  /** Returns the answer of the stats call. */
  stats(): Record<string, unknown> {
    return this.#queue.stats();
  }

  /** The items that the list call shows, in creation order. */
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

  /** Removes a stopped item that no client will ask for again. */
  forget(item: WorkItem): void {
    this.#listedStopped.delete(item);
    this.#listed.delete(item);
    this.items.delete(item.id);
  }

  #judge(finding: Finding | undefined, caller: Caller, item: WorkItem): void {
    if (finding) this.#around.found(finding, caller, item);
  }
}

/** Returns reclaim_older_than_ms of a poll, or the default if the poll doesn't set it. */
export function reclaimMsOf(given: number | undefined): number {
  return given ?? DEFAULT_RECLAIM_MS;
}
