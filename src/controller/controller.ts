import { queueOf } from "../api/environment.ts";
import { ANNOTATION_SESSION_ID, LABEL_ENVIRONMENT, LABEL_MANAGED_BY, LABEL_PHASE, LABEL_ROLE } from "../api/names.ts";
import { StreamBudgets } from "../attach/pod-streams.ts";
import { aborted, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { shardOf } from "../election/shard-plan.ts";
import type { KubeClient } from "../kube/client.ts";
import { type KubeObject, NETWORK_POLICIES, type NetworkPolicy, PODS, type Pod } from "../kube/resource.ts";
import { cachedPod } from "../pods/cached-pod.ts";
import { nodeOutlook } from "../pods/node-health.ts";
import { isOthers } from "../pods/own-pods.ts";
import type { PodCache } from "../pods/pod-state.ts";
import { isAsleep } from "../pods/turns.ts";
import { CACHE_PATIENCE_MS, CacheLag } from "../reconcile/cache-lag.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { policyName } from "../reconcile/network-policy.ts";
import type { ReconcilerOptions } from "../reconcile/reconciler-options.ts";
import { keyOf } from "../watch/cache.ts";
import { Informer, type InformerOptions } from "../watch/informer.ts";
import { WorkQueue } from "../watch/workqueue.ts";
import { NodeWatch } from "./node-watch.ts";
import { ShardTerm } from "./shard-term.ts";
import { environmentOf, INDEX_ENVIRONMENT, WorkerCaches } from "./worker-caches.ts";

/** The number of Environments reconciled at the same time; each reconcile is a few requests. */
const CONCURRENCY = 8;

/** Less than the kubelet's default grace period of 30 s, to leave time for Events and the Lease. */
const END_PATIENCE_MS = 15_000;

/**
 * How long the start waits for a namespace whose lists fail. Its Role may have been deleted with it, and the other
 * namespaces must not stay unserved for that.
 */
const NAMESPACE_PATIENCE_MS = 10_000;

/** Warm Pods, by Environment. */
const INDEX_WARM = "warm";
const INDEX_SLEEPING = "sleeping";
/** Pods with a session, by its id. */
const INDEX_SESSION = "session";
/** Environments, by the queue that they serve. */
const INDEX_QUEUE = "queue";
const INDEX_NODE = "node";

/** The clients that act on the outside. Each calls the guard before every write. */
export type Actors = Pick<ReconcilerOptions, "kube" | "events" | "workClient">;

export interface ControllerOptions
  extends Omit<
    ReconcilerOptions,
    | "find"
    | "pods"
    | "nodeOutlook"
    | "workers"
    | "lag"
    | "ofQueue"
    | "streamBudgets"
    | "again"
    | "guard"
    | "servingSinceMs"
    | keyof Actors
  > {
  /** The namespaces to serve; empty: all. */
  readonly namespaces: readonly string[];
  /** For lists and watches only. */
  readonly kube: KubeClient;
  /** The number of shards that all Environments are divided into; 1 by default. */
  readonly shards?: number;
  /** The clients of one term's loops, fenced by its guard. */
  readonly actors: (guard: () => void) => Actors;
}

/** The caches of one namespace, or of all namespaces. */
interface Caches {
  /** Undefined: all namespaces. */
  readonly namespace: string | undefined;
  readonly environments: Informer<KubeObject>;
  readonly pods: Informer<Pod>;
}

/** A shard that this process holds. */
interface Served {
  readonly term: ShardTerm;
  /**
   * Caches that are newer than the previous holder's last write. A namespace is served only once its caches are here.
   */
  readonly fresh: Set<Caches>;
  /** When this process began to hold the shard (monotonic). */
  readonly sinceMs: number;
}

/** The time during which this process holds one shard. */
export interface Term {
  /** Aborts when the process loses or gives up the shard. */
  readonly signal: AbortSignal;
  /** Throws when this process may not act for the shard any more. */
  readonly guard: () => void;
}

/**
 * Watches Environments and their session Pods, and reconciles what changed in the shards that this process serves. It
 * runs one pair of informers for all namespaces, or one pair per configured namespace, for any number of shards.
 */
export class Controller {
  readonly #options: ControllerOptions;
  readonly #caches: readonly Caches[];
  readonly #lag: CacheLag<Caches>;
  readonly #environments: readonly Informer<KubeObject>[];
  readonly #pods: readonly Informer<Pod>[];
  readonly #policies: readonly Informer<NetworkPolicy>[];
  readonly #workers: WorkerCaches;
  readonly #nodes: NodeWatch;
  readonly #queue: WorkQueue;
  readonly #streamBudgets = new StreamBudgets();
  readonly #shards: number;
  /** By shard, those that this process holds. */
  readonly #terms = new Map<number, Served>();
  #hasSynced = false;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.#shards = options.shards ?? 1;
    const { clock, random, logger, metrics } = options;
    this.#queue = new WorkQueue({ name: "environments", clock, random, logger, metrics });
    this.#caches = this.#perNamespace((namespace) => ({
      namespace,
      environments: environmentInformer(options, namespace),
      pods: podInformer(options, namespace),
    }));
    this.#lag = new CacheLag(this.#caches, clock);
    this.#environments = this.#caches.map(({ environments }) => environments);
    this.#pods = this.#caches.map(({ pods }) => pods);
    this.#policies = this.#perNamespace((namespace) => policyInformer(options, namespace));
    this.#nodes = new NodeWatch({ ...common(options), onChange: (node) => this.#nodeChanged(node) });
    this.#workers = new WorkerCaches(common(options), (make) => this.#perNamespace(make));
  }

  /** True once the caches hold the initial lists of all namespaces that could be listed. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /**
   * Resolves when the caches are filled; never rejects. With a single namespace, it waits until that can be listed.
   * With several, it waits a limited time for a failing one, which is served once it can be listed.
   */
  get synced(): Promise<void> {
    const each = this.#caches.map(({ environments, pods }) => Promise.all([environments.synced, pods.synced]));
    const all = Promise.all(each);
    const late = Promise.any(each).then(() => sleep(this.#options.clock, NAMESPACE_PATIENCE_MS));
    return (each.length > 1 ? Promise.race([all, late]) : all).then(() => {
      this.#hasSynced = true;
    });
  }

  /**
   * Runs the caches and the queue until the signal aborts. Abort it only after the last shard is no longer served. This
   * writes nothing; `serve` does.
   */
  async run(signal: AbortSignal): Promise<void> {
    const watches = this.#informers.map((informer) => informer.run(signal));
    // Subscribe before the first list arrives, so that its objects count as changes.
    for (const informer of this.#environments) {
      informer.subscribe(({ object, previous }) => this.#environmentChanged(object, previous));
    }
    for (const informer of this.#pods) informer.subscribe(({ object }) => this.#podChanged(object));
    // The start does not wait for these caches: they only say when an Environment must check its policy again.
    for (const informer of this.#policies) {
      informer.subscribe(({ type, object }) => this.#policyChanged(object, type === "deleted"));
      watches.push(informer.run(signal));
    }
    const nodes = this.#nodes.run(signal);
    const workers = this.#workers.run(signal, (key, name) => {
      for (const term of this.#termsOf(key)) term.podChanged(key, name);
    });
    void this.#lag.run(signal, ({ environments }) => {
      for (const key of environments.list().map(keyOf)) this.#add(key);
    });
    await Promise.race([this.synced, aborted(signal)]);
    if (!signal.aborted) {
      this.#logUnlisted();
      this.#options.logger.info(
        { environments: this.#environments.reduce((sum, informer) => sum + informer.list().length, 0) },
        "caches are filled",
      );
      // Not awaited at the end: each term already waits for its reconciles, for a limited time.
      void this.#queue.run({ workers: CONCURRENCY, handle: (key) => this.#reconcile(key), signal });
    }
    await Promise.all([...watches, workers, nodes]);
  }

  /**
   * Serves the Environments of one shard until the term's signal aborts. Then everything that acts for the shard ends
   * at once, even if a reconcile is still waiting: a process that lost its Lease must not claim. It waits a limited
   * time for pending requests. The next holder finds their effects, as after a crash.
   */
  async serve(shard: number, term: Term): Promise<void> {
    this.#workers.renew();
    const sinceMs = this.#options.clock.monotonic();
    const served = {
      term: new ShardTerm(this.#reconcilerOptions(shard, term.guard)),
      fresh: new Set<Caches>(),
      sinceMs,
    };
    this.#terms.set(shard, served);
    for (const caches of this.#caches) void this.#serveFrom(caches, shard, served);
    await aborted(term.signal);
    this.#terms.delete(shard);
    await this.#waitForEnd([served.term.stop()], term.signal);
    served.term.forgetShown();
  }

  /**
   * Relists first: the caches may lack the previous holder's last writes, and Pods missing from them would be created
   * twice.
   */
  async #serveFrom(caches: Caches, shard: number, served: Served): Promise<void> {
    await Promise.all([caches.environments.relist(), caches.pods.relist()]);
    if (this.#terms.get(shard) !== served) return;
    served.fresh.add(caches);
    for (const object of caches.environments.list()) {
      if (this.#shardOf(object) === shard) this.#queue.add(keyOf(object));
    }
  }

  #logUnlisted(): void {
    for (const { namespace, environments, pods } of this.#caches) {
      if (environments.hasSynced && pods.hasSynced) continue;
      const error = errorText(environments.lastError ?? pods.lastError);
      this.#options.logger.error(
        { namespace, error },
        "cannot list a namespace, so its Environments are not served yet",
      );
    }
  }

  /** The shards that this process holds, in order. */
  get served(): readonly number[] {
    return [...this.#terms.keys()].sort((a, b) => a - b);
  }

  /** Why this process serves no Environment of a shard that it holds; null: it serves them, or only begins to. */
  get stalled(): string | null {
    const nowMs = this.#options.clock.monotonic();
    const isStuck = ({ fresh, sinceMs }: Served) => fresh.size === 0 && nowMs - sinceMs >= CACHE_PATIENCE_MS;
    if (![...this.#terms.values()].some(isStuck)) return null;
    const error = this.#informers.find(({ lastError }) => lastError !== undefined)?.lastError ?? "no answer yet";
    return `cannot list Environments and Pods, so no Environment is served: ${errorText(error)}`;
  }

  /** The options of a term that starts now. */
  #reconcilerOptions(shard: number, guard: () => void): ReconcilerOptions {
    return {
      ...this.#options,
      ...this.#options.actors(guard),
      guard,
      servingSinceMs: this.#options.clock.monotonic(),
      find: (namespace, name) => {
        const found = this.#find(namespace, name);
        // One that was created again with the name of a deleted one may have another queue.
        return found && this.#shardOf(found) === shard ? found : undefined;
      },
      pods: ({ namespace, name, uid }) => this.#podsOf(namespace, name, uid),
      nodeOutlook: (pod) => nodeOutlook(this.#nodes.get(pod.spec.nodeName), pod),
      workers: (of) => this.#workers.of(of),
      lag: (namespace) => this.#lag.of(namespace),
      ofQueue: ({ spec }) => ({ environments: this.#ofQueue(queueOf(spec)), unlisted: this.#unlisted }),
      streamBudgets: this.#streamBudgets,
      again: (key, afterMs) => this.#queue.addAfter(key, afterMs),
    };
  }

  get #informers(): readonly (Informer<KubeObject> | Informer<Pod>)[] {
    return [...this.#environments, ...this.#pods];
  }

  /**
   * The terms with work for this Environment: the one that serves it, and one that served a deleted one of that name.
   * Empty if this process does not serve it, or its caches are not fresh yet.
   */
  #termsOf(key: string): ShardTerm[] {
    const [namespace = "", name = ""] = key.split("/");
    const found = this.#find(namespace, name);
    const own = found && this.#shardOf(found);
    const isFresh = (caches: Caches) => caches.namespace === undefined || caches.namespace === namespace;
    return [...this.#terms]
      .filter(([shard, { term, fresh }]) => (shard === own || term.knows(key)) && [...fresh].some(isFresh))
      .map(([, { term }]) => term);
  }

  /** No loop serves an Environment without an environmentId, so any shard can report it. */
  #shardOf(environment: KubeObject): number {
    return shardOf(queueOf(environment.spec) ?? keyOf(environment), this.#shards);
  }

  #find(namespace: string, name: string): KubeObject | undefined {
    return this.#first(this.#environments, (informer) => informer.get(namespace, name));
  }

  async #reconcile(key: string): Promise<void> {
    for (const term of this.#termsOf(key)) await term.reconcile(key);
  }

  #add(key: string): void {
    if (this.#termsOf(key).length > 0) this.#queue.add(key);
  }

  async #waitForEnd(ending: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    const all = new AbortController();
    const late = aborted(signal).then(() => sleep(clock, END_PATIENCE_MS, all.signal));
    const inTime = Promise.all(ending).then(() => false);
    if (await Promise.race([inTime, late])) logger.warn("some requests got no answer in time; stopping without them");
    all.abort();
  }

  /**
   * The Pods of one Environment. Pods of a deleted one with the same name are excluded: the garbage collector can
   * delete them at any moment.
   */
  #podsOf(namespace: string, name: string, uid: string): PodCache {
    const key = `${namespace}/${name}`;
    return {
      get: (pod) => {
        const found = this.#first(this.#pods, (informer) => informer.get(namespace, pod));
        return found && !isOthers(found, uid) ? found : undefined;
      },
      list: ownPodLists(this.#pods, { index: INDEX_ENVIRONMENT, key, uid }),
      warm: ownPodLists(this.#pods, { index: INDEX_WARM, key, uid }),
      sleeping: ownPodLists(this.#pods, { index: INDEX_SLEEPING, key, uid }),
      ofSession: (sessionId) =>
        this.#pods
          .flatMap((informer) => informer.byIndex(INDEX_SESSION, sessionId))
          .filter((pod) => environmentOf(pod)[0] === key && !isOthers(pod, uid)),
    };
  }

  #environmentChanged(object: KubeObject, previous: KubeObject | undefined): void {
    this.#add(keyOf(object));
    // Another Environment of the queue may begin to serve it, or have to stop.
    for (const queue of new Set([queueOf(object.spec), previous ? queueOf(previous.spec) : undefined])) {
      if (queue === undefined) continue;
      for (const other of this.#ofQueue(queue)) if (keyOf(other) !== keyOf(object)) this.#add(keyOf(other));
    }
  }

  #podChanged(pod: Pod): void {
    for (const key of environmentOf(pod)) {
      for (const term of this.#termsOf(key)) term.podChanged(key, pod.metadata.name ?? "");
    }
  }

  #policyChanged(policy: NetworkPolicy, isGone: boolean): void {
    const { name, labels } = policy.metadata;
    // Anyone can put our labels on their own NetworkPolicy.
    if (name !== policyName(labels?.[LABEL_ENVIRONMENT] ?? "")) return;
    for (const key of environmentOf(policy)) {
      for (const term of this.#termsOf(key)) term.policyChanged(key, isGone ? undefined : policy);
    }
  }

  #nodeChanged(node: string): void {
    for (const informer of this.#pods) for (const pod of informer.byIndex(INDEX_NODE, node)) this.#podChanged(pod);
  }

  /** The configured namespaces whose Environments could not be listed yet. */
  get #unlisted(): readonly string[] {
    return this.#caches.flatMap(({ namespace, environments }) =>
      namespace === undefined || environments.hasSynced ? [] : [namespace],
    );
  }

  #ofQueue(queue = ""): KubeObject[] {
    return this.#environments.flatMap((informer) => informer.byIndex(INDEX_QUEUE, queue));
  }

  #perNamespace<T>(make: (namespace: string | undefined) => T): T[] {
    const { namespaces } = this.#options;
    return namespaces.length === 0 ? [make(undefined)] : namespaces.map(make);
  }

  #first<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
    for (const item of items) {
      const found = find(item);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

function environmentInformer(options: ControllerOptions, namespace: string | undefined): Informer<KubeObject> {
  return new Informer<KubeObject>({
    ...common(options),
    resource: ENVIRONMENTS,
    namespace,
    indexes: {
      [INDEX_QUEUE]: (object) => {
        const queue = queueOf(object.spec);
        return queue === undefined ? [] : [queue];
      },
    },
  });
}

function podInformer(options: ControllerOptions, namespace: string | undefined): Informer<Pod> {
  return new Informer<Pod>({
    ...common(options),
    resource: PODS,
    namespace,
    labelSelector: `${LABEL_ROLE}=session`,
    transform: cachedPod,
    indexes: {
      [INDEX_ENVIRONMENT]: environmentOf,
      [INDEX_WARM]: (pod) => (pod.metadata.labels?.[LABEL_PHASE] === "warm" ? environmentOf(pod) : []),
      [INDEX_SLEEPING]: (pod) => (isAsleep(pod) ? environmentOf(pod) : []),
      [INDEX_SESSION]: sessionOf,
      [INDEX_NODE]: ({ spec }) => (spec.nodeName === undefined ? [] : [spec.nodeName]),
    },
  });
}

/** The session of a Pod, unless its label says that the session has ended. */
function sessionOf({ metadata: { annotations, labels } }: Pod): readonly string[] {
  const sessionId = annotations?.[ANNOTATION_SESSION_ID];
  const isHeld = labels?.[LABEL_PHASE] === "running" || labels?.[LABEL_PHASE] === "sleeping";
  return sessionId !== undefined && isHeld ? [sessionId] : [];
}

function policyInformer(options: ControllerOptions, namespace: string | undefined): Informer<NetworkPolicy> {
  return new Informer<NetworkPolicy>({
    ...common(options),
    resource: NETWORK_POLICIES,
    namespace,
    labelSelector: `${LABEL_MANAGED_BY}=berth`,
  });
}

function common(
  options: ControllerOptions,
): Pick<InformerOptions<KubeObject>, "client" | "clock" | "random" | "logger" | "metrics"> {
  const { kube, clock, random, logger, metrics } = options;
  return { client: kube, clock, random, logger, metrics };
}

/**
 * Lists the Pods of an Environment under one index key, across caches. It filters again only when one of them changed,
 * and returns the same array until then.
 * @param of.uid the Environment's uid, which excludes Pods of another one with the same name
 */
export function ownPodLists(
  caches: readonly Pick<Informer<Pod>, "byIndex">[],
  { index, key, uid }: { readonly index: string; readonly key: string; readonly uid: string },
): () => readonly Pod[] {
  let seen: readonly (readonly Pod[])[] = [];
  let own: readonly Pod[] = [];
  return () => {
    const now = caches.map((cache) => cache.byIndex(index, key));
    if (now.some((pods, at) => pods !== seen[at])) own = now.flat().filter((pod) => !isOthers(pod, uid));
    seen = now;
    return own;
  };
}
