import type { Clock } from "../../../src/core/clock.ts";
import { sleep } from "../../../src/core/clock.ts";
import { Notifier } from "../../../src/core/notifier.ts";
import type { Random } from "../../../src/core/random.ts";
import type {
  CallOptions,
  CreateQuery,
  DeleteQuery,
  KubeClient,
  ListQuery,
  ObjectRef,
  PatchQuery,
  WatchQuery,
} from "../../../src/kube/client.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import type { KubeList, KubeObject, Resource } from "../../../src/kube/resource.ts";
import type { WatchEvent } from "../../../src/kube/watch.ts";
import { type ApiServer, eventOf, isWatched, refusal } from "./api-server.ts";
import { type Link, NoAnswer } from "./network.ts";

const TIMEOUT_MS = 30_000;

/** How far watches lag behind, and how often they break while faults are on. */
export interface WatchWeather {
  readonly lagMs: number;
  /** Chance that a watch breaks off at an event. */
  readonly breaks: number;
}

/** What a test decides about single requests: an error thrown here is the server's refusal. */
export type Interceptor = (request: {
  verb: string;
  plural: string;
  namespace: string;
  name: string;
  body?: unknown;
}) => void;

/** The API server as one process reaches it: the part of KubeClient that Berth's controller and loops use. */
export class FakeKube {
  readonly #server: ApiServer;
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #weather: () => WatchWeather;
  readonly #fence: () => void;
  readonly #changed = new Notifier();
  /** Requests by verb and kind. */
  readonly requests: Map<string, number>;
  intercept: Interceptor[];
  /** Holds a request up at the server, in milliseconds. */
  delay: (request: { verb: string; plural: string; namespace: string }) => number = () => 0;

  constructor(parts: {
    server: ApiServer;
    link: Link;
    clock: Clock;
    random: Random;
    weather: () => WatchWeather;
    fence?: () => void;
    shared?: FakeKube;
  }) {
    this.#server = parts.server;
    this.#link = parts.link;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#weather = parts.weather;
    this.#fence = parts.fence ?? (() => {});
    this.requests = parts.shared?.requests ?? new Map();
    this.intercept = parts.shared?.intercept ?? [];
    parts.server.subscribe(() => this.#changed.notify());
  }

  get client(): KubeClient {
    return this as unknown as KubeClient;
  }

  /** By the server's clock: that of a process may be off. */
  now(): number {
    return this.#server.now();
  }

  get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, o: CallOptions = {}): Promise<T> {
    return this.#send("get", resource, ref, o, () => this.#server.get(resource, ref.namespace ?? "", ref.name));
  }

  /** Of field selectors it knows that of an Event's object. */
  list<T extends KubeObject>(resource: Resource<T>, q: ListQuery = {}, o: CallOptions = {}): Promise<KubeList<T>> {
    const uid = /^involvedObject\.uid=(.*)$/.exec(q.fieldSelector ?? "")?.[1];
    return this.#send("list", resource, { namespace: q.namespace }, o, () => ({
      metadata: { resourceVersion: String(this.#server.version) },
      items: this.#server
        .list(resource, q.namespace, q.labelSelector)
        .filter(({ involvedObject }) => !uid || (involvedObject as { uid?: string } | undefined)?.uid === uid),
    }));
  }

  listAll<T extends KubeObject>(resource: Resource<T>, q: ListQuery = {}, o: CallOptions = {}): Promise<KubeList<T>> {
    return this.#send("list", resource, { namespace: q.namespace }, o, () => ({
      metadata: { resourceVersion: String(this.#server.version) },
      items: this.#server.list(resource, q.namespace, q.labelSelector),
    }));
  }

  create<T extends KubeObject>(resource: Resource<T>, object: T, q: CreateQuery = {}, o: CallOptions = {}): Promise<T> {
    const body = structuredClone(object);
    return this.#send(
      "create",
      resource,
      object.metadata,
      o,
      () => (q.dryRun ? body : this.#server.create(resource, body)),
      body,
    );
  }

  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    q: PatchQuery,
    o: CallOptions = {},
  ): Promise<T> {
    const body = structuredClone(patch);
    const isStatus = q.subresource === "status";
    return this.#send(
      "patch",
      resource,
      ref,
      o,
      () => this.#server.patch(resource, ref.namespace ?? "", ref.name, body, isStatus),
      body,
    );
  }

  delete(resource: Resource, ref: ObjectRef, q: DeleteQuery = {}, o: CallOptions = {}): Promise<void> {
    return this.#send("delete", resource, ref, o, () =>
      this.#server.delete(resource, ref.namespace ?? "", ref.name, q),
    );
  }

  async *watch<T extends KubeObject>(
    resource: Resource<T>,
    q: WatchQuery,
    { signal }: { signal: AbortSignal },
  ): AsyncGenerator<WatchEvent<T>, void, undefined> {
    let seen = Number(q.resourceVersion);
    let index = this.#server.history.findIndex(({ version }) => version > seen);
    if (index < 0) index = this.#server.history.length;
    while (!signal.aborted) {
      const change = this.#server.history[index];
      if (!change) {
        await this.#changed.wait(signal);
        continue;
      }
      index += 1;
      seen = change.version;
      if (!isWatched(change, resource.plural, q.namespace, q.labelSelector)) continue;
      const { lagMs, breaks } = this.#weather();
      const dueMs = change.atMs + lagMs * this.#random();
      if (dueMs > this.#clock.monotonic()) await sleep(this.#clock, dueMs - this.#clock.monotonic(), signal);
      if (signal.aborted) return;
      if (breaks > 0 && this.#random() < breaks) {
        throw this.#random() < 0.5
          ? new KubeApiError("the watch broke off", { status: 0 })
          : refusal(410, "Expired", "too old resource version");
      }
      yield eventOf<T>(change);
    }
  }

  async #send<T>(
    verb: string,
    resource: Resource,
    { namespace = "", name = "" }: { readonly namespace?: string | undefined; readonly name?: string | undefined },
    { timeoutMs = TIMEOUT_MS, signal }: CallOptions,
    effect: () => T,
    body?: unknown,
  ): Promise<T> {
    const write = verb !== "get" && verb !== "list";
    if (write) this.#fence();
    const label = `${verb} ${resource.plural}`;
    this.requests.set(label, (this.requests.get(label) ?? 0) + 1);
    try {
      return await this.#link.send({
        boundMs: timeoutMs,
        signal,
        effect: async () => {
          const delayMs = this.delay({ verb, plural: resource.plural, namespace });
          if (delayMs > 0) await sleep(this.#clock, delayMs);
          for (const intercept of this.intercept) intercept({ verb, plural: resource.plural, namespace, name, body });
          return effect();
        },
        refuse: () =>
          this.#random() < 0.5
            ? refusal(503, "ServiceUnavailable", `${label}: the server is not ready`, write)
            : refusal(429, "TooManyRequests", `${label}: too many requests`),
      });
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      throw new KubeApiError(`${label} ${name}: no answer: ${error.kind}`, { status: 0, maybeApplied: write });
    }
  }
}
