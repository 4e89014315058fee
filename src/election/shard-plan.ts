import { createHash } from "node:crypto";

/** The input of a plan. Every replica with the same input makes the same plan. */
export interface Shares {
  /** The replicas that take part. */
  readonly members: readonly string[];
  /** The holder of each shard; null if there is none. A holder that is not a member is about to leave. */
  readonly holders: readonly (string | null)[];
}

/**
 * Assigns an owner to each shard with as few moves as possible. Each member keeps its shards up to its fair part: the
 * number of shards over the number of members, rounded up for the members that hold most, down for the rest. The
 * remaining shards (surplus, free, or held by a leaver) go to members below their fair part. Planning again after a
 * plan was carried out gives the same plan, so that no shard moves twice.
 */
export function planShards({ members, holders }: Shares): readonly (string | null)[] {
  if (members.length === 0) return holders.map(() => null);
  const quotas = fairParts({ members, holders });
  const plan: (string | null)[] = holders.map((holder) => {
    const left = holder === null ? undefined : quotas.get(holder);
    if (holder === null || left === undefined || left === 0) return null;
    quotas.set(holder, left - 1);
    return holder;
  });
  // Shards go to the member with the most room first, so that all fill up evenly.
  return plan.map((owner) => owner ?? takeFrom(quotas));
}

/** How many shards each member should have. The sum is the number of shards. */
function fairParts({ members, holders }: Shares): Map<string, number> {
  const held = (member: string) => holders.filter((holder) => holder === member).length;
  const ranked = [...members].sort((a, b) => held(b) - held(a) || (a < b ? -1 : 1));
  const least = Math.floor(holders.length / ranked.length);
  const extra = holders.length - least * ranked.length;
  return new Map(ranked.map((member, rank) => [member, rank < extra ? least + 1 : least]));
}

/** Returns the member with the most room, and reduces its room by one. */
function takeFrom(quotas: Map<string, number>): string | null {
  let best: string | null = null;
  for (const [member, room] of quotas) if (room > (best === null ? 0 : (quotas.get(best) ?? 0))) best = member;
  if (best !== null) quotas.set(best, (quotas.get(best) ?? 0) - 1);
  return best;
}

/** Enough bits of the hash for an even spread: far more values than possible shards. */
const HASH_BYTES = 4;

/**
 * The shard, from 0 to `shards` - 1, of the Environments with this queue. Must be the same in every process and release:
 * two replicas that disagreed would both serve an Environment. One replica serves all Environments of a queue, because
 * only one of them may claim.
 */
export function shardOf(queue: string, shards: number): number {
  if (shards === 1) return 0;
  return createHash("sha256").update(queue).digest().readUIntBE(0, HASH_BYTES) % shards;
}
