import { createHash } from "node:crypto";
import { jitter, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Lease } from "../kube/objects.ts";
import type { Logger } from "../observe/logger.ts";
import { type LeaseAges, type LeaseClient, LeaseRecord } from "./lease-record.ts";

/** Set on each Lease that Berth creates; its value is the purpose of the Lease. */
export const LABEL_LEASE = "berth.dev/lease";
/** The number of shards that the writer of a Lease divides the Environments into. */
const LABEL_SHARDS = "berth.dev/shards";

/**
 * The Lease name of one shard. It includes the number of shards, because a shard of three differs from a shard of four.
 */
export function shardLeaseName(base: string, shard: number, shards: number): string {
  return shards === 1 ? base : `${base}-${shard}-of-${shards}`;
}

export function shardLeaseLabels(shards: number): Record<string, string> {
  return { [LABEL_LEASE]: "shard", [LABEL_SHARDS]: String(shards) };
}

/** Labels of the Lease that marks a replica as a member. */
export function replicaLeaseLabels(shards: number): Record<string, string> {
  return { [LABEL_LEASE]: "replica", [LABEL_SHARDS]: String(shards) };
}

/** One list of all Leases, as one replica reads it. */
export interface ShardView {
  /** The holder of each shard; null if there is none, or if it has not renewed in time. */
  readonly holders: readonly (string | null)[];
  /** The identities of the member replicas. */
  readonly members: readonly string[];
  /**
   * A held Lease with another number of shards; null if there is none. While there is one, no shard may be acquired.
   */
  readonly foreign: { readonly lease: string; readonly holder: string; readonly shards: string } | null;
  /** Leases to delete: those of replicas that vanished, and those with another number of shards. */
  readonly dead: readonly Lease[];
}

export interface ViewOptions {
  readonly base: string;
  readonly shards: number;
  readonly leaseDurationMs: number;
  /** A Lease unchanged for this long is dead, not late. */
  readonly deadAfterMs: number;
}

/** Evaluates a list of Leases. The caller must have noted them in `ages`. */
export function readShardLeases(leases: readonly Lease[], ages: LeaseAges, options: ViewOptions): ShardView {
  const { base, shards, leaseDurationMs, deadAfterMs } = options;
  const isHeld = (lease: Lease) => ages.isHeld(lease, leaseDurationMs);
  const isOwn = (lease: Lease) => lease.metadata.labels?.[LABEL_SHARDS] === String(shards);
  const of = (what: string) => leases.filter(({ metadata }) => metadata.labels?.[LABEL_LEASE] === what);
  const shardLeases = of("shard");
  const replicaLeases = of("replica");

  const byName = new Map(shardLeases.filter(isOwn).map((lease) => [lease.metadata.name, lease]));
  const holders = Array.from({ length: shards }, (_, shard) => {
    const lease = byName.get(shardLeaseName(base, shard, shards));
    return lease && isHeld(lease) ? holderOf(lease) : null;
  });
  // A replica that let one Lease expire is most likely gone, even if it renewed its other Leases a little later.
  const silent = new Set([...byName.values()].filter((lease) => holderOf(lease) && !isHeld(lease)).map(holderOf));
  const members = replicaLeases.filter((lease) => isOwn(lease) && isHeld(lease)).map(holderOf);
  const others = shardLeases.filter((lease) => !isOwn(lease));
  const foreign = others.find(isHeld);
  return {
    holders,
    members: [...new Set(members)].filter((member) => !silent.has(member)),
    foreign: foreign
      ? {
          lease: foreign.metadata.name ?? "",
          holder: holderOf(foreign),
          shards: foreign.metadata.labels?.[LABEL_SHARDS] ?? "",
        }
      : null,
    dead: [...replicaLeases, ...others].filter((lease) => !isHeld(lease) && ages.ageMs(lease) >= deadAfterMs),
  };
}

function holderOf(lease: Lease): string {
  return lease.spec?.holderIdentity ?? "";
}

/** Below a third of the lease duration: two renewals may fail before other replicas drop this one. */
const RENEW_PERIOD_MS = 4_000;
const RENEW_JITTER = 0.2;
const RETRY_PERIOD_MS = 2_000;
const REQUEST_TIMEOUT_MS = 5_000;
/** Leaving in order only helps: otherwise the other replicas find out when the Lease expires. */
const LEAVE_TIMEOUT_MS = 2_000;
const NAME_BYTES = 5;

export interface ReplicaLeaseOptions {
  readonly client: LeaseClient;
  readonly namespace: string;
  /** The prefix of all Lease names. */
  readonly base: string;
  readonly identity: string;
  readonly shards: number;
  readonly leaseDurationMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/**
 * The Lease that marks a replica as a member. It only decides how many shards each replica takes; no safety depends on
 * it.
 */
export class ReplicaLease {
  readonly #options: ReplicaLeaseOptions;
  readonly #record: LeaseRecord;

  constructor(options: ReplicaLeaseOptions) {
    this.#options = options;
    const { base, identity, shards } = options;
    const suffix = createHash("sha256")
      .update(identity)
      .digest("hex")
      .slice(0, 2 * NAME_BYTES);
    this.#record = new LeaseRecord({
      ...options,
      name: `${base}-replica-${suffix}`,
      labels: replicaLeaseLabels(shards),
    });
  }

  /** Renews the Lease until the signal aborts, then deletes it. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    while (!signal.aborted) {
      const pauseMs = (await this.#renew(signal)) ? RENEW_PERIOD_MS : RETRY_PERIOD_MS;
      await sleep(clock, jitter(pauseMs, RENEW_JITTER, random), signal);
    }
    await this.#record.remove(LEAVE_TIMEOUT_MS).catch((error: unknown) => this.#say(error, "could not be deleted"));
  }

  async #renew(signal: AbortSignal): Promise<boolean> {
    try {
      return (await this.#record.acquireOrRenew({ signal, timeoutMs: REQUEST_TIMEOUT_MS })) !== "others";
    } catch (error) {
      if (!signal.aborted) this.#say(error, "could not be renewed");
      return false;
    }
  }

  #say(error: unknown, what: string): void {
    this.#options.logger.warn({ error: errorText(error) }, `the Lease of this replica ${what}`);
  }
}
