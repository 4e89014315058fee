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

/** With shards, each Lease is renewed half as often as a single one: two attempts more fit into the renew deadline. */
const SHARD_RENEW_PERIOD_MS = 4_000;

/** A shard is given up when so long nobody came or went who would change the plan: a rollout moves it once, not twice. */
const SETTLE_MS = 10_000;

/** A free shard must not wait for an owner that cannot take it. */
const UNTAKEN_MS = LEASE_DURATION_MS;

/** So long, such a replica is planned for no more, unless it is seen to hold something. */
const PASSED_OVER_MS = 300_000;

/** Leases unchanged for so long are cleared away. */
const DEAD_AFTER_MS = 60_000;

/** How often the holder of the only shard looks, though it has nothing to wait for: what is dead is cleared away. */
const LONE_LOOK_MS = 60_000;

/** Two of them fit into the renew deadline. */
const LIST_TIMEOUT_MS = RENEW_DEADLINE_MS / 2;

/** One shard in our hands. */
export interface HeldShard {
  /** From 0. */
  readonly shard: number;
  /** Aborts when the shard is lost or to be given up. */
  readonly signal: AbortSignal;
  /**
   * Throws LeadershipLostError unless this process surely holds the shard's Lease, and has not lost it meanwhile: work
   * that a term left behind does not pass in a later one. Call before every outgoing write.
   */
  readonly fence: () => void;
}

export interface ShardRingOptions {
  /** Not fenced: it is what fences. */
  readonly client: LeaseClient;
  readonly namespace: string;
  /** Name of the Lease, or what the names of all Leases begin with. */
  readonly name: string;
  /** How many shards there are; 1 is plain leader election. */
  readonly shards: number;
  /** Unique to this process. */
  readonly identity: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  /** Acts for a shard until its signal aborts; waited for before the Lease is released. A rejection ends `run`. */
  readonly serve: (held: HeldShard) => Promise<void>;
}

/**
 * Divides shards among replicas, a Lease each.
 *
 * Safety rests on the Leases alone. Of one shard, its Lease and the fence of LeaderElector allow one holder. Between two
 * numbers of shards (a rollout that changes --shards): whoever takes a Lease lists all Leases afterwards and gives it
 * back when one of another number is held. Lists and writes of the API server are linearizable, so of two who take at
 * the same time at least one sees the other; both may give way, and try again at times of their own.
 *
 * Fairness rests on a look at all Leases every few seconds: who takes part, who holds what, and a plan that is the same
 * for all who see the same. A wrong or an old view moves a shard needlessly, or late; it never gives it to two.
 */
export class ShardRing {
  readonly #options: ShardRingOptions;
  readonly #ages: LeaseAges;
  /** Of the shards' Leases. */
  readonly #names: readonly string[];
  readonly #electors: readonly LeaderElector[];
  /** Shards that are to be tried for, once each. */
  readonly #wanted = new Set<number>();
  readonly #looked = new Notifier();
  /** By shard, since when it is free for the same owner to take, and since when ours to give away. Monotonic. */
  readonly #offered = new Map<number, { readonly to: string | null; readonly sinceMs: number }>();
  readonly #surplusSince = new Map<number, number>();
  /** By identity: replicas that did not take what was theirs. Monotonic. */
  readonly #passedOverUntil = new Map<string, number>();
  /** Shards' Leases that were held when last seen, by name. */
  readonly #lastHeld = new Map<string, Lease>();
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #underWay: Promise<unknown> = Promise.resolve();
  #next: Promise<ShardView> | undefined;
  #leaving = false;
  #mayClear = true;
  #told = "";

  constructor(options: ShardRingOptions) {
    this.#options = options;
    const { shards, name, serve } = options;
    if (!Number.isSafeInteger(shards) || shards < 1) throw new RangeError("there is at least one shard");
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
        confirm: async () => (await this.#freshLook()).foreign === null,
        onStartedLeading: (signal, fence) => serve({ shard, signal, fence }),
        onStoppedLeading: () => this.#looked.notify(),
      });
      return elector;
    });
  }

  /** Shards that this process may act for now. */
  get held(): readonly number[] {
    return this.#electors.flatMap(({ isLeader }, shard) => (isLeader ? [shard] : []));
  }

  /** Throws LeadershipLostError unless this process surely holds the Lease of this shard. */
  fence(shard: number): void {
    const elector = this.#electors[shard];
    if (!elector) throw new RangeError(`there is no shard ${shard}`);
    elector.fence();
  }

  /** Takes its part until the signal aborts, then gives everything up in order. Rejects as `serve` does. */
  async run(signal: AbortSignal): Promise<void> {
    const ending = new AbortController();
    const onAbort = () => {
      this.#leaving = true;
      ending.abort();
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    // Looks go on while shards are given up: a Lease taken at the last moment still has to be confirmed.
    const looking = new AbortController();
    const looks = this.#looks(looking.signal);
    const replica = this.#options.shards === 1 ? undefined : this.#replicaLease().run(ending.signal);
    const runs = this.#electors.map((elector) => elector.run(ending.signal));
    for (const run of runs) run.catch(onAbort);
    const ends = await Promise.allSettled(runs);
    looking.abort();
    await Promise.all([looks, replica]);
    signal.removeEventListener("abort", onAbort);
    const failure = ends.find((end) => end.status === "rejected");
    if (failure) throw failure.reason;
  }

  #replicaLease(): ReplicaLease {
    const { name: base } = this.#options;
    return new ReplicaLease({ ...this.#options, base, leaseDurationMs: LEASE_DURATION_MS });
  }

  /** Resolves when the last look said that this shard is ours to take. */
  async #turn(shard: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#wanted.has(shard)) await this.#looked.wait(signal);
    this.#wanted.delete(shard);
  }

  async #looks(signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    while (!signal.aborted) {
      if (this.#isLookDue) {
        try {
          this.#judge(await this.#freshLook());
        } catch (error) {
          if (!signal.aborted) logger.warn({ error: errorText(error) }, "the Leases could not be listed");
        }
      }
      await sleep(clock, RETRY_PERIOD_MS * (1 + (CANDIDATE_SPREAD - 1) * random()), signal);
    }
  }

  /** Of one shard, its holder has little to see: it was alone when it took it, and nobody may come after it. */
  get #isLookDue(): boolean {
    const isLone = this.#options.shards === 1 && this.#electors[0]?.isLeader === true;
    return !isLone || this.#options.clock.monotonic() - this.#lookedAtMs >= LONE_LOOK_MS;
  }

  /** A list that is sent after this call: one under way may be older than the write that is to be judged by it. */
  #freshLook(): Promise<ShardView> {
    this.#next ??= this.#afterThis();
    return this.#next;
  }

  async #afterThis(): Promise<ShardView> {
    await this.#underWay.catch(() => {});
    this.#next = undefined;
    const look = this.#look();
    this.#underWay = look;
    return await look;
  }

  async #look(): Promise<ShardView> {
    const { client, namespace, name, shards } = this.#options;
    const query = { namespace, labelSelector: LABEL_LEASE };
    const { items } = await client.list(LEASES, query, { timeoutMs: LIST_TIMEOUT_MS });
    this.#lookedAtMs = this.#options.clock.monotonic();
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
   * Leases that were deleted by hand while they were held: as good as held until they would have run out, since their
   * holder may not have noticed yet.
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

  // --- What is to be done -----------------------------------------------------------------------------------------

  #judge(view: ShardView): void {
    this.#tell(view);
    this.#wanted.clear();
    if (this.#leaving) return;
    const { identity } = this.#options;
    const holders = view.holders.map((holder, shard) => (this.#electors[shard]?.isBusy ? identity : holder));
    const members = this.#options.shards === 1 ? [identity] : this.#members(view, holders);
    this.#options.metrics?.replicas.set(members.length);
    const plan = planShards({ members, holders });
    for (const [shard, holder] of holders.entries()) {
      this.#judgeShard(shard, { holder, owner: plan[shard] ?? null, mayTake: view.foreign === null });
    }
    this.#looked.notify();
    if (this.held.length > 0) void this.#clear(view.dead);
  }

  /** Ourselves, and whoever says that it takes part and does. */
  #members(view: ShardView, holders: readonly (string | null)[]): string[] {
    const { identity, clock } = this.#options;
    for (const [member, untilMs] of this.#passedOverUntil) {
      if (clock.monotonic() >= untilMs || holders.includes(member)) this.#passedOverUntil.delete(member);
    }
    const others = view.members.filter((member) => member !== identity && !this.#passedOverUntil.has(member));
    return [...others, identity];
  }

  #judgeShard(shard: number, seen: { holder: string | null; owner: string | null; mayTake: boolean }): void {
    const { identity, clock, logger } = this.#options;
    const nowMs = clock.monotonic();
    const isOurs = seen.owner === identity;
    // A Lease of ours that nobody uses (it was taken and could not be confirmed) is nobody else's either.
    const isFree = seen.holder === null || (seen.holder === identity && !this.#electors[shard]?.isBusy);
    if (isFree && seen.mayTake && isOurs) this.#wanted.add(shard);
    // Not while nobody may take it: that says nothing about whoever should.
    if (seen.holder === null && seen.mayTake && !isOurs) this.#offer(shard, seen.owner, nowMs);
    else this.#offered.delete(shard);
    if (!this.#electors[shard]?.isLeader || isOurs) {
      this.#surplusSince.delete(shard);
      return;
    }
    const sinceMs = this.#surplusSince.get(shard) ?? nowMs;
    this.#surplusSince.set(shard, sinceMs);
    if (nowMs - sinceMs < SETTLE_MS) return;
    logger.info({ shard, to: seen.owner }, "a shard is given up for another replica's fair part");
    this.#surplusSince.delete(shard);
    this.#electors[shard]?.stepDown();
  }

  /** A shard that somebody else may take: whoever lets it lie is passed over. */
  #offer(shard: number, to: string | null, nowMs: number): void {
    const before = this.#offered.get(shard);
    if (!before || before.to !== to) this.#offered.set(shard, { to, sinceMs: nowMs });
    else if (to !== null && nowMs - before.sinceMs >= UNTAKEN_MS) {
      this.#options.logger.warn(
        { shard, replica: to },
        "a replica does not take its part: it is passed over for a while",
      );
      this.#passedOverUntil.set(to, nowMs + PASSED_OVER_MS);
    }
  }

  /** Best effort: what stays is only in the way of people who read the list. */
  async #clear(dead: readonly Lease[]): Promise<void> {
    const { client, namespace, logger } = this.#options;
    for (const { metadata } of dead) {
      const { name = "", uid, resourceVersion } = metadata;
      if (!this.#mayClear || uid === undefined || resourceVersion === undefined) return;
      try {
        await client.delete(LEASES, { namespace, name }, { uid, resourceVersion }, { timeoutMs: LIST_TIMEOUT_MS });
        logger.info({ lease: name }, "a Lease that nobody needs any more was deleted");
      } catch (error) {
        // Others clear, too. Without the right, it is no use trying.
        if (isForbidden(error)) this.#mayClear = false;
      }
    }
  }

  /** Says what changed since the last look: shards held, replicas seen, what stands in the way. */
  #tell(view: ShardView): void {
    const { logger, shards, identity } = this.#options;
    const { held } = this;
    const members = new Set([...view.members, identity]);
    const now = JSON.stringify([held, view.foreign, [...members].sort()]);
    if (now === this.#told) return;
    this.#told = now;
    if (view.foreign) {
      logger.warn(
        { shards, lease: view.foreign.lease, holder: view.foreign.holder, theirShards: view.foreign.shards },
        "a replica with another --shards holds a Lease: nothing is taken until it has ended",
      );
    } else if (shards > 1) logger.info({ held, shards, replicas: members.size }, "shards held");
  }
}
