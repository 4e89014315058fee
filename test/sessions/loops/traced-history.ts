import type { Rules } from "../../../model/rules.ts";
import { seededRandom } from "../../../simulator/ids.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { PERSISTENT_VOLUME_CLAIMS, PODS, type Pod } from "../../../src/kube/resource.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { hasTurns, keeperStatus, newestTurn } from "../../../src/pods/turns.ts";
import { usesVolume } from "../../../src/pods/workspace-pods.ts";
import { checkTrace, type Tally } from "../../faults/traces/check-trace.ts";
import { TraceRecorder } from "../../faults/traces/trace.ts";
import { FAIR_ATTACH } from "./attach-stream.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, NAME, NAMESPACE, programOf } from "./loop-world.ts";
import { FAIR } from "./network.ts";
import type { Program } from "./worker.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** Faults occur until then. Afterwards everything must settle without help. */
const FAULTS_MS = 90 * SECOND;
const SETTLES_MS = 40 * MINUTE;

/**
 * The pause before the test tries again to kill an operator with a request under way. This test does not cover the fate
 * of such requests.
 */
const KILL_AGAIN_MS = 37;

/** The Environments of two clusters, which have the same name. */
const ENVIRONMENT = `${NAMESPACE}/${NAME}`;
const RIVAL = `rival/${NAME}`;

const PARKINGS = ["Key", "Shell", "Program"] as const;
const TEMPLATE = {
  spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }], terminationGracePeriodSeconds: 30 },
} as const;

const VOLUME = { resources: { requests: { storage: "1Gi" } } } as const;
/** So short that volumes expire while sessions may come back. */
const RETAIN_SECONDS = 60;

const BAD_WEATHER = { lost: 0.1, slow: 0.2, refused: 0.05 } as const;

/** One random history of the whole controller on fakes, determined by its seed, with a trace of the operators' acts. */
class TracedHistory {
  readonly recorder = new TraceRecorder();
  readonly world: LoopWorld;
  readonly rival: LoopWorld | null;
  readonly rules: Partial<Rules>;
  readonly listsBehind: boolean;
  readonly #random: () => number;
  /** A second generator, so that the other draws of a seed do not change. */
  readonly #streams: () => number;
  /** Decides which volumes a user deletes; null: sessions have none. */
  readonly #volumes: (() => number) | null;
  /** Decides which sessions come back; null: none keeps its files. */
  readonly #returns: (() => number) | null;
  #isCalm = false;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.#streams = seededRandom(seed + 2);
    const lease = this.pick(["Worker", "Operator"]);
    const onPodFailure = this.pick(["Stop", "Release"]);
    const lapse = this.pick(["requeue", "stop"]);
    const starting = this.pick(["expires", "never"]);
    const lapsedStopping = this.pick(["stays", "ends"]);
    this.rules = {
      lease,
      onPodFailure: onPodFailure === "Release" ? "Either" : "Stop",
      lapsed: lapse === "stop" ? "stopped" : "queued",
      unbeaten: starting === "never" ? "stays" : "queued",
      lapsedStopping: lapsedStopping === "ends" ? "stopped" : "stays",
      sigterm: true,
    };
    const parking = PARKINGS[Math.floor(this.#streams() * PARKINGS.length)];
    if (parking !== "Key") Object.assign(this.rules, { parking: "Shell" });
    const [sleeps, volumes] = [seededRandom(seed + 3), seededRandom(seed + 4)];
    const isAsleep = parking !== "Key" && sleeps() < 1 / 2;
    const hasVolumes = volumes() < 1 / 3;
    const workspace = {
      type: hasVolumes ? "PerSession" : isAsleep ? "Pod" : "Ephemeral",
      ...(isAsleep && { sleepSeconds: Math.floor(10 + sleeps() * 200) }),
      ...(hasVolumes && { claimTemplate: VOLUME, retainSeconds: RETAIN_SECONDS }),
    };
    this.#volumes = hasVolumes ? volumes : null;
    this.#returns = isAsleep ? sleeps : this.#volumes;
    const sessions = { warm: 2, maxConcurrent: 4, lease, onPodFailure, parking, workspace, template: TEMPLATE };
    this.world = new LoopWorld({
      seed,
      points: this.recorder.observer,
      fate: (pod) => this.#fate(programOf(pod) === "Operator"),
      sessions: { ...sessions, maxDurationSeconds: this.pick([60, 300, 86_400]) },
      switches: {
        lapse,
        starting,
        lapsedStopping,
        listedHeartbeat: this.pick(["same", "reformatted"]),
        listOrder: this.pick(["newest", "shuffled"]),
      },
      // The server may grant another TTL than the requested one.
      limits: { ttlSeconds: this.pick([90, 30]), maxTtlSeconds: this.pick([600, 90, 30]) },
    });
    // If the server never ends a stopping item, a late acknowledgement is bounded (docs/model.md).
    const isLate = lapsedStopping === "ends" && this.chance(0.3);
    if (isLate) {
      Object.assign(this.rules, { lateAck: "late" });
      this.world.api.delay = (call) =>
        call === "ack" && !this.#isCalm && this.chance(1 / 3) ? this.between(4_000, 5_800) : 0;
    }
    this.listsBehind = this.chance(0.2);
    if (this.listsBehind) this.world.api.listBehindMs = () => this.#random() * 4_900;
    const points = (event: Parameters<TraceRecorder["observer"]>[0]) =>
      this.recorder.observer({ ...event, environment: RIVAL });
    this.rival = this.chance(0.4) ? new LoopWorld({ seed: seed + 1, beside: this.world, points, sessions }) : null;
  }

  /** Records when the API server shows that a session's container has ended. */
  #recordEnds({ server }: LoopWorld, environment: string): void {
    server.subscribe(({ plural, object, type }) => {
      if (plural !== PODS.plural) return;
      const pod = object as Pod;
      const of = { environment, pod: pod.metadata.name ?? "" };
      // In the model, a Pod with turns lives on after they have ended. The kubelet may show its keeper's end before its phase.
      const hasEnded = !usesVolume(pod) || keeperStatus(pod)?.state?.terminated !== undefined;
      if (hasTurns(pod) && hasEnded) this.recorder.allowFor(of, "fault.delete-pod");
      for (let turn = 1; turn <= Math.max(1, newestTurn(pod)); turn += 1) {
        const isOver = type === "DELETED" || readPodState(pod, turn).is === "ended";
        if (isOver) this.recorder.over(environment, of.pod, turn);
      }
    });
  }

  pick<const T>(values: readonly [T, ...T[]]): T {
    return values[Math.floor(this.#random() * values.length)] ?? values[0];
  }

  between(from: number, to: number): number {
    return from + (to - from) * this.#random();
  }

  chance(share: number): boolean {
    return this.#random() < share;
  }

  at(ms: number, act: () => void): void {
    this.world.clock.setTimer(act, ms);
  }

  #fate(isPlain: boolean): ContainerFate {
    const servesMs = this.between(500, 40 * SECOND);
    if (this.#isCalm) return { startError: false, program: isPlain ? "plain" : "stock", servesMs };
    const program: Program = isPlain
      ? this.pick(["plain", "plain", "plain", "crashes", "killed"])
      : this.pick(["stock", "stock", "stock", "dies", "crashes", "killed", "silent"]);
    return { startError: this.chance(0.1), program, servesMs };
  }

  async play(): Promise<void> {
    const { world, rival, recorder } = this;
    recorder.allow("fault.kill-container", "worker.exit");
    this.#recordEnds(world, ENVIRONMENT);
    if (rival) this.#recordEnds(rival, RIVAL);
    for (const one of rival ? [world, rival] : [world]) one.createEnvironment();
    rival?.startOperator();
    for (let item = 0; item < 6; item += 1) this.at(this.between(0, FAULTS_MS), () => this.#enqueue());
    this.#restarts();
    if (this.chance(0.5)) this.#badWeather();
    if (this.chance(0.5)) this.#userStops();
    if (this.chance(0.4)) this.#podsDeleted();
    if (this.#volumes && this.#volumes() < 0.3) this.#volumesDeleted(this.#volumes);
    await world.pass(FAULTS_MS);
    this.#isCalm = true;
    await world.until("everything is settled", () => world.isSettled && (rival?.isSettled ?? true), SETTLES_MS);
  }

  /** Queues an item of a new session, or of one that sleeps, has a volume or still runs. */
  #enqueue(): void {
    const { world } = this;
    const earlier = world.items.find(() => this.#returns && this.#returns() < 1 / 3);
    world.enqueue(earlier ? { sessionId: world.api.world.item(earlier.id).data.id } : {});
  }

  #restarts(): void {
    const { recorder, world } = this;
    let operator = world.startOperator();
    recorder.began(ENVIRONMENT);
    const again = () =>
      this.at(this.between(100, 20 * SECOND), () => {
        recorder.began(ENVIRONMENT);
        operator = world.startOperator();
      });
    // A stop does not wait forever for an answer: a request may still be under way, as after a kill.
    const stop = () => void operator.stop().then(kill);
    const kill = () => {
      if (recorder.isChanging(ENVIRONMENT)) return this.at(KILL_AGAIN_MS, kill);
      operator.kill();
      recorder.ended(ENVIRONMENT);
      again();
    };
    if (this.chance(0.7)) this.at(this.between(10 * SECOND, 60 * SECOND), this.pick([stop, kill]));
  }

  #badWeather(): void {
    const { recorder, world, rival } = this;
    recorder.allow("worker.first-beat", "worker.beat", "work-api.lapse", "fault.silence");
    const worlds = rival ? [world, rival] : [world];
    const kube = this.chance(0.5) ? BAD_WEATHER : FAIR;
    const share = () => (this.#streams() < 0.2 ? 1 : this.#streams() * 0.3);
    this.at(this.between(0, 10 * SECOND), () => {
      const attach = { refused: share(), lineLost: share(), markerLost: share(), breaks: share() };
      for (const { weather } of worlds)
        Object.assign(weather, { work: BAD_WEATHER, worker: BAD_WEATHER, kube, attach });
    });
    this.at(FAULTS_MS, () => {
      for (const { weather } of worlds)
        Object.assign(weather, { work: FAIR, worker: FAIR, kube: FAIR, attach: FAIR_ATTACH });
    });
  }

  #userStops(): void {
    for (let stop = 0; stop < 3; stop += 1) {
      this.at(this.between(5 * SECOND, FAULTS_MS), () => {
        const [first, ...others] = this.world.items.filter(({ state }) => state === "starting" || state === "active");
        if (!first) return;
        this.recorder.allow("user.stop");
        this.world.api.world.stopItem(this.pick([first, ...others]).id, this.chance(0.3));
      });
    }
  }

  #podsDeleted(): void {
    for (let deletion = 0; deletion < 3; deletion += 1) {
      this.at(this.between(5 * SECOND, FAULTS_MS), () => {
        const [first, ...others] = this.world.pods;
        if (!first) return;
        const pod = this.pick([first, ...others]).metadata.name ?? "";
        const of = { environment: ENVIRONMENT, pod };
        this.recorder.allowFor(of, "fault.delete-pod", "fault.lose-node", "fault.terminate-container");
        this.world.server.delete(PODS, NAMESPACE, pod);
      });
    }
  }

  #volumesDeleted(random: () => number): void {
    for (let deletion = 0; deletion < 3; deletion += 1) {
      this.at(random() * FAULTS_MS, () => {
        const all = this.world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
        const volume = all[Math.floor(random() * all.length)]?.metadata.name;
        if (volume === undefined) return;
        this.recorder.lost(ENVIRONMENT, volume);
        this.world.server.delete(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, volume);
      });
    }
  }
}

/** Plays a history and checks the trace of each session. @throws {TraceError} when the model does not allow it */
export async function checkHistory(seed: number): Promise<Tally> {
  const history = new TracedHistory(seed);
  await history.play();
  const { rules, listsBehind, world } = history;
  const circumstances = {
    ...{ rules, timing: DEFAULT_TIMING, listsBehind, showsEnds: true },
    retainMs: RETAIN_SECONDS * SECOND,
  };
  return checkTrace(history.recorder, circumstances, (workId) => world.api.world.item(workId).data.id);
}
