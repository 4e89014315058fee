/** Messages from a process to its supervisor. */
export type ToSupervisor =
  | ({ readonly type: "start" } & ProcessSpec)
  | { readonly type: "signal"; readonly name: string; readonly signal: NodeJS.Signals }
  | { readonly type: "end" };

/** Messages from the supervisor. It sends `ready` once, after it created its directory. */
export type FromSupervisor =
  | { readonly type: "ready" }
  | { readonly type: "started"; readonly name: string; readonly pid: number }
  | { readonly type: "failed"; readonly name: string; readonly message: string }
  | { readonly type: "exited"; readonly name: string; readonly code: number | null; readonly signal: string | null };

/** A program to run. `name` can be reused after the previous process exited. */
export interface ProcessSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment. Nothing is inherited. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Both outputs are appended to this file. */
  readonly logFile: string;
}
