import type { Container, Pod } from "../../src/kube/objects.ts";
import type { Fate } from "./fate.ts";
import type { Latency } from "./latency.ts";
import type { PodVerdict } from "./pod-conditions.ts";

/** How a container ended, as the runtime tells kubelet. */
export interface ContainerExit {
  readonly exitCode: number;
  /** Given by the runtime where the memory limit was reached; else kubelet names it by the exit code. */
  readonly reason?: "OOMKilled";
  readonly message?: string;
}

/** A container that runs. */
export interface LiveContainer {
  /** SIGTERM goes to the first process, SIGKILL to all of them. Does nothing after the end. */
  signal(signal: "SIGTERM" | "SIGKILL"): void;
}

/** What a container is started with. */
export interface StartRequest {
  readonly pod: Pod;
  readonly container: Container;
  /** Undefined where nobody chose one. */
  readonly fate: Fate | undefined;
  /** Whether its end is what the Pod waits for: an init container. */
  readonly runsToCompletion: boolean;
  /** As kubelet resolved it. */
  readonly env: Readonly<Record<string, string>>;
  readonly restartCount: number;
  readonly latency: Latency;
  /** To be called once, when the container has ended. */
  readonly onExit: (exit: ContainerExit) => void;
  /** Asks kubelet to evict the Pod. */
  readonly evict: (verdict: PodVerdict) => void;
}

/** Runs containers. Throws a StartError where the container was made but its command cannot be started. */
export interface ContainerRuntime {
  /** A fault that keeps the container from being made, in the runtime's words; undefined when it can be made. */
  createFault?(container: Container): string | undefined;
  start(request: StartRequest): LiveContainer | Promise<LiveContainer>;
  /** The Pod is gone: what was kept for it can go. */
  forget?(pod: Pod): void | Promise<void>;
}

/** The command of a container is not there: kubelet reports 128, StartError. */
export class StartError extends Error {
  /** @param why by default that there is no such program. */
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

/** What a process that was killed by a signal shows as its exit code. */
export const EXIT_SIGKILL = 137;
export const EXIT_SIGTERM = 143;
