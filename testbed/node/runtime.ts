import type { Container, Pod } from "../../src/kube/objects.ts";
import type { ContainerStreams } from "./container-streams.ts";
import type { Fate } from "./fate.ts";
import type { Latency } from "./latency.ts";
import type { PodVerdict } from "./pod-conditions.ts";

/** How a container ended, as the runtime reports it to the kubelet. */
export interface ContainerExit {
  readonly exitCode: number;
  /**
   * Set by the runtime if the memory limit was reached. Otherwise the kubelet derives the reason from the exit code.
   */
  readonly reason?: "OOMKilled";
  readonly message?: string;
}

/** A running container. */
export interface LiveContainer {
  /** Sends SIGTERM to the first process, or SIGKILL to all of them. Does nothing after the end. */
  signal(signal: "SIGTERM" | "SIGKILL"): void;
  /** Undefined if it never prints anything and reads nothing. */
  readonly streams?: ContainerStreams;
}

/** The inputs of a container's start. */
export interface StartRequest {
  readonly pod: Pod;
  readonly container: Container;
  /** Undefined if none was chosen. */
  readonly fate: Fate | undefined;
  /** Returns the fate as chosen now. A container that waits for its session takes it when it gets one. */
  readonly fateNow?: () => Fate | undefined;
  /** Returns the Pod as the node knows it now. */
  readonly podNow?: () => Pod;
  /** Whether the Pod waits for its end, as for an init container. */
  readonly runsToCompletion: boolean;
  /** The environment as the kubelet resolved it. */
  readonly env: Readonly<Record<string, string>>;
  readonly restartCount: number;
  readonly latency: Latency;
  /** Must be called once, when the container has ended. */
  readonly onExit: (exit: ContainerExit) => void;
  /** Requests the kubelet to evict the Pod. */
  readonly evict: (verdict: PodVerdict) => void;
  /** Reports what the operator must never do to a container. */
  readonly onFault?: (error: Error) => void;
}

/** Runs containers. Throws a StartError if the container was created but its command can't be started. */
export interface ContainerRuntime {
  /** Returns the runtime's message if it can't create the container, or undefined if it can. */
  createFault?(container: Container): string | undefined;
  start(request: StartRequest): LiveContainer | Promise<LiveContainer>;
  /** The Pod is gone, so its data can be removed. */
  forget?(pod: Pod): void | Promise<void>;
}

/** The command of a container doesn't exist: the kubelet reports 128, StartError. */
export class StartError extends Error {
  /** @param why defaults to a message that the program doesn't exist */
  constructor(command: string, why = absence(command)) {
    super(
      "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: " +
        `unable to start container process: exec: "${command}": ${why}`,
    );
  }
}

function absence(command: string): string {
  return command.includes("/") ? `stat ${command}: no such file or directory` : "executable file not found in $PATH";
}

/** The exit codes of processes that a signal killed. */
export const EXIT_SIGKILL = 137;
export const EXIT_SIGTERM = 143;
