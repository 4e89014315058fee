import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { grantNodeAccess } from "./access.ts";
import { ApiClient, ApiError } from "./api.ts";
import { AUDIT_POLICY, AuditLog } from "./audit.ts";
import { findBinaries } from "./build.ts";
import { ClientCa } from "./client-ca.ts";
import { Component } from "./component.ts";
import { apiServerArgs, controllerManagerArgs, etcdArgs, type Layout, layout, schedulerArgs } from "./components.ts";
import { kubeconfigFile, renderKubeconfig, writeCertificateKubeconfig } from "./kubeconfig.ts";
import { PortTakenError, retryOnTakenPort } from "./ports.ts";
import type { Progress } from "./progress.ts";
import { Supervisor } from "./supervisor.ts";
import { ADMIN, KUBELET_CLIENT, makeUsers, OPERATOR, tokenFile, type User } from "./users.ts";

export interface ClusterOptions {
  /** The folder of the binaries. By default, they're found or built. */
  readonly binaries?: string;
  /** Shows progress, most importantly while the control plane is built for the first time. */
  readonly progress?: Progress;
  /** Additional users with tokens. All other users get certificates (`kubeconfigFor`). */
  readonly users?: readonly { readonly name: string; readonly groups?: readonly string[] }[];
  /** Flags that are appended to the usual ones, so that they override them. */
  readonly extraArgs?: {
    readonly etcd?: readonly string[];
    readonly apiServer?: readonly string[];
    readonly controllerManager?: readonly string[];
    readonly scheduler?: readonly string[];
  };
  /** The folder in which the cluster creates its temporary folder. Defaults to the system's. */
  readonly parentDir?: string;
  /** Called when a part of the control plane ends unexpectedly. By default, the error is printed. */
  readonly onFailure?: (error: Error) => void;
}

/**
 * A running control plane: etcd, API server, controller-manager, and scheduler. It ends with this process at the
 * latest.
 */
export interface Cluster extends AsyncDisposable {
  /** The path of a kubeconfig with all permissions. */
  readonly kubeconfig: string;
  /**
   * The path of a kubeconfig for the operator's service account. It has only the permissions that RBAC grants to it.
   */
  readonly operatorKubeconfig: string;
  /** `https://127.0.0.1:PORT`. The port stays the same across restarts. */
  readonly server: string;
  /** The server's certificate authority, in PEM. */
  readonly caFile: string;
  /** The temporary folder of everything that belongs to the cluster. */
  readonly dir: string;
  readonly adminToken: string;
  /** The release that the API server reports, such as `v1.36.3`. */
  readonly version: string;
  /** The folder of the client certificate authority, for other processes (`ClientCa.load`). */
  readonly clientCaDir: string;
  /** A client with all permissions. */
  readonly api: ApiClient;
  readonly audit: AuditLog;
  /**
   * Returns the path of a kubeconfig for a user: with a token if the user was known at the start, or else with a
   * certificate.
   */
  kubeconfigFor(user: string, groups?: readonly string[]): Promise<string>;
  /** Returns a separate client for a user who was known at the start. */
  apiFor(user: string): ApiClient;
  /**
   * Ends the API server. With SIGTERM it can close connections properly, SIGKILL cuts them. Its data and port are kept.
   */
  stopApiServer(signal?: NodeJS.Signals): Promise<void>;
  startApiServer(): Promise<void>;
  restartApiServer(signal?: NodeJS.Signals): Promise<void>;
  /** Ends everything and removes the cluster's folder. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a separate control plane on loopback and waits until it accepts Pods. Doesn't need root. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const { progress, parentDir = tmpdir() } = options;
  const binaries = options.binaries ?? (await findBinaries(progress ? { progress } : {})).dir;
  const supervisor = await Supervisor.start(join(parentDir, `berth-cluster-${randomBytes(6).toString("hex")}`));
  try {
    return await ControlPlane.start(supervisor, binaries, options);
  } catch (error) {
    await supervisor.end();
    throw error;
  }
}

/** The controller-manager creates default service accounts right after its caches are filled. */
const SERVICE_ACCOUNT_TIMEOUT_MS = 60_000;
const POLL_MS = 20;
/** While the API server is down, another process may take its port, usually for a moment. */
const PORT_TIMEOUT_MS = 20_000;
const PORT_POLL_MS = 200;

class ControlPlane implements Cluster {
  readonly kubeconfig: string;
  readonly operatorKubeconfig: string;
  readonly server: string;
  readonly caFile: string;
  readonly dir: string;
  readonly adminToken: string;
  readonly version: string;
  readonly clientCaDir: string;
  readonly api: ApiClient;
  readonly audit: AuditLog;
  readonly #supervisor: Supervisor;
  readonly #files: Layout;
  readonly #users: ReadonlyMap<string, User>;
  readonly #clientCa: ClientCa;
  readonly #ca: string;
  readonly #apiServer: Component;
  readonly #clients: ApiClient[] = [];

  private constructor(parts: ControlPlaneParts) {
    this.#supervisor = parts.supervisor;
    this.#files = parts.files;
    this.#users = parts.users;
    this.#clientCa = parts.clientCa;
    this.#ca = parts.ca;
    this.#apiServer = parts.apiServer;
    this.server = parts.server;
    this.version = parts.version;
    this.dir = parts.files.dir;
    this.caFile = parts.files.caFile;
    this.clientCaDir = parts.files.clientCa;
    this.kubeconfig = kubeconfigFile(parts.files.kubeconfigs, ADMIN);
    this.operatorKubeconfig = kubeconfigFile(parts.files.kubeconfigs, OPERATOR);
    this.adminToken = tokenOf(parts.users, ADMIN);
    this.api = parts.api;
    this.#clients.push(parts.api);
    this.audit = new AuditLog(parts.files.auditLog, (path) => this.api.get(path));
  }

  static async start(supervisor: Supervisor, binaries: string, options: ClusterOptions): Promise<ControlPlane> {
    const { extraArgs = {}, onFailure = (error) => console.error(error.message) } = options;
    const files = layout(supervisor.dir);
    const users = makeUsers(options.users);
    await writeFiles(files, users);
    const clientCa = await ClientCa.create(files.clientCa);
    const kubeletClient = clientCa.issue(KUBELET_CLIENT);
    await writeFile(files.kubeletClientCertificate, kubeletClient.certificate);
    await writeSecret(files.kubeletClientKey, kubeletClient.key);
    const component = (name: string, args: readonly string[]) =>
      new Component(supervisor, { binary: join(binaries, name), args, cwd: files.dir, logs: files.logs }, onFailure);

    const etcdUrl = await retryOnTakenPort(async (port) => {
      const etcdUrl = `http://127.0.0.1:${port}`;
      const etcd = component("etcd", [...etcdArgs(files, etcdUrl), ...(extraArgs.etcd ?? [])]);
      await etcd.start(() => answersOk(`${etcdUrl}/readyz`));
      return etcdUrl;
    });
    const { apiServer, api } = await retryOnTakenPort(async (port) => {
      const args = [...apiServerArgs(files, etcdUrl, port), ...(extraArgs.apiServer ?? [])];
      const apiServer = component("kube-apiserver", args);
      const api = await startAndConnect(apiServer, `https://127.0.0.1:${port}`, files.caFile, tokenOf(users, ADMIN));
      return { apiServer, api };
    });
    const ca = await readFile(files.caFile, "utf8");
    for (const { name, token } of users.values()) {
      await writeSecret(kubeconfigFile(files.kubeconfigs, name), renderKubeconfig(api.server, ca, name, { token }));
    }
    const controllerManager = component("kube-controller-manager", [
      ...controllerManagerArgs(files),
      ...(extraArgs.controllerManager ?? []),
    ]);
    const startScheduler = async (port: number) => {
      const scheduler = component("kube-scheduler", [...schedulerArgs(files, port), ...(extraArgs.scheduler ?? [])]);
      const client = await startAndConnect(scheduler, `https://127.0.0.1:${port}`, files.schedulerCaFile, "");
      await client.close();
    };
    await Promise.all([
      controllerManager.start(() => hasServiceAccount(api, "default")),
      retryOnTakenPort(startScheduler),
      grantNodeAccess(api),
    ]);
    const { gitVersion } = await api.get<{ gitVersion: string }>("/version");
    const { server } = api;
    return new ControlPlane({
      supervisor,
      files,
      users,
      clientCa,
      ca,
      apiServer,
      server,
      version: gitVersion,
      api,
    });
  }

  async kubeconfigFor(user: string, groups: readonly string[] = []): Promise<string> {
    const known = this.#users.get(user);
    if (known && groups.every((group) => known.groups.includes(group)))
      return kubeconfigFile(this.#files.kubeconfigs, user);
    const pair = this.#clientCa.issue(user, groups);
    return await writeCertificateKubeconfig(this.clientCaDir, this.server, this.#ca, user, pair);
  }

  apiFor(user: string): ApiClient {
    const client = new ApiClient(this.server, this.#ca, tokenOf(this.#users, user));
    this.#clients.push(client);
    return client;
  }

  async stopApiServer(signal?: NodeJS.Signals): Promise<void> {
    await this.#apiServer.stop(signal);
  }

  async startApiServer(): Promise<void> {
    const deadline = performance.now() + PORT_TIMEOUT_MS;
    for (;;) {
      try {
        return await this.#apiServer.start(() => isReady(this.api));
      } catch (error) {
        if (!(error instanceof PortTakenError) || performance.now() > deadline) throw error;
        await delay(PORT_POLL_MS);
      }
    }
  }

  async restartApiServer(signal?: NodeJS.Signals): Promise<void> {
    await this.stopApiServer(signal);
    await this.startApiServer();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
    await this.#supervisor.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

interface ControlPlaneParts {
  readonly supervisor: Supervisor;
  readonly files: Layout;
  readonly users: ReadonlyMap<string, User>;
  readonly clientCa: ClientCa;
  readonly ca: string;
  readonly apiServer: Component;
  readonly server: string;
  readonly version: string;
  readonly api: ApiClient;
}

/** Waits until a namespace accepts Pods. Before that, the ServiceAccount admission plug-in rejects them. */
export async function waitForServiceAccount(api: ApiClient, namespace: string): Promise<void> {
  const deadline = performance.now() + SERVICE_ACCOUNT_TIMEOUT_MS;
  while (!(await hasServiceAccount(api, namespace))) {
    if (performance.now() > deadline) throw new Error(`namespace ${namespace} has no default service account`);
    await delay(POLL_MS);
  }
}

async function hasServiceAccount(api: ApiClient, namespace: string): Promise<boolean> {
  try {
    await api.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`);
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return false;
    throw error;
  }
}

/**
 * Starts a server and waits until it's ready. Its certificate only exists after the start, so the client is created on
 * the way.
 */
async function startAndConnect(
  component: Component,
  server: string,
  caFile: string,
  token: string,
): Promise<ApiClient> {
  let client: ApiClient | undefined;
  await component.start(async () => {
    const ca = await readFile(caFile, "utf8").catch(() => "");
    // The server hasn't finished writing the certificate.
    if (!ca.trimEnd().endsWith("-----END CERTIFICATE-----")) return false;
    client ??= new ApiClient(server, ca, token);
    return await isReady(client);
  });
  if (!client) throw new Error(`${component.name} is ready without a certificate`);
  return client;
}

async function isReady(api: ApiClient, path = "/readyz"): Promise<boolean> {
  try {
    await api.get(path);
    return true;
  } catch (error) {
    // Before Kubernetes 1.31, a scheduler only has /healthz.
    const isUnknown = error instanceof ApiError && error.status === 404;
    return isUnknown && path !== "/healthz" ? await isReady(api, "/healthz") : false;
  }
}

async function answersOk(url: string): Promise<boolean> {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

async function writeFiles(files: Layout, users: ReadonlyMap<string, User>): Promise<void> {
  for (const dir of [files.pki, files.logs, files.data, files.kubeconfigs]) await mkdir(dir, { mode: 0o700 });
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  await writeSecret(files.serviceAccountKey, privateKey.export({ type: "sec1", format: "pem" }).toString());
  await writeFile(files.serviceAccountPublicKey, publicKey.export({ type: "spki", format: "pem" }));
  await writeSecret(files.tokenFile, tokenFile(users.values()));
  await writeFile(files.auditPolicy, AUDIT_POLICY);
  // The log exists from the start, so that reading it needs no special case.
  await writeFile(files.auditLog, "");
}

async function writeSecret(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
}

function tokenOf(users: ReadonlyMap<string, User>, name: string): string {
  const user = users.get(name);
  if (!user) throw new Error(`unknown user ${name}: add it to the options of startCluster`);
  return user.token;
}
