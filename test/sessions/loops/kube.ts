import type { Random } from "../../../src/core/backoff.ts";
import { type Clock, sleep } from "../../../src/core/clock.ts";
import { Notifier } from "../../../src/core/notifier.ts";
import type { AttachStream } from "../../../src/kube/attach.ts";
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
import { type KubeList, type KubeObject, PODS, type Resource } from "../../../src/kube/resource.ts";
import type { WatchEvent } from "../../../src/kube/watch.ts";
import { type ApiServer, copyOf, eventOf, isWatched, refusal } from "./api-server.ts";
import { type AttachWeather, FAIR_ATTACH, FakeAttachStream, type Passage } from "./attach-stream.ts";
import { type Link, NoAnswer } from "./network.ts";

const TIMEOUT_MS = 30_000;
const ATTACH_TIMEOUT_MS = 10_000;
const READS: ReadonlySet<string> = new Set(["get", "list", "attach", "log"]);
/** A watch without events for this long is dead: WATCH_INACTIVITY_MS of src/kube/watch.ts. */
const SILENCE_MS = 90_000;

/** How far watches lag, and how often they break while faults are on. */
export interface WatchWeather {
  readonly lagMs: number;
  /** The probability that a watch breaks at an event. */
  readonly breaks: number;
}

/** One request as the server receives it. `watch` is the opening of a watch and each event that it would deliver. */
export interface KubeRequest {
  readonly verb: string;
  readonly plural: string;
  readonly namespace: string;
  readonly name: string;
  readonly body?: unknown;
  /** What a patch changes, if not the object itself: `status` or `ephemeralcontainers`. */
  readonly subresource?: string | undefined;
  readonly dryRun?: boolean;
}

/** A container of a Pod. */
export interface ContainerRef extends ObjectRef {
  readonly container: string;
}

/** Lets a test decide about single requests: an error thrown here is the server's refusal. */
export type Interceptor = (request: KubeRequest) => void;

/** An admission policy that forbids ephemeral containers. */
export const forbidEphemeralContainers: Interceptor = ({ name, subresource }) => {
  if (subresource !== "ephemeralcontainers") return;
  throw refusal(403, "Forbidden", `pods "${name}" is forbidden: ephemeral containers are not allowed here`);
};

/** The API server as one process reaches it: the part of KubeClient that Berth's controller and loops use. */
export class FakeKube {
  readonly #server: ApiServer;
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #weather: () => WatchWeather;
  readonly #attachWeather: () => AttachWeather;
  readonly #fence: () => void;
  readonly #changed = new Notifier();
  /** The number of times that watches of a resource were broken. */
  readonly #breaks = new Map<string, number>();
  /** Requests by verb and resource. */
  readonly requests: Map<string, number>;
  intercept: Interceptor[];
  /** Delays a request at the server, in milliseconds. */
  delay: (request: KubeRequest) => number = () => 0;
  /** Delays the answer after the request took effect, in milliseconds. */
  answerDelay: (request: KubeRequest) => number = () => 0;
  /** Whether the node of the Pod with this name answers the API server. */
  nodeAnswers: (pod: string) => boolean = () => true;
  /** Called with every object that is read. */
  got: (object: KubeObject) => void = () => {};
  /** Called with every request when it is sent. */
  sent: (request: KubeRequest) => void = () => {};
  /** Called with every text that this process writes to a container, before it is on its way. */
  wrote: (ref: ContainerRef, text: string) => void = () => {};
  /** Called with every object that this process deleted. */
  deleted: (resource: Resource, ref: ObjectRef) => void = () => {};
  /** The open streams of this process, by Pod. */
  readonly #streams = new Map<FakeAttachStream, string>();
  /** Whether bytes to or from a Pod's container are lost, in addition to the weather. */
  loses: (what: Passage, pod: string, container: string) => boolean = () => false;

  constructor(parts: {
    server: ApiServer;
    link: Link;
    clock: Clock;
    random: Random;
    weather: () => WatchWeather;
    attachWeather?: () => AttachWeather;
    fence?: () => void;
    shared?: FakeKube;
  }) {
    this.#server = parts.server;
    this.#link = parts.link;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#weather = parts.weather;
    this.#attachWeather = parts.attachWeather ?? (() => FAIR_ATTACH);
    this.#fence = parts.fence ?? (() => {});
    this.requests = parts.shared?.requests ?? new Map();
    this.intercept = parts.shared?.intercept ?? [];
    parts.server.subscribe(() => this.#changed.notify());
  }

  /** Breaks every watch of a resource. */
  breakWatches(plural: string): void {
    this.#breaks.set(plural, (this.#breaks.get(plural) ?? 0) + 1);
    this.#changed.notify();
  }

  get client(): KubeClient {
    return this as unknown as KubeClient;
  }

  /** The server's clock; the clock of a process may be wrong. */
  now(): number {
    return this.#server.now();
  }

  get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, o: CallOptions = {}): Promise<T> {
    return this.#send("get", resource, ref, o, () => {
      const found = this.#server.get(resource, ref.namespace ?? "", ref.name);
      this.got(found);
      return found;
    });
  }

  /** The only field selector that it supports is that of an Event's object. */
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
    const body = copyOf(object);
    return this.#send(
      "create",
      resource,
      object.metadata,
      o,
      () => (q.dryRun ? body : this.#server.create(resource, body)),
      { body, dryRun: q.dryRun === true },
    );
  }

  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    q: PatchQuery,
    o: CallOptions = {},
  ): Promise<T> {
    const body = copyOf(patch);
    const { namespace = "", name } = ref;
    const { subresource } = q;
    const apply = () =>
      subresource === "ephemeralcontainers"
        ? (this.#server.patchEphemeralContainers(namespace, name, body) as KubeObject as T)
        : this.#server.patch(resource, namespace, name, body, subresource === "status");
    return this.#send("patch", resource, ref, o, apply, { body, subresource });
  }

  delete(resource: Resource, ref: ObjectRef, q: DeleteQuery = {}, o: CallOptions = {}): Promise<void> {
    return this.#send("delete", resource, ref, o, () => {
      this.#server.delete(resource, ref.namespace ?? "", ref.name, q);
      this.deleted(resource, ref);
    });
  }

  /** A stream is a write: the fence is called for its opening and for each text. */
  attach(
    ref: Required<ObjectRef>,
    { container }: { readonly container: string },
    { timeoutMs = ATTACH_TIMEOUT_MS, ...o }: CallOptions = {},
  ): Promise<AttachStream> {
    this.#fence();
    const { namespace = "", name } = ref;
    return this.#send("attach", PODS, ref, { timeoutMs, ...o }, async () => {
      if (!this.nodeAnswers(name)) await new Promise(() => {});
      const running = this.#server.attach(namespace, name, container);
      const { refused } = this.#attachWeather();
      if (refused > 0 && this.#random() < refused) {
        throw refusal(500, "InternalError", "error dialing backend: connection refused");
      }
      const stream = new FakeAttachStream({
        ...{ link: this.#link, clock: this.#clock, random: this.#random, weather: this.#attachWeather },
        loses: (what) => this.loses(what, name, container),
        fence: this.#fence,
        answers: () => this.nodeAnswers(name),
        wrote: (text) => this.wrote({ ...ref, container }, text),
        container: running,
      });
      this.#streams.set(stream, name);
      void stream.closed.then(() => this.#streams.delete(stream));
      return stream;
    });
  }

  /** Breaks the attach connections to these Pods, by default all. */
  cutStreams(isOf: (pod: string) => boolean = () => true): void {
    for (const [stream, pod] of this.#streams) if (isOf(pod)) stream.cut();
  }

  log(
    ref: Required<ObjectRef>,
    { container, limitBytes }: { readonly container: string; readonly limitBytes: number },
    o: CallOptions = {},
  ): Promise<string> {
    const { namespace = "", name } = ref;
    return this.#send("log", PODS, ref, o, async () =>
      (await this.#server.log(namespace, name, container)).slice(0, limitBytes),
    );
  }

  async *watch<T extends KubeObject>(
    resource: Resource<T>,
    q: WatchQuery,
    { signal }: { signal: AbortSignal },
  ): AsyncGenerator<WatchEvent<T>, void, undefined> {
    const request = { verb: "watch", plural: resource.plural, namespace: q.namespace ?? "", name: "" };
    this.#count(request);
    await this.#watchFault(request, TIMEOUT_MS, signal);
    let seen = Number(q.resourceVersion);
    let index = this.#server.history.findIndex(({ version }) => version > seen);
    if (index < 0) index = this.#server.history.length;
    const breaks = this.#breaks.get(resource.plural);
    const checkBreaks = () => {
      if (this.#breaks.get(resource.plural) !== breaks) {
        throw new KubeApiError("the watch was interrupted", { status: 0 });
      }
    };
    while (!signal.aborted) {
      checkBreaks();
      const change = this.#server.history[index];
      if (!change) {
        await this.#changed.wait(signal);
        continue;
      }
      index += 1;
      seen = change.version;
      if (!isWatched(change, resource.plural, q.namespace, q.labelSelector)) continue;
      const { lagMs, breaks: share } = this.#weather();
      const dueMs = change.atMs + lagMs * this.#random();
      if (dueMs > this.#clock.monotonic()) await sleep(this.#clock, dueMs - this.#clock.monotonic(), signal);
      checkBreaks();
      await this.#watchFault(request, SILENCE_MS, signal);
      if (signal.aborted) return;
      if (share > 0 && this.#random() < share) {
        throw this.#random() < 0.5
          ? new KubeApiError("the watch was interrupted", { status: 0 })
          : refusal(410, "Expired", "too old resource version");
      }
      yield eventOf<T>(change);
    }
  }

  #count(request: KubeRequest): void {
    const label = `${request.verb} ${request.plural}`;
    this.requests.set(label, (this.requests.get(label) ?? 0) + 1);
    this.sent(request);
  }

  /** @throws the test's refusal of a watch, or an error after `boundMs` without an event */
  async #watchFault(request: KubeRequest, boundMs: number, signal: AbortSignal): Promise<void> {
    for (const intercept of this.intercept) intercept(request);
    const delayMs = this.delay(request);
    if (delayMs <= 0) return;
    await sleep(this.#clock, Math.min(delayMs, boundMs), signal);
    if (delayMs >= boundMs) throw new KubeApiError(`watch ${request.plural}: no answer`, { status: 0 });
  }

  async #send<T>(
    verb: string,
    resource: Resource,
    { namespace = "", name = "" }: { readonly namespace?: string | undefined; readonly name?: string | undefined },
    { timeoutMs = TIMEOUT_MS, signal }: CallOptions,
    effect: () => T | Promise<T>,
    more: Pick<KubeRequest, "body" | "subresource" | "dryRun"> = {},
  ): Promise<T> {
    const write = !READS.has(verb);
    if (write) this.#fence();
    const request = { verb, plural: resource.plural, namespace, name, ...more };
    const label = `${verb} ${resource.plural}`;
    this.#count(request);
    try {
      return await this.#link.send({
        boundMs: timeoutMs,
        signal,
        effect: async () => {
          const delayMs = this.delay(request);
          if (delayMs > 0) await sleep(this.#clock, delayMs);
          for (const intercept of this.intercept) intercept(request);
          const answerDelayMs = this.answerDelay(request);
          if (answerDelayMs <= 0) return effect();
          const answer = await effect();
          await sleep(this.#clock, answerDelayMs);
          return answer;
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
