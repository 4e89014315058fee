import type { Clock, Timer } from "../../src/core/clock.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { chosenFate, defaultFate, type Fate, type FateChooser, type OnTerm } from "./fate.ts";
import { isKeeper, KEEPER_LOOK_MS, Keeper } from "./keeper.ts";
import type { PodVerdict } from "./pod-conditions.ts";
import {
  type ContainerExit,
  type ContainerRuntime,
  EXIT_SIGKILL,
  EXIT_SIGTERM,
  type LiveContainer,
  StartError,
  type StartRequest,
} from "./runtime.ts";
import type { ScriptedPollers } from "./scripted-poller.ts";
import type { ScriptedWorkers } from "./scripted-worker.ts";
import { isStartedByShell, parkingOf } from "./session-frame.ts";
import { WaitingContainer } from "./waiting-container.ts";

const DIES_OF_SIGTERM: OnTerm = { code: EXIT_SIGTERM, afterMs: 0 };

/** A program got another session than an earlier program of its Pod, whose files it can read. */
export class SharedPodError extends Error {}

/** Runs containers without a process: their fate determines what they do. A container costs only a timer. */
export class ScriptedRuntime implements ContainerRuntime {
  readonly #clock: Clock;
  readonly #workers: ScriptedWorkers | undefined;
  readonly #pollers: ScriptedPollers | undefined;
  /** The session whose files are in a Pod, by the Pod's uid. */
  readonly #sessions = new Map<string, string>();

  /**
   * @param workers simulates the containers whose fate is `worker`
   * @param pollers simulates those whose fate is `poller`
   */
  constructor(clock: Clock, workers?: ScriptedWorkers, pollers?: ScriptedPollers) {
    this.#clock = clock;
    this.#workers = workers;
    this.#pollers = pollers;
  }

  start(request: StartRequest): LiveContainer {
    if (isKeeper(request.container)) {
      const { pod, podNow = () => pod, latency, onExit } = request;
      return new Keeper(this.#clock, podNow, onExit, latency.scaled(KEEPER_LOOK_MS));
    }
    const parking = parkingOf(request.pod, request.container);
    // A shell looks for the program itself. Without one, the runtime does.
    const isMissing = !isStartedByShell(request.container) && request.fate?.kind === "start-error";
    if (!parking || isMissing) return this.#run(request);
    return new WaitingContainer(this.#clock, parking, request, (started) => this.#run(started));
  }

  /** The Pod is gone, and its files with it. */
  forget({ metadata: { uid = "" } }: Pod): void {
    this.#sessions.delete(uid);
  }

  #run(request: StartRequest): LiveContainer {
    this.#leaveFiles(request);
    const fate = request.fate ?? defaultFate(request.runsToCompletion);
    if (fate.kind === "start-error") throw new StartError(request.container.command?.[0] ?? "/no/such/binary");
    if (fate.kind === "worker") {
      if (!this.#workers) throw new Error("this runtime was created without scripted workers");
      return this.#workers.start(request, fate);
    }
    if (fate.kind === "poller") {
      if (!this.#pollers) throw new Error("this runtime was created without scripted pollers");
      return this.#pollers.start(request, fate);
    }
    return new ScriptedContainer(this.#clock, request, fate);
  }

  #leaveFiles({ pod: { metadata }, env, onFault }: StartRequest): void {
    const { name, uid = "" } = metadata;
    const sessionId = env["ANTHROPIC_SESSION_ID"];
    if (!sessionId) return;
    const found = this.#sessions.get(uid) ?? sessionId;
    this.#sessions.set(uid, sessionId);
    if (found !== sessionId)
      onFault?.(new SharedPodError(`session ${sessionId} found files of ${found} in Pod ${name}`));
  }
}

class ScriptedContainer implements LiveContainer {
  readonly #clock: Clock;
  readonly #request: StartRequest;
  readonly #onTerm: OnTerm;
  #timer: Timer | undefined;
  #told = false;
  #ended = false;

  constructor(clock: Clock, request: StartRequest, fate: Fate) {
    this.#clock = clock;
    this.#request = request;
    this.#onTerm = fate.onTerm ?? DIES_OF_SIGTERM;
    if (fate.kind === "evicted") {
      this.#after(request.latency.of(fate.afterMs), () => request.evict(evictionVerdict(request.pod, fate.cause)));
    } else {
      const end = endOf(fate);
      if (end) this.#after(request.latency.of(end.afterMs), () => this.#end(end.exit));
    }
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.#ended) return;
    if (signal === "SIGKILL") {
      this.#end({ exitCode: EXIT_SIGKILL });
      return;
    }
    if (this.#onTerm === "ignore" || this.#told) return;
    this.#told = true;
    const { code, afterMs } = this.#onTerm;
    this.#after(this.#request.latency.of(afterMs), () => this.#end({ exitCode: code }));
  }

  #after(delayMs: number, fn: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.setTimer(fn, delayMs);
  }

  #end(exit: ContainerExit): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer?.cancel();
    this.#request.onExit(exit);
  }
}

/** Returns how a container with this fate ends on its own, or undefined if it doesn't. */
function endOf(fate: Fate): { afterMs: Parameters<StartRequest["latency"]["of"]>[0]; exit: ContainerExit } | undefined {
  const message = fate.message === undefined ? {} : { message: fate.message };
  switch (fate.kind) {
    case "exit":
      return { afterMs: fate.afterMs, exit: { exitCode: fate.code, ...message } };
    case "oom":
      return { afterMs: fate.afterMs, exit: { exitCode: EXIT_SIGKILL, reason: "OOMKilled", ...message } };
    case "oom-child":
      return { afterMs: fate.afterMs, exit: { exitCode: fate.code, reason: "OOMKilled", ...message } };
    case "killed":
      return { afterMs: fate.afterMs, exit: { exitCode: EXIT_SIGKILL, ...message } };
    default:
      return undefined;
  }
}

/** Why a node evicts a Pod. */
export type EvictionCause = "ephemeral-storage" | "emptydir" | "memory";

/** The amounts are those of one particular node. */
const LOW_ON_MEMORY = "The node was low on resource: memory. Threshold quantity: 300Mi, available: 193368Ki. ";

/** The kubelet's message about a Pod that uses more local storage than allowed (pkg/kubelet/eviction/helpers.go). */
export function evictionVerdict(pod: Pod, cause: EvictionCause): PodVerdict {
  if (cause === "memory") return { reason: "Evicted", message: LOW_ON_MEMORY, disrupted: true };
  const limit = limitOf(pod, cause);
  const message =
    cause === "emptydir"
      ? `Usage of EmptyDir volume "${limit.name}" exceeds the limit "${limit.size}". `
      : `Pod ephemeral local storage usage exceeds the total limit of containers ${limit.size}. `;
  return { reason: "Evicted", message };
}

/**
 * Returns why the kubelet rejects a Pod with this fate for its session container, or undefined if it doesn't. A fate
 * that can't be read is reported when the container starts.
 */
export function refusalVerdict(pod: Pod, container: Container, chooser?: FateChooser): PodVerdict | undefined {
  let fate: Fate | undefined;
  try {
    fate = chosenFate(pod, container, chooser);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
  if (fate?.kind !== "refused") return undefined;
  return { reason: fate.reason, message: `Pod was rejected: ${fate.message ?? "the node has no room for it"}` };
}

function limitOf(pod: Pod, cause: Exclude<EvictionCause, "memory">): { name: string; size: string } {
  const unknown = { name: "", size: "0" };
  if (cause === "emptydir") {
    const volumes = (pod.spec.volumes ?? []) as { name: string; emptyDir?: { sizeLimit?: string } }[];
    const volume = volumes.find(({ emptyDir }) => emptyDir?.sizeLimit !== undefined) ?? volumes[0];
    return volume ? { name: volume.name, size: volume.emptyDir?.sizeLimit ?? "0" } : unknown;
  }
  const sizes = pod.spec.containers.map(
    (container: Container) =>
      (container["resources"] as { limits?: Record<string, string> } | undefined)?.limits?.["ephemeral-storage"],
  );
  return { name: "", size: sizes.find((size) => size !== undefined) ?? "0" };
}
