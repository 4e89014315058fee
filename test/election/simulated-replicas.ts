/** Simulated operator replicas that compete for Leases over a faulty network, on a virtual clock. */

import type { Random } from "../../src/core/backoff.ts";
import type { Clock, Timer } from "../../src/core/clock.ts";
import type { LeaseClient } from "../../src/election/lease-record.ts";
import { type HeldShard, ShardRing } from "../../src/election/shard-ring.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { KubeList, KubeObject, Lease, LeaseSpec, Resource } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** The conditions of one process's network. */
export interface Weather {
  /** The maximum latency in one direction. */
  latencyMs: number;
  /** The chances that a request is lost, that its answer is lost, and that the server rejects it. */
  lostRequests: number;
  lostAnswers: number;
  failures: number;
}

export const FAIR: Weather = { latencyMs: 20, lostRequests: 0, lostAnswers: 0, failures: 0 };

/** The clock of one process. While paused, its timers stop; while suspended, its monotonic time stops too. */
class ProcessClock implements Clock {
  readonly #shared: VirtualClock;
  readonly #random: Random;
  readonly #held: (() => void)[] = [];
  #paused = false;
  #suspendedAt: number | null = null;
  #lostMs = 0;
  wallOffsetMs = 0;

  constructor(shared: VirtualClock, random: Random) {
    this.#shared = shared;
    this.#random = random;
  }

  get paused(): boolean {
    return this.#paused;
  }

  now(): number {
    return this.#shared.now() + this.wallOffsetMs;
  }

  monotonic(): number {
    return (this.#suspendedAt ?? this.#shared.monotonic()) - this.#lostMs;
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    let cancelled = false;
    const timer = this.#shared.setTimer(() => {
      if (!cancelled) this.run(() => void (cancelled || fn()));
    }, delayMs);
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  /** Runs now, or when the process is resumed. */
  run(fn: () => void): void {
    if (this.#paused) this.#held.push(fn);
    else fn();
  }

  pause(how: { suspended?: boolean } = {}): void {
    if (this.#paused) return;
    this.#paused = true;
    if (how.suspended) this.#suspendedAt = this.#shared.monotonic();
  }

  /** Runs the held callbacks in random order: Node may process an answer before a timer that was due earlier. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#suspendedAt !== null) this.#lostMs += this.#shared.monotonic() - this.#suspendedAt;
    this.#suspendedAt = null;
    const held = this.#held.splice(0);
    while (held.length > 0) held.splice(Math.floor(this.#random() * held.length), 1)[0]?.();
  }

  /** The process never runs again. */
  kill(): void {
    this.#paused = true;
    this.#held.length = 0;
  }
}

/** One operator process, reduced to its shards. */
export class Replica {
  readonly identity: string;
  readonly shards: number;
  readonly clock: ProcessClock;
  readonly ring: ShardRing;
  readonly weather: Weather = { ...FAIR };
  readonly metrics = createMetrics();
  /** The terms in the order they began. */
  readonly terms: HeldShard[] = [];
  /** How long the work of a term takes to end. */
  drainMs = 0;
  readonly #stop = new AbortController();
  #killed = false;
  readonly run: Promise<void>;

  constructor(world: LeaseWorld, identity: string, shards: number) {
    this.identity = identity;
    this.shards = shards;
    this.clock = new ProcessClock(world.clock, world.random);
    this.ring = new ShardRing({
      client: world.client(this),
      namespace: "berth",
      name: "berth",
      shards,
      identity,
      clock: this.clock,
      random: world.random,
      logger: silentLogger,
      metrics: this.metrics,
      serve: (held) => this.#serve(world, held),
    });
    this.run = this.ring.run(this.#stop.signal);
    this.run.catch(() => {});
  }

  /** Whether the process runs. */
  get isAwake(): boolean {
    return !this.clock.paused;
  }

  get isKilled(): boolean {
    return this.#killed;
  }

  /** The shards for which a write would pass the fence now. */
  get open(): number[] {
    return Array.from({ length: this.shards }, (_, shard) => shard).filter((shard) => {
      try {
        this.ring.fence(shard);
        return true;
      } catch {
        return false;
      }
    });
  }

  /** Whether work left over from an earlier term would pass the fence in a later term of the same shard. */
  get passesLate(): boolean {
    return this.terms.some(({ shard, fence }, at) => {
      if (!this.terms.slice(at + 1).some((later) => later.shard === shard)) return false;
      try {
        fence();
        return true;
      } catch {
        return false;
      }
    });
  }

  kill(): void {
    this.#killed = true;
    this.clock.kill();
  }

  stop(): void {
    this.#stop.abort();
  }

  async #serve(world: LeaseWorld, held: HeldShard): Promise<void> {
    this.terms.push(held);
    world.look();
    await new Promise<void>((resolve) => {
      if (held.signal.aborted) resolve();
      else held.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    if (this.drainMs > 0) await new Promise<void>((resolve) => this.clock.setTimer(resolve, this.drainMs));
  }
}

/**
 * A server with Leases, replicas with network links to it, and one clock. Each step checks that no two replicas may act
 * for the same Environment.
 */
export class LeaseWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly replicas: Replica[] = [];
  /** The requests that reached the server, with their sender. */
  readonly requests: { readonly by: string; readonly verb: string; readonly name: string }[] = [];
  mayDelete = true;
  readonly #leases = new Map<string, Lease>();
  #version = 0;
  #fault: string | null = null;

  constructor(random: Random) {
    this.random = random;
  }

  start(shards: number, identity = `replica-${this.replicas.length}`): Replica {
    const replica = new Replica(this, identity, shards);
    this.replicas.push(replica);
    return replica;
  }

  get alive(): Replica[] {
    return this.replicas.filter(({ isKilled }) => !isKilled);
  }

  lease(name: string): Lease | undefined {
    return this.#leases.get(name);
  }

  get leaseNames(): string[] {
    return [...this.#leases.keys()].sort();
  }

  /** Changes a Lease as another client would; null deletes it. */
  put(name: string, spec: LeaseSpec | null, labels?: Record<string, string>): void {
    if (spec === null) this.#leases.delete(name);
    else
      this.#store({
        ...this.#leases.get(name),
        metadata: { ...this.#leases.get(name)?.metadata, name, ...(labels ? { labels } : {}) },
        spec,
      });
  }

  /**
   * Records a violation when two replicas may act for one Environment. A throw inside a replica would only end that
   * replica.
   */
  look(): void {
    const acting = this.replicas.filter(({ isAwake, isKilled }) => isAwake && !isKilled);
    const open = acting.flatMap(({ identity, shards, open }) =>
      open.map((shard) => ({ who: identity, shards, shard })),
    );
    const divisions = new Set(open.map(({ shards }) => shards));
    if (divisions.size > 1) this.#fault ??= `fences of two divisions are open: ${JSON.stringify(open)}`;
    const doubled = open.some(({ shard }, at) => open.findIndex((other) => other.shard === shard) !== at);
    if (doubled) this.#fault ??= `two fences of one shard are open: ${JSON.stringify(open)}`;
    const stale = acting.find(({ passesLate }) => passesLate);
    if (stale) this.#fault ??= `work of an earlier term of ${stale.identity} would pass`;
  }

  /** Throws if two replicas could have acted for one Environment at any time. */
  check(): void {
    this.look();
    if (this.#fault !== null) throw new Error(this.#fault);
  }

  async pass(ms: number, stepMs = 250): Promise<void> {
    for (const end = this.clock.monotonic() + ms; this.clock.monotonic() < end; ) {
      await this.clock.advance(Math.min(stepMs, end - this.clock.monotonic()));
      this.check();
    }
  }

  async until(what: string, condition: () => boolean, boundMs = 120_000): Promise<number> {
    const from = this.clock.monotonic();
    while (!condition()) {
      if (this.clock.monotonic() - from > boundMs)
        throw new Error(`not within ${boundMs} ms: ${what}; ${this.describe()}`);
      await this.pass(250);
    }
    return this.clock.monotonic() - from;
  }

  /** The number of shards of each live replica, the largest first. */
  get parts(): number[] {
    return this.alive.map(({ open }) => open.length).sort((a, b) => b - a);
  }

  describe(): string {
    return JSON.stringify(
      this.replicas.map(({ identity, shards, open, isKilled }) => ({ identity, shards, open, isKilled })),
    );
  }

  async end(): Promise<void> {
    for (const replica of this.alive) {
      replica.clock.resume();
      Object.assign(replica.weather, FAIR);
      replica.stop();
    }
    let ended = false;
    void Promise.allSettled(this.alive.map(({ run }) => run)).then(() => {
      ended = true;
    });
    while (!ended) await this.pass(500, 500);
  }

  // --- The server -------------------------------------------------------------------------------------------------

  client(replica: Replica): LeaseClient {
    const send = <T>(verb: string, name: string, o: { timeoutMs?: number; signal?: AbortSignal }, act: () => T) =>
      this.#send(replica, { verb, name, write: verb !== "get" && verb !== "list" }, o, act);
    const client = {
      get: (_: Resource, ref: { name: string }, o = {}) => send("get", ref.name, o, () => this.#find(ref.name)),
      list: (_: Resource, _query: unknown, o = {}) =>
        send(
          "list",
          "",
          o,
          (): KubeList<Lease> => ({
            metadata: { resourceVersion: String(this.#version) },
            items: structuredClone(
              [...this.#leases.values()].filter(({ metadata }) => metadata.labels?.["berth.dev/lease"]),
            ),
          }),
        ),
      create: (_: Resource, object: KubeObject, _query: unknown, o = {}) =>
        send("create", object.metadata.name ?? "", o, () => {
          if (this.#leases.has(object.metadata.name ?? "")) throw refusal(409, "AlreadyExists");
          return this.#store(object as Lease);
        }),
      replace: (_: Resource, object: KubeObject, _query: unknown, o = {}) =>
        send("update", object.metadata.name ?? "", o, () => {
          const known = this.#find(object.metadata.name ?? "");
          if (known.metadata.resourceVersion !== object.metadata.resourceVersion) throw refusal(409, "Conflict");
          return this.#store(object as Lease);
        }),
      delete: (_: Resource, ref: { name: string }, q: { uid?: string; resourceVersion?: string } = {}, o = {}) =>
        send("delete", ref.name, o, () => {
          if (!this.mayDelete) throw refusal(403, "Forbidden");
          const { metadata } = this.#find(ref.name);
          if (q.uid !== undefined && q.uid !== metadata.uid) throw refusal(409, "Conflict");
          if (q.resourceVersion !== undefined && q.resourceVersion !== metadata.resourceVersion)
            throw refusal(409, "Conflict");
          this.#leases.delete(ref.name);
        }),
    };
    return client as unknown as LeaseClient;
  }

  #find(name: string): Lease {
    const lease = this.#leases.get(name);
    if (!lease) throw refusal(404, "NotFound");
    return structuredClone(lease);
  }

  #store(lease: Lease): Lease {
    this.#version += 1;
    const { name = "", uid = `uid-${this.#version}` } = lease.metadata;
    const stored = structuredClone({
      ...lease,
      metadata: { ...lease.metadata, uid, resourceVersion: String(this.#version) },
    });
    this.#leases.set(name, stored);
    return structuredClone(stored);
  }

  #send<T>(
    replica: Replica,
    request: { verb: string; name: string; write: boolean },
    o: { timeoutMs?: number; signal?: AbortSignal },
    act: () => T,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const { latencyMs, lostRequests, lostAnswers, failures } = replica.weather;
    const after = (fn: () => void) => void this.clock.setTimer(fn, latencyMs * this.random());
    const give = (fn: () => void) => {
      if (!replica.isKilled) replica.clock.run(fn);
    };
    const noAnswer = () => reject(new KubeApiError("no answer", { status: 0, maybeApplied: request.write }));
    if (this.random() >= lostRequests) {
      after(() => {
        this.requests.push({ by: replica.identity, verb: request.verb, name: request.name });
        let answer: () => void;
        try {
          if (this.random() < failures) throw refusal(500, "InternalError");
          const value = act();
          answer = () => resolve(value);
        } catch (error) {
          answer = () => reject(error);
        }
        this.look();
        if (this.random() >= lostAnswers) after(() => give(answer));
      });
    }
    replica.clock.setTimer(noAnswer, o.timeoutMs ?? 30_000);
    o.signal?.addEventListener("abort", noAnswer, { once: true });
    return promise;
  }
}

function refusal(status: number, reason: string): KubeApiError {
  return new KubeApiError(reason, { status, reason });
}
