/** The input of a node's init process, as JSON in the file that its argument names. */
export interface NodeSettings {
  readonly dir: string;
  /** The folder of the control plane's binaries. */
  readonly controlPlane: string;
  /** The folder of the node's binaries. */
  readonly binaries: string;
  /** The folder of gVisor's programs; undefined: the node has only runc. */
  readonly gvisor?: string;
  readonly nodeName: string;
  readonly cgroup: string;
  /** Settings that override the kubelet's usual ones. */
  readonly kubelet?: Readonly<Record<string, unknown>>;
  /** Flags that override the control plane's usual ones. */
  readonly extraArgs?: {
    readonly apiServer?: readonly string[];
    readonly controllerManager?: readonly string[];
    readonly scheduler?: readonly string[];
  };
}

/** What other processes need to know about a running node. */
export interface NodeState {
  readonly nodeName: string;
  /** The URL of the API server inside the node's network namespace. */
  readonly server: string;
  readonly caFile: string;
  readonly adminToken: string;
  /** The path of a kubeconfig with all permissions, for processes in the node's network namespace. */
  readonly kubeconfig: string;
  /** The same for the user of the operator, with only the permissions that its chart grants. */
  readonly operatorKubeconfig: string;
  readonly version: string;
  readonly clientCaDir: string;
  readonly auditLog: string;
  /** The folder with the logs of all programs, `NAME.log`. */
  readonly logs: string;
  /** The folder with the logs of containers, `NAMESPACE_POD_UID/CONTAINER/N.log`. */
  readonly podLogs: string;
  /** The node's own address, which Pods can reach. */
  readonly address: string;
  /** The path inside the node's mounts. */
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

/** The environment of a process. */
export interface ProcessEnvironment {
  readonly pid: number;
  /** The UID of the Pod that the process belongs to, or undefined for a program of the node. */
  readonly pod: string | undefined;
  /** The id of the container in that Pod. */
  readonly container: string | undefined;
  /** In the form `NAME=value`. */
  readonly variables: readonly string[];
}

/** A program to run in the node's namespaces until it's ended or the node ends. Its output goes to `logs/NAME.log`. */
export interface ProgramSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** How a program ended, or undefined while it runs. */
export type ProgramEnd = { readonly code: number | null; readonly signal: string | null } | undefined;

/** The operations on a running node. Each call is idempotent unless it says otherwise. */
export interface NodeControl {
  state(): Promise<NodeState>;
  /** Sends SIGTERM by default. The containers keep running. */
  stopKubelet(signal?: NodeJS.Signals): Promise<void>;
  /** Resolves when its Node is Ready again. `settings` permanently replace those of the start. */
  startKubelet(settings?: Readonly<Record<string, unknown>>): Promise<void>;
  /** The containers keep running, each under its shim. */
  stopContainerd(signal?: NodeJS.Signals): Promise<void>;
  startContainerd(): Promise<void>;
  stopApiServer(signal?: NodeJS.Signals): Promise<void>;
  startApiServer(): Promise<void>;
  /** Imports an OCI archive from this machine. */
  loadImages(archive: string): Promise<void>;
  /** Runs a command in the namespaces to its end. Never rejects because of its exit code. */
  run(command: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Outcome>;
  /** Resolves with the program's pid as the node sees it. Rejects if a program with that name is running. */
  spawn(spec: ProgramSpec): Promise<number>;
  /** Does nothing if the program has ended. */
  signal(name: string, signal: NodeJS.Signals): Promise<void>;
  /** Returns how the program ended. Waits a few seconds for its end, so call again while the result is undefined. */
  ended(name: string): Promise<ProgramEnd>;
  /** Returns every process in the node's pid namespace. */
  processes(): Promise<readonly NodeProcess[]>;
  /** Returns the environments of those processes that still exist. */
  environments(pids: readonly number[]): Promise<readonly ProcessEnvironment[]>;
}

/** The names of all calls. */
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
