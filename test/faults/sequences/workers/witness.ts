import type { ItemRecord } from "../../../../simulator/item.ts";
import type { Violation } from "../../../../simulator/violations.ts";
import { ANNOTATION_DELETION_COST } from "../../../../src/api/names.ts";
import { realClock } from "../../../../src/core/clock.ts";
import type { Deployment, Pod } from "../../../../src/kube/resource.ts";
import { VICTIM_COST } from "../../../../src/workers/shrink.ts";
import type { World } from "../../../support/world.ts";
import { Witness } from "../witness.ts";

/**
 * A worker that acknowledged its item this shortly before a scale-down may be ended by it. A few requests lie between
 * the worker's last busy answer and the scale-down (docs/workers.md), and they take longer when many worlds share a
 * machine. The same applies to the queue's length.
 */
const WINDOW_MS = 5_000;

/** The controllers act on a lower replica count within this time, even on a busy machine. */
const ACTS_MS = 15_000;

/** The operator's only calls to a Work API whose items workers claim themselves. */
const READS: ReadonlySet<string | undefined> = new Set(["stats", "list"]);

/** The observed part of the spec. */
interface Spec {
  readonly maxReplicas: number;
  readonly sessionsPerReplica: number;
}

/** The requested number of workers of one Environment. */
interface Count {
  readonly owner: string;
  readonly replicas: number;
  /** A new template is replacing another one. */
  readonly isHandingOver: boolean;
}

/** The operator's own id ends with the uid of its Environment; ids of workers are names of Pods. */
const OPERATOR = /-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What must hold at every moment for an Environment whose workers poll themselves. */
export class WorkersWitness extends Witness {
  /** The highest requested number of workers since this was last set. */
  peak = 0;
  #most: number;
  #specChangedMs = Number.NEGATIVE_INFINITY;
  #last: Count | undefined;
  /** The replicas of each Deployment by uid, as last seen. */
  #replicas = new Map<string, number>();
  /** The uids of Deployments with earlier templates. */
  #earlier: ReadonlySet<string> = new Set();
  /** When the replicas of a Deployment were last lowered, on the simulator's clock. */
  #loweredAt = Number.NEGATIVE_INFINITY;
  /** When a worker was first seen with the operator's mark for removal, by uid, on the simulator's clock. */
  readonly #markedAt = new Map<string, number>();
  /** The number of live items at each change. */
  readonly #live: { readonly atMs: number; readonly count: number }[] = [];
  #spec: Spec;

  constructor(world: World, setting: Spec) {
    super(world);
    this.#most = setting.maxReplicas;
    this.#spec = setting;
    this.watch();
    world.simulator.on("item", () => this.#countLive());
    world.simulator.on("request", ({ workerId, call, path }) => {
      if (!OPERATOR.test(workerId ?? "")) return;
      const wrong = !READS.has(call) && `the operator asked for ${path}`;
      this.check("only workers claim, send heartbeats and stop", wrong);
    });
  }

  /**
   * Announces a change of the spec. `template`: the template changes too, so that all existing Deployments will be
   * replaced.
   */
  specChanges(workers: Spec, { template }: { readonly template: boolean }): void {
    if (template) this.#earlier = new Set(this.#replicas.keys());
    this.#specChangedMs = realClock.monotonic();
    this.#spec = workers;
    this.allows(workers.maxReplicas);
  }

  /** Another client requests this many replicas. */
  allows(replicas: number): void {
    this.#most = Math.max(this.#most, replicas);
  }

  /** The item that this worker serves. */
  itemOf({ metadata }: Pod): ItemRecord | undefined {
    const { simulator, environmentId } = this.world;
    return simulator
      .items(environmentId)
      .find((item) => this.isHeld(item) && item.acks.at(-1)?.workerId === metadata.name);
  }

  /** Whether this worker may serve an item, however late its heartbeats are. */
  mayServe({ metadata }: Pod): boolean {
    const { simulator, environmentId } = this.world;
    const live = simulator.items(environmentId).filter(({ state }) => state !== "stopped");
    return live.some(({ acks }) => acks.at(-1)?.workerId === metadata.name);
  }

  /** Called with all Deployments at every change of one. */
  deploymentsChanged(all: readonly Deployment[]): void {
    this.#noteLowered(all);
    const owners = Map.groupBy(
      all.filter(({ metadata }) => metadata.deletionTimestamp === undefined),
      ({ metadata }) => metadata.ownerReferences?.[0]?.uid ?? "",
    );
    for (const each of all) this.checkForLeaks(`Deployment ${each.metadata.name}`, JSON.stringify(each));
    for (const [owner, deployments] of owners) {
      const replicas = deployments.reduce((sum, { spec }) => sum + (spec.replicas ?? 1), 0);
      this.#countWorkers(replicas);
      const isHandingOver =
        deployments.length > 1 || deployments.some(({ metadata }) => this.#earlier.has(metadata.uid ?? ""));
      this.#compare({ owner, replicas, isHandingOver });
    }
  }

  #noteLowered(all: readonly Deployment[]): void {
    const now = new Map(
      all.map(({ metadata, spec }) => [metadata.uid ?? "", metadata.deletionTimestamp ? 0 : (spec.replicas ?? 1)]),
    );
    const isLower = [...this.#replicas].some(([uid, replicas]) => (now.get(uid) ?? 0) < replicas);
    if (isLower) this.#loweredAt = this.world.simulator.clock.now();
    this.#replicas = now;
  }

  #countWorkers(replicas: number): void {
    this.peak = Math.max(this.peak, replicas);
    // A scale-up that a killed operator requested may take effect later.
    const most = this.#most * (1 + this.kills);
    const wrong = replicas > most && `${replicas} at a time, at most ${most} are allowed`;
    this.check("no more workers than maxReplicas", wrong);
  }

  /** Checks each decrease. While one template replaces another, the sum goes up and down. */
  #compare(now: Count): void {
    const before = this.#last;
    this.#last = now;
    const isLess = before?.owner === now.owner && now.replicas < before.replicas;
    if (!isLess || before.isHandingOver || now.isHandingOver) return;
    const nowMs = realClock.monotonic();
    if (this.isExcused || this.kubeTroubled || this.environmentDeleted) return;
    if (nowMs - this.#specChangedMs < WINDOW_MS || this.world.environment?.spec.paused) return;
    const wanted = Math.ceil(this.#leastLive(nowMs) / this.#spec.sessionsPerReplica);
    const least = Math.min(this.#spec.maxReplicas, wanted);
    const wrong = now.replicas < least && `from ${before.replicas} to ${now.replicas}, with work for ${least}`;
    this.check("no worker taken away that the queue asks for", wrong);
  }

  /** Workers claim themselves, and are late on a busy machine. */
  protected override isOurs({ by }: Violation): boolean {
    return OPERATOR.test(by.workerId ?? "");
  }

  protected override podsChanged(pods: readonly Pod[]): void {
    for (const { metadata } of pods) {
      const { uid = "", annotations } = metadata;
      if (annotations?.[ANNOTATION_DELETION_COST] !== VICTIM_COST) this.#markedAt.delete(uid);
      else if (!this.#markedAt.has(uid)) this.#markedAt.set(uid, this.world.simulator.clock.now());
    }
  }

  protected override podDeleted(pod: Pod): void {
    const item = this.itemOf(pod);
    const now = this.world.simulator.clock.now();
    const loweredAt = now - this.#loweredAt < ACTS_MS ? this.#loweredAt : now;
    // The operator last probed the worker before it marked it.
    const decidedAt = Math.min(loweredAt, this.#markedAt.get(pod.metadata.uid ?? "") ?? now);
    const isBusy = item !== undefined && (item.acks.at(-1)?.at ?? now) < decidedAt - WINDOW_MS;
    const wrong = isBusy && !this.isExcusedFor(pod) && `${pod.metadata.name} with ${item.id}`;
    this.check("4 no busy worker ended by a change", wrong);
  }

  #countLive(): void {
    const { simulator, environmentId } = this.world;
    const count = simulator.items(environmentId).filter(({ state }) => state !== "stopped").length;
    this.#live.push({ atMs: realClock.monotonic(), count });
  }

  /** The lowest recent number of live items. */
  #leastLive(nowMs: number): number {
    const sinceMs = nowMs - WINDOW_MS;
    const from = this.#live.findLastIndex(({ atMs }) => atMs <= sinceMs);
    return Math.min(
      ...this.#live.slice(Math.max(0, from)).map(({ count }) => count),
      from < 0 ? 0 : Number.POSITIVE_INFINITY,
    );
  }
}
