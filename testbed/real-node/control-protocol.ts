/** What a node's init process is told at its start, as JSON in the file that its argument names. */
export interface NodeSettings {
  readonly dir: string;
  /** Folder of the control plane's binaries. */
  readonly controlPlane: string;
  /** Folder of the node's binaries. */
  readonly binaries: string;
  readonly nodeName: string;
  readonly cgroup: string;
  /** Settings of kubelet over the usual ones. */
  readonly kubelet?: Readonly<Record<string, unknown>>;
  /** Flags of the control plane that win over the usual ones. */
  readonly extraArgs?: {
    readonly apiServer?: readonly string[];
    readonly controllerManager?: readonly string[];
    readonly scheduler?: readonly string[];
  };
}

/** What others must know of a node that runs. */
export interface NodeState {
  readonly nodeName: string;
  /** URL of the API server inside of the node's network namespace. */
  readonly server: string;
  readonly caFile: string;
  readonly adminToken: string;
  readonly version: string;
  readonly clientCaDir: string;
  readonly auditLog: string;
  /** Folder with the logs of all programs, `NAME.log`. */
  readonly logs: string;
  /** Folder with the logs of containers, `NAMESPACE_POD_UID/CONTAINER/N.log`. */
  readonly podLogs: string;
  /** The node's own address: reachable from Pods. */
  readonly address: string;
  /** Path inside of the node's mounts. */
  readonly containerdSocket: string;
}

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process in the node's namespaces. */
export interface NodeProcess {
  readonly pid: number;
  readonly parent: number;
  readonly arguments: readonly string[];
}

/** What a process was given by its environment. */
export interface ProcessEnvironment {
  readonly pid: number;
  /** UID of the Pod that it runs in; undefined for a program of the node. */
  readonly pod: string | undefined;
  /** As `NAME=value`. */
  readonly variables: readonly string[];
}

/** A program to run in the node's namespaces until it is ended, or the node ends. Its output goes to `logs/NAME.log`. */
export interface ProgramSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** How a program ended; undefined while it runs. */
export type ProgramEnd = { readonly code: number | null; readonly signal: string | null } | undefined;

/** What can be done to a node while it runs. Each call is idempotent unless it says otherwise. */
export interface NodeControl {
  state(): Promise<NodeState>;
  /** SIGTERM by default; the containers run on. */
  stopKubelet(signal?: NodeJS.Signals): Promise<void>;
  /** Resolves when its Node is Ready again. `settings` replace those of the start, for good. */
  startKubelet(settings?: Readonly<Record<string, unknown>>): Promise<void>;
  /** The containers run on, each under its shim. */
  stopContainerd(signal?: NodeJS.Signals): Promise<void>;
  startContainerd(): Promise<void>;
  stopApiServer(signal?: NodeJS.Signals): Promise<void>;
  startApiServer(): Promise<void>;
  /** Imports an OCI archive; the file must be one of this machine. */
  loadImages(archive: string): Promise<void>;
  /** Runs a command in the namespaces to its end. Never rejects for its exit code. */
  run(command: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Outcome>;
  /** Rejects when a program of that name runs. Resolves with its pid, as the node sees it. */
  spawn(spec: ProgramSpec): Promise<number>;
  /** Does nothing for a program that has ended. */
  signal(name: string, signal: NodeJS.Signals): Promise<void>;
  /** How it ended; waits up to some seconds for that, so ask again while it is undefined. */
  ended(name: string): Promise<ProgramEnd>;
  /** Every process in the node's pid namespace. */
  processes(): Promise<readonly NodeProcess[]>;
  /** Of these processes, those that are still there. */
  environments(pids: readonly number[]): Promise<readonly ProcessEnvironment[]>;
}

/** Names of all calls. */
export const CONTROL_CALLS = [
  "state",
  "stopKubelet",
  "startKubelet",
  "stopContainerd",
  "startContainerd",
  "stopApiServer",
  "startApiServer",
  "loadImages",
  "run",
  "spawn",
  "signal",
  "ended",
  "processes",
  "environments",
] as const satisfies readonly (keyof NodeControl)[];
