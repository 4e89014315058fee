import { randomBytes } from "node:crypto";
import type { ViolationKind } from "../../../simulator/violations.ts";
import { findCondition } from "../../../src/api/conditions.ts";
import type { Environment } from "../../../src/api/environment.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT } from "../../../src/api/names.ts";
import { realClock } from "../../../src/core/clock.ts";
import { Notifier } from "../../../src/core/notifier.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { loadKubeConfig } from "../../../src/kube/config.ts";
import { isNotFound } from "../../../src/kube/errors.ts";
import { type KubeEvent, NAMESPACES, type Pod, SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { findLeaks } from "../../support/leak-search.ts";
import { recordCredentials } from "./credentials-seen.ts";
import { describeWorld } from "./describe-world.ts";
import { Operators } from "./operators.ts";
import { PodProxy } from "./pod-proxy.ts";
import { type E2eCluster, e2eCluster } from "./provided.ts";
import { RemoteSimulator } from "./remote-simulator.ts";
import { isolationOf } from "./settings.ts";
import { makeNamespace } from "./simulator-pod.ts";
import { Views } from "./views.ts";
import { SOON, type StockWorker, WORKER_COMMANDS, workerTemplate } from "./worker-template.ts";

/** Limit of every wait: far more than anything takes, so that a test fails only if the event never happens. */
const PATIENCE_MS = 240_000;

/** The interval of waits for what no watch shows: the simulator's records, metrics, logs. */
const LOOK_AGAIN_MS = 400;

/** Characters of an object with a leaked credential that a message shows. */
const LEAK_SHOWN_LENGTH = 300;

export interface E2eOptions {
  /** `typescript` by default. */
  readonly worker?: StockWorker;
  /** How long the worker waits with an idle session; SOON by default. */
  readonly maxIdleMs?: number;
  /**
   * TTL of leases; the simulator's 90 by default. Below about 60, the operator fences no dead worker's item, because
   * its lease lapses first.
   */
  readonly ttlSeconds?: number;
  /** Overrides fields of the default `spec.sessions`. */
  readonly sessions?: Record<string, unknown>;
  readonly api?: Record<string, unknown>;
  readonly spec?: Record<string, unknown>;
  /** Overrides fields of the session container; `env` is added. */
  readonly container?: Record<string, unknown>;
  /** Parts of the Pod's spec. */
  readonly podSpec?: Record<string, unknown>;
  /** If false, no Secret with the key is created. */
  readonly key?: boolean;
  /** Breaches of the protocol that the test causes. */
  readonly expectViolations?: readonly ViolationKind[];
}

/**
 * Everything that serves sessions, in its own namespace on the shared cluster: an environment of the shared simulator,
 * its key, an Environment on demand, and views of the API server's objects. Berth itself runs in the cluster.
 */
export class E2eWorld implements AsyncDisposable {
  readonly namespace: string;
  readonly name = "served";
  readonly cluster: E2eCluster;
  readonly kube: KubeClient;
  readonly proxy: PodProxy;
  readonly simulator: RemoteSimulator;
  readonly operators: Operators;
  readonly views: Views;
  readonly #options: E2eOptions;
  readonly #changed = new Notifier();

  constructor(parts: {
    cluster: E2eCluster;
    namespace: string;
    kube: KubeClient;
    proxy: PodProxy;
    simulator: RemoteSimulator;
    options: E2eOptions;
  }) {
    this.cluster = parts.cluster;
    this.namespace = parts.namespace;
    this.kube = parts.kube;
    this.proxy = parts.proxy;
    this.simulator = parts.simulator;
    this.#options = parts.options;
    this.operators = new Operators(parts.kube, parts.proxy, parts.cluster.dir);
    this.views = new Views(parts.kube, parts.namespace, () => this.#changed.notify());
  }

  // --- what there is ----------------------------------------------------------------------------------------------

  get environmentId(): string {
    return this.simulator.environmentId;
  }

  get pods(): Pod[] {
    return this.views.pods.list();
  }

  /** Claim Secrets: those with Berth's label. */
  get claims(): Secret[] {
    return this.views.secrets.list().filter(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT] !== undefined);
  }

  get environment(): Environment | undefined {
    return this.views.environments.get(this.namespace, this.name) as Environment | undefined;
  }

  /** Events in the namespace with this reason. */
  events(reason: string): KubeEvent[] {
    return this.views.events.list().filter((event) => event.reason === reason);
  }

  /** Calls `fn` after every change of a Pod, while that state is current. Returns a function that ends this. */
  onPodChange(fn: () => void): () => void {
    return this.views.pods.subscribe(fn);
  }

  /** Every state of a Pod that the watch showed, oldest first, even if the Pod is deleted. */
  history(pod: Pod): readonly Pod[] {
    return this.views.history(pod.metadata.uid ?? "");
  }

  /** Pods that the kubelet reports as parked. */
  get parked(): Pod[] {
    return this.pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        pod.metadata.labels?.["berth.dev/phase"] === "warm" &&
        readPodState(pod).is === "parked",
    );
  }

  condition(type: Parameters<typeof findCondition>[1]) {
    return findCondition(this.environment?.status?.conditions, type);
  }

  /**
   * The sum of a metric such as `berth_sessions_ended_total` over all operators, for this Environment alone, with
   * further labels.
   */
  metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number | undefined> {
    return this.operators.metric(name, { namespace: this.namespace, environment: this.name, ...labels });
  }

  /** The output of a Pod's container; by default, of the session container. */
  async podLog(pod: Pod, container?: string): Promise<string> {
    const query = container === undefined ? "" : `?container=${container}`;
    const path = `/api/v1/namespaces/${this.namespace}/pods/${pod.metadata.name}/log${query}`;
    return String(await this.kube.raw("GET", path));
  }

  // --- waiting ----------------------------------------------------------------------------------------------------

  /**
   * Waits until `predicate` returns a value. It is called after every change in the namespace, and periodically for
   * what no watch shows, such as the simulator's records.
   */
  async until<T>(
    what: string,
    predicate: () => T | undefined | null | false | Promise<T | undefined | null | false>,
    patienceMs = PATIENCE_MS,
  ): Promise<T> {
    const bound = AbortSignal.timeout(patienceMs);
    for (;;) {
      const value = await predicate();
      if (value !== undefined && value !== null && value !== false) return value;
      if (bound.aborted) throw new Error(`not within ${patienceMs} ms: ${what}\n${await this.describe()}`);
      await this.#changed.wait(AbortSignal.any([bound, AbortSignal.timeout(LOOK_AGAIN_MS)]));
    }
  }

  untilParked(count: number, patienceMs?: number): Promise<Pod[]> {
    return this.until(`${count} parked Pods`, () => this.parked.length >= count && this.parked, patienceMs);
  }

  untilCondition(type: Parameters<typeof findCondition>[1], reason: string, patienceMs?: number) {
    const found = () => {
      const condition = this.condition(type);
      return condition?.reason === reason && condition;
    };
    return this.until(`${type} with reason ${reason}`, found, patienceMs);
  }

  /** Waits until every item is stopped and no claim is left. */
  untilServed(count: number, patienceMs?: number): Promise<true> {
    const isServed = async () => {
      if (this.claims.length > 0) return false;
      const items = await this.simulator.items();
      return items.length >= count && items.every(({ state }) => state === "stopped") && this.claims.length === 0;
    };
    return this.until(`${count} items served and settled`, isServed, patienceMs);
  }

  // --- acting -----------------------------------------------------------------------------------------------------

  /** The Pod template that `spec` contains. */
  template(): Record<string, unknown> {
    const { worker = "typescript", maxIdleMs = SOON, container, podSpec, sessions } = this.#options;
    const inShell = sessions?.["parking"] === "Shell" || sessions?.["workspace"] !== undefined;
    return workerTemplate(this.cluster.images, {
      worker,
      maxIdleMs,
      container: { ...(inShell && { command: WORKER_COMMANDS[worker] }), ...container },
      ...(podSpec && { podSpec }),
    });
  }

  /** The spec that `createEnvironment` sends. */
  spec(over: Record<string, unknown> = {}): Record<string, unknown> {
    const { sessions, api, spec } = this.#options;
    return {
      environmentId: this.environmentId,
      deletionGraceSeconds: 5,
      network: { egress: { cidrs: this.cluster.simulator.cidrs } },
      api: { baseUrl: this.simulator.url, keySecretRef: { name: "key" }, ...api },
      // On a machine that many tests share, a worker may take minutes to its first heartbeat.
      sessions: {
        ...{ maxConcurrent: 4, warm: 1, firstBeatTimeoutSeconds: 300, template: this.template() },
        isolation: isolationOf(),
        ...sessions,
      },
      ...spec,
      ...over,
    };
  }

  async createEnvironment(over: Record<string, unknown> = {}): Promise<void> {
    const metadata = { name: this.name, namespace: this.namespace };
    const environment = { apiVersion: API_VERSION, kind: KIND, metadata, spec: this.spec(over) };
    await this.kube.create(ENVIRONMENTS, environment as never);
  }

  /** Merges into the spec. */
  async patchSpec(patch: Record<string, unknown>): Promise<void> {
    await this.kube.patch(ENVIRONMENTS, this.#ref, { spec: patch }, { type: "merge" });
  }

  async deleteEnvironment(): Promise<void> {
    await this.kube.delete(ENVIRONMENTS, this.#ref);
  }

  async createKey(key?: string, name = "key"): Promise<void> {
    const metadata = { name, namespace: this.namespace };
    const stringData = { "environment-key": key ?? (await this.simulator.environmentKey()) };
    await this.kube.create(SECRETS, { metadata, stringData });
  }

  /** Updates the key's Secret after a rotation; by default with the simulator's current key. */
  async updateKey(key?: string, name = "key"): Promise<void> {
    const stringData = { "environment-key": key ?? (await this.simulator.environmentKey()) };
    await this.kube.patch(SECRETS, { namespace: this.namespace, name }, { stringData }, { type: "merge" });
  }

  get #ref() {
    return { namespace: this.namespace, name: this.name };
  }

  /** The current state, for the message of a failed wait. */
  describe(): Promise<string> {
    return describeWorld(this);
  }

  // --- the end ----------------------------------------------------------------------------------------------------

  /** Deletes the Environment, and waits until it, its Pods and its claims are gone. */
  async removeEnvironment(): Promise<void> {
    try {
      await this.deleteEnvironment();
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    await this.until("the Environment is gone, with all Pods and claims", async () => {
      if (this.claims.length > 0 || this.pods.some(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT]))
        return false;
      return await this.#isGone();
    });
  }

  async #isGone(): Promise<boolean> {
    try {
      await this.kube.get(ENVIRONMENTS, this.#ref);
      return false;
    } catch (error) {
      if (isNotFound(error)) return true;
      throw error;
    }
  }

  /** The namespace's objects are deleted with it, so the search at the end of the run could not find leaks in them. */
  async #assertNoLeaks(): Promise<void> {
    const credentials = await this.simulator.credentials();
    await recordCredentials(this.cluster.dir, credentials);
    const leaks = findLeaks(
      credentials,
      [...this.views.texts].map((text) => ({ where: text.slice(0, LEAK_SHOWN_LENGTH), text })),
    );
    if (leaks.length > 0) throw new Error(`credentials in objects that are no Secrets:\n${leaks.join("\n")}`);
  }

  /** Removes everything, and checks what must be true after every test. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.simulator.clearFaults();
      await this.removeEnvironment();
      await this.simulator.assertNoViolations(this.#options.expectViolations);
      await this.operators.assertDocumentedLabels();
      await this.#assertNoLeaks();
    } finally {
      this.views.stop();
      // The rest is deleted in the background.
      await this.kube.delete(NAMESPACES, { name: this.namespace });
      await this.proxy.close();
      await this.kube.close();
    }
  }
}

/** Builds a world on the shared cluster; no Environment exists yet. */
export async function startE2eWorld(options: E2eOptions = {}): Promise<E2eWorld> {
  const cluster = e2eCluster();
  const namespace = `e2e-${randomBytes(4).toString("hex")}`;
  const kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
  const proxy = new PodProxy(cluster.kubeconfig);
  await makeNamespace(kube, namespace, { "pod-security.kubernetes.io/enforce": "restricted" });
  const { ttlSeconds } = options;
  const simulator = await RemoteSimulator.create(proxy, cluster.simulator, ttlSeconds ? { ttlSeconds } : {});
  const world = new E2eWorld({ cluster, namespace, kube, proxy, simulator, options });
  if (options.key !== false) await world.createKey();
  return world;
}
