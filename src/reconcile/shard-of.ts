import { createHash } from "node:crypto";

/** Enough of the hash for an even spread: far more values than there can be shards. */
const HASH_BYTES = 4;

/**
 * The shard, from 0 to `shards` - 1, that an Environment belongs to, by its key `namespace/name`. The same in every
 * process and release: two replicas that disagreed would both serve it. By name and not by uid, so that an Environment
 * and the one that had its name before are never in two hands.
 */
export function shardOf(key: string, shards: number): number {
  if (shards === 1) return 0;
  return createHash("sha256").update(key).digest().readUIntBE(0, HASH_BYTES) % shards;
}
