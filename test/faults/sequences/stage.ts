import { realClock, sleep } from "../../../src/core/clock.ts";
import { isAlreadyExists, isNotFound } from "../../../src/kube/errors.ts";
import { type Pod, SECRETS } from "../../../src/kube/resource.ts";
import type { TestCluster } from "../../support/cluster.ts";
import type { World } from "../../support/world.ts";
import type { Fates } from "./fates.ts";
import { Log, Replica } from "./replica.ts";
import type { Witness } from "./witness.ts";

/**
 * Lease lengths that fit SHORT_LEASE's timers, whichever side sends heartbeats. Starting items expire later: the claim
 * window belongs to the server and is not scaled, so an item whose acknowledgement got no answer is opened after 5 s at
 * the earliest.
 */
export const LIMITS = { ttlSeconds: 8, minTtlSeconds: 8, maxTtlSeconds: 8, startingTimeoutSeconds: 20 } as const;

/** The node is faster than a real one by this factor. */
export const NODE_TIME_SCALE = 4;

/** Many worlds start at the same time. */
export const STARTS_MS = 300_000;

/**
 * How long a step waits for what it needs, such as a running session or a parked Pod. Without it, the step has no
 * effect.
 */
const AIM_MS = 5_000;
const LOOK_MS = 50;

/** The parts of a world's setting that both modes draw. */
export interface CommonSetting {
  /** One operator, or two with a leader election. */
  readonly replicas: 1 | 2;
  readonly switches: {
    readonly secondAck: "refused" | "unchanged" | "renewed";
    readonly lapse: "requeue" | "stop";
    readonly starting: "expires" | "never";
    readonly lapsedStopping: "stays" | "ends";
    readonly stoppingBeat: "extends" | "ignored";
    readonly requeueId: "kept" | "new";
    readonly listOrder: "newest" | "oldest" | "shuffled";
    readonly listKeepsStopped: 3 | null;
    readonly stopReply: "empty" | "work";
  };
}

/** One Environment in its own namespace, the replicas that serve it, and everything that observes it. */
export abstract class Stage implements AsyncDisposable {
  readonly world: World;
  readonly log = new Log();
  abstract readonly setting: CommonSetting;
  // biome-ignore lint/suspicious/noExplicitAny: each mode has its own kinds.
  abstract readonly fates: Fates<any>;
  abstract readonly witness: Witness;
  /** The running replicas, oldest first. */
  replicas: Replica[] = [];
  readonly #cluster: TestCluster;
  readonly #onStruck: (kind: string) => void;
  readonly #ended: Replica[] = [];
  readonly #later = new Set<Promise<unknown>>();
  readonly #leaving = new AbortController();
  #started = 0;

  protected constructor(parts: { world: World; cluster: TestCluster; onStruck: (kind: string) => void }) {
    this.world = parts.world;
    this.#cluster = parts.cluster;
    this.#onStruck = parts.onStruck;
    this.world.simulator.on("fault", ({ fault }) => parts.onStruck(apiKind(fault)));
  }

  /** Creates the Environment as the setting says. */
  abstract createEnvironment(): Promise<void>;

  /** Pods that serve a session now and are not being deleted. */
  abstract busyPods(): Pod[];

  /** Merges into the spec. */
  async patchSpec(patch: Record<string, unknown>): Promise<void> {
    await this.world.patchSpec(patch);
  }

  /** Creates the Environment, and starts as many replicas as the setting says. */
  protected async begin(): Promise<void> {
    await this.createEnvironment();
    for (let n = 0; n < this.setting.replicas; n += 1) await this.startReplica();
    await this.world.until("it is served", () => this.world.condition("Ready")?.status === "True", STARTS_MS);
  }

  async startReplica(): Promise<Replica> {
    this.#started += 1;
    const replica = await Replica.start(this.world, this.#cluster, {
      name: `operator-${this.#started}`,
      leaderElect: this.setting.replicas > 1,
      log: this.log,
      onStrike: this.#onStruck,
    });
    this.replicas.push(replica);
    return replica;
  }

  kill(replica: Replica): void {
    this.#leave(replica);
    replica.kill();
    this.witness.kills += 1;
  }

  async end(replica: Replica): Promise<void> {
    this.#leave(replica);
    await replica.stop();
  }

  /** Does something after a delay, or when the faults end, whichever comes first; always before the final check. */
  later(ms: number, act: () => Promise<void> | void): void {
    const done = sleep(realClock, ms, this.#leaving.signal).then(act);
    this.#later.add(done);
    void done.then(
      () => this.#later.delete(done),
      // `#settleLater` reports the failure.
      () => {},
    );
  }

  /** Gives pending faults some time to strike. */
  async linger(): Promise<void> {
    const isOver = () =>
      this.world.simulator.faults().length === 0 && this.replicas.every(({ proxy }) => !proxy.hasFaults);
    await this.aim(() => isOver() || undefined);
  }

  /** Ends all faults, and restores everything except the spec. */
  async fix(): Promise<void> {
    const { world } = this;
    this.fates.calm();
    world.simulator.clearFaults();
    await this.#settleLater();
    for (const { clock, proxy } of this.replicas) {
      clock.goOn();
      clock.setWall(0);
      proxy.clear();
    }
    await world.node.cordon(false);
    await this.writeKey(world.simulator.environmentKey(world.environmentId));
    if (this.replicas.length === 0) await this.startReplica();
  }

  /** Runs all delayed acts now. */
  async #settleLater(): Promise<void> {
    this.#leaving.abort();
    await Promise.all(this.#later);
  }

  /** Waits a short time for something to act on. */
  async aim<T>(find: () => T | undefined): Promise<T | undefined> {
    const until = realClock.monotonic() + AIM_MS;
    for (;;) {
      const found = find();
      if (found !== undefined || realClock.monotonic() > until) return found;
      await sleep(realClock, LOOK_MS);
    }
  }

  /** Writes the Secret of the environment key, whatever state it is in. */
  async writeKey(key: string): Promise<void> {
    const { kube, namespace } = this.world;
    const ref = { namespace, name: "key" };
    try {
      await kube.patch(SECRETS, ref, { stringData: { "environment-key": key } }, { type: "merge" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await this.world.createKey(key).catch(async (failed: unknown) => {
        // An earlier step has just created it again.
        if (!isAlreadyExists(failed)) throw failed;
        await this.writeKey(key);
      });
    }
  }

  /** Deletes the Environment, waits until it is gone, and creates it again. */
  async remake(): Promise<void> {
    this.witness.environmentDeleted = true;
    await this.world.deleteEnvironment();
    await this.world.until("the Environment is gone", () => !this.world.environment, STARTS_MS);
    await this.createEnvironment();
    await this.world.until("the Environment exists again", () => this.world.environment, STARTS_MS);
    this.witness.environmentDeleted = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    this.world.simulator.clearFaults();
    await Promise.allSettled(this.#later);
    await Promise.all([...this.replicas, ...this.#ended].map((replica) => replica.stop()));
    await this.world[Symbol.asyncDispose]();
  }

  #leave(replica: Replica): void {
    this.replicas = this.replicas.filter((other) => other !== replica);
    this.#ended.push(replica);
  }
}

/** The kind of step that added a fault of the simulator. */
function apiKind(fault: { kind: string; status?: number }): string {
  switch (fault.kind) {
    case "status":
      return fault.status === 429 ? "api:429" : "api:5xx";
    case "reset":
      return "api:reset";
    case "lost-reply":
      return "api:lost-reply";
    case "hang":
      return "api:hang";
    case "latency":
      return "api:slow";
    case "duplicate-offer":
      return "api:duplicate-offer";
    default:
      return "api:nonsense";
  }
}
