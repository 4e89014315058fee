/** What the node says to the host of its processes. */
export type ToHost =
  | ({ readonly type: "start" } & ProcessSpec)
  | { readonly type: "signal"; readonly id: string; readonly signal: "SIGTERM" | "SIGKILL" }
  | { readonly type: "end" };

/** What the host answers. `ready` comes once. */
export type FromHost =
  | { readonly type: "ready" }
  | { readonly type: "started"; readonly id: string; readonly pid: number }
  | { readonly type: "failed"; readonly id: string; readonly code: string; readonly message: string }
  | { readonly type: "exited"; readonly id: string; readonly exitCode: number };

/** A container's first process. */
export interface ProcessSpec {
  /** Unique for the life of the host; stands in the environment of everything the container starts (CONTAINER_MARK). */
  readonly id: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** File that gets both outputs, appended. */
  readonly logFile: string;
}

/** Marks the processes of a container by their environment: a tool that leaves the process group is found by it. */
export const CONTAINER_MARK = "SIMULATED_NODE_CONTAINER";
