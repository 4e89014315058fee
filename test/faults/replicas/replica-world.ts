import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { SimulatorOptions } from "../../../simulator/simulator.ts";
import { LABEL_PHASE } from "../../../src/api/names.ts";
import { type Clock, realClock, sleep } from "../../../src/core/clock.ts";
import { shardLeaseName } from "../../../src/election/shard-leases.ts";
import { loadKubeConfig } from "../../../src/kube/config.ts";
import { LEASES, type Lease } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { FateInput } from "../../../testbed/node/node.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { ManyEnvironments } from "../../support/many-environments.ts";
import { OWN_PACE } from "../../support/operator-lease-pace.ts";
import { startWorld, type World } from "../../support/world.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { claimsCounted, Replica } from "./replica.ts";
import { type Passing, RequestProxy, readKubeRequest, readWorkRequest } from "./request-proxy.ts";

/** Lines of each replica's log in the message of a failure. */
const LINES_TOLD = 25;

export interface ReplicaWorldOptions {
  /** The side that sends heartbeats; Worker by default. */
  readonly lease?: "Worker" | "Operator";
  /** 1, the default, is plain leader election. */
  readonly shards?: number;
  /** 1 by default. */
  readonly environments?: number;
  readonly fates?: () => FateInput;
  readonly sessions?: Record<string, unknown>;
  readonly spec?: Record<string, unknown>;
  /** Overrides the time scale that the kind of lease implies. */
  readonly timeScale?: number;
  readonly simulator?: SimulatorOptions;
}

export interface ReplicaOptions {
  /** As in the world's options, unless a rollout changes it. */
  readonly shards?: number;
  /** How far this process's wall clock is ahead. */
  readonly wallOffsetMs?: number;
}

/**
 * Several replicas on one or more Environments. Each of their requests passes a proxy that a scenario can make behave
 * like a faulty network. At the end `finish` checks every promise against what happened.
 */
export class ReplicaWorld implements AsyncDisposable {
  readonly world: World;
  readonly many: ManyEnvironments;
  readonly kube: RequestProxy;
  readonly work: RequestProxy;
  readonly replicas: Replica[] = [];
  readonly #shards: number;
  readonly #dir: string;
  #arrived: Promise<number> = Promise.resolve(0);

  private constructor(parts: {
    world: World;
    many: ManyEnvironments;
    kube: RequestProxy;
    work: RequestProxy;
    shards: number;
    dir: string;
  }) {
    this.world = parts.world;
    this.many = parts.many;
    this.kube = parts.kube;
    this.work = parts.work;
    this.#shards = parts.shards;
    this.#dir = parts.dir;
  }

  static async start(cluster: TestCluster, options: ReplicaWorldOptions = {}): Promise<ReplicaWorld> {
    const { lease = "Worker", shards = 1, environments = 1, sessions, spec, timeScale, simulator } = options;
    const ofOperator = lease === "Operator";
    const fates = options.fates ?? (() => (ofOperator ? { kind: "exit", afterMs: 3_000 } : BUSY_WORKER));
    const world = await startWorld(cluster, {
      ...(ofOperator && OWN_PACE),
      ...(timeScale !== undefined && { timeScale }),
      ...(simulator && { simulator }),
      node: { fates },
      sessions: { lease, warm: 2, maxConcurrent: 6, ...sessions },
      ...(spec && { spec }),
    });
    const access = loadKubeConfig(cluster.operatorKubeconfig);
    const { ca, auth } = access;
    const kube = await RequestProxy.start({ url: access.server, ca, auth, read: readKubeRequest });
    const work = await RequestProxy.start({ url: world.simulator.url, read: readWorkRequest });
    const many = await ManyEnvironments.create(world, environments, { baseUrl: work.url });
    const dir = await mkdtemp(join(tmpdir(), "berth-replicas-"));
    const text = await readFile(cluster.operatorKubeconfig, "utf8");
    await writeFile(join(dir, "kubeconfig"), text.replaceAll(access.server, kube.url), { mode: 0o600 });
    return new ReplicaWorld({ world, many, kube, work, shards, dir });
  }

  /** Starts another replica. */
  async replica(options: ReplicaOptions = {}): Promise<Replica> {
    const flags = [
      ...["--shards", String(options.shards ?? this.#shards)],
      ...["--kubeconfig", join(this.#dir, "kubeconfig")],
      ...["--allowed-api-origins", this.work.url],
    ];
    const { wallOffsetMs } = options;
    const { process } = await this.world.startOperatorProcess({
      leaderElect: true,
      flags,
      ...(wallOffsetMs !== undefined && { wallOffsetMs }),
    });
    const replica = new Replica(this, process);
    this.replicas.push(replica);
    await this.until("it says who it is", () => replica.said("berth starts"));
    return replica;
  }

  /** Enqueues work to every queue for this long, concurrently with everything else. */
  load(plan: { ratePerSecond: number; durationSeconds: number; seed: number }): void {
    this.#arrived = this.many.arrivals(plan);
  }

  until<T>(what: string, predicate: () => T | undefined | null | false | Promise<T | undefined | null | false>) {
    return this.world.until(what, predicate, PATIENCE_MS);
  }

  /** The Leases of shards. */
  async leases(): Promise<Lease[]> {
    const { namespace, kube } = this.world;
    return (await kube.list(LEASES, { namespace, labelSelector: "berth.dev/lease=shard" })).items;
  }

  /** Waits until only these replicas hold all shards. */
  untilHeldBy(...replicas: readonly Replica[]): Promise<unknown> {
    const identities = new Set(replicas.map(({ identity }) => identity));
    return this.until(`all shards are held by ${[...identities].join(", ")}`, async () => {
      const holders = [...(await this.many.holders()).values()];
      const held = holders.length >= this.#shards && holders.every((holder) => identities.has(holder));
      return held && new Set(holders).size === identities.size;
    });
  }

  /** Waits until these replicas hold each of the shards, and no replica holds a shard of another division. */
  untilWellDivided(shards: number, replicas: readonly Replica[]): Promise<unknown> {
    const identities = new Set(replicas.map(({ identity }) => identity));
    return this.until(`${shards} shards are held by ${[...identities].join(", ")}`, async () => {
      const holders = [...(await this.many.holders()).entries()];
      const names = Array.from({ length: shards }, (_, shard) => shardLeaseName("berth", shard, shards));
      return holders.length === shards && holders.every(([name, by]) => names.includes(name) && identities.has(by));
    });
  }

  /** Waits until a session runs that this replica claimed. */
  untilServing(replica: Replica): Promise<unknown> {
    const claimed = (workerId: string | undefined) => workerId?.includes(replica.identity) ?? false;
    return this.until(`a session of ${replica.identity} runs`, () =>
      this.many.items.some(({ state, acks }) => state === "active" && claimed(acks.at(-1)?.workerId)),
    );
  }

  /**
   * Waits until a leading replica acknowledges another item. Adds one to each queue, because the load may have ended.
   */
  async untilClaiming(replica: Replica): Promise<void> {
    const isAck = (passing: Passing) => passing.call === "ack" && replica.is(passing);
    const before = this.work.passed.filter(isAck).length;
    for (const id of this.many.ids.values()) this.world.simulator.enqueue(id);
    await this.until(`${replica.identity} claims`, () => this.work.passed.filter(isAck).length > before);
  }

  /**
   * Checks that a replica without a Lease changes nothing from now on. Ends when the replica leads again, or when
   * `looks` more lists of the Leases show that it is healthy and on standby.
   */
  async expectSilent(replica: Replica, looks = 3): Promise<void> {
    const lines = replica.log.length;
    const sent = replica.writes.length;
    const until = replica.looks + looks;
    const leads = () => replica.said("started leading", lines);
    let seen = replica.writes;
    await this.until(`${replica.identity} is on standby`, () => {
      const now = replica.writes;
      if (leads()) return true;
      seen = now;
      return replica.looks >= until;
    });
    const acts = seen.slice(sent).map(({ call, path }) => `${call} ${path}`);
    expect(acts, "writes of a replica that had lost its Lease").toEqual([]);
  }

  /** Waits until everything that arrived is served, once each. @returns the number of items */
  async untilServed(): Promise<number> {
    const count = await this.#arrived;
    await this.until(`${count} items served and settled`, () => {
      const { items } = this.many;
      const settled = items.length >= count && items.every(({ state }) => state === "stopped");
      return settled && this.world.claims.length === 0;
    });
    this.expectServedOnce();
    return this.many.items.length;
  }

  /**
   * Waits until everything that arrived is served, once each. Then deleting the Environments, stops the replicas in
   * order, and checks that nothing is left.
   */
  async finish(): Promise<void> {
    await this.untilServed();
    const { world } = this;
    await this.until("only free Pods are left", () =>
      world.pods.every(({ metadata }) => metadata.labels?.[LABEL_PHASE] === "warm"),
    );
    for (const name of this.many.ids.keys())
      await world.kube.delete(ENVIRONMENTS, { namespace: world.namespace, name });
    await this.until("nothing is left of the Environments", async () => {
      const { items } = await world.kube.list(ENVIRONMENTS, { namespace: world.namespace });
      return items.length === 0 && world.pods.length === 0 && world.claims.length === 0;
    });
    const codes = await Promise.all(this.replicas.map(({ process }) => process.stop()));
    // Replicas that a scenario killed have ended by that signal.
    expect(codes.filter((code) => code !== 0 && code !== "SIGKILL")).toEqual([]);
    const held = (await this.leases()).filter(({ spec }) => spec?.holderIdentity);
    expect(held.map(({ metadata, spec }) => [metadata.name, spec?.holderIdentity])).toEqual([]);
    world.simulator.assertNoViolations();
  }

  expectServedOnce(): void {
    this.world.simulator.assertNoViolations();
    const { items } = this.many;
    expect(
      items.filter(({ acks }) => acks.length !== 1).map(({ id, acks, history }) => ({ id, acks, history })),
      "items that were not acknowledged once",
    ).toEqual([]);
    expect(
      items.filter(({ firstBeatAt }) => firstBeatAt === undefined).map(({ id, history }) => ({ id, history })),
      "items that were not served",
    ).toEqual([]);
    // A fence whose answer was lost is refused when the operator sends it again. Only for an item that its worker ended
    // is a refusal wrong.
    const ofWorkers = items.filter(({ stoppedBy }) => stoppedBy?.as === "sessions-token");
    expect(
      ofWorkers.filter(({ refusedBeats }) => refusedBeats > 0).map(({ id, history }) => ({ id, history })),
      "items with heartbeats of a second holder",
    ).toEqual([]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A stopped process does not receive SIGTERM.
    for (const { process } of this.replicas) process.signal("SIGCONT");
    await Promise.all(this.replicas.map(({ process }) => process.kill()));
    await this.world[Symbol.asyncDispose]();
    await Promise.all([this.kube[Symbol.asyncDispose](), this.work[Symbol.asyncDispose]()]);
    await rm(this.#dir, { recursive: true });
  }

  /**
   * The message of a failure: items that are not served, what each replica logged about them, and the end of each log.
   */
  async describe(): Promise<string> {
    const unserved = this.many.items.filter(({ state }) => state !== "stopped");
    const ids = unserved.map(({ id }) => id);
    const items = unserved.map(
      ({ id, state, offers, acks }) => `${id} ${state}, ${offers.length} offers, ${acks.length} acks`,
    );
    const logs = this.replicas.map(async ({ identity, log, process }) => {
      const recent = log.filter((line, at) => at >= log.length - LINES_TOLD || ids.includes(String(line["workId"])));
      const lines = [...(await claimsCounted(process)), ...recent.map((line) => JSON.stringify(line))];
      return `${identity}\n  ${lines.join("\n  ")}`;
    });
    return `not served: ${items.join("; ") || "none"}\n${(await Promise.all(logs)).join("\n")}`;
  }
}

/**
 * For scenarios with late requests. A new holder lists the claim records again some time after it starts, and that
 * delay must be longer than the requests are late.
 */
export const LATE_PACE = { timeScale: 4 } as const;

const BUSY_WORKER: FateInput = { kind: "worker", workMs: { min: 100, max: 3_000 } };

/** A random moment, never a wait for something. */
export function pause(ms: number, clock: Clock = realClock): Promise<unknown> {
  return sleep(clock, ms);
}
