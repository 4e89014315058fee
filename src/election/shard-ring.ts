import type { Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import { isForbidden } from "../kube/errors.ts";
import { LEASES, type Lease } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import {
  CANDIDATE_SPREAD,
  LEASE_DURATION_MS,
  LeaderElector,
  RENEW_DEADLINE_MS,
  RETRY_PERIOD_MS,
} from "./leader-election.ts";
import { LeaseAges, type LeaseClient } from "./lease-record.ts";
import {
  LABEL_LEASE,
  ReplicaLease,
  readShardLeases,
  type ShardView,
  shardLeaseLabels,
  shardLeaseName,
} from "./shard-leases.ts";
import { planShards } from "./shard-plan.ts";

/**
 * With several shards, each Lease is renewed half as often as a single one. Two more attempts still fit into the renew
 * deadline.
 */
const SHARD_RENEW_PERIOD_MS = 4_000;

/**
 * A surplus shard is given up only after the plan has been stable for this long, so that a rollout moves it once, not
 * twice.
 */
const SETTLE_MS = 10_000;

/** A free shard must not wait longer for an owner that can't acquire it. */
const UNTAKEN_MS = LEASE_DURATION_MS;

/** How long the plan leaves out such a replica, unless it holds a shard again. */
const PASSED_OVER_MS = 300_000;

/** Leases unchanged for this long are deleted. */
const DEAD_AFTER_MS = 60_000;

/** How often the holder of the only shard lists the Leases, to delete dead ones. It waits for nothing else. */
const LONE_LIST_INTERVAL_MS = 60_000;

/** Two lists fit into the renew deadline. */
const LIST_TIMEOUT_MS = RENEW_DEADLINE_MS / 2;

/** One shard that this process holds. */
export interface HeldShard {
  /** Counted from 0. */
  readonly shard: number;
  /** Aborts when the shard is lost or must be given up. */
  readonly signal: AbortSignal;
  /**
   * Call before every outgoing write. Work left over from an earlier term does not pass in a later one.
   * @throws LeadershipLostError unless this process certainly holds the shard's Lease and has held it since the term
   * began.
   */
  readonly fence: () => void;
}

export interface ShardRingOptions {
  /** Must not be fenced, because the fence depends on it. */
  readonly client: LeaseClient;
  readonly namespace: string;
  /** The name of the Lease, or the prefix of all Lease names. */
  readonly name: string;
  /** The number of shards; 1 is plain leader election. */
  readonly shards: number;
  /** Unique to this process. */
  readonly identity: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  /**
   * Serves a shard until its signal aborts. The Lease is released after the promise has settled. A rejection ends
   * `run`.
   */
  readonly serve: (held: HeldShard) => Promise<void>;
}

/**
 * Divides shards among replicas, with one Lease for each shard.
 *
 * Safety depends only on the Leases. For one shard, its Lease and the fence of LeaderElector allow one holder. During a
 * rollout that changes --shards, a replica that has acquired a Lease lists all Leases and releases its own if one with
 * another number of shards is held. Lists and writes of the API server are linearizable, so of two replicas that
 * acquire at the same time at least one sees the other. Both may release, and try again at different times.
 *
 * Fairness depends on listing all Leases every few seconds. The list gives the members and the holders; replicas that
 * read the same list make the same plan. A wrong or outdated list moves a shard needlessly or late, but never gives it
 * to two replicas.
 */
export class ShardRing {
  readonly #options: ShardRingOptions;
  readonly #ages: LeaseAges;
  /** The names of the shards' Leases. */
  readonly #names: readonly string[];
  readonly #electors: readonly LeaderElector[];
  /** Shards to try to acquire, once each. */
  readonly #wanted = new Set<number>();
  readonly #listed = new Notifier();
  /**
   * By shard and monotonic: since when it has been free for the same owner, and since when this process should give it
   * up.
   */
  readonly #offered = new Map<number, { readonly to: string | null; readonly sinceMs: number }>();
  readonly #surplusSince = new Map<number, number>();
  /** By identity, monotonic: replicas that did not acquire their shards. */
  readonly #passedOverUntil = new Map<string, number>();
  /** By name: the shard Leases that were held in the last list. */
  readonly #lastHeld = new Map<string, Lease>();
  #listedAtMs = Number.NEGATIVE_INFINITY;
  #inFlight: Promise<unknown> = Promise.resolve();
  #next: Promise<ShardView> | undefined;
  #leaving = false;
  #canDelete = true;
  #lastLogged = "";

  constructor(options: ShardRingOptions) {
    this.#options = options;
    const { shards, name, serve } = options;
    if (!Number.isSafeInteger(shards) || shards < 1) throw new RangeError("there must be at least one shard");
    this.#ages = new LeaseAges(options.clock);
    this.#names = Array.from({ length: shards }, (_, shard) => shardLeaseName(name, shard, shards));
    this.#electors = this.#names.map((lease, shard) => {
      const elector: LeaderElector = new LeaderElector({
        ...options,
        name: lease,
        labels: shardLeaseLabels(shards),
        ages: this.#ages,
        renewPeriodMs: shards === 1 ? RETRY_PERIOD_MS : SHARD_RENEW_PERIOD_MS,
        turn: (signal) => this.#turn(shard, signal),
        confirm: async () => (await this.#freshList()).foreign === null,
        onStartedLeading: (signal, fence) => serve({ shard, signal, fence }),
        onStoppedLeading: () => this.#listed.notify(),
      });
      return elector;
    });
  }

  /** The shards that this process can act for now. */
  get held(): readonly number[] {
    return this.#electors.flatMap(({ isLeader }, shard) => (isLeader ? [shard] : []));
  }

  /** @throws LeadershipLostError unless this process certainly holds the Lease of this shard. */
  fence(shard: number): void {
    const elector = this.#electors[shard];
    if (!elector) throw new RangeError(`there is no shard ${shard}`);
    elector.fence();
  }

  /** Serves its shards until the signal aborts, then gives them up in order. Rejects as `serve` does. */
  async run(signal: AbortSignal): Promise<void> {
    const ending = new AbortController();
    const onAbort = () => {
      this.#leaving = true;
      ending.abort();
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    // Lists continue while shards are given up: a Lease acquired at the last moment must still be confirmed.
    const listing = new AbortController();
    const listings = this.#listRepeatedly(listing.signal);
    const replica = this.#options.shards === 1 ? undefined : this.#replicaLease().run(ending.signal);
    const runs = this.#electors.map((elector) => elector.run(ending.signal));
    for (const run of runs) run.catch(onAbort);
    const ends = await Promise.allSettled(runs);
    listing.abort();
    await Promise.all([listings, replica]);
    signal.removeEventListener("abort", onAbort);
    const failure = ends.find((end) => end.status === "rejected");
    if (failure) throw failure.reason;
  }

  #replicaLease(): ReplicaLease {
    const { name: base } = this.#options;
    return new ReplicaLease({ ...this.#options, base, leaseDurationMs: LEASE_DURATION_MS });
  }

  /** Resolves when the last list showed that this process should acquire the shard. */
  async #turn(shard: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#wanted.has(shard)) await this.#listed.wait(signal);
    this.#wanted.delete(shard);
  }

  async #listRepeatedly(signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    while (!signal.aborted) {
      if (this.#isListDue) {
        try {
          this.#decide(await this.#freshList());
        } catch (error) {
          if (!signal.aborted) logger.warn({ error: errorText(error) }, "cannot list the Leases");
        }
      }
      await sleep(clock, RETRY_PERIOD_MS * (1 + (CANDIDATE_SPREAD - 1) * random()), signal);
    }
  }

  /**
   * With one shard, its holder rarely needs a list: it was alone when it acquired the Lease, and no other replica can
   * follow while it holds it.
   */
  get #isListDue(): boolean {
    const isLone = this.#options.shards === 1 && this.#electors[0]?.isLeader === true;
    return !isLone || this.#options.clock.monotonic() - this.#listedAtMs >= LONE_LIST_INTERVAL_MS;
  }

  /** Returns a list sent after this call. One in flight may be older than the write that it must confirm. */
  #freshList(): Promise<ShardView> {
    this.#next ??= this.#afterThis();
    return this.#next;
  }

  async #afterThis(): Promise<ShardView> {
    await this.#inFlight.catch(() => {});
    this.#next = undefined;
    const list = this.#listLeases();
    this.#inFlight = list;
    return await list;
  }

  async #listLeases(): Promise<ShardView> {
    const { client, namespace, name, shards } = this.#options;
    const query = { namespace, labelSelector: LABEL_LEASE };
    const { items } = await client.list(LEASES, query, { timeoutMs: LIST_TIMEOUT_MS });
    this.#listedAtMs = this.#options.clock.monotonic();
    const listed = new Set(items.map(({ metadata }) => metadata.name ?? ""));
    for (const lease of items) this.#ages.note(lease);
    const vanished = this.#vanished(items, listed);
    this.#ages.keep(new Set([...listed, ...vanished.map(({ metadata }) => metadata.name ?? ""), ...this.#names]));
    return readShardLeases([...items, ...vanished], this.#ages, {
      base: name,
      shards,
      leaseDurationMs: LEASE_DURATION_MS,
      deadAfterMs: DEAD_AFTER_MS,
    });
  }

  /**
   * Leases that were deleted by hand while they were held. They count as held until they would have expired, because
   * their holder may not have noticed yet.
   */
  #vanished(items: readonly Lease[], listed: ReadonlySet<string>): Lease[] {
    const gone = [...this.#lastHeld].filter(([name, lease]) => {
      return !listed.has(name) && this.#ages.isHeld(lease, LEASE_DURATION_MS);
    });
    this.#lastHeld.clear();
    for (const [name, lease] of gone) this.#lastHeld.set(name, lease);
    for (const lease of items) {
      const isShard = lease.metadata.labels?.[LABEL_LEASE] === "shard";
      if (isShard && this.#ages.isHeld(lease, LEASE_DURATION_MS)) this.#lastHeld.set(lease.metadata.name ?? "", lease);
    }
    return gone.map(([, lease]) => lease);
  }

  // --- Decisions --------------------------------------------------------------------------------------------------

  #decide(view: ShardView): void {
    this.#logChanges(view);
    this.#wanted.clear();
    if (this.#leaving) return;
    const { identity } = this.#options;
    const holders = view.holders.map((holder, shard) => (this.#electors[shard]?.isBusy ? identity : holder));
    const members = this.#options.shards === 1 ? [identity] : this.#members(view, holders);
    this.#options.metrics?.replicas.set(members.length);
    const plan = planShards({ members, holders });
    for (const [shard, holder] of holders.entries()) {
      this.#decideShard(shard, { holder, owner: plan[shard] ?? null, mayTake: view.foreign === null });
    }
    this.#listed.notify();
    if (this.held.length > 0) void this.#clear(view.dead);
  }

  /** This process, and every other member that takes its shards. */
  #members(view: ShardView, holders: readonly (string | null)[]): string[] {
    const { identity, clock } = this.#options;
    for (const [member, untilMs] of this.#passedOverUntil) {
      if (clock.monotonic() >= untilMs || holders.includes(member)) this.#passedOverUntil.delete(member);
    }
    const others = view.members.filter((member) => member !== identity && !this.#passedOverUntil.has(member));
    return [...others, identity];
  }

  #decideShard(shard: number, seen: { holder: string | null; owner: string | null; mayTake: boolean }): void {
    const { identity, clock, logger } = this.#options;
    const nowMs = clock.monotonic();
    const isOurs = seen.owner === identity;
    // A Lease that this process holds but does not use (it could not be confirmed) is still free for this process.
    const isFree = seen.holder === null || (seen.holder === identity && !this.#electors[shard]?.isBusy);
    if (isFree && seen.mayTake && isOurs) this.#wanted.add(shard);
    // Only while the shard can be acquired: otherwise its owner is not to blame for leaving it free.
    if (seen.holder === null && seen.mayTake && !isOurs) this.#offer(shard, seen.owner, nowMs);
    else this.#offered.delete(shard);
    if (!this.#electors[shard]?.isLeader || isOurs) {
      this.#surplusSince.delete(shard);
      return;
    }
    const sinceMs = this.#surplusSince.get(shard) ?? nowMs;
    this.#surplusSince.set(shard, sinceMs);
    if (nowMs - sinceMs < SETTLE_MS) return;
    logger.info({ shard, to: seen.owner }, "released a shard for another replica");
    this.#surplusSince.delete(shard);
    this.#electors[shard]?.stepDown();
  }

  /** Records a shard that is free for another replica. A replica that leaves it free too long is passed over. */
  #offer(shard: number, to: string | null, nowMs: number): void {
    const before = this.#offered.get(shard);
    if (!before || before.to !== to) this.#offered.set(shard, { to, sinceMs: nowMs });
    else if (to !== null && nowMs - before.sinceMs >= UNTAKEN_MS) {
      this.#options.logger.warn(
        { shard, replica: to },
        "a replica does not take its shards, so it gets none for a while",
      );
      this.#passedOverUntil.set(to, nowMs + PASSED_OVER_MS);
    }
  }

  /** Best effort: a leftover Lease only clutters the list. */
  async #clear(dead: readonly Lease[]): Promise<void> {
    const { client, namespace, logger } = this.#options;
    for (const { metadata } of dead) {
      const { name = "", uid, resourceVersion } = metadata;
      if (!this.#canDelete || uid === undefined || resourceVersion === undefined) return;
      try {
        await client.delete(LEASES, { namespace, name }, { uid, resourceVersion }, { timeoutMs: LIST_TIMEOUT_MS });
        logger.info({ lease: name }, "deleted an unused Lease");
      } catch (error) {
        // Other replicas delete them too. Without the permission, trying again is useless.
        if (isForbidden(error)) this.#canDelete = false;
      }
    }
  }

  /** Logs what has changed since the last list: the held shards, the members, and a blocking Lease. */
  #logChanges(view: ShardView): void {
    const { logger, shards, identity } = this.#options;
    const { held } = this;
    const members = new Set([...view.members, identity]);
    const now = JSON.stringify([held, view.foreign, [...members].sort()]);
    if (now === this.#lastLogged) return;
    this.#lastLogged = now;
    if (view.foreign) {
      logger.warn(
        { shards, lease: view.foreign.lease, holder: view.foreign.holder, theirShards: view.foreign.shards },
        "a replica with another --shards value holds a Lease; this replica takes no shard until it has ended",
      );
    } else if (shards > 1) logger.info({ held, shards, replicas: members.size }, "shards held");
  }
}
