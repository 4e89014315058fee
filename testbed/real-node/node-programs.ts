import { execFile } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ApiClient } from "../cluster/api.ts";
import type { Cluster } from "../cluster/cluster.ts";
import { Component } from "../cluster/component.ts";
import type { SupervisedProcess, Supervisor } from "../cluster/supervisor.ts";
import { containerdConfig } from "./containerd.ts";
import type {
  NodeControl,
  NodeProcess,
  NodeSettings,
  NodeState,
  Outcome,
  ProcessEnvironment,
  ProgramEnd,
  ProgramSpec,
} from "./control-protocol.ts";
import { type KubeletOptions, kubeletArgs, kubeletConfig, kubeProxyConfig } from "./kubelet.ts";
import type { NodeLayout } from "./layout.ts";
import { NODE_ADDRESS } from "./network.ts";

/** How long `ended` waits before it returns undefined. */
const ENDED_WAIT_MS = 5_000;
const MAX_OUTPUT_BYTES = 256 * 1024 ** 2;
/** containerd's namespace for the containers of the kubelet. */
const CONTAINERD_NAMESPACE = "k8s.io";

interface Parts {
  readonly settings: NodeSettings;
  readonly files: NodeLayout;
  readonly cluster: Cluster;
  readonly supervisor: Supervisor;
  readonly kubeconfigs: { readonly kubelet: string; readonly kubeProxy: string };
}

/** The programs of a node, next to a control plane in the same namespaces. */
export class NodePrograms implements NodeControl {
  readonly #settings: NodeSettings;
  readonly #files: NodeLayout;
  readonly #cluster: Cluster;
  readonly #supervisor: Supervisor;
  readonly #kubeconfigs: Parts["kubeconfigs"];
  readonly #containerd: Component;
  readonly #kubelet: Component;
  readonly #kubeProxy: Component;
  #kubeletSettings: Readonly<Record<string, unknown>> = {};
  readonly #spawned = new Map<string, SupervisedProcess>();

  constructor(parts: Parts) {
    const { settings, files, cluster, supervisor, kubeconfigs } = parts;
    this.#settings = settings;
    this.#files = files;
    this.#cluster = cluster;
    this.#supervisor = supervisor;
    this.#kubeconfigs = kubeconfigs;
    const component = (name: string, args: readonly string[]) =>
      new Component(
        supervisor,
        { binary: join(settings.binaries, name), args, cwd: files.dir, logs: files.logs },
        (error) => console.error(error.message),
      );
    this.#containerd = component("containerd", ["--config", files.containerdConfig]);
    this.#kubelet = component("kubelet", kubeletArgs(files, this.#kubeletOptions()));
    this.#kubeProxy = component("kube-proxy", [`--config=${files.kubeProxyConfig}`, "--v=1"]);
  }

  /** Starts the programs in order. Resolves when the Node is Ready. */
  async start(): Promise<void> {
    await writeFile(this.#files.containerdConfig, containerdConfig(this.#files, this.#settings.gvisor !== undefined));
    await writeFile(this.#files.kubeProxyConfig, kubeProxyConfig(this.#kubeconfigs.kubeProxy, this.#settings.nodeName));
    await this.startContainerd();
    await Promise.all([this.startKubelet(this.#settings.kubelet), this.#kubeProxy.start(() => proxies())]);
  }

  async state(): Promise<NodeState> {
    const { server, caFile, adminToken, kubeconfig, operatorKubeconfig, version, clientCaDir, audit } = this.#cluster;
    const { logs, podLogs, containerdSocket } = this.#files;
    return {
      ...{ nodeName: this.#settings.nodeName, server, caFile, adminToken, version, clientCaDir },
      ...{ kubeconfig, operatorKubeconfig },
      ...{ auditLog: audit.file, logs, podLogs, address: NODE_ADDRESS, containerdSocket },
    };
  }

  async stopKubelet(signal?: NodeJS.Signals): Promise<void> {
    await this.#kubelet.stop(signal);
  }

  async startKubelet(settings?: Readonly<Record<string, unknown>>): Promise<void> {
    if (this.#kubelet.pid !== undefined) return;
    if (settings) this.#kubeletSettings = settings;
    await writeFile(this.#files.kubeletConfig, kubeletConfig(this.#files, this.#kubeletOptions()));
    // Heartbeat times are in whole seconds, so one of this second may be from the previous kubelet.
    const since = new Date(Math.floor(Date.now() / 1000) * 1000);
    await this.#kubelet.start(() => isNodeReady(this.#cluster.api, this.#settings.nodeName, since));
  }

  async stopContainerd(signal?: NodeJS.Signals): Promise<void> {
    await this.#containerd.stop(signal);
  }

  async startContainerd(): Promise<void> {
    if (this.#containerd.pid !== undefined) return;
    await this.#containerd.start(async () => (await this.#ctr(["version"])).code === 0);
  }

  async stopApiServer(signal?: NodeJS.Signals): Promise<void> {
    await this.#cluster.stopApiServer(signal);
  }

  async startApiServer(): Promise<void> {
    await this.#cluster.startApiServer();
  }

  async loadImages(archive: string): Promise<void> {
    const { code, stderr } = await this.#ctr(["images", "import", "--snapshotter=overlayfs", archive]);
    if (code !== 0) throw new Error(`ctr images import ${archive} ended with ${code}: ${stderr}`);
  }

  run(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const options = { env: { PATH: process.env["PATH"], ...env }, maxBuffer: MAX_OUTPUT_BYTES };
      execFile(command, args, options, (error, stdout, stderr) => {
        if (!error) resolve({ code: 0, stdout, stderr });
        else if (typeof error.code === "number") resolve({ code: error.code, stdout, stderr });
        else if (error.signal) resolve({ code: -1, stdout, stderr: `${stderr}ended by ${error.signal}` });
        else reject(error);
      });
    });
  }

  async spawn({ name, command, args, env = {} }: ProgramSpec): Promise<number> {
    const { dir, logs } = this.#files;
    const running = await this.#supervisor.spawn({
      ...{ name: `spawned-${name}`, command, args, cwd: dir },
      env: { PATH: process.env["PATH"], HOME: dir, ...env },
      logFile: join(logs, `${name}.log`),
    });
    this.#spawned.set(name, running);
    return running.pid;
  }

  async signal(name: string, signal: NodeJS.Signals): Promise<void> {
    this.#program(name).kill(signal);
  }

  async ended(name: string): Promise<ProgramEnd> {
    const program = this.#program(name);
    const waited = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), ENDED_WAIT_MS);
    });
    return await Promise.race([program.exited, waited]);
  }

  async processes(): Promise<readonly NodeProcess[]> {
    const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const found = await Promise.all(ids.map((id) => readProcess(Number(id))));
    return found.filter((one) => one !== undefined);
  }

  async environments(pids: readonly number[]): Promise<readonly ProcessEnvironment[]> {
    const found = await Promise.all(pids.map(readEnvironment));
    return found.filter((one) => one !== undefined);
  }

  #program(name: string): SupervisedProcess {
    const program = this.#spawned.get(name);
    if (!program) throw new Error(`no program ${name} was started`);
    return program;
  }

  #kubeletOptions(): KubeletOptions {
    const { nodeName, cgroup } = this.#settings;
    return {
      kubeconfig: this.#kubeconfigs.kubelet,
      nodeName,
      cgroupRoot: `/${cgroup}`,
      settings: this.#kubeletSettings,
    };
  }

  #ctr(args: readonly string[]): Promise<Outcome> {
    const common = ["--address", this.#files.containerdSocket, "--namespace", CONTAINERD_NAMESPACE];
    return this.run(join(this.#settings.binaries, "ctr"), [...common, ...args]);
  }
}

/** Whether the kubelet has reported itself as ready since then. An older report is from the previous kubelet. */
async function isNodeReady(api: ApiClient, name: string, since: Date): Promise<boolean> {
  interface Node {
    readonly status?: {
      readonly conditions?: readonly { type: string; status: string; lastHeartbeatTime?: string }[];
    };
  }
  const node = await api.get<Node>(`/api/v1/nodes/${name}`).catch(() => undefined);
  const ready = node?.status?.conditions?.find(({ type }) => type === "Ready");
  return ready?.status === "True" && new Date(ready.lastHeartbeatTime ?? 0) > since;
}

/** Requests kube-proxy's health check at its usual port. */
async function proxies(): Promise<boolean> {
  const response = await fetch(`http://${NODE_ADDRESS}:10256/healthz`).catch(() => undefined);
  return response?.ok === true;
}

/** Returns undefined for a process that is gone and for kernel threads. */
async function readProcess(pid: number): Promise<NodeProcess | undefined> {
  try {
    const [commandLine, stat] = await Promise.all([
      readFile(`/proc/${pid}/cmdline`, "utf8"),
      readFile(`/proc/${pid}/stat`, "utf8"),
    ]);
    if (commandLine === "") return undefined;
    // The name in parentheses may contain anything. The parent is the second field after it.
    const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    return { pid, parent, arguments: commandLine.replace(/\0$/, "").split("\0") };
  } catch {
    return undefined;
  }
}

/** Returns undefined for a process that is gone. */
async function readEnvironment(pid: number): Promise<ProcessEnvironment | undefined> {
  try {
    const [text, cgroup] = await Promise.all([
      readFile(`/proc/${pid}/environ`, "utf8"),
      readFile(`/proc/${pid}/cgroup`, "utf8"),
    ]);
    const [, pod, container] = /\/pod([0-9a-f-]{36})\/([0-9a-f]+)/.exec(cgroup) ?? [];
    return { pid, pod, container, variables: text.split("\0").filter((variable) => variable !== "") };
  } catch {
    return undefined;
  }
}
