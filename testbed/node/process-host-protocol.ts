/** Messages from the node to the host of its processes. */
export type ToHost =
  | ({ readonly type: "start" } & ProcessSpec)
  | { readonly type: "signal"; readonly id: string; readonly signal: "SIGTERM" | "SIGKILL" }
  /** Bytes for its standard input, in base64; null closes it. */
  | { readonly type: "input"; readonly id: string; readonly bytes: string | null }
  /** Whether to send its standard output from now on. */
  | { readonly type: "follow"; readonly id: string; readonly on: boolean }
  | { readonly type: "end" };

/** Messages from the host. It sends `ready` once. */
export type FromHost =
  | { readonly type: "ready" }
  | { readonly type: "started"; readonly id: string; readonly pid: number }
  | { readonly type: "output"; readonly id: string; readonly bytes: string }
  | { readonly type: "failed"; readonly id: string; readonly code: string; readonly message: string }
  | { readonly type: "exited"; readonly id: string; readonly exitCode: number };

/** A container's first process. */
export interface ProcessSpec {
  /**
   * Unique for the life of the host. Everything that the container starts has it in its environment (CONTAINER_MARK).
   */
  readonly id: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment. Nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Both outputs are appended to this file. */
  readonly logFile: string;
  /** Whether standard input is a pipe. Otherwise it's empty, and standard output can't be followed. */
  readonly stdin: boolean;
}

/**
 * The environment variable that marks the processes of a container. It identifies tools that leave the process group.
 */
export const CONTAINER_MARK = "SIMULATED_NODE_CONTAINER";
