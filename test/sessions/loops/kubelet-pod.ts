import { KEY_WORK_ID, KEY_WORK_SECRET } from "../../../src/api/names.ts";
import type { Timer } from "../../../src/core/clock.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import { apiTime } from "../../../src/kube/objects.ts";
import {
  type Condition,
  type Container,
  type ContainerState,
  type ContainerStatus,
  PODS,
  type Pod,
  type PodStatus,
  SECRETS,
} from "../../../src/kube/resource.ts";
import { isKeeper } from "../../../testbed/node/keeper.ts";
import { parkingOf } from "../../../testbed/node/session-frame.ts";
import type { ApiServer, RunningContainer } from "./api-server.ts";
import { type ContainerParts, LoopContainer, type Running } from "./container.ts";

export interface KubeletPodParts extends ContainerParts {
  readonly server: ApiServer;
  /** How long scheduling and pulling take. */
  readonly prepareMs?: (pod: Pod) => number;
  /** Whether the scheduler finds no node for the Pod now. */
  readonly isFull?: (pod: Pod) => boolean;
  /** The node that the scheduler binds the Pod to; one node by default. */
  readonly nodeOf?: (pod: Pod) => string;
  /** The state of an ephemeral container that can't start, such as waiting with `ErrImagePull`. */
  readonly turnFault?: (pod: Pod, container: string) => ContainerState | undefined;
}

/** An ephemeral container. It starts once, at any time of the Pod's life, and counts neither for phase nor conditions. */
interface Turn {
  readonly spec: Container;
  container: LoopContainer | null;
  /** As it was last reported. */
  state: ContainerState;
}

const SECOND_MS = 1_000;
const NODE = "node-1";
const SCHEDULED_AGAIN_MS = 500;

/** One Pod as its kubelet runs it: the session container, which is the first of the spec, and ephemeral containers. */
export class KubeletPod {
  readonly #parts: KubeletPodParts;
  readonly #running: Set<Running>;
  readonly #namespace: string;
  readonly #name: string;
  #pod: Pod;
  /** `parked` waits for a key. A container that waits for a line is `started`. */
  #is: "new" | "parked" | "failed-start" | "started" = "new";
  #main: LoopContainer | null = null;
  #mainState: ContainerState = { waiting: { reason: "ContainerCreating" } };
  readonly #turns = new Map<string, Turn>();
  /** Every container ends: the Pod is deleted, or its session container has ended. */
  #isEnding = false;
  #isDeleting = false;
  /** The session container's exit code. */
  #exitCode: number | null = null;
  /** No container is left, and the Pod's last status is on its way. */
  #isFinal = false;
  #isForgotten = false;
  #look: Timer | null = null;
  #deadline: Timer | null = null;

  constructor(pod: Pod, parts: KubeletPodParts, running: Set<Running>) {
    this.#parts = parts;
    this.#running = running;
    this.#pod = pod;
    this.#namespace = pod.metadata.namespace ?? "";
    this.#name = pod.metadata.name ?? "";
    const prepareMs = parts.prepareMs?.(pod) ?? 200 + parts.random() * 2_000;
    this.#after(prepareMs / 2, () => this.#bind(prepareMs / 2));
  }

  changed(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp && !this.#isDeleting) this.#delete();
    const touched =
      JSON.stringify([before.metadata.labels, before.metadata.annotations]) !==
      JSON.stringify([pod.metadata.labels, pod.metadata.annotations]);
    if (touched) this.#after(10 + this.#parts.random() * 100, () => this.#lookNow());
    if (before.spec.activeDeadlineSeconds !== pod.spec.activeDeadlineSeconds) this.#armDeadline();
    this.#addTurns();
  }

  objectGone(): void {
    this.#forget();
    this.#after(50, () => this.#killAll(), true);
  }

  /** The Pod is out of reach, and its containers run until the machine ends. */
  lose(): void {
    this.#forget();
    for (const container of this.#started) container.isLost = true;
    this.#after(LOST_NODE_ENDS_MS, () => this.#killAll(), true);
  }

  /** Kills one container from outside. */
  kill(name: string | undefined): void {
    (name === undefined ? this.#current : this.#container(name))?.kill();
  }

  /** Starts an ended ephemeral container again: the container runtime has lost its record. */
  rerun(name: string): void {
    const turn = this.#turns.get(name);
    if (turn?.container?.is === "ended") this.#startTurn(turn);
  }

  attached(name: string): RunningContainer | null {
    return this.#container(name)?.attached ?? null;
  }

  /** A container's log; undefined before it started. */
  async log(name: string): Promise<string | undefined> {
    return this.#container(name)?.log();
  }

  /** The container that a session runs in, or would: the newest turn, or the session container. */
  get #current(): LoopContainer | null {
    return [...this.#turns.values()].findLast(({ container }) => container)?.container ?? this.#main;
  }

  get #started(): LoopContainer[] {
    return [this.#main, ...[...this.#turns.values()].map(({ container }) => container)].filter((each) => each !== null);
  }

  #container(name: string): LoopContainer | null {
    return this.#turns.get(name)?.container ?? (name === this.#pod.spec.containers[0]?.name ? this.#main : null);
  }

  #forget(): void {
    this.#isForgotten = true;
    this.#look?.cancel();
    this.#deadline?.cancel();
  }

  #bind(parkAfterMs: number): void {
    if (this.#isForgotten || this.#isDeleting) return;
    const pod = this.#parts.server.find(PODS, this.#namespace, this.#name);
    if (!pod) return;
    const isGated = (pod.spec.schedulingGates ?? []).length > 0;
    if (isGated || this.#parts.isFull?.(pod)) {
      const reason = isGated ? "SchedulingGated" : "Unschedulable";
      if (pod.status?.conditions?.[0]?.reason !== reason) {
        const failed = { type: "PodScheduled", status: "False", reason, message: `not scheduled: ${reason}` };
        this.#patchStatus({ phase: "Pending", conditions: [failed] });
      }
      this.#after(SCHEDULED_AGAIN_MS, () => this.#bind(parkAfterMs));
      return;
    }
    this.#after(parkAfterMs, () => this.#park());
    // The binding is the only change of a Pod's spec that is not a patch.
    pod.spec.nodeName = this.#parts.nodeOf?.(pod) ?? NODE;
    this.#patchStatus({
      phase: "Pending",
      startTime: this.#now(),
      conditions: [condition("PodScheduled", this.#now())],
    });
  }

  #park(): void {
    if (this.#isForgotten || this.#isDeleting) return;
    const [spec] = this.#pod.spec.containers;
    const parking = spec && parkingOf(this.#pod, spec);
    if (spec && isKeeper(spec)) this.#startMain(spec).keep();
    else if (spec && parking) this.#startMain(spec).wait(parking);
    else this.#is = "parked";
    if (this.#is === "started") this.#report();
    else this.#lookNow();
    this.#addTurns();
  }

  #startMain(spec: Container): LoopContainer {
    this.#is = "started";
    this.#main = new LoopContainer(
      this.#parts,
      () => this.#pod,
      spec,
      this.#running,
      (exitCode) => this.#mainEnded(exitCode),
    );
    this.#mainState = { running: { startedAt: this.#main.startedAt } };
    return this.#main;
  }

  #lookNow(): void {
    if (this.#is !== "parked" || this.#isForgotten || this.#isDeleting) return;
    this.#look?.cancel();
    const [leastMs, spreadMs] = LOOK_MS;
    this.#look = this.#after(leastMs + this.#parts.random() * spreadMs, () => this.#lookNow());
    const secret = this.#parts.server.find(SECRETS, this.#namespace, this.#name);
    const key = secret?.data?.[KEY_WORK_SECRET];
    // The kubelet's watches of Secrets and Pods are not ordered: it may not have the key yet.
    const unseen = key === undefined || this.#parts.random() < UNSEEN;
    if (key === undefined || unseen) {
      const missing = secret
        ? `couldn't find key ${KEY_WORK_SECRET} in Secret ${this.#namespace}/${this.#name}`
        : `secret "${this.#name}" not found`;
      this.#mainWaits("CreateContainerConfigError", missing);
      return;
    }
    const [spec = { name: "" }] = this.#pod.spec.containers;
    const fate = this.#parts.fate(this.#pod, spec.name);
    if (fate.startError) {
      this.#is = "failed-start";
      this.#mainWaits("CreateContainerError", "no such command");
      return;
    }
    const main = this.#startMain(spec);
    this.#report();
    main.run(fate, text(secret?.data?.[KEY_WORK_ID]), text(key));
  }

  #mainWaits(reason: string, message: string): void {
    this.#mainState = { waiting: { reason, message } };
    this.#report();
  }

  /** Starts new ephemeral containers, in any state of the session container. A kubelet notices them within a second. */
  #addTurns(): void {
    if (this.#is === "new" || this.#isEnding || this.#isForgotten) return;
    for (const spec of this.#pod.spec.ephemeralContainers ?? []) {
      if (this.#turns.has(spec.name)) continue;
      const turn: Turn = { spec, container: null, state: { waiting: { reason: "ContainerCreating" } } };
      this.#turns.set(spec.name, turn);
      this.#after(10 + this.#parts.random() * SECOND_MS, () => this.#startTurn(turn));
    }
  }

  #startTurn(turn: Turn): void {
    if (this.#isEnding) return;
    const { spec } = turn;
    const fault = this.#parts.turnFault?.(this.#pod, spec.name);
    const container = fault
      ? null
      : new LoopContainer(
          this.#parts,
          () => this.#pod,
          spec,
          this.#running,
          (exitCode) => this.#turnEnded(turn, exitCode),
        );
    turn.container = container;
    const parking = parkingOf(this.#pod, spec);
    if (parking) container?.wait(parking);
    turn.state = fault ?? { running: { startedAt: container?.startedAt ?? this.#now() } };
    this.#report();
  }

  #turnEnded(turn: Turn, exitCode: number): void {
    const state = turn.container?.ended(exitCode) ?? {};
    // A kubelet that ends the Pod reports nothing until all of its containers have ended.
    const delayMs = this.#isEnding ? 0 : 100 + this.#parts.random() * 800;
    this.#after(delayMs, () => {
      turn.state = state;
      if (this.#isEnding) this.#endWhenOver();
      else this.#report();
    });
  }

  /** The kubelet ends the whole Pod, ephemeral containers included. */
  #mainEnded(exitCode: number): void {
    this.#exitCode = exitCode;
    this.#isEnding = true;
    const state = this.#main?.ended(exitCode) ?? {};
    this.#after(100 + this.#parts.random() * 800, () => {
      this.#mainState = state;
      this.#report();
    });
    this.#terminateAll(this.#pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS);
    this.#endWhenOver();
  }

  #terminateAll(graceSeconds: number): void {
    for (const container of this.#started) if (container.is !== "ended") container.terminate();
    if (!this.#isOver) this.#after(graceSeconds * SECOND_MS, () => this.#killAll());
  }

  /** Whether none of the Pod's containers runs. */
  get #isOver(): boolean {
    return this.#started.every(({ is }) => is === "ended");
  }

  #endWhenOver(): void {
    if (this.#isFinal || !this.#isOver) return;
    this.#isFinal = true;
    const exitCode = this.#exitCode;
    this.#after(1_500, () => {
      if (exitCode !== null) this.#report(exitCode === 0 ? "Succeeded" : "Failed");
      if (this.#isDeleting) this.#removeAfter(300);
    });
  }

  #delete(): void {
    this.#isDeleting = true;
    this.#isEnding = true;
    this.#look?.cancel();
    if (this.#isFinal) this.#removeAfter(300 + this.#parts.random() * 1_500);
    else if (this.#started.length === 0) this.#removeAfter(10 + this.#parts.random() * 900);
    else {
      this.#terminateAll(this.#pod.metadata.deletionGracePeriodSeconds ?? 0);
      this.#endWhenOver();
    }
  }

  #removeAfter(ms: number): void {
    this.#after(ms, () => this.#parts.server.removePod(this.#namespace, this.#name));
  }

  #killAll(): void {
    for (const container of this.#started) container.kill();
  }

  #armDeadline(): void {
    this.#deadline?.cancel();
    const seconds = this.#pod.spec.activeDeadlineSeconds;
    const startedMs = Date.parse(this.#pod.status?.startTime ?? "");
    if (seconds === undefined || Number.isNaN(startedMs)) return;
    const leftMs = startedMs + seconds * SECOND_MS - this.#parts.clock.now();
    if (leftMs > 2 ** 31) return;
    this.#deadline = this.#after(Math.max(0, leftMs), () => this.#killAll());
  }

  #report(phase = this.#is === "started" ? "Running" : "Pending"): void {
    const types = ["PodScheduled", "Initialized", "PodReadyToStartContainers"];
    const conditions = types.map((type) => condition(type, this.#pod.status?.startTime ?? this.#now()));
    const containerStatuses = [{ name: this.#pod.spec.containers[0]?.name ?? "", state: this.#mainState }];
    const ephemeral = this.#turnStatuses;
    this.#patchStatus({
      ...{ ...this.#pod.status, phase, conditions, containerStatuses },
      ...(ephemeral.length > 0 ? { ephemeralContainerStatuses: ephemeral } : {}),
    });
  }

  /** The kubelet sorts them by name. */
  get #turnStatuses(): ContainerStatus[] {
    const statuses = [...this.#turns.values()].map(({ spec: { name }, state }) => ({ name, state }));
    return statuses.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #patchStatus(status: PodStatus): void {
    if (this.#isForgotten || !this.#parts.server.find(PODS, this.#namespace, this.#name)) return;
    try {
      this.#parts.server.patch(PODS, this.#namespace, this.#name, { status }, true);
    } catch (error) {
      // The kubelet tries again with its next status.
      if (!(error instanceof KubeApiError && error.status === 422)) throw error;
    }
  }

  #after(ms: number, fn: () => void, always = false): Timer {
    return this.#parts.clock.setTimer(() => {
      if (always || !this.#isForgotten) fn();
    }, ms);
  }

  #now(): string {
    return apiTime(this.#parts.clock.now());
  }
}

const DEFAULT_GRACE_SECONDS = 30;

/** How long an unreachable node runs before it shuts down. */
const LOST_NODE_ENDS_MS = 600_000;

/** The minimum time between two reads of the Secret, and the random addition. */
const LOOK_MS = [10_000, 5_000] as const;

/** The probability that the kubelet reads an outdated Secret. */
const UNSEEN = 0.15;

function condition(type: string, at: string): Condition {
  return { type, status: "True", lastTransitionTime: at };
}

function text(data: string | undefined): string {
  return Buffer.from(data ?? "", "base64").toString("utf8");
}
