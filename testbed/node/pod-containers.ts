import { randomBytes } from "node:crypto";
import { type Clock, sleep } from "../../src/core/clock.ts";
import type { Pod } from "../../src/kube/objects.ts";
import { type ContainerRecord, initialState, newRecords } from "./container-record.ts";
import type { ServedContainer } from "./kubelet-server.ts";
import { timestamp } from "./pod-status.ts";
import {
  type ContainerExit,
  type ContainerRuntime,
  type LiveContainer,
  StartError,
  type StartRequest,
} from "./runtime.ts";

/** The owner of these containers. */
export interface ContainersOwner {
  readonly clock: Clock;
  /** The records changed. */
  changed(): void;
  /** A container ended, and its record doesn't show it yet. */
  exited(record: ContainerRecord): void;
}

/** A container between its start and the moment when the kubelet sees its end. */
interface Tracked {
  readonly live: LiveContainer;
  readonly startedAt: string;
  readonly ended: PromiseWithResolvers<void>;
  exit: { readonly exit: ContainerExit; readonly atMs: number } | undefined;
  /** The external cause of its death, which the runtime can't know. */
  killedBy: "OOMKilled" | undefined;
}

export type Launch = Omit<StartRequest, "container" | "onExit" | "runsToCompletion" | "restartCount">;

/** The minimum grace of a sidecar after the main containers ended (kuberuntime_container_linux.go). */
const SIDECAR_GRACE_MS = 2_000;

/** The start time of a container that never started: the epoch. */
const NEVER = timestamp(0);

/** The containers of one Pod: what is known about each (`records`), and the running ones. A record may lag behind. */
export class PodContainers {
  readonly records: ContainerRecord[];
  readonly #pod: Pod;
  readonly #owner: ContainersOwner;
  readonly #tracked = new Map<ContainerRecord, Tracked>();
  /** The last start of each container, also after its end was seen: its log can still be read. */
  readonly #latest = new Map<string, Tracked>();

  constructor(pod: Pod, owner: ContainersOwner) {
    this.#pod = pod;
    this.records = newRecords(pod);
    this.#owner = owner;
  }

  /** Adds the ephemeral containers that the Pod has gained. Returns whether there are any. */
  extend(pod: Pod): boolean {
    const fresh = newRecords(pod).filter(({ role, spec }) => role === "ephemeral" && !this.#record(spec.name));
    this.records.push(...fresh);
    return fresh.length > 0;
  }

  ofRole(role: ContainerRecord["role"]): ContainerRecord[] {
    return this.records.filter((record) => record.role === role);
  }

  /** Whether any container is running now, even if the records don't show it. */
  get running(): boolean {
    return [...this.#tracked.values()].some(({ exit }) => exit === undefined);
  }

  /** Whether the container is running, as far as the kubelet knows. */
  isUp(record: ContainerRecord): boolean {
    return this.#tracked.has(record) || record.state.running !== undefined;
  }

  /** Returns the last started container of this name. */
  latest(name: string): ServedContainer | undefined {
    const tracked = this.#latest.get(name);
    if (!tracked) return undefined;
    const { live, exit, ended } = tracked;
    return { isRunning: exit === undefined, ended: ended.promise, streams: live.streams };
  }

  /** Starts a container. Returns false if its command doesn't exist, in which case the container has ended. */
  async launch(record: ContainerRecord, runtime: ContainerRuntime, launch: Launch): Promise<boolean> {
    const { clock } = this.#owner;
    const previous = record.state.terminated ?? record.last;
    const restartCount = previous ? record.restartCount + 1 : 0;
    const containerID = `containerd://${randomBytes(32).toString("hex")}`;
    const made = { last: previous, restartCount, containerID };
    // A program may end before its start is reported here.
    const early: ContainerExit[] = [];
    let onExit: (exit: ContainerExit) => void = (exit) => early.push(exit);
    let live: LiveContainer;
    try {
      const runsToCompletion = record.role === "init";
      const request = { ...launch, container: record.spec, runsToCompletion, restartCount };
      live = await runtime.start({ ...request, onExit: (exit) => onExit(exit) });
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      const finishedAt = timestamp(clock.now());
      const end = { exitCode: 128, reason: "StartError", message: error.message, startedAt: NEVER, finishedAt };
      Object.assign(record, made, { state: { terminated: { ...end, containerID } } });
      this.#owner.changed();
      return false;
    }
    const startedAt = timestamp(clock.now());
    Object.assign(record, made, { state: { running: { startedAt } } });
    const ended = Promise.withResolvers<void>();
    const tracked: Tracked = { live, startedAt, ended, exit: undefined, killedBy: undefined };
    this.#tracked.set(record, tracked);
    this.#latest.set(record.spec.name, tracked);
    onExit = (exit) => this.#exited(record, exit);
    for (const exit of early) onExit(exit);
    this.#owner.changed();
    return true;
  }

  /** Records a container's end. Returns false if there's nothing new. */
  see(record: ContainerRecord): boolean {
    const tracked = this.#tracked.get(record);
    if (!tracked?.exit) return false;
    this.#tracked.delete(record);
    const { exit, atMs } = tracked.exit;
    record.state = {
      terminated: {
        exitCode: exit.exitCode,
        reason: exit.reason ?? tracked.killedBy ?? (exit.exitCode === 0 ? "Completed" : "Error"),
        ...(exit.message === undefined ? {} : { message: exit.message }),
        startedAt: tracked.startedAt,
        finishedAt: timestamp(atMs),
        ...(record.containerID === undefined ? {} : { containerID: record.containerID }),
      },
    };
    return true;
  }

  /** Kills a container from outside. Returns false if it isn't running. */
  kill(name: string, by: "OOMKilled" | "SIGKILL"): boolean {
    const record = this.#record(name);
    const tracked = record && this.#tracked.get(record);
    if (!tracked || tracked.exit) return false;
    if (by === "OOMKilled") tracked.killedBy = by;
    tracked.live.signal("SIGKILL");
    return true;
  }

  /** Kills all running containers unseen. When containerd starts, it finds them gone and doesn't know why. */
  lose(): void {
    for (const [record, tracked] of this.#tracked) {
      this.#tracked.delete(record);
      tracked.live.signal("SIGKILL");
      const atMs = this.#owner.clock.now();
      const unknown = { exitCode: 255, reason: "Unknown" };
      tracked.exit = { exit: { exitCode: unknown.exitCode }, atMs };
      tracked.ended.resolve();
      const { containerID } = record;
      const times = { startedAt: tracked.startedAt, finishedAt: timestamp(atMs) };
      record.state = { terminated: { ...unknown, ...times, ...(containerID === undefined ? {} : { containerID }) } };
    }
    this.forgetWaits();
  }

  /** Forgets why containers couldn't start, so that they wait like new ones. */
  forgetWaits(): void {
    for (const record of this.records) if (record.state.waiting) record.state = initialState(this.#pod);
  }

  /** Sends SIGTERM to all, and SIGKILL to the remaining ones when `kill` resolves. Resolves when none is running. */
  async stop(kill: Promise<unknown>): Promise<void> {
    const running = this.records.filter((record) => this.#tracked.has(record));
    const others = running.filter(({ role }) => role !== "sidecar");
    await Promise.all(others.map((record) => this.#stopOne(record, kill)));
    // Sidecars end last, in reverse start order, when no other container needs them.
    for (const record of running.filter(({ role }) => role === "sidecar").reverse()) {
      const least = sleep(this.#owner.clock, SIDECAR_GRACE_MS);
      await this.#stopOne(record, Promise.all([kill, least]));
    }
  }

  /** Sends SIGKILL to all. Resolves when none is running. */
  async killAll(): Promise<void> {
    const all = [...this.#tracked.values()];
    for (const { live } of all) live.signal("SIGKILL");
    await Promise.all(all.map(({ ended }) => ended.promise));
  }

  #record(name: string): ContainerRecord | undefined {
    return this.records.find(({ spec }) => spec.name === name);
  }

  async #stopOne(record: ContainerRecord, kill: Promise<unknown>): Promise<void> {
    const tracked = this.#tracked.get(record);
    if (!tracked) return;
    tracked.live.signal("SIGTERM");
    await Promise.race([tracked.ended.promise, kill]);
    if (!tracked.exit) tracked.live.signal("SIGKILL");
    await tracked.ended.promise;
    if (this.see(record)) this.#owner.changed();
  }

  #exited(record: ContainerRecord, exit: ContainerExit): void {
    const tracked = this.#tracked.get(record);
    if (!tracked || tracked.exit) return;
    tracked.exit = { exit, atMs: this.#owner.clock.now() };
    tracked.ended.resolve();
    this.#owner.exited(record);
  }
}
