/**
 * Shapes of the Work API as they are on the wire (snake_case), after validation in wire.ts. Times are RFC 3339 texts.
 * Source: the published reference of `/v1/environments/{environment_id}/work` and the official SDK's types.
 */

/** queued -> starting (ack) -> active (first heartbeat) -> stopping -> stopped; the last is final. */
export const WORK_STATES = ["queued", "starting", "active", "stopping", "stopped"] as const;
export type WorkState = (typeof WORK_STATES)[number];

/** What a work item is about. */
export interface WorkData {
  /** The session, or the health check. Empty only for types that Berth does not know. */
  readonly id: string;
  /** `session`, `healthcheck`, or anything the platform invents; `unknown` when the server sent none. */
  readonly type: string;
}

export const DATA_TYPE_SESSION = "session";
export const DATA_TYPE_HEALTHCHECK = "healthcheck";
export const DATA_TYPE_UNKNOWN = "unknown";

/** One work item. Log its id, never the whole: a polled item carries its secret. */
export interface WorkItem {
  readonly id: string;
  readonly environment_id: string;
  readonly state: WorkState;
  readonly data: WorkData;
  readonly created_at: string;
  readonly acknowledged_at: string | null;
  /** Names the instant of the last beat; also what a beat echoes, so it is kept byte for byte. */
  readonly latest_heartbeat_at: string | null;
  readonly started_at: string | null;
  readonly stop_requested_at: string | null;
  readonly stopped_at: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  /** Only in poll replies, and only where the environment issues one. Never show it. */
  readonly secret?: string;
}

/** Statistics of a queue. No field counts running sessions. */
export interface QueueStats {
  /** Items waiting to be picked up. */
  readonly depth: number;
  /** Items polled and not yet acknowledged. */
  readonly pending: number;
  readonly oldest_queued_at: string | null;
  /** Pollers seen in the last 30 s. */
  readonly workers_polling: number | null;
}

/** Answer to a heartbeat that was not refused. `lease_extended: false` means that the lease is not held. */
export interface Heartbeat {
  /** Opaque: the next beat echoes it byte for byte. */
  readonly last_heartbeat: string;
  readonly lease_extended: boolean;
  readonly state: WorkState;
  readonly ttl_seconds: number;
}

/** The server's view of the lease, from the body of a refused (412) heartbeat. */
export interface LeaseState {
  readonly state: WorkState;
  readonly last_heartbeat: string | null;
  readonly ttl_seconds: number | null;
}

/** Outcome of a heartbeat: a 412 is an answer like any other, `current` is null when its body could not be read. */
export type HeartbeatOutcome =
  | { readonly kind: "beat"; readonly beat: Heartbeat }
  | { readonly kind: "refused"; readonly current: LeaseState | null };

/** `expected` of a first heartbeat: claims a lease that nobody ever held. */
export const NO_HEARTBEAT = "NO_HEARTBEAT";

/** An item of a list that is not as it should be. */
export interface UnreadableItem {
  /** Null: not even that can be read. */
  readonly id: string | null;
  /** Null: a state that is not known, or none. */
  readonly state: WorkState | null;
  /** The field, and what it is not. Never its value: replies hold secrets. */
  readonly why: string;
}

/** One page of the list. */
export interface WorkPage {
  readonly items: WorkItem[];
  /** One odd item must not keep anybody from all others. */
  readonly unreadable: readonly UnreadableItem[];
  readonly nextPage: string | null;
}

/** The calls of the Work API, as they are named in errors and in the label `call` of metrics. */
export const WORK_CALLS = ["poll", "ack", "heartbeat", "stop", "stats", "list", "retrieve", "update"] as const;
export type WorkCall = (typeof WORK_CALLS)[number];
