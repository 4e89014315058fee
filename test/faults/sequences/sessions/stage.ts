import type { Pod } from "../../../../src/kube/resource.ts";
import { isAsleep, turnNumber } from "../../../../src/pods/turns.ts";
import type { TestCluster } from "../../../support/cluster.ts";
import { SHORT_LEASE } from "../../../support/session-life.ts";
import { startWorld, type World } from "../../../support/world.ts";
import { Fates } from "../fates.ts";
import { LIMITS, NODE_TIME_SCALE, STARTS_MS, Stage } from "../stage.ts";
import { type FateKind, sessionFate } from "./fates.ts";
import { runningSession } from "./looks.ts";
import type { Setting } from "./steps.ts";
import { SessionsWitness } from "./witness.ts";

/** An Environment with a Pod per session. */
export class SessionsStage extends Stage {
  readonly setting: Setting;
  readonly fates: Fates<FateKind>;
  readonly witness: SessionsWitness;

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
    this.witness = new SessionsWitness(parts.world, parts.setting);
  }

  /** @param onStruck called with each kind of step that takes effect */
  static async start(
    cluster: TestCluster,
    setting: Setting,
    seed: number,
    onStruck: (kind: string) => void,
  ): Promise<SessionsStage> {
    const fates = new Fates(sessionFate, onStruck);
    const world = await startWorld(cluster, {
      timeScale: SHORT_LEASE.timeScale,
      timing: { warmScaleDownMs: 2_000 },
      simulator: { limits: LIMITS, switches: setting.switches, seed, adminToken: "remembers credentials" },
      node: {
        seed,
        timeScale: NODE_TIME_SCALE,
        fates: (pod, { name }) => fates.of(pod, turnNumber(name)),
      },
      // It can wait in a shell.
      container: { command: ["worker"] },
      spec: { deletionGraceSeconds: 2 },
      sessions: sessionsOf(setting),
    });
    const stage = new SessionsStage({ world, cluster, setting, fates, onStruck });
    await stage.begin();
    if (setting.warm > 0) await world.until("a Pod is parked", () => world.parked.length > 0, STARTS_MS);
    return stage;
  }

  async createEnvironment(): Promise<void> {
    await this.world.createEnvironment();
  }

  busyPods(): Pod[] {
    return this.world.pods.filter((pod) => runningSession(pod) && !pod.metadata.deletionTimestamp);
  }

  /** Pods whose sessions sleep, and which are not being deleted. */
  sleepingPods(): Pod[] {
    return this.world.pods.filter((pod) => isAsleep(pod) && !pod.metadata.deletionTimestamp);
  }

  podsOf(phase: string): Pod[] {
    return this.world.pods.filter(
      ({ metadata }) => metadata.labels?.["berth.dev/phase"] === phase && !metadata.deletionTimestamp,
    );
  }
}

export function sessionsOf(setting: Setting): Record<string, unknown> {
  const { lease, onPodFailure, parking, disruption, maxConcurrent, warm, sleepSeconds } = setting;
  return {
    lease,
    onPodFailure,
    parking,
    disruption,
    maxConcurrent,
    warm: Math.min(warm, maxConcurrent),
    ...(sleepSeconds > 0 && { workspace: { type: "Pod", sleepSeconds }, maxSleeping: maxConcurrent }),
    // Longer than a healthy start takes on a busy machine.
    firstBeatTimeoutSeconds: 20,
    prepareTimeoutSeconds: 30,
    parkedMaxAgeSeconds: 60,
  };
}
