import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ApiClient } from "../cluster/api.ts";
import { AuditLog } from "../cluster/audit.ts";
import { findBinaries } from "../cluster/build.ts";
import { ClientCa } from "../cluster/client-ca.ts";
import { renderKubeconfig, writeCertificateKubeconfig } from "../cluster/kubeconfig.ts";
import { MissingToolError } from "../cluster/missing.ts";
import type { Progress } from "../cluster/progress.ts";
import { type SupervisedProcess, Supervisor } from "../cluster/supervisor.ts";
import { ADMIN } from "../cluster/users.ts";
import { kubernetesMinors, MINOR_VARIABLE } from "../cluster/versions.ts";
import { findNodeBinaries } from "./binaries.ts";
import { cgroupName, makeCgroups, removeOrphans } from "./cgroups.ts";
import { connectNodeControl } from "./control-client.ts";
import type { NodeControl, NodeSettings, NodeState } from "./control-protocol.ts";
import { Forwarder } from "./forward.ts";
import { findGvisor, GVISOR_CLASS, GVISOR_HANDLER } from "./gvisor.ts";
import { type NodeLayout, nodeLayout } from "./layout.ts";
import { checkRequirements, NAMESPACES, systemPath } from "./requirements.ts";

/** Enough for the control plane, containerd, and kubelet to start one after the other on a busy machine. */
const READY_TIMEOUT_MS = 180_000;
const POLL_MS = 50;
const TAIL_LINES = 30;
const RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses";

export interface NodeClusterOptions extends Pick<NodeSettings, "kubelet" | "extraArgs"> {
  readonly progress?: Progress;
  /** Defaults to `node0`. */
  readonly nodeName?: string;
  /** Whether the node also runs Pods of the RuntimeClass `gvisor`. */
  readonly gvisor?: boolean;
  /** OCI archives to import before the cluster is ready. */
  readonly images?: readonly string[];
  /** The folder in which the cluster creates its temporary folder. Defaults to the system's. */
  readonly parentDir?: string;
}

/**
 * A control plane with one real node: kubelet, containerd, runc, and kube-proxy, in their own mount, pid, and network
 * namespaces. It ends with this process at the latest and leaves nothing behind. Only the API server is reachable from
 * outside.
 */
export interface NodeCluster extends AsyncDisposable {
  /** The path of a kubeconfig with all permissions, for use outside the node's namespaces. */
  readonly kubeconfig: string;
  /** `https://127.0.0.1:PORT`, outside the namespaces. */
  readonly server: string;
  /** The server's certificate authority, in PEM. */
  readonly caFile: string;
  /** A client with all permissions. */
  readonly api: ApiClient;
  readonly audit: AuditLog;
  readonly nodeName: string;
  /** The release that the API server reports, such as `v1.36.3`. */
  readonly version: string;
  readonly control: NodeControl;
  /** For `connectNodeControl` in other processes. */
  readonly controlSocket: string;
  /** The temporary folder of everything. Logs are in `logs`. */
  readonly dir: string;
  readonly state: NodeState;
  /** Returns the path of a kubeconfig for a user, with a certificate. */
  kubeconfigFor(user: string, groups?: readonly string[]): Promise<string>;
  /** Ends everything and removes it. Idempotent. */
  stop(): Promise<void>;
}

/** Only the newest version has a kubelet, and a kubelet must not be newer than its API server. */
async function checkMinor(asked: string | undefined): Promise<void> {
  const newest = (await kubernetesMinors()).at(-1);
  if (!asked || asked === newest) return;
  throw new MissingToolError(`The real node needs Kubernetes ${newest}, not ${asked}: unset ${MINOR_VARIABLE}.`);
}

/**
 * Starts a cluster with one real node and waits until the node is Ready. Needs root.
 * @throws MissingToolError if this machine can't run one; the message says what to do
 */
export async function startNodeCluster(options: NodeClusterOptions = {}): Promise<NodeCluster> {
  const { progress, parentDir = tmpdir(), nodeName = "node0", kubelet, extraArgs } = options;
  await checkRequirements();
  await checkMinor(process.env[MINOR_VARIABLE]);
  const build = progress ? { progress } : {};
  const controlPlane = (await findBinaries(build)).dir;
  const binaries = await findNodeBinaries(build);
  const gvisor = options.gvisor ? await findGvisor(build) : undefined;
  await removeOrphans();
  const cgroup = cgroupName();
  const dir = join(parentDir, `berth-node-${randomBytes(6).toString("hex")}`);
  const removal = [process.execPath, join(import.meta.dirname, "cgroups-main.ts"), cgroup];
  const supervisor = await Supervisor.start(dir, removal);
  const files = nodeLayout(supervisor.dir);
  const settings: NodeSettings = {
    ...{ dir: files.dir, controlPlane, binaries, nodeName, cgroup },
    ...(gvisor && { gvisor }),
    ...(kubelet && { kubelet }),
    ...(extraArgs && { extraArgs }),
  };
  try {
    await makeCgroups(cgroup);
    progress?.update("Starting a control plane and a node");
    const init = await startInit(supervisor, files, settings);
    const control = connectNodeControl(files.controlSocket);
    const state = await untilReady(control, init, files);
    for (const archive of options.images ?? []) await control.loadImages(archive);
    const node = await NamespacedNode.connect({ supervisor, files, control, state });
    if (gvisor) await node.api.create(RUNTIME_CLASSES, { metadata: { name: GVISOR_CLASS }, handler: GVISOR_HANDLER });
    return node;
  } catch (error) {
    await supervisor.end();
    throw error;
  }
}

async function startInit(
  supervisor: Supervisor,
  files: NodeLayout,
  settings: NodeSettings,
): Promise<SupervisedProcess> {
  await mkdir(files.logs, { recursive: true });
  const settingsFile = join(files.dir, "node.json");
  await writeFile(settingsFile, JSON.stringify(settings));
  const main = join(import.meta.dirname, "init-main.ts");
  // The shell is the namespace's first process because it reaps orphans, such as containerd's shims. Node doesn't.
  const reaper = ["sh", "-c", '"$@"; exit $?', "init"];
  return await supervisor.spawn({
    name: "node",
    command: "unshare",
    args: [...NAMESPACES, ...reaper, process.execPath, main, settingsFile],
    cwd: files.dir,
    env: {
      PATH: [settings.binaries, ...(settings.gvisor ? [settings.gvisor] : []), systemPath(process.env["PATH"])].join(
        delimiter,
      ),
      HOME: files.dir,
      TMPDIR: files.dir,
      NODE_NO_WARNINGS: "1",
    },
    logFile: join(files.logs, "init.log"),
  });
}

async function untilReady(control: NodeControl, init: SupervisedProcess, files: NodeLayout): Promise<NodeState> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const state = await control.state().catch(() => undefined);
    if (state) return state;
    const late = performance.now() > deadline;
    if (init.exit || late) {
      const log = await readFile(join(files.logs, "init.log"), "utf8").catch(() => "");
      const tail = log.trimEnd().split("\n").slice(-TAIL_LINES).join("\n  ");
      throw new Error(`the node ${late ? "is not ready" : "could not be started"}. The end of its log:\n  ${tail}`);
    }
    await delay(POLL_MS);
  }
}

interface Parts {
  readonly supervisor: Supervisor;
  readonly files: NodeLayout;
  readonly control: NodeControl;
  readonly state: NodeState;
}

class NamespacedNode implements NodeCluster {
  readonly kubeconfig: string;
  readonly server: string;
  readonly caFile: string;
  readonly api: ApiClient;
  readonly audit: AuditLog;
  readonly nodeName: string;
  readonly version: string;
  readonly control: NodeControl;
  readonly controlSocket: string;
  readonly dir: string;
  readonly state: NodeState;
  readonly #supervisor: Supervisor;
  readonly #forwarder: Forwarder;
  readonly #ca: string;

  private constructor(parts: Parts, forwarder: Forwarder, ca: string, kubeconfig: string) {
    const { supervisor, files, control, state } = parts;
    this.#supervisor = supervisor;
    this.#forwarder = forwarder;
    this.#ca = ca;
    this.kubeconfig = kubeconfig;
    this.server = serverAt(forwarder);
    this.caFile = state.caFile;
    this.nodeName = state.nodeName;
    this.version = state.version;
    this.control = control;
    this.controlSocket = files.controlSocket;
    this.dir = files.dir;
    this.state = state;
    this.api = new ApiClient(this.server, ca, state.adminToken);
    this.audit = new AuditLog(state.auditLog, (path) => this.api.get(path));
  }

  static async connect(parts: Parts): Promise<NamespacedNode> {
    const { files, state } = parts;
    const forwarder = await Forwarder.start({ host: "127.0.0.1", port: 0 }, () => ({ path: files.apiSocket }));
    const ca = await readFile(state.caFile, "utf8");
    const kubeconfig = join(files.dir, "kubeconfig");
    const text = renderKubeconfig(serverAt(forwarder), ca, ADMIN, { token: state.adminToken });
    await writeFile(kubeconfig, text, { mode: 0o600 });
    return new NamespacedNode(parts, forwarder, ca, kubeconfig);
  }

  async kubeconfigFor(user: string, groups: readonly string[] = []): Promise<string> {
    const pair = (await ClientCa.load(this.state.clientCaDir)).issue(user, groups);
    return await writeCertificateKubeconfig(this.dir, this.server, this.#ca, user, pair);
  }

  async stop(): Promise<void> {
    await this.api.close();
    await this.#forwarder.close();
    await this.#supervisor.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

function serverAt(forwarder: Forwarder): string {
  return `https://127.0.0.1:${forwarder.port}`;
}
