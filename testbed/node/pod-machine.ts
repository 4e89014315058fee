import { type Clock, MAX_TIMER_MS, sleep, type Timer } from "../../src/core/clock.ts";
import type { Container, ContainerStateTerminated, Pod, PodStatus } from "../../src/kube/objects.ts";
import { adoptStatus, type ContainerRecord } from "./container-record.ts";
import { ContainerStarter } from "./container-start.ts";
import { EnvironmentError, type ReferencedObjects, type References } from "./environment.ts";
import type { Complaint } from "./event-writer.ts";
import { type Fate, mainContainerName } from "./fate.ts";
import type { ServedContainer } from "./kubelet-server.ts";
import type { Latency } from "./latency.ts";
import type { PodVerdict, SandboxState } from "./pod-conditions.ts";
import { type ContainersOwner, PodContainers } from "./pod-containers.ts";
import { isTerminalPhase } from "./pod-phase.ts";
import * as rules from "./pod-rules.ts";
import { renderRefusal, renderStatus, unlocated } from "./pod-status.ts";
import { restartDelaySeconds } from "./restart-backoff.ts";
import type { ContainerRuntime } from "./runtime.ts";
import { sandboxFault } from "./sandbox-fault.ts";
import { fileReferences, hasFiles, type VolumeFiles, volumeFiles } from "./volume-files.ts";

/** What a Pod needs from its node. */
export interface PodHost {
  readonly clock: Clock;
  allocateIP(pod: Pod): string;
  latencyOf(pod: Pod): Latency;
  /** Returns the chosen fate. Throws a TypeError if it can't be read. */
  fateOf(pod: Pod, container: Container): Fate | undefined;
  runtimeOf(pod: Pod, container: Container, fate: Fate | undefined): ContainerRuntime;
  /** Why the node rejects a new Pod, if it does. */
  refusalOf?(pod: Pod): PodVerdict | undefined;
  /** Reads the referenced objects. Throws an EnvironmentError if they can't be read. */
  read(pod: Pod, references: References): Promise<ReferencedObjects>;
  /** Replaces the files of the Pod's volumes, by volume name. */
  writeFiles(pod: Pod, volumes: ReadonlyMap<string, VolumeFiles>): Promise<void>;
  /** Reports a new status, to be written later. A later status of the same Pod replaces it. */
  report(pod: Pod, status: PodStatus): void;
  /** Reports a problem in an Event, because no status shows it. */
  complain(pod: Pod, complaint: Complaint): void;
  /** Nothing of the Pod is left: writes its last status, then removes the object (grace 0, UID precondition). */
  finalize(pod: Pod): void;
  /** Nothing of the Pod is left, and its object is gone. */
  forget(pod: Pod): void;
  /** Reports an error inside the node itself. */
  fault(pod: Pod, error: unknown): void;
}

/** A Pod that is ending. */
interface Ending {
  readonly verdict: PodVerdict | undefined;
  /** The last container ended on its own, so the kubelet reports it with a delay. */
  readonly byItself: boolean;
  killAtMs: number;
  killTimer: Timer | undefined;
  readonly kill: PromiseWithResolvers<void>;
}

/** The result for a container in one sync. */
type Outcome = "runs" | "done" | "waits" | "pull-failed" | "backs-off" | "stuck";

/** When to look again: after the usual delay, or as soon as the effects of the last look show. */
type NextLook = "look" | "exitSeen" | "resync" | undefined;

/** The grace of an eviction for exceeding a limit (pkg/kubelet/eviction/eviction_manager.go, immediate). */
const EVICTION_GRACE_SECONDS = 1;

/**
 * One Pod as a kubelet runs it: it looks for what the Pod needs, starts its containers in order, sees them end, and
 * ends them. It waits only for the clock and its host, so that a test can step through a Pod's life.
 *
 * Only one sync runs at a time, and events during a sync request another one. An end (`Ending`) begins once, aborts the
 * sync, and is never undone. A terminal phase is reported only when nothing runs any more.
 */
export class PodMachine implements ContainersOwner {
  readonly clock: Clock;
  #pod: Pod;
  readonly #host: PodHost;
  readonly #latency: Latency;
  readonly #containers: PodContainers;
  readonly #starter: ContainerStarter;
  readonly #timers = new Set<Timer>();
  readonly #abort = new AbortController();
  readonly #startTimeMs: number;
  #podIP: string | undefined;
  #sandbox: SandboxState = "none";
  #sandboxFailures = 0;
  #status: PodStatus | undefined;
  #syncing: Promise<void> | undefined;
  #again = false;
  #refreshing: Promise<void> = Promise.resolve();
  #lookTimer: Timer | undefined;
  #deadlineTimer: Timer | undefined;
  #ending: Ending | undefined;
  /** Nothing runs any more, and the terminal status is reported. */
  #ended = false;
  readonly #over = Promise.withResolvers<void>();
  /** The Pod was rejected, so it has a status and nothing else. */
  #refusal: PodVerdict | undefined;
  /** Containers that weren't seen to end count as lost. */
  #settled = false;
  #finalized = false;
  #objectGone = false;
  #stopped = false;

  constructor(pod: Pod, host: PodHost) {
    this.#pod = pod;
    this.#host = host;
    this.clock = host.clock;
    this.#latency = host.latencyOf(pod);
    this.#containers = new PodContainers(pod, this);
    this.#starter = new ContainerStarter(host.clock);
    this.#startTimeMs = pod.status?.startTime ? Date.parse(pod.status.startTime) : host.clock.now();
    this.#podIP = pod.status?.podIP;
    if (pod.status?.startTime) this.#adopt(pod.status);
  }

  get pod(): Pod {
    return this.#pod;
  }

  /** The last reported status, or undefined before the first. */
  get status(): PodStatus | undefined {
    return this.#status;
  }

  /** Whether any container is running now, regardless of what was reported. */
  get running(): boolean {
    return this.#containers.running;
  }

  /** Returns the last started container of this name. */
  container(name: string): ServedContainer | undefined {
    return this.#containers.latest(name);
  }

  /** Resolves when nothing runs any more and the terminal status is reported. */
  get ended(): Promise<void> {
    return this.#over.promise;
  }

  /** Must be called once, after the constructor. */
  begin(): void {
    if (isTerminalPhase(this.#pod.status?.phase)) {
      this.#ended = true;
      this.#settled = true;
      this.#over.resolve();
    } else if (!this.#pod.status?.startTime) this.#refusal = this.#host.refusalOf?.(this.#pod);
    if (this.#refusal) {
      this.#ended = true;
      this.#over.resolve();
      this.#report();
    }
    this.#consider();
  }

  /** Updates the object as the watch shows it. Only changes by a person or a controller make the kubelet look. */
  update(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    const added = this.#containers.extend(pod);
    if (added && !pod.metadata.deletionTimestamp) this.#after(this.#latency.draw("added"), () => this.#consider());
    else if (rules.differsForKubelet(before, pod)) this.#consider();
    else if (!this.#ended && !this.#stopped && rules.gatesDiffer(before, pod)) this.changed();
  }

  /** The object is gone from the API. Ends what is still running, without reporting it. */
  remove(pod: Pod): void {
    this.#pod = pod;
    this.#objectGone = true;
    if (this.#ended) this.#finalize();
    else this.#end(rules.graceSecondsOf(pod));
  }

  /** The node ends the whole Pod, with the grace of its spec but at most `atMostSeconds`. */
  evict(verdict: PodVerdict, atMostSeconds = EVICTION_GRACE_SECONDS): void {
    if (!this.#ended) this.#end(Math.min(rules.ownGraceSeconds(this.#pod), atMostSeconds), verdict);
  }

  /** The machine restarts. The kubelet doesn't see the containers end, and creates the sandbox again if it's needed. */
  reboot(): void {
    if (this.#ending || this.#ended || this.#stopped) return;
    this.#containers.lose();
    if (this.#sandbox === "ready") this.#sandbox = "ended";
    this.#report();
    if (rules.isDone(this.#pod, this.#containers.records)) this.#end(0, undefined, true);
    else this.#requestSync();
  }

  /** Kills a running container from outside. Returns false if it isn't running. */
  kill(container: string, by: "OOMKilled" | "SIGKILL"): boolean {
    return this.#containers.kill(container, by);
  }

  /** The node ends: kills everything and reports nothing more. Resolves when nothing is running. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#over.resolve();
    this.#abort.abort();
    this.#cancelTimers();
    this.#ending?.killTimer?.cancel();
    await this.#syncing;
    await this.#containers.killAll();
  }

  // Called by its containers.

  changed(): void {
    // A kubelet that ends a Pod doesn't report anything until nothing of it runs.
    if (!this.#ending || this.#ending.byItself) this.#report();
  }

  exited(record: ContainerRecord): void {
    // A kubelet that is ending the Pod waits for the container. Otherwise it notices the end when it next lists
    // containers.
    if (this.#ending || this.#stopped) return;
    this.#after(this.#latency.draw("exitSeen"), () => {
      if (!this.#containers.see(record)) return;
      this.#report();
      this.#requestSync();
    });
  }

  // From the spec to running containers.

  #consider(): void {
    if (this.#stopped) return;
    if (this.#pod.metadata.deletionTimestamp !== undefined) {
      if (this.#ended) this.#finalize(true);
      else this.#end(rules.graceSecondsOf(this.#pod));
      return;
    }
    if (this.#ended) return;
    this.#armDeadline();
    this.#requestSync();
  }

  #requestSync(): void {
    if (this.#ending || this.#stopped) return;
    this.#disarm(this.#lookTimer);
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
        // A sync was requested after the last pass.
        if (this.#again) this.#requestSync();
      });
  }

  async #syncUntilQuiet(): Promise<void> {
    do {
      this.#again = false;
      const next = await this.#sync();
      if (this.#abort.signal.aborted) return;
      if (!this.#again) this.#armLook(next);
    } while (this.#again);
    if (rules.isDone(this.#pod, this.#containers.records)) {
      this.#end(rules.graceSecondsOf(this.#pod), undefined, true);
    }
  }

  /** Runs one pass over the Pod. */
  async #sync(): Promise<NextLook> {
    const { signal } = this.#abort;
    this.#report();
    if (this.#sandbox !== "ready") {
      if (!(await this.#mountVolumes())) return "look";
      await sleep(this.clock, this.#latency.draw("sandbox"), signal);
      if (signal.aborted) return undefined;
      if (this.#sandboxFails()) return "look";
      this.#sandbox = "ready";
      this.#podIP ??= this.#host.allocateIP(this.#pod);
      this.#report();
    } else if (hasFiles(this.#pod)) {
      // Runs separately, because no container waits for it.
      this.#after(this.#latency.draw("volumes"), () => this.#refreshVolumes());
    }
    const outcomes: Outcome[] = [];
    for (const record of this.#containers.ofRole("ephemeral")) outcomes.push(await this.#ensure(record));
    if (await this.#initialize(outcomes)) {
      for (const record of this.#containers.ofRole("main")) outcomes.push(await this.#ensure(record));
    }
    if (outcomes.includes("pull-failed")) return "exitSeen";
    if (outcomes.includes("waits")) return "look";
    return hasFiles(this.#pod) ? "resync" : undefined;
  }

  /** Volumes are mounted before the sandbox exists. A Pod without its volumes only shows ContainerCreating. */
  async #hasVolumes(): Promise<boolean> {
    const required = rules.requiredVolumes(this.#pod);
    try {
      const message = rules.volumeFault(this.#pod, await this.#host.read(this.#pod, required));
      if (message !== undefined) this.#host.complain(this.#pod, { reason: "FailedMount", message });
      return message === undefined;
    } catch (error) {
      if (error instanceof EnvironmentError) return false;
      throw error;
    }
  }

  #sandboxFails(): boolean {
    const message = sandboxFault(this.#pod, this.#mainFate(), this.#sandboxFailures);
    if (message === undefined) return false;
    this.#sandboxFailures += 1;
    this.#host.complain(this.#pod, { reason: "FailedCreatePodSandBox", message });
    return true;
  }

  #mainFate(): Fate | undefined {
    const name = mainContainerName(this.#pod);
    const main = this.#pod.spec.containers.find((container) => container.name === name);
    return main && this.#fateNow(main);
  }

  /** If a fate can't be read, its container reports that when it starts. */
  #fateNow(container: Container): Fate | undefined {
    try {
      return this.#host.fateOf(this.#pod, container);
    } catch (error) {
      if (error instanceof TypeError) return undefined;
      throw error;
    }
  }

  /** Returns false while something that a volume requires is missing. */
  async #mountVolumes(): Promise<boolean> {
    if (!(await this.#hasVolumes())) return false;
    if (!hasFiles(this.#pod)) return true;
    const pod = this.#pod;
    try {
      const files = volumeFiles(pod, await this.#host.read(pod, fileReferences(pod)));
      if (files) await this.#host.writeFiles(pod, files);
      return files !== undefined;
    } catch (error) {
      if (error instanceof EnvironmentError) return false;
      throw error;
    }
  }

  /**
   * If something can't be read now, it stays unchanged until the next look. One refresh runs at a time, because two
   * would write the same files.
   */
  #refreshVolumes(): void {
    this.#refreshing = this.#refreshing.then(async () => {
      if (this.#ending || this.#stopped) return;
      await this.#mountVolumes().catch((error: unknown) => this.#host.fault(this.#pod, error));
    });
  }

  /** Advances the init containers. Returns true when the main containers may start. */
  async #initialize(outcomes: Outcome[]): Promise<boolean> {
    const begun = rules.hasBegun(this.#containers.records);
    for (const record of this.#containers.records) {
      if (record.role === "main" || record.role === "ephemeral" || (record.role === "init" && begun)) continue;
      if (record.role === "init" && record.state.terminated?.exitCode === 0) continue;
      const outcome = await this.#ensure(record);
      outcomes.push(outcome);
      const passed = record.role === "sidecar" && outcome === "runs";
      if (!passed && !begun) return false;
    }
    return true;
  }

  /** Starts a container that should be running and isn't. */
  async #ensure(record: ContainerRecord): Promise<Outcome> {
    if (this.#abort.signal.aborted) return "stuck";
    if (this.#containers.isUp(record)) return "runs";
    const end = record.state.terminated ?? record.last;
    if (end && !rules.restarts(this.#pod, record, end)) return "done";
    if (end && this.#backsOff(record, end)) return "backs-off";
    return this.#start(record);
  }

  #backsOff(record: ContainerRecord, end: ContainerStateTerminated): boolean {
    const seconds = restartDelaySeconds(record.restartCount);
    const endedMs = end.finishedAt ? Date.parse(end.finishedAt) : this.clock.now();
    const leftMs = endedMs + this.#latency.scaled(seconds * 1_000) - this.clock.now();
    if (leftMs <= 0) return false;
    const message = rules.crashLoopMessage(this.#pod, record.spec.name, seconds);
    record.last = end;
    record.state = { waiting: { reason: "CrashLoopBackOff", message } };
    this.#report();
    this.#after(leftMs, () => this.#requestSync());
    return true;
  }

  async #start(record: ContainerRecord): Promise<Outcome> {
    // The status in the API may not have the address yet, so the kubelet uses its own.
    const podIP = this.#podIP === undefined ? {} : { podIP: this.#podIP };
    const pod: Pod = { ...this.#pod, status: { ...this.#pod.status, ...podIP } };
    const { signal } = this.#abort;
    let fate: Fate | undefined;
    try {
      fate = this.#host.fateOf(pod, record.spec);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return this.#wait(record, { reason: "CreateContainerError", message: error.message });
    }
    const runtime = this.#host.runtimeOf(pod, record.spec, fate);
    const latency = this.#latency;
    const read = this.#host.read.bind(this.#host);
    const prepared = await this.#starter.prepare({
      pod,
      record,
      fate,
      runtime,
      latency,
      read,
      signal,
    });
    if (prepared.kind === "waits") return this.#wait(record, prepared.waiting);
    if (prepared.kind !== "ready") return "stuck";
    const evict = (verdict: PodVerdict) => this.evict(verdict);
    const started = await this.#containers.launch(record, runtime, {
      ...{ pod, fate, env: prepared.env, latency, evict },
      fateNow: () => this.#fateNow(record.spec),
      podNow: () => this.#pod,
      onFault: (error) => this.#host.fault(this.#pod, error),
    });
    if (started) return "runs";
    this.#after(this.#latency.draw("exitSeen"), () => this.#requestSync());
    return "done";
  }

  #wait(record: ContainerRecord, waiting: { reason: string; message?: string }): Outcome {
    record.last = record.state.terminated ?? record.last;
    record.state = { waiting };
    this.#report();
    return waiting.reason === "ErrImagePull" ? "pull-failed" : "waits";
  }

  #armLook(next: NextLook): void {
    if (next === undefined || this.#ending || this.#stopped) return;
    this.#lookTimer = this.#after(this.#latency.draw(next), () => this.#requestSync());
  }

  /** The API specifies deadlines, so they run in real time regardless of the node's time scale. */
  #armDeadline(): void {
    this.#disarm(this.#deadlineTimer);
    const seconds = this.#pod.spec.activeDeadlineSeconds;
    if (seconds === undefined) return;
    const leftMs = this.#startTimeMs + seconds * 1_000 - this.clock.now();
    if (leftMs > MAX_TIMER_MS / 2) {
      this.#deadlineTimer = this.#after(MAX_TIMER_MS / 2, () => this.#armDeadline());
      return;
    }
    this.#deadlineTimer = this.#after(Math.max(0, leftMs) + this.#latency.draw("deadlineSeen"), () => {
      const message = "Pod was active on the node longer than the specified deadline";
      this.#end(rules.ownGraceSeconds(this.#pod), { reason: "DeadlineExceeded", message, always: true });
    });
  }

  // From running containers to the end of the Pod.

  /** Ends the Pod, or shortens the grace of a Pod that is already ending. A grace period can only shrink. */
  #end(graceSeconds: number, verdict?: PodVerdict, byItself = false): void {
    const killAtMs = this.clock.monotonic() + graceSeconds * 1_000;
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
    ending.killTimer = this.clock.setTimer(ending.kill.resolve, killAtMs - this.clock.monotonic());
  }

  async #windDown(ending: Ending): Promise<void> {
    this.#cancelTimers();
    // If the Pod ends on its own, the sync detects it and has nothing more to do.
    if (!ending.byItself) {
      this.#abort.abort();
      await this.#syncing;
    }
    if (!ending.verdict) {
      this.#containers.forgetWaits();
      this.#report();
    }
    await this.#containers.stop(ending.kill.promise);
    ending.killTimer?.cancel();
    const half = this.#latency.draw("finalize") / 2;
    await this.#pause(ending.byItself ? this.#latency.draw("terminalPhase") : half);
    if (this.#stopped) return;
    if (this.#sandbox === "ready") this.#sandbox = "ended";
    this.#ended = true;
    this.#report();
    this.#settled = true;
    if (this.#containers.records.some(({ state }) => !state.terminated)) this.#report();
    this.#over.resolve();
    if (this.#pod.metadata.deletionTimestamp === undefined && !this.#objectGone) return;
    await this.#pause(half);
    if (!this.#stopped) this.#finalize();
  }

  /**
   * Removes the object when nothing is running, and forgets the Pod when the object is gone. A Pod that ended before it
   * was deleted has already reported its last status.
   */
  #finalize(endedBefore = false): void {
    this.#cancelTimers();
    if (this.#objectGone) {
      this.#host.forget(this.#pod);
      return;
    }
    if (this.#finalized) return;
    this.#finalized = true;
    if (!endedBefore) this.#report(true);
    this.#host.finalize(this.#pod);
  }

  #report(gone = false): void {
    if (this.#stopped || this.#objectGone) return;
    const status = this.#refusal ? renderRefusal(this.#pod, this.#refusal, this.#startTimeMs) : this.#render(gone);
    this.#status = status;
    this.#host.report(this.#pod, status);
  }

  #render(gone: boolean): PodStatus {
    return renderStatus({
      pod: this.#pod,
      records: this.#containers.records,
      nowMs: this.clock.now(),
      startTimeMs: this.#startTimeMs,
      podIP: this.#podIP,
      sandbox: this.#sandbox,
      verdict: this.#ending?.verdict ?? verdictOf(this.#pod),
      mayRun: !this.#ended,
      settled: this.#settled,
      gone,
      previous: this.#status ?? this.#pod.status,
    });
  }

  /** Adopts a Pod of an earlier kubelet, whose containers are gone. */
  #adopt(status: PodStatus): void {
    const { initContainerStatuses = [], containerStatuses = [], ephemeralContainerStatuses = [] } = status;
    const all = [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses];
    for (const record of this.#containers.records) {
      const reported = all.find(({ name }) => name === record.spec.name);
      adoptStatus(record, reported);
      if (record.state.running) record.state = { terminated: unlocated() };
    }
  }

  async #pause(ms: number): Promise<void> {
    if (this.#stopped) return;
    await new Promise<void>((resolve) => this.#after(ms, resolve));
  }

  #after(ms: number, fn: () => void): Timer {
    const timer = this.clock.setTimer(() => {
      this.#timers.delete(timer);
      fn();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #disarm(timer: Timer | undefined): void {
    if (!timer) return;
    timer.cancel();
    this.#timers.delete(timer);
  }

  #cancelTimers(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}

/** Keeps the reason of a Pod that an earlier kubelet marked as Failed. */
function verdictOf({ status }: Pod): PodVerdict | undefined {
  if (status?.phase !== "Failed" || status.reason === undefined) return undefined;
  return { reason: status.reason, message: status.message ?? "" };
}
