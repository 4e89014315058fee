import { z } from "zod";

/**
 * What the contract leaves open, one switch each. A right client works under every setting. The defaults are the
 * likeliest behaviour of the deployed service.
 */
export const switchesSchema = z.strictObject({
  /** An ack of an item that already left the queue: 409 | 200 with the old acknowledged_at | 200 with a new one. */
  secondAck: z.enum(["refused", "unchanged", "renewed"]).default("refused"),
  /** acknowledged_at of an item that lapsed, was queued again and is acknowledged again. */
  reackStamp: z.enum(["renewed", "kept"]).default("renewed"),
  /** An active item whose lease lapsed. */
  lapse: z.enum(["requeue", "stop"]).default("requeue"),
  /** A lapsed item that is queued again keeps its id, or comes back as a new item of the same session. */
  requeueId: z.enum(["kept", "new"]).default("kept"),
  /** A starting item that nobody beat for `startingTimeoutSeconds`. */
  starting: z.enum(["expires", "never"]).default("expires"),
  /** A stopping item whose lease lapsed. */
  lapsedStopping: z.enum(["stays", "ends"]).default("ends"),
  /** A beat on a stopping item. */
  stoppingBeat: z.enum(["extends", "ignored"]).default("extends"),
  /** NO_HEARTBEAT on a queued item. */
  queuedBeat: z.enum(["refused", "accepted"]).default("refused"),
  /** latest_heartbeat_at shows the beat's last_heartbeat byte for byte, or the same instant written otherwise. */
  listedHeartbeat: z.enum(["same", "reformatted"]).default("same"),
  /** Order of the list call. */
  listOrder: z.enum(["newest", "oldest", "shuffled"]).default("newest"),
  /** How many stopped items the list call still shows; older ones are gone. null: all of them, for ever. */
  listKeepsStopped: z.int().min(0).nullable().default(null),
  /** The reply of stop: a bodiless 204, as deployed, or the work item, as in the reference. */
  stopReply: z.enum(["empty", "work"]).default("empty"),
  /** Whether poll replies carry a secret. */
  secrets: z.enum(["issued", "none"]).default("issued"),
  /** Whether a secret names `api_base_url`. */
  secretBaseUrl: z.boolean().default(true),
});

export type Switches = z.output<typeof switchesSchema>;

/** Bounds and defaults of the server, in the units of their names, on the simulator's clock. */
export const limitsSchema = z.strictObject({
  /** TTL of a lease for which the client asked none. */
  ttlSeconds: z.number().positive().default(90),
  /** desired_ttl_seconds below this counts as this. */
  minTtlSeconds: z.number().positive().default(10),
  /** desired_ttl_seconds above this counts as this. */
  maxTtlSeconds: z.number().positive().default(600),
  /** How long an acknowledged item waits for its first beat. */
  startingTimeoutSeconds: z.number().positive().default(90),
  /** Page size of the list call without `limit`. */
  listPageSize: z.int().positive().default(20),
  /** Largest `limit` of the list call. */
  listMaxPageSize: z.int().positive().default(100),
  /** GET requests a minute before 429; null: no limit. */
  readsPerMinute: z.number().positive().nullable().default(null),
  /** How many stopped items are remembered for records and reports; the oldest are forgotten. */
  recordsKept: z.int().min(1).default(100_000),
  /** As readsPerMinute, for POST. */
  createsPerMinute: z.number().positive().nullable().default(null),
});

export type Limits = z.output<typeof limitsSchema>;

/** What a poll reclaims after when it does not say. */
export const DEFAULT_RECLAIM_MS = 5000;
/** block_ms must be in this range. */
export const BLOCK_MS = { min: 1, max: 999 } as const;
/** workers_polling counts workers that polled within this time. */
export const WORKERS_POLLING_MS = 30_000;
/** The first beat's echo. */
export const NO_HEARTBEAT = "NO_HEARTBEAT";

/** How long clients wait between beats of a lease of that TTL: max(1 s, min(ttl / 2, 30 s)). */
export function beatIntervalMs(ttlMs: number): number {
  return Math.max(1000, Math.min(ttlMs / 2, 30_000));
}
