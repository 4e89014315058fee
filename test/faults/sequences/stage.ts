import { realClock, sleep } from "../../../src/core/clock.ts";
import { isAlreadyExists, isNotFound } from "../../../src/kube/errors.ts";
import { type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { GATE_CONTAINER } from "../../../src/sessions/pod-gate.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { SHORT_LEASE } from "../../support/session-life.ts";
import { startWorld, type World } from "../../support/world.ts";
import { Fates } from "./fates.ts";
import { Log, Replica } from "./replica.ts";
import type { Kind, Setting } from "./steps.ts";
import { Witness } from "./witness.ts";

/**
 * Leases of the lengths that fit SHORT_LEASE's timers, whoever beats. Starting items expire later: the window of a claim is the
 * server's and is not scaled, so that one whose acknowledgement got no answer is opened 5 s after it at the earliest.
 */
const LIMITS = { ttlSeconds: 8, minTtlSeconds: 8, maxTtlSeconds: 8, startingTimeoutSeconds: 20 } as const;

/** The node is this much faster than life. */
const NODE_TIME_SCALE = 4;

/** Many worlds start at the same time. */
const STARTS_MS = 300_000;

/** How long a step waits for what it needs: a session under way, a parked Pod. Without it nothing happens. */
const AIM_MS = 5_000;
const LOOK_MS = 50;

/** One Environment in a namespace of its own, the replicas that serve it, and all that is seen of it. */
export class Stage implements AsyncDisposable {
  readonly world: World;
  readonly setting: Setting;
  readonly fates: Fates;
  readonly witness: Witness;
  readonly log = new Log();
  /** Those that run, the oldest first. */
  replicas: Replica[] = [];
  readonly #cluster: TestCluster;
  readonly #onStruck: (kind: Kind) => void;
  readonly #ended: Replica[] = [];
  readonly #later = new Set<Promise<unknown>>();
  readonly #leaving = new AbortController();
  #started = 0;

  private constructor(parts: {
    world: World;
    cluster: TestCluster;
    setting: Setting;
    fates: Fates;
    onStruck: (kind: Kind) => void;
  }) {
    this.world = parts.world;
    this.setting = parts.setting;
    this.fates = parts.fates;
    this.#cluster = parts.cluster;
    this.#onStruck = parts.onStruck;
    this.witness = new Witness(parts.world, parts.setting);
    this.world.simulator.on("fault", ({ fault }) => {
      const kind = apiKind(fault);
      if (kind) parts.onStruck(kind);
    });
  }

  /** @param onStruck told each kind of step as it takes effect. */
  static async start(
    cluster: TestCluster,
    setting: Setting,
    seed: number,
    onStruck: (kind: Kind) => void,
  ): Promise<Stage> {
    const fates = new Fates(onStruck);
    const world = await startWorld(cluster, {
      timeScale: SHORT_LEASE.timeScale,
      simulator: { limits: LIMITS, switches: setting.switches, seed, adminToken: "remembers credentials" },
      node: {
        seed,
        timeScale: NODE_TIME_SCALE,
        runtime: (_pod, { name }) => (name === GATE_CONTAINER ? "process" : "scripted"),
        fates: (pod, { name }) => (name === GATE_CONTAINER ? undefined : fates.of(pod)),
      },
      spec: { deletionGraceSeconds: 2 },
      sessions: sessionsOf(setting),
    });
    const stage = new Stage({ world, cluster, setting, fates, onStruck });
    await world.createEnvironment();
    for (let n = 0; n < setting.replicas; n += 1) await stage.startReplica();
    await world.until("it is served", () => world.condition("Ready")?.status === "True", STARTS_MS);
    if (setting.warm > 0) await world.until("a Pod is parked", () => world.parked.length > 0, STARTS_MS);
    return stage;
  }

  async startReplica(): Promise<Replica> {
    this.#started += 1;
    const replica = await Replica.start(this.world, this.#cluster, {
      name: `operator-${this.#started}`,
      leaderElect: this.setting.replicas > 1,
      log: this.log,
      onStrike: (kind) => this.#onStruck(kind as Kind),
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

  /** Does something in a while, or when the faults end, whichever comes first; always before the check. */
  later(ms: number, act: () => Promise<void> | void): void {
    const done = sleep(realClock, ms, this.#leaving.signal).then(act);
    this.#later.add(done);
    void done.then(
      () => this.#later.delete(done),
      // Told when everything that comes later is waited for.
      () => {},
    );
  }

  /** Everything that was to come later has come. */
  async settleLater(): Promise<void> {
    this.#leaving.abort();
    await Promise.all(this.#later);
  }

  /** Waits a little for something to act on. */
  async aim<T>(find: () => T | undefined): Promise<T | undefined> {
    const until = realClock.monotonic() + AIM_MS;
    for (;;) {
      const found = find();
      if (found !== undefined || realClock.monotonic() > until) return found;
      await sleep(realClock, LOOK_MS);
    }
  }

  // --- what steps act on ------------------------------------------------------------------------------------------

  podsOf(phase: string): Pod[] {
    return this.world.pods.filter(
      ({ metadata }) => metadata.labels?.["berth.dev/phase"] === phase && !metadata.deletionTimestamp,
    );
  }

  /** Writes the Secret of the environment key, whatever became of it. */
  async writeKey(key: string): Promise<void> {
    const { kube, namespace } = this.world;
    const ref = { namespace, name: "key" };
    try {
      await kube.patch(SECRETS, ref, { stringData: { "environment-key": key } }, { type: "merge" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await this.world.createKey(key).catch(async (failed: unknown) => {
        // A step from before has just made it again.
        if (!isAlreadyExists(failed)) throw failed;
        await this.writeKey(key);
      });
    }
  }

  /** Deletes the Environment, and makes it again once it is gone. */
  async remake(): Promise<void> {
    this.witness.environmentDeleted = true;
    await this.world.deleteEnvironment();
    await this.world.until("the Environment is gone", () => !this.world.environment, STARTS_MS);
    await this.world.createEnvironment();
    await this.world.until("the Environment is there again", () => this.world.environment, STARTS_MS);
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

export function sessionsOf(setting: Setting): Record<string, unknown> {
  const { lease, onPodFailure, parking, disruption, maxConcurrent, warm } = setting;
  return {
    lease,
    onPodFailure,
    parking,
    disruption,
    maxConcurrent,
    warm: Math.min(warm, maxConcurrent),
    // Longer than a busy machine takes for what goes well.
    firstBeatTimeoutSeconds: 20,
    prepareTimeoutSeconds: 30,
    warmScaleDownSeconds: 2,
    parkedMaxAgeSeconds: 60,
  };
}

/** The kind of step that put a fault of the simulator on. */
function apiKind(fault: { kind: string; status?: number }): Kind | undefined {
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
