import { z } from "zod";

/**
 * What the contract leaves open, with one switch each. A correct client works with every setting. The defaults are the
 * most likely behavior of the deployed service.
 */
export const switchesSchema = z.strictObject({
  /**
   * The reply to an ack of an item that already left the queue: 409, 200 with the old acknowledged_at, or 200 with a
   * new one.
   */
  secondAck: z.enum(["refused", "unchanged", "renewed"]).default("refused"),
  /** The acknowledged_at of an item that lapsed, was queued again, and is acknowledged again. */
  reackStamp: z.enum(["renewed", "kept"]).default("renewed"),
  /** What happens to an active item whose lease lapsed. */
  lapse: z.enum(["requeue", "stop"]).default("requeue"),
  /** Whether a lapsed item keeps its id when it's queued again, or comes back as a new item of the same session. */
  requeueId: z.enum(["kept", "new"]).default("kept"),
  /** What happens to a starting item that gets no heartbeat for `startingTimeoutSeconds`. */
  starting: z.enum(["expires", "never"]).default("expires"),
  /** What happens to a stopping item whose lease lapsed. */
  lapsedStopping: z.enum(["stays", "ends"]).default("ends"),
  /** What a heartbeat on a stopping item does. */
  stoppingBeat: z.enum(["extends", "ignored"]).default("extends"),
  /** What NO_HEARTBEAT on a queued item does. */
  queuedBeat: z.enum(["refused", "accepted"]).default("refused"),
  /** Whether latest_heartbeat_at shows last_heartbeat byte for byte, or the same instant in another format. */
  listedHeartbeat: z.enum(["same", "reformatted"]).default("same"),
  /** The order of the list call. */
  listOrder: z.enum(["newest", "oldest", "shuffled"]).default("newest"),
  /**
   * The number of stopped items that the list call still shows. Older ones disappear. null keeps all of them forever.
   */
  listKeepsStopped: z.int().min(0).nullable().default(null),
  /** The reply of stop: 204 without a body, as deployed, or the work item, as in the reference. */
  stopReply: z.enum(["empty", "work"]).default("empty"),
  /** Whether poll replies carry a secret. */
  secrets: z.enum(["issued", "none"]).default("issued"),
  /** Whether a secret contains `api_base_url`. */
  secretBaseUrl: z.boolean().default(true),
});

export type Switches = z.output<typeof switchesSchema>;

/** Limits and defaults of the server, in the units of their names, on the simulator's clock. */
export const limitsSchema = z.strictObject({
  /** The TTL of a lease if the client doesn't request one. */
  ttlSeconds: z.number().positive().default(90),
  /** The minimum of desired_ttl_seconds. Lower values are raised to it. */
  minTtlSeconds: z.number().positive().default(10),
  /** The maximum of desired_ttl_seconds. Higher values are lowered to it. */
  maxTtlSeconds: z.number().positive().default(600),
  /** How long an acknowledged item waits for its first heartbeat. */
  startingTimeoutSeconds: z.number().positive().default(90),
  /** The page size of the list call without `limit`. */
  listPageSize: z.int().positive().default(20),
  /** The largest `limit` of the list call. */
  listMaxPageSize: z.int().positive().default(1000),
  /** GET requests per minute before the server answers 429. null: no limit. */
  readsPerMinute: z.number().positive().nullable().default(null),
  /** The number of stopped items to remember for records and reports. The simulator forgets the oldest. */
  recordsKept: z.int().min(1).default(100_000),
  /** Like readsPerMinute, for POST. */
  createsPerMinute: z.number().positive().nullable().default(null),
});

export type Limits = z.output<typeof limitsSchema>;

/** The reclaim_older_than_ms of a poll that doesn't set it. */
export const DEFAULT_RECLAIM_MS = 5000;
/** block_ms must be in this range. */
export const BLOCK_MS = { min: 1, max: 999 } as const;
/** The most pairs of metadata, and the longest keys and values, in characters. */
export const METADATA = { pairs: 16, keyLength: 64, valueLength: 512 } as const;
/** workers_polling counts the workers that polled within this time. */
export const WORKERS_POLLING_MS = 30_000;
/** The expected_last_heartbeat of the first heartbeat. */
export const NO_HEARTBEAT = "NO_HEARTBEAT";

/** How long clients wait between heartbeats of a lease with this TTL: max(1 s, min(ttl / 2, 30 s)). */
export function beatIntervalMs(ttlMs: number): number {
  return Math.max(1000, Math.min(ttlMs / 2, 30_000));
}
