import { realClock } from "../../../../src/core/clock.ts";
import { DEPLOYMENTS, type Deployment, type Pod } from "../../../../src/kube/resource.ts";
import { silentLogger } from "../../../../src/observe/logger.ts";
import { createMetrics } from "../../../../src/observe/metrics.ts";
import type { TestCluster } from "../../../support/cluster.ts";
import { LateInformer } from "../../../support/late-informer.ts";
import { SHORT_LEASE } from "../../../support/session-life.ts";
import { AT_ONCE, BUSY_PORT, workersOf } from "../../../support/workers-world.ts";
import { startWorld, type World } from "../../../support/world.ts";
import { Fates } from "../fates.ts";
import { LIMITS, NODE_TIME_SCALE, Stage } from "../stage.ts";
import { type FateKind, WHEN_CALM, workerFate } from "./fates.ts";
import type { Pace, Setting } from "./steps.ts";
import { WorkersWitness } from "./witness.ts";

/** Time for a terminating worker to stop its item. A worker that ignores the signal takes all of it. */
const GRACE_SECONDS = 3;

export const BUSY_PROBE = { httpGet: { path: "/busy", port: BUSY_PORT } } as const;

/** An Environment with always-on workers. */
export class WorkersStage extends Stage {
  readonly setting: Setting;
  readonly fates: Fates<FateKind>;
  readonly witness: WorkersWitness;
  readonly #deployments: LateInformer<Deployment>;
  readonly #watching = new AbortController();
  #spec: WorkersPart;

  private constructor(parts: {
    world: World;
    cluster: TestCluster;
    setting: Setting;
    fates: Fates<FateKind>;
    onStruck: (kind: string) => void;
  }) {
    super(parts);
    this.setting = parts.setting;
    this.fates = parts.fates;
    this.#spec = parts.setting;
    const { kube: client, namespace } = parts.world;
    const common = { clock: realClock, logger: silentLogger, metrics: createMetrics() };
    this.#deployments = new LateInformer({ ...common, client, namespace, resource: DEPLOYMENTS });
    this.witness = new WorkersWitness(parts.world, parts.setting);
    this.#deployments.subscribe(() => this.witness.deploymentsChanged(this.deployments));
    void this.#deployments.run(this.#watching.signal);
  }

  /** @param onStruck called with each kind of step that takes effect */
  static async start(
    cluster: TestCluster,
    setting: Setting,
    seed: number,
    onStruck: (kind: string) => void,
  ): Promise<WorkersStage> {
    const fates: Fates<FateKind> = new Fates<FateKind>(
      (kind) => (kind === null && fates.isCalm ? WHEN_CALM : workerFate(kind)),
      onStruck,
    );
    const world = await startWorld(cluster, {
      timeScale: SHORT_LEASE.timeScale,
      simulator: { limits: LIMITS, switches: setting.switches, seed, adminToken: "remembers credentials" },
      node: { seed, timeScale: NODE_TIME_SCALE, fates: (pod) => fates.of(pod) },
      spec: { deletionGraceSeconds: 2 },
    });
    const stage = new WorkersStage({ world, cluster, setting, fates, onStruck });
    await stage.begin();
    return stage;
  }

  /** All existing Deployments, including those that are being deleted. */
  get deployments(): Deployment[] {
    return this.#deployments.list();
  }

  async createEnvironment(): Promise<void> {
    const workers = workersSpecOf(this.world, this.setting);
    this.#specChanges(workers);
    await this.world.createEnvironment({ sessions: undefined, workers });
  }

  override async patchSpec(patch: Record<string, unknown>): Promise<void> {
    this.#specChanges((patch["workers"] as Record<string, unknown> | null | undefined) ?? {});
    await super.patchSpec(patch);
  }

  /** The part of the spec that later changes depend on, as last written. */
  get spec(): WorkersPart {
    return this.#spec;
  }

  #specChanges(workers: Partial<WorkersPart>): void {
    this.#spec = { ...this.#spec, ...workers };
    const template = Object.hasOwn(workers, "template") || Object.hasOwn(workers, "busyProbe");
    this.witness.specChanges(this.#spec, { template });
  }

  /** Workers that have not ended and are not being deleted. */
  get workers(): Pod[] {
    return workersOf(this.world).filter(({ status }) => status?.phase !== "Failed" && status?.phase !== "Succeeded");
  }

  busyPods(): Pod[] {
    return this.workers.filter((pod) => this.witness.itemOf(pod) !== undefined);
  }

  idlePods(): Pod[] {
    return this.workers.filter((pod) => !this.witness.mayServe(pod));
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await super[Symbol.asyncDispose]();
  }
}

interface WorkersPart {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly sessionsPerReplica: number;
  readonly busyProbe?: object | null;
}

/** `spec.workers` as the setting says. */
export function workersSpecOf(
  world: World,
  setting: Setting,
  image = "worker:1",
): WorkersPart & Record<string, unknown> {
  const { minReplicas, maxReplicas, sessionsPerReplica, pace, probed } = setting;
  return {
    ...(probed ? { busyProbe: BUSY_PROBE } : {}),
    minReplicas,
    maxReplicas,
    sessionsPerReplica,
    behavior: behaviorOf(pace),
    template: templateOf(world, image),
  };
}

/** Containers are scripted, so their command does not matter. */
export function templateOf(world: World, image: string, container: Record<string, unknown> = {}): object {
  return {
    spec: {
      nodeSelector: { "kubernetes.io/hostname": world.node.name },
      terminationGracePeriodSeconds: GRACE_SECONDS,
      containers: [{ name: "worker", image, ...container }],
    },
  };
}

const ONE_BY_ONE = { stabilizationWindowSeconds: 0, policies: [{ type: "Pods", value: 1, periodSeconds: 1 }] } as const;

export function behaviorOf(pace: Pace): object {
  switch (pace) {
    case "at-once":
      return AT_ONCE;
    case "steps":
      return { scaleUp: ONE_BY_ONE, scaleDown: ONE_BY_ONE };
    case "window":
      return { ...AT_ONCE, scaleDown: { ...AT_ONCE.scaleDown, stabilizationWindowSeconds: 2 } };
  }
}
