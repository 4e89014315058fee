import { type Clock, sleep } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { isAlreadyExists, isConflict, isForbidden, isNotFound } from "../../src/kube/errors.ts";
import { apiTime, microTime, type Node, type Taint } from "../../src/kube/objects.ts";
import { CONFIG_MAPS, LEASES, NODES } from "../../src/kube/resource.ts";
import type { Logger } from "../../src/observe/logger.ts";

/** The capacity of a Node, as quantities. */
export interface NodeCapacity {
  readonly pods?: number;
  readonly cpu?: string;
  readonly memory?: string;
  readonly ephemeralStorage?: string;
}

export interface RegistrationOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly name: string;
  readonly capacity: NodeCapacity;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly Taint[];
}

/** The label of every simulated node, to select or avoid them. */
export const SIMULATED_LABEL = "testbed.berth.dev/simulated-node";

/** Where each API server publishes what other servers need to check its certificate. */
const CLIENT_AUTHORITY = { namespace: "kube-system", name: "extension-apiserver-authentication" };

const LEASE_NAMESPACE = "kube-node-lease";
/** A kubelet renews every 10 s. Test clusters mark a node as lost after 10 s, so this one renews more often. */
const RENEW_MS = 2_500;
const LEASE_SECONDS = 10;
/** How often a kubelet checks its own status. After a pause, the controller manager has set it to Unknown. */
const STATUS_EVERY_RENEWALS = 4;
/** Bounds `unregister`, which must not hang if the API server is gone. */
const UNREGISTER_TIMEOUT_MS = 2_000;
/** The number of tries when the controller manager writes the same taints. */
const TAINT_TRIES = 20;
/** For what a new API server creates soon. */
const TRIES = 40;
const RETRY_MS = 250;

/** A Node object and its Lease, which `heartbeat` renews while it runs. */
export class Registration {
  readonly #options: RegistrationOptions;
  /** Why the node isn't ready, or null while it is. */
  notReady: string | null = null;
  /** The port at which the API server reaches the node. Undefined if it can't. */
  kubeletPort: number | undefined;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /**
   * Returns the certificate authority of the API server's own certificate, PEM. Undefined if the API server publishes
   * none, or doesn't show it to the node: then no client's certificate can be checked.
   */
  async clientAuthority(): Promise<string | undefined> {
    const { client, logger, name } = this.#options;
    try {
      return (await this.#whenThere(() => client.get(CONFIG_MAPS, CLIENT_AUTHORITY))).data?.["client-ca-file"];
    } catch (error) {
      if (!isNotFound(error) && !isForbidden(error)) throw error;
      logger.warn({ node: name, error: errorText(error) }, "attach and logs are off: found no CA for clients");
      return undefined;
    }
  }

  /** Creates the Node, or adopts an existing one with this name, and makes it Ready and free of taints. */
  async register(): Promise<void> {
    const { client, name, labels, taints } = this.#options;
    const node: Node = {
      metadata: {
        name,
        labels: {
          "kubernetes.io/hostname": name,
          "kubernetes.io/os": "linux",
          "kubernetes.io/arch": process.arch === "x64" ? "amd64" : process.arch,
          [SIMULATED_LABEL]: "true",
          ...labels,
        },
      },
      spec: { taints: [...taints] },
    };
    try {
      await client.create(NODES, node);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      await client.patch(NODES, { name }, { metadata: { labels: node.metadata.labels } }, { type: "merge" });
    }
    await this.#whenThere(() => this.#renew());
    await this.reportReady();
    await this.#clearTaints();
  }

  /** Sends heartbeats until the signal aborts. Never rejects. */
  async heartbeat(signal: AbortSignal): Promise<void> {
    const { clock, logger, name } = this.#options;
    for (let beat = 1; await sleep(clock, RENEW_MS, signal); beat += 1) {
      try {
        await this.#renew(signal);
        if (beat % STATUS_EVERY_RENEWALS === 0) await this.reportReady(signal);
      } catch (error) {
        if (!signal.aborted) logger.warn({ node: name, error: errorText(error) }, "a node's heartbeat failed");
      }
    }
  }

  /** Removes the Node and its Lease if the API server is reachable. */
  async unregister(): Promise<void> {
    const { client, name } = this.#options;
    const bound = { timeoutMs: UNREGISTER_TIMEOUT_MS };
    await Promise.allSettled([
      client.delete(NODES, { name }, {}, bound),
      client.delete(LEASES, { namespace: LEASE_NAMESPACE, name }, {}, bound),
    ]);
  }

  /** Writes the Node's status: whether it's ready, and its capacity. */
  async reportReady(signal?: AbortSignal): Promise<void> {
    const { client, clock, name } = this.#options;
    const status = {
      ...nodeStatus(name, this.#options.capacity, apiTime(clock.now()), this.notReady),
      ...(this.kubeletPort === undefined ? {} : { daemonEndpoints: { kubeletEndpoint: { Port: this.kubeletPort } } }),
    };
    await client.patch(NODES, { name }, { status }, { type: "strategic", subresource: "status" }, aborting(signal));
  }

  /** A new API server creates some of its own namespaces and objects shortly after it's ready. */
  async #whenThere<T>(request: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await request();
      } catch (error) {
        if (!isNotFound(error) || attempt === TRIES) throw error;
        await sleep(this.#options.clock, RETRY_MS);
      }
    }
  }

  async #renew(signal?: AbortSignal): Promise<void> {
    const { client, clock, name } = this.#options;
    const ref = { namespace: LEASE_NAMESPACE, name };
    const spec = {
      holderIdentity: name,
      leaseDurationSeconds: LEASE_SECONDS,
      renewTime: microTime(clock.now()),
    };
    try {
      await client.patch(LEASES, ref, { spec }, { type: "merge" }, aborting(signal));
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await client.create(LEASES, { metadata: ref, spec }, {}, aborting(signal));
    }
  }

  /**
   * Removes the not-ready taint that the API server sets on a new Node. The controller manager would only remove it
   * later.
   */
  async #clearTaints(): Promise<void> {
    const { client, name } = this.#options;
    for (let attempt = 1; attempt <= TAINT_TRIES; attempt += 1) {
      const node = await client.get(NODES, { name });
      const taints = node.spec?.taints ?? [];
      const kept = taints.filter(({ key }) => key !== "node.kubernetes.io/not-ready");
      if (kept.length === taints.length) return;
      const { resourceVersion } = node.metadata;
      try {
        const patch = { metadata: { resourceVersion }, spec: { taints: kept } };
        await client.patch(NODES, { name }, patch, { type: "merge" });
        return;
      } catch (error) {
        if (!isConflict(error)) throw error;
      }
    }
  }
}

function aborting(signal: AbortSignal | undefined) {
  return signal === undefined ? {} : { signal };
}

function nodeStatus(
  name: string,
  capacity: NodeCapacity,
  now: string,
  notReady: string | null,
): Record<string, unknown> {
  const { pods = 1_000, cpu = "64", memory = "256Gi", ephemeralStorage = "1Ti" } = capacity;
  const resources = { pods: String(pods), cpu, memory, "ephemeral-storage": ephemeralStorage };
  const condition = (type: string, status: string, reason: string, message: string) => ({
    type,
    status,
    reason,
    message,
    lastHeartbeatTime: now,
    lastTransitionTime: now,
  });
  return {
    capacity: resources,
    allocatable: resources,
    conditions: [
      condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
      condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
      condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
      notReady === null
        ? condition("Ready", "True", "KubeletReady", "the simulated node is ready")
        : condition("Ready", "False", "KubeletNotReady", notReady),
    ],
    addresses: [
      { type: "InternalIP", address: "127.0.0.1" },
      { type: "Hostname", address: name },
    ],
    nodeInfo: {
      machineID: name,
      systemUUID: name,
      bootID: name,
      kernelVersion: "simulated",
      osImage: "simulated",
      containerRuntimeVersion: "simulated://1",
      kubeletVersion: "v1.36.3",
      kubeProxyVersion: "",
      operatingSystem: "linux",
      architecture: process.arch === "x64" ? "amd64" : process.arch,
    },
  };
}
