import { type Actor, SERVER } from "./caller.ts";
import { timestamp, timestampUs } from "./clock.ts";
import type { Deadline } from "./deadlines.ts";
import { newId } from "./ids.ts";

export type WorkState = "queued" | "starting" | "active" | "stopping" | "stopped";
export const WORK_STATES: readonly WorkState[] = ["queued", "starting", "active", "stopping", "stopped"];

/**
 * A change of an item's state, or an event that left the state unchanged. Times are milliseconds of the simulator's
 * clock.
 */
export interface Transition {
  readonly at: number;
  readonly event: string;
  readonly from: WorkState | null;
  readonly to: WorkState;
  readonly by: Actor;
}

/** A poll reply that contained the item. */
export interface Offer {
  readonly number: number;
  readonly at: number;
  readonly reclaimMs: number;
  readonly workerId: string | undefined;
  /** The number of times the item had been queued by then, starting at 1. */
  readonly generation: number;
  /** An injected fault gave the item out while another client held it. */
  readonly duplicate: boolean;
}

/** An acknowledgement that took effect. */
export interface Ack {
  readonly at: number;
  readonly generation: number;
  readonly workerId: string | undefined;
}

/** The last accepted heartbeat of the current lease. */
export interface Beat {
  readonly at: number;
  readonly party: string;
  /**
   * Worker id of the poller behind the heartbeat: the one that the token was issued to, or the one that the request
   * names.
   */
  readonly side: string | undefined;
  readonly kind: Actor["as"];
}

const US_PER_MS = 1000;

/** A work item and its whole history. Only Environment changes it. */
export class WorkItem {
  readonly id = newId("work");
  readonly environmentId: string;
  readonly seq: number;
  readonly data: { readonly type: string; readonly id: string };
  /** Whether poll replies carry a secret for the item. */
  readonly issuesSecret: boolean;
  readonly createdAt: number;
  metadata: Record<string, string>;

  state: WorkState = "queued";
  /** When the item last entered the queue. */
  queuedAt: number;
  /** The number of times the item was queued. */
  generation = 1;
  acknowledgedAt: number | undefined;
  startedAt: number | undefined;
  stopRequestedAt: number | undefined;
  stoppedAt: number | undefined;
  /** Microseconds since the epoch. Each heartbeat gets a distinct value, even within one millisecond. */
  heartbeatUs: number | undefined;
  ttlMs: number;
  /** When the lease or the wait for the first heartbeat ends. Undefined if neither is running. */
  expiresAt: number | undefined;
  /**
   * When the item's expiry is next checked. It's never later than `expiresAt`, so that a renewal needs no new deadline.
   */
  expiry: Deadline | undefined;

  readonly history: Transition[] = [];
  readonly offers: Offer[] = [];
  readonly acks: Ack[] = [];
  readonly tokens: string[] = [];
  /** The item's session was deleted. */
  abandoned = false;
  beat: Beat | undefined;
  beats = 0;
  refusedBeats = 0;
  firstBeatAt: number | undefined;
  /** Every last_heartbeat of the item in microseconds. A client that echoes any other value made it up. */
  readonly heartbeats = new Set<number>();
  /** Parties that were told that the item is stopped, or that stopped it and got the reply. */
  readonly knowsStopped = new Set<string>();
  /**
   * The party whose first heartbeat with a sessions token was answered in this generation. A second one means a second
   * container.
   */
  firstTokenBeatAnswered: string | undefined;

  constructor(
    environmentId: string,
    seq: number,
    at: number,
    options: {
      data: { type: string; id: string };
      issuesSecret: boolean;
      ttlMs: number;
      metadata: Record<string, string>;
    },
  ) {
    this.environmentId = environmentId;
    this.seq = seq;
    this.createdAt = at;
    this.queuedAt = at;
    this.data = options.data;
    this.issuesSecret = options.issuesSecret;
    this.ttlMs = options.ttlMs;
    this.metadata = options.metadata;
    this.history.push({ at, event: "created", from: null, to: "queued", by: SERVER });
  }

  get lastOffer(): Offer | undefined {
    return this.offers.at(-1);
  }

  /** Whether a client may stop the item without running it, because it contains nothing to run. */
  get runsNothing(): boolean {
    return this.data.type !== "session" || !this.issuesSecret || this.abandoned;
  }

  note(at: number, event: string, by: Actor, to: WorkState = this.state): void {
    this.history.push({ at, event, from: this.state, to, by });
    this.state = to;
  }

  /** Records a heartbeat and returns its time, which is always later than the previous one. */
  stampHeartbeat(at: number): string {
    const us = Math.max(Math.floor(at * US_PER_MS), (this.heartbeatUs ?? 0) + 1);
    this.heartbeatUs = us;
    this.heartbeats.add(us);
    return timestampUs(us);
  }

  get lastHeartbeat(): string | null {
    return this.heartbeatUs === undefined ? null : timestampUs(this.heartbeatUs);
  }
}

/** The item as the API shows it. `secret` is null except in the reply of a poll. */
export function workBody(item: WorkItem, secret: string | null, reformatHeartbeat = false): Record<string, unknown> {
  const time = (at: number | undefined) => (at === undefined ? null : timestamp(at));
  const heartbeat = item.lastHeartbeat;
  return {
    id: item.id,
    type: "work",
    environment_id: item.environmentId,
    data: item.data,
    state: item.state,
    secret,
    metadata: item.metadata,
    created_at: timestamp(item.createdAt),
    acknowledged_at: time(item.acknowledgedAt),
    started_at: time(item.startedAt),
    latest_heartbeat_at: heartbeat && reformatHeartbeat ? heartbeat.replace("Z", "+00:00") : heartbeat,
    stop_requested_at: time(item.stopRequestedAt),
    stopped_at: time(item.stoppedAt),
  };
}

/**
 * What the admin API and `Simulator.item` show of an item. Times are milliseconds of the simulator's clock. No
 * credentials.
 */
export interface ItemRecord {
  readonly id: string;
  readonly environmentId: string;
  readonly sessionId: string | undefined;
  readonly type: string;
  readonly state: WorkState;
  readonly generation: number;
  readonly createdAt: number;
  readonly queuedAt: number;
  readonly offeredAt: number | undefined;
  readonly acknowledgedAt: number | undefined;
  readonly firstBeatAt: number | undefined;
  readonly stopRequestedAt: number | undefined;
  readonly stoppedAt: number | undefined;
  readonly stoppedBy: Actor | undefined;
  readonly beats: number;
  readonly refusedBeats: number;
  readonly offers: readonly Offer[];
  readonly acks: readonly Ack[];
  readonly history: readonly Transition[];
}

export function recordOf(item: WorkItem): ItemRecord {
  return {
    id: item.id,
    environmentId: item.environmentId,
    sessionId: item.data.type === "session" ? item.data.id : undefined,
    type: item.data.type,
    state: item.state,
    generation: item.generation,
    createdAt: item.createdAt,
    queuedAt: item.queuedAt,
    offeredAt: item.offers[0]?.at,
    acknowledgedAt: item.acks[0]?.at,
    firstBeatAt: item.firstBeatAt,
    stopRequestedAt: item.stopRequestedAt,
    stoppedAt: item.stoppedAt,
    stoppedBy: item.state === "stopped" ? item.history.findLast((entry) => entry.to === "stopped")?.by : undefined,
    beats: item.beats,
    refusedBeats: item.refusedBeats,
    offers: [...item.offers],
    acks: [...item.acks],
    history: [...item.history],
  };
}
