import { randomBytes } from "node:crypto";
import { type Clock, MAX_TIMER_MS, sleep, type Timer } from "../../src/core/clock.ts";
import type { ContainerStateTerminated, Pod, PodStatus } from "../../src/kube/objects.ts";
import { adoptStatus, type ContainerRecord, newRecords } from "./container-record.ts";
import { ContainerStarter } from "./container-start.ts";
import type { ReferencedObjects, References } from "./environment.ts";
import type { Fate } from "./fate.ts";
import type { Latency } from "./latency.ts";
import { isTerminalPhase } from "./pod-phase.ts";
import { type PodVerdict, renderStatus, timestamp, unlocated } from "./pod-status.ts";
import { goDuration, restartDelaySeconds } from "./restart-backoff.ts";
import { type ContainerExit, type ContainerRuntime, type LiveContainer, StartError } from "./runtime.ts";

/** What a Pod needs of the node it runs on. */
export interface PodHost {
  readonly clock: Clock;
  allocateIP(pod: Pod): string;
  latencyOf(pod: Pod): Latency;
  /** The fate that somebody chose; throws a TypeError when it cannot be read. */
  fateOf(pod: Pod, container: ContainerRecord["spec"]): Fate | undefined;
  runtimeOf(pod: Pod, container: ContainerRecord["spec"], fate: Fate | undefined): ContainerRuntime;
  read(pod: Pod, references: References): Promise<ReferencedObjects>;
  /** A new status, to be written when there is time; a later one of the same Pod replaces it. */
  report(pod: Pod, status: PodStatus): void;
  /** Nothing of the Pod is left: write its last status, then remove the object (grace 0, UID precondition). */
  finalize(pod: Pod): void;
  /** Nothing of the Pod is left, and its object is gone. */
  forget(pod: Pod): void;
  /** Something broke inside the node itself. */
  fault(pod: Pod, error: unknown): void;
}

/** A container between its start and the moment kubelet sees its end. */
interface Tracked {
  readonly live: LiveContainer;
  readonly startedAt: string;
  readonly ended: PromiseWithResolvers<void>;
  exit: { readonly exit: ContainerExit; readonly atMs: number } | undefined;
  /** What killed it from outside, where the runtime cannot know. */
  killedBy: "OOMKilled" | undefined;
}

/** A Pod on its way out. */
interface Ending {
  readonly verdict: PodVerdict | undefined;
  /** The last container ended by itself: kubelet takes its time to say so. */
  readonly byItself: boolean;
  killAtMs: number;
  killTimer: Timer | undefined;
  readonly kill: PromiseWithResolvers<void>;
}

/** Grace of an eviction for going over a limit (pkg/kubelet/eviction/eviction_manager.go, immediate). */
const EVICTION_GRACE_SECONDS = 1;
const DEFAULT_GRACE_SECONDS = 30;
/** A sidecar gets this much at least after the main containers are gone (kuberuntime_container_linux.go). */
const SIDECAR_GRACE_MS = 2_000;
/** What kubelet writes where a container never got to start. */
const NEVER = timestamp(0);

/**
 * One Pod as a kubelet runs it: looks for what it needs, starts its containers in order, sees them end, ends them.
 * Everything it waits for is the clock or its host, so that a test can step through a Pod's life. One sync runs at a
 * time; whatever happens meanwhile asks for another.
 */
export class PodMachine {
  #pod: Pod;
  readonly #host: PodHost;
  readonly #clock: Clock;
  readonly #latency: Latency;
  readonly #records: ContainerRecord[];
  readonly #starter: ContainerStarter;
  readonly #tracked = new Map<ContainerRecord, Tracked>();
  readonly #timers = new Set<Timer>();
  readonly #abort = new AbortController();
  readonly #startTimeMs: number;
  #podIP: string | undefined;
  #sandboxReady = false;
  #status: PodStatus | undefined;
  #syncing: Promise<void> | undefined;
  #again = false;
  #lookTimer: Timer | undefined;
  #deadlineTimer: Timer | undefined;
  #ending: Ending | undefined;
  /** Nothing runs any more and the terminal status is out. */
  #ended = false;
  #finalized = false;
  #objectGone = false;
  #stopped = false;

  constructor(pod: Pod, host: PodHost) {
    this.#pod = pod;
    this.#host = host;
    this.#clock = host.clock;
    this.#latency = host.latencyOf(pod);
    this.#records = newRecords(pod);
    this.#starter = new ContainerStarter(host.clock);
    this.#startTimeMs = pod.status?.startTime ? Date.parse(pod.status.startTime) : host.clock.now();
    this.#podIP = pod.status?.podIP;
    if (pod.status?.startTime) this.#adopt(pod.status);
  }

  get pod(): Pod {
    return this.#pod;
  }

  /** The last status made; undefined before the first. */
  get status(): PodStatus | undefined {
    return this.#status;
  }

  /** Whether any container of it runs now, whatever has been reported. */
  get running(): boolean {
    return [...this.#tracked.values()].some(({ exit }) => exit === undefined);
  }

  /** To be called once, after the constructor. */
  begin(): void {
    if (isTerminalPhase(this.#pod.status?.phase)) this.#ended = true;
    this.#consider();
  }

  /** The object as the watch shows it. Only what a person or a controller changed makes kubelet look. */
  update(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    if (differsForKubelet(before, pod)) this.#consider();
  }

  /** The object is gone from the API: what still runs is ended, nobody is told. */
  remove(pod: Pod): void {
    this.#pod = pod;
    this.#objectGone = true;
    if (this.#ended) this.#finalize();
    else this.#end(graceOf(pod));
  }

  /** The node ends the whole Pod. */
  evict(verdict: PodVerdict): void {
    if (!this.#ended) this.#end(EVICTION_GRACE_SECONDS, verdict);
  }

  /** Kills a running container from outside. False when it does not run. */
  kill(containerName: string, by: "OOMKilled" | "SIGKILL"): boolean {
    const record = this.#records.find(({ spec }) => spec.name === containerName);
    const tracked = record && this.#tracked.get(record);
    if (!tracked || tracked.exit) return false;
    if (by === "OOMKilled") tracked.killedBy = by;
    tracked.live.signal("SIGKILL");
    return true;
  }

  /** The node ends: kills everything, reports nothing more. Resolves when nothing runs. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#abort.abort();
    this.#cancelTimers();
    await this.#syncing;
    for (const { live } of this.#tracked.values()) live.signal("SIGKILL");
    await Promise.all([...this.#tracked.values()].map(({ ended }) => ended.promise));
  }

  /** Acts on what the object says now. */
  #consider(): void {
    if (this.#stopped) return;
    if (this.#pod.metadata.deletionTimestamp !== undefined) {
      if (this.#ended) this.#finalize();
      else this.#end(graceOf(this.#pod));
      return;
    }
    if (this.#ended) return;
    this.#armDeadline();
    this.#requestSync();
  }

  #requestSync(): void {
    if (this.#ending || this.#stopped) return;
    this.#lookTimer?.cancel();
    if (this.#syncing) {
      this.#again = true;
      return;
    }
    this.#syncing = this.#syncUntilQuiet()
      .catch((error: unknown) => {
        this.#host.fault(this.#pod, error);
        this.#armLook("look");
      })
      .finally(() => {
        this.#syncing = undefined;
        // Asked for between the last pass and here.
        if (this.#again) this.#requestSync();
      });
  }

  async #syncUntilQuiet(): Promise<void> {
    do {
      this.#again = false;
      const next = await this.#sync();
      if (this.#abort.signal.aborted) return;
      if (next !== undefined && !this.#again) this.#armLook(next);
    } while (this.#again);
    if (this.#isDone()) this.#end(graceOf(this.#pod), undefined, true);
  }

  /** One pass over the Pod. Returns when to look again, where something is missing. */
  async #sync(): Promise<"look" | "exitSeen" | undefined> {
    const { signal } = this.#abort;
    this.#report();
    if (!this.#sandboxReady) {
      await sleep(this.#clock, this.#latency.draw("sandbox"), signal);
      if (signal.aborted) return undefined;
      this.#sandboxReady = true;
      this.#podIP ??= this.#host.allocateIP(this.#pod);
      this.#report();
    }
    const outcomes: Outcome[] = [];
    const initialized = await this.#initialize(outcomes);
    if (initialized) {
      for (const record of this.#ofRole("main")) outcomes.push(await this.#ensure(record));
    }
    if (signal.aborted) return undefined;
    if (outcomes.includes("pull-failed")) return "exitSeen";
    return outcomes.includes("waits") ? "look" : undefined;
  }

  /** Brings the init containers on. True when the main containers may start. */
  async #initialize(outcomes: Outcome[]): Promise<boolean> {
    const begun = this.#ofRole("main").some(({ state, last }) => state.running ?? state.terminated ?? last);
    for (const record of this.#records) {
      if (record.role === "main" || (record.role === "init" && begun)) continue;
      if (record.role === "init" && record.state.terminated?.exitCode === 0) continue;
      const outcome = await this.#ensure(record);
      outcomes.push(outcome);
      const passed = record.role === "sidecar" && outcome === "runs";
      if (!passed && !begun) return false;
    }
    return true;
  }

  /** Starts a container that should run and does not. */
  async #ensure(record: ContainerRecord): Promise<Outcome> {
    if (this.#tracked.has(record) || record.state.running) return "runs";
    const end = record.state.terminated ?? record.last;
    if (end && !this.#restarts(record, end)) return "done";
    if (end && this.#backsOff(record, end)) return "backs-off";
    return this.#start(record);
  }

  #restarts(record: ContainerRecord, end: ContainerStateTerminated): boolean {
    if (record.role === "sidecar") return true;
    const { restartPolicy = "Always" } = this.#pod.spec;
    if (restartPolicy === "Never") return false;
    return end.exitCode !== 0 || (restartPolicy === "Always" && record.role === "main");
  }

  #backsOff(record: ContainerRecord, end: ContainerStateTerminated): boolean {
    const seconds = restartDelaySeconds(record.restartCount);
    const endedMs = end.finishedAt ? Date.parse(end.finishedAt) : this.#clock.now();
    const leftMs = endedMs + this.#latency.scaled(seconds * 1_000) - this.#clock.now();
    if (leftMs <= 0) return false;
    const { name, namespace, uid } = this.#pod.metadata;
    const message = `back-off ${goDuration(seconds)} restarting failed container=${record.spec.name} pod=${name}_${namespace}(${uid})`;
    record.last = end;
    record.state = { waiting: { reason: "CrashLoopBackOff", message } };
    this.#report();
    this.#after(leftMs, () => this.#requestSync());
    return true;
  }

  async #start(record: ContainerRecord): Promise<Outcome> {
    const pod = this.#pod;
    const { signal } = this.#abort;
    let fate: Fate | undefined;
    try {
      fate = this.#host.fateOf(pod, record.spec);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return this.#wait(record, { reason: "CreateContainerError", message: error.message });
    }
    const runtime = this.#host.runtimeOf(pod, record.spec, fate);
    const read = this.#host.read.bind(this.#host);
    const attempt = { pod, record, fate, runtime, latency: this.#latency, read, signal };
    const prepared = await this.#starter.prepare(attempt);
    if (prepared.kind === "waits") return this.#wait(record, prepared.waiting);
    if (prepared.kind !== "ready") return "stuck";
    return this.#launch(record, runtime, fate, prepared.env);
  }

  #wait(record: ContainerRecord, waiting: { reason: string; message?: string }): Outcome {
    const end = record.state.terminated;
    if (end) record.last = end;
    record.state = { waiting };
    this.#report();
    return waiting.reason === "ErrImagePull" ? "pull-failed" : "waits";
  }

  async #launch(
    record: ContainerRecord,
    runtime: ContainerRuntime,
    fate: Fate | undefined,
    env: Record<string, string>,
  ): Promise<Outcome> {
    const previous = record.state.terminated ?? record.last;
    const restartCount = previous ? record.restartCount + 1 : 0;
    const containerID = `containerd://${randomBytes(32).toString("hex")}`;
    const early: ContainerExit[] = [];
    let onExit: (exit: ContainerExit) => void = (exit) => early.push(exit);
    let live: LiveContainer;
    try {
      live = await runtime.start({
        pod: this.#pod,
        container: record.spec,
        fate,
        runsToCompletion: record.role === "init",
        env,
        restartCount,
        latency: this.#latency,
        onExit: (exit) => onExit(exit),
        evict: (verdict) => this.evict(verdict),
      });
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      Object.assign(record, { last: previous, restartCount, containerID });
      const finishedAt = timestamp(this.#clock.now());
      const { message } = error;
      record.state = {
        terminated: { exitCode: 128, reason: "StartError", message, startedAt: NEVER, finishedAt, containerID },
      };
      this.#report();
      this.#after(this.#latency.draw("exitSeen"), () => this.#requestSync());
      return "done";
    }
    const startedAt = timestamp(this.#clock.now());
    Object.assign(record, { last: previous, restartCount, containerID, state: { running: { startedAt } } });
    this.#tracked.set(record, {
      live,
      startedAt,
      ended: Promise.withResolvers(),
      exit: undefined,
      killedBy: undefined,
    });
    onExit = (exit) => this.#exited(record, exit);
    for (const exit of early) onExit(exit);
    this.#report();
    return "runs";
  }

  #exited(record: ContainerRecord, exit: ContainerExit): void {
    const tracked = this.#tracked.get(record);
    if (!tracked || tracked.exit) return;
    tracked.exit = { exit, atMs: this.#clock.now() };
    tracked.ended.resolve();
    // A kubelet that is ending the Pod waits for it; else it finds out when it lists containers next.
    if (this.#ending || this.#stopped) return;
    this.#after(this.#latency.draw("exitSeen"), () => {
      if (!this.#see(record)) return;
      this.#report();
      this.#requestSync();
    });
  }

  /** Takes note of a container's end. False when that was done before. */
  #see(record: ContainerRecord): boolean {
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

  /** Whether nothing of the Pod will run any more by itself. */
  #isDone(): boolean {
    const over = (record: ContainerRecord) =>
      record.state.terminated !== undefined && !this.#restarts(record, record.state.terminated);
    const initFailed = this.#ofRole("init").some((record) => over(record) && record.state.terminated?.exitCode !== 0);
    return initFailed || this.#ofRole("main").every(over);
  }

  /** Ends the Pod, or shortens the grace of one that is being ended: a grace period can only shrink. */
  #end(graceSeconds: number, verdict?: PodVerdict, byItself = false): void {
    const killAtMs = this.#clock.monotonic() + graceSeconds * 1_000;
    if (this.#ending) {
      if (killAtMs < this.#ending.killAtMs) this.#armKill(this.#ending, killAtMs);
      return;
    }
    const ending: Ending = { verdict, byItself, killAtMs, killTimer: undefined, kill: Promise.withResolvers() };
    this.#ending = ending;
    this.#armKill(ending, killAtMs);
    void this.#windDown(ending).catch((error: unknown) => this.#host.fault(this.#pod, error));
  }

  #armKill(ending: Ending, killAtMs: number): void {
    ending.killAtMs = killAtMs;
    ending.killTimer?.cancel();
    ending.killTimer = this.#clock.setTimer(ending.kill.resolve, killAtMs - this.#clock.monotonic());
  }

  async #windDown(ending: Ending): Promise<void> {
    this.#cancelTimers();
    if (!ending.byItself) {
      this.#abort.abort();
      await this.#syncing;
    }
    this.#report();
    await this.#stopContainers(ending);
    ending.killTimer?.cancel();
    if (ending.byItself) await this.#pause(this.#latency.draw("terminalPhase"));
    else await this.#pause(this.#latency.draw("finalize") / 2);
    if (this.#stopped) return;
    this.#sandboxReady = false;
    this.#ended = true;
    this.#report();
    if (this.#pod.metadata.deletionTimestamp === undefined && !this.#objectGone) return;
    await this.#pause(this.#latency.draw("finalize") / 2);
    if (!this.#stopped) this.#finalize();
  }

  async #stopContainers(ending: Ending): Promise<void> {
    const running = this.#records.filter((record) => this.#tracked.has(record));
    const sidecars = running.filter(({ role }) => role === "sidecar").reverse();
    const others = running.filter(({ role }) => role !== "sidecar");
    await Promise.all(others.map((record) => this.#stopContainer(record, ending.kill.promise)));
    // Sidecars end last, the last started first, and only when nobody needs them any more.
    for (const record of sidecars) {
      const least = this.#pause(SIDECAR_GRACE_MS);
      await this.#stopContainer(record, Promise.all([ending.kill.promise, least]));
    }
  }

  async #stopContainer(record: ContainerRecord, kill: Promise<unknown>): Promise<void> {
    const tracked = this.#tracked.get(record);
    if (!tracked) return;
    tracked.live.signal("SIGTERM");
    await Promise.race([tracked.ended.promise, kill]);
    if (!tracked.exit) tracked.live.signal("SIGKILL");
    await tracked.ended.promise;
    if (this.#see(record)) this.#report();
  }

  /** Once nothing runs: removes the object, and when that is gone, the Pod is forgotten. */
  #finalize(): void {
    this.#cancelTimers();
    if (this.#objectGone) {
      this.#host.forget(this.#pod);
      return;
    }
    if (this.#finalized) return;
    this.#finalized = true;
    this.#report(true);
    this.#host.finalize(this.#pod);
  }

  #report(gone = false): void {
    if (this.#stopped || this.#objectGone) return;
    const status = renderStatus({
      pod: this.#pod,
      records: this.#records,
      nowMs: this.#clock.now(),
      startTimeMs: this.#startTimeMs,
      podIP: this.#podIP,
      sandboxReady: this.#sandboxReady,
      verdict: this.#ending?.verdict ?? verdictOf(this.#pod),
      mayRun: !this.#ended,
      gone,
      previous: this.#status ?? this.#pod.status,
    });
    this.#status = status;
    this.#host.report(this.#pod, status);
  }

  /** A Pod that an earlier kubelet ran: its containers are gone with it. */
  #adopt(status: PodStatus): void {
    const all = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
    for (const record of this.#records) {
      adoptStatus(
        record,
        all.find(({ name }) => name === record.spec.name),
      );
      if (record.state.running) record.state = { terminated: unlocated() };
    }
  }

  #armLook(interval: "look" | "exitSeen"): void {
    if (this.#ending || this.#stopped) return;
    this.#lookTimer = this.#after(this.#latency.draw(interval), () => this.#requestSync());
  }

  /** Deadlines stand in the API: they run in real time, whatever the node's time scale. */
  #armDeadline(): void {
    this.#deadlineTimer?.cancel();
    const seconds = this.#pod.spec.activeDeadlineSeconds;
    if (seconds === undefined) return;
    const leftMs = this.#startTimeMs + seconds * 1_000 - this.#clock.now();
    if (leftMs > MAX_TIMER_MS / 2) {
      this.#deadlineTimer = this.#after(MAX_TIMER_MS / 2, () => this.#armDeadline());
      return;
    }
    this.#deadlineTimer = this.#after(Math.max(0, leftMs) + this.#latency.draw("deadlineSeen"), () => {
      const message = "Pod was active on the node longer than the specified deadline";
      this.#end(graceSecondsOf(this.#pod), { reason: "DeadlineExceeded", message });
    });
  }

  #ofRole(role: ContainerRecord["role"]): ContainerRecord[] {
    return this.#records.filter((record) => record.role === role);
  }

  async #pause(ms: number): Promise<void> {
    if (this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#after(ms, resolve);
    await promise;
    this.#timers.delete(timer);
  }

  #after(ms: number, fn: () => void): Timer {
    const timer = this.#clock.setTimer(() => {
      this.#timers.delete(timer);
      fn();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #cancelTimers(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}

/** What became of a container in one sync. */
type Outcome = "runs" | "done" | "waits" | "pull-failed" | "backs-off" | "stuck";

/** kubelet ignores changes of the status alone: most of them are its own (pkg/kubelet/config/config.go). */
function differsForKubelet(before: Pod, after: Pod): boolean {
  const view = ({ metadata, spec }: Pod) =>
    JSON.stringify([
      metadata.labels,
      metadata.annotations,
      metadata.deletionTimestamp,
      metadata.deletionGracePeriodSeconds,
      spec,
    ]);
  return view(before) !== view(after);
}

/** A Pod that was Failed by an earlier kubelet keeps the reason. */
function verdictOf({ status }: Pod): PodVerdict | undefined {
  if (status?.phase !== "Failed" || status.reason === undefined) return undefined;
  return { reason: status.reason, message: status.message ?? "" };
}

function graceSecondsOf(pod: Pod): number {
  return Math.max(1, pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS);
}

/**
 * Seconds from SIGTERM to SIGKILL. A Pod that was deleted by force (grace 0) still gets the grace of its spec: its
 * object is gone, its containers are not (pkg/kubelet/pod_workers.go, calculateEffectiveGracePeriod).
 */
function graceOf(pod: Pod): number {
  const { deletionGracePeriodSeconds } = pod.metadata;
  return deletionGracePeriodSeconds ? Math.max(1, deletionGracePeriodSeconds) : graceSecondsOf(pod);
}
