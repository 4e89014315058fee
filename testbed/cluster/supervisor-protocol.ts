/** What a process says to its supervisor. */
export type ToSupervisor =
  | ({ readonly type: "start" } & ProcessSpec)
  | { readonly type: "signal"; readonly name: string; readonly signal: NodeJS.Signals }
  | { readonly type: "end" };

/** What the supervisor answers. `ready` comes once, when its directory exists. */
export type FromSupervisor =
  | { readonly type: "ready" }
  | { readonly type: "started"; readonly name: string; readonly pid: number }
  | { readonly type: "failed"; readonly name: string; readonly message: string }
  | { readonly type: "exited"; readonly name: string; readonly code: number | null; readonly signal: string | null };

/** A program to run. `name` is free to use again once the process before it has exited. */
export interface ProcessSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** File that gets both outputs, appended. */
  readonly logFile: string;
}
