/**
 * The Work API's wire format (snake_case), after validation in wire.ts. Times are RFC 3339 texts. Source: the published
 * reference of `/v1/environments/{environment_id}/work` and the official SDK's types.
 */

/** queued -> starting (ack) -> active (first heartbeat) -> stopping -> stopped, which is final. */
export const WORK_STATES = ["queued", "starting", "active", "stopping", "stopped"] as const;
export type WorkState = (typeof WORK_STATES)[number];

/** The subject of a work item. */
export interface WorkData {
  /** The id of the session or health check. Empty only for types that Berth does not know. */
  readonly id: string;
  /** `session`, `healthcheck`, or any later type of the platform; `unknown` if the server sent none. */
  readonly type: string;
}

export const DATA_TYPE_SESSION = "session";
export const DATA_TYPE_UNKNOWN = "unknown";

/** One work item. Log only its id: a polled item carries its secret. */
export interface WorkItem {
  readonly id: string;
  readonly environment_id: string;
  readonly state: WorkState;
  readonly data: WorkData;
  readonly created_at: string;
  readonly acknowledged_at: string | null;
  /** The time of the last heartbeat. The next heartbeat echoes it, so it is kept byte for byte. */
  readonly latest_heartbeat_at: string | null;
  readonly started_at: string | null;
  readonly stop_requested_at: string | null;
  readonly stopped_at: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  /** Only in poll replies, and only if the environment issues one. Never log or show it. */
  readonly secret?: string;
}

/** Statistics of a queue. No field counts running sessions. */
export interface QueueStats {
  /** Items that wait to be picked up. */
  readonly depth: number;
  /** Items that were polled but not acknowledged yet. */
  readonly pending: number;
  readonly oldest_queued_at: string | null;
  /** Pollers seen in the last 30 s. */
  readonly workers_polling: number | null;
}

/** The answer to an accepted heartbeat. `lease_extended: false` means that this client does not hold the lease. */
export interface Heartbeat {
  /** Opaque: the next heartbeat echoes it byte for byte. */
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

/** The outcome of a heartbeat. A 412 is a normal answer; `current` is null if its body can't be parsed. */
export type HeartbeatOutcome =
  | { readonly kind: "beat"; readonly beat: Heartbeat }
  | { readonly kind: "refused"; readonly current: LeaseState | null };

/** `expected` for a first heartbeat: claims a lease that no client has ever held. */
export const NO_HEARTBEAT = "NO_HEARTBEAT";

/** A malformed item of a list. */
export interface UnreadableItem {
  /** Null if even the id can't be read. */
  readonly id: string | null;
  /** Null if the state is missing or unknown. */
  readonly state: WorkState | null;
  /** The field and the expected form, never the value: replies contain secrets. */
  readonly why: string;
}

/** One page of the list. */
export interface WorkPage {
  readonly items: WorkItem[];
  /** Listed separately, so that a malformed item does not hide the others. */
  readonly unreadable: readonly UnreadableItem[];
  readonly nextPage: string | null;
}

/** The calls of the Work API, by their names in errors and in the metrics label `call`. */
const WORK_CALLS = ["poll", "ack", "heartbeat", "stop", "stats", "list", "retrieve", "update"] as const;
export type WorkCall = (typeof WORK_CALLS)[number];
