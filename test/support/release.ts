/** Installs, upgrades and removes the chart with helm, on a simulated node that runs the operator. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import type { ItemRecord } from "../../simulator/item.ts";
import type { Container, Pod } from "../../src/kube/resource.ts";
import { ApiError, type ApiObject } from "../../testbed/cluster/api.ts";
import type { Cluster } from "../../testbed/cluster/cluster.ts";
import type { FateInput, NodeOptions } from "../../testbed/node/node.ts";
import { CHART, type HelmResult } from "../../tools/helm.ts";
import { helmWithValues, RELEASE, type Values } from "./chart.ts";
import { freePort } from "./free-port.ts";
import { untilAssigned, untilState } from "./session-life.ts";
import type { World } from "./world.ts";

/** The operator's command line. */
export const BERTH = fileURLToPath(new URL("../../bin/berth.mjs", import.meta.url));

/** The image of a release, which bin/berth.mjs replaces here. */
const REPOSITORY = "berth";
export const IMAGE = `${REPOSITORY}:${JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")).version}`;

/** Longer than any test. */
const TOKEN_SECONDS = 3_600;

/** Longer than any step and shorter than a test, so that helm reports what hangs. */
const HELM_TIMEOUT = "150s";

/**
 * Options that make a world's node run the operator of a release. The node runs its containers as processes, which
 * reach the API server with a token of the Pod's service account, like the one that the kubelet mounts. Session Pods
 * are simulated.
 */
export function operatorNode(cluster: Cluster, session: (pod: Pod) => FateInput): Partial<NodeOptions> {
  return {
    images: {
      [IMAGE]: { command: [process.execPath, BERTH], env: (pod) => serviceAccountEnv(cluster, pod) },
    },
    runtime: (_pod: Pod, container: Container) => (container.image === IMAGE ? "process" : "scripted"),
    fates: (pod, container) => (container.image === IMAGE ? undefined : session(pod)),
  };
}

async function serviceAccountEnv(cluster: Cluster, pod: Pod): Promise<Record<string, string>> {
  const { namespace = "", name = "", uid = "" } = pod.metadata;
  const account = (pod.spec as { serviceAccountName?: string }).serviceAccountName ?? "default";
  const { status } = await cluster.api.create<{ status: { token: string } }>(
    `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
    {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: {
        expirationSeconds: TOKEN_SECONDS,
        boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid },
      },
    },
  );
  const dir = join(cluster.dir, "pods");
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, `${uid}.kubeconfig`);
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "in", cluster: { server: cluster.server, "certificate-authority": cluster.caFile } }],
    users: [{ name: account, user: { token: status.token } }],
    // As in a Pod, the namespace is the Pod's own.
    contexts: [{ name: "in", context: { cluster: "in", user: account, namespace } }],
    "current-context": "in",
  };
  await writeFile(path, stringify(config), { mode: 0o600 });
  return { KUBECONFIG: path };
}

/** A release of the chart in its own namespace, on the node of the world whose Environments it serves. */
export class Release {
  readonly namespace: string;
  readonly #cluster: Cluster;
  readonly #world: World;
  readonly #chart: string;

  constructor(cluster: Cluster, world: World, namespace: string, chart: string = CHART) {
    this.#cluster = cluster;
    this.#world = world;
    this.namespace = namespace;
    this.#chart = chart;
  }

  /** The operator's user name at the API server. */
  get operator(): string {
    return `system:serviceaccount:${this.namespace}:berth-operator`;
  }

  /**
   * Resolves when the operator runs.
   * @throws {Error} with helm's message
   */
  install(values: Values = {}, flags: readonly string[] = []): Promise<HelmResult> {
    return this.#release("install", ["--create-namespace", ...flags], values);
  }

  /** @throws {Error} with helm's message */
  upgrade(values: Values = {}, chart = this.#chart, flags: readonly string[] = []): Promise<HelmResult> {
    return this.#release("upgrade", flags, values, chart);
  }

  /**
   * Rolls back to the previous revision.
   * @throws {Error} with helm's message
   */
  rollback(): Promise<HelmResult> {
    return this.#succeed(["rollback", RELEASE, "--namespace", this.namespace, ...this.#wait()]);
  }

  /**
   * Resolves when everything is deleted.
   * @throws {Error} with helm's message
   */
  uninstall(flags: readonly string[] = []): Promise<HelmResult> {
    return this.#succeed(["uninstall", RELEASE, "--namespace", this.namespace, ...this.#wait(), ...flags]);
  }

  /** Runs `helm test` and returns the result, even a failure. */
  tryTest(): Promise<HelmResult> {
    const args = ["test", RELEASE, "--namespace", this.namespace, "--timeout", HELM_TIMEOUT];
    return helmWithValues(args, undefined, this.#env());
  }

  /** Returns the result, even a failure. */
  tryUninstall(flags: readonly string[]): Promise<HelmResult> {
    return helmWithValues(["uninstall", RELEASE, "--namespace", this.namespace, ...flags], undefined, this.#env());
  }

  /** The names of the release's objects of some kinds in its namespace, such as `deployments/berth-operator`. */
  async objects(): Promise<string[]> {
    const kinds: readonly [string, string][] = [
      ["/apis/apps/v1", "deployments"],
      ["/apis/batch/v1", "jobs"],
      ["/apis/policy/v1", "poddisruptionbudgets"],
      ["/apis/rbac.authorization.k8s.io/v1", "roles"],
      ["/apis/rbac.authorization.k8s.io/v1", "rolebindings"],
      ["/api/v1", "serviceaccounts"],
      ["/api/v1", "services"],
      ["/api/v1", "pods"],
    ];
    const query = `labelSelector=app.kubernetes.io/instance%3D${RELEASE}`;
    const found = await Promise.all(
      kinds.map(async ([group, plural]) => {
        const path = `${group}/namespaces/${this.namespace}/${plural}?${query}`;
        const { items } = await this.#cluster.api.get<{ items: ApiObject[] }>(path);
        return items.map(({ metadata }) => `${plural}/${metadata?.name}`);
      }),
    );
    return found.flat().sort();
  }

  async #release(command: string, flags: readonly string[], values: Values, chart = this.#chart): Promise<HelmResult> {
    const args = [command, RELEASE, chart, "--namespace", this.namespace, ...this.#wait(), ...flags];
    return await this.#succeed(args, { ...(await this.#ownValues()), ...values });
  }

  /** Ports that no other process uses, and the world's own node and Work API. */
  async #ownValues(): Promise<Values> {
    return {
      allowedApiOrigins: [this.#world.simulator.url],
      nodeSelector: this.#world.nodeSelector,
      metrics: { port: await freePort() },
      health: { port: await freePort() },
      image: { repository: REPOSITORY },
    };
  }

  async #succeed(args: readonly string[], values?: Values): Promise<HelmResult> {
    const result = await helmWithValues(args, values, this.#env());
    if (result.code === 0) return result;
    const logs = await operatorLogs(this.#world);
    throw new Error(`helm ${args.join(" ")}: ${result.stderr}\n${logs}\n${this.#world.describe()}`);
  }

  #wait(): string[] {
    return ["--wait", "--timeout", HELM_TIMEOUT];
  }

  /** Excludes the user's own helm configuration. */
  #env(): NodeJS.ProcessEnv {
    const home = join(this.#cluster.dir, "helm");
    return { ...process.env, KUBECONFIG: this.#cluster.kubeconfig, HELM_CONFIG_HOME: home, HELM_CACHE_HOME: home };
  }
}

/** Queues an item and waits until its session runs. If it gets no Pod, the error has the operator's logs. */
export async function serve(world: World): Promise<{ readonly item: ItemRecord; readonly pod: Pod }> {
  const item = world.simulator.enqueue(world.environmentId);
  const pod = await untilAssigned(world, item).catch(async (error: unknown) => {
    throw new Error(await operatorLogs(world), { cause: error });
  });
  await untilState(world, item, "active");
  return { item, pod };
}

/** The output of the operator processes on a world's node. */
export async function operatorLogs(world: World): Promise<string> {
  const logs: string[] = [];
  for (const { pod } of world.node.pods) {
    for (const { name, image } of pod.spec.containers) {
      if (image === IMAGE) logs.push(`${pod.metadata.name}:\n${await world.node.logs(pod.metadata, name)}`);
    }
  }
  return logs.join("\n");
}

/** Whether an object exists in the API server. */
export async function exists(cluster: Cluster, path: string): Promise<boolean> {
  try {
    await cluster.api.get(path);
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return false;
    throw error;
  }
}
