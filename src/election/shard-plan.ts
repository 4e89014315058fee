import { createHash } from "node:crypto";

/** What a plan is made from. Every replica that sees the same makes the same plan. */
export interface Shares {
  /** Replicas that take part. */
  readonly members: readonly string[];
  /** Who holds each shard; null: nobody. A holder that is no member is about to leave. */
  readonly holders: readonly (string | null)[];
}

/**
 * Who should have each shard, with as few moves as possible: everybody keeps what it has up to its fair part (the number
 * of shards over the number of members, rounded up for those who hold most now, down for the rest), and what is over,
 * free or a leaver's goes to whoever has too few. A plan that was carried out is planned the same again, so that nothing
 * moves twice.
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
  // In the order of names, whatever the quotas' own order, and the emptiest first, so that all fill up alike.
  return plan.map((owner) => owner ?? takeFrom(quotas));
}

/** How many shards each member should have; their sum is the number of shards. */
function fairParts({ members, holders }: Shares): Map<string, number> {
  const held = (member: string) => holders.filter((holder) => holder === member).length;
  const ranked = [...members].sort((a, b) => held(b) - held(a) || (a < b ? -1 : 1));
  const least = Math.floor(holders.length / ranked.length);
  const extra = holders.length - least * ranked.length;
  return new Map(ranked.map((member, rank) => [member, rank < extra ? least + 1 : least]));
}

/** The member with most room, which has one place less afterwards. */
function takeFrom(quotas: Map<string, number>): string | null {
  let best: string | null = null;
  for (const [member, room] of quotas) if (room > (best === null ? 0 : (quotas.get(best) ?? 0))) best = member;
  if (best !== null) quotas.set(best, (quotas.get(best) ?? 0) - 1);
  return best;
}

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
