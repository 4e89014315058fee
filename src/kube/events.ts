import { Backoff, type BackoffPolicy, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Slots } from "../core/slots.ts";
import { type Logger, redact } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { KubeClient } from "./client.ts";
import { isAlreadyExists, isNotFound, isServerFault, isTooManyRequests, LeadershipLostError } from "./errors.ts";
import { apiTime, type KubeEvent } from "./objects.ts";
import { EVENTS } from "./resource.ts";

/** The API server refuses longer messages. */
const MAX_MESSAGE = 1024;
/** Bound of the events that wait to be written. Further ones are dropped and counted. */
export const MAX_PENDING = 1000;
/** Concurrent writes, each in another namespace: hanging requests in some namespaces leave room for others. */
export const MAX_WRITES = 16;
/** Known events whose count can be raised; the same number as in client-go. */
const MAX_KNOWN = 4096;
/** Events live an hour by default. After this time the old one may be gone, and a person expects a new line. */
const AGGREGATE_MS = 600_000;
/** Events deserve a few tries, but must not pile up during an outage. */
const MAX_ATTEMPTS = 4;
const WRITE_BACKOFF: BackoffPolicy = { baseMs: 500, maxMs: 10_000 };
const WRITE_TIMEOUT_MS = 5_000;
/** At the end of a process: enough to write the pending events to a healthy server. */
const FLUSH_TIMEOUT_MS = 5_000;
/** Object names have at most 253 characters; the rest is for the suffix. */
const MAX_NAME_STEM = 220;

/** The object that an event concerns. */
export interface EventSubject {
  readonly apiVersion?: string | undefined;
  readonly kind?: string | undefined;
  readonly metadata: {
    readonly name?: string | undefined;
    readonly namespace?: string | undefined;
    readonly uid?: string | undefined;
  };
}

export type EventType = "Normal" | "Warning";

/** Accepts events. */
export type EventSink = Pick<EventRecorder, "event">;

export interface EventRecorderOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  /** The reporting program; `berth` by default. */
  readonly component?: string;
  /** The reporting process: the Pod's name. */
  readonly instance?: string;
  readonly random?: Random;
}

interface Occurrence {
  readonly about: EventSubject;
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
  /** Throws when the event must not be written any more. */
  readonly fence: (() => void) | undefined;
  count: number;
  firstAt: number;
  lastAt: number;
}

interface Known {
  readonly name: string;
  count: number;
  lastAt: number;
}

/** Pending events of one namespace. */
interface Queue {
  /** By key, in order. One entry counts all occurrences since it was added. */
  readonly pending: Map<string, Occurrence>;
  readonly written: Promise<void>;
}

/**
 * Writes Events (core/v1, shown by `kubectl describe`) in the background: `event` never waits and never throws. A
 * repeated event raises the count of the previous one. SpamFilter limits frequent reasons. An event that fails a few
 * tries is dropped and counted.
 *
 * Each namespace has its own queue, which writes and retries one Event at a time. A namespace whose Events are refused
 * delays no other. When too many events wait, the namespace with the most loses one.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #spam: SpamFilter;
  /** The queues of namespaces with pending events. */
  readonly #queues = new Map<string, Queue>();
  /** The number of entries in all queues. */
  #pending = 0;
  readonly #writes = new Slots(MAX_WRITES);
  /** Least recently used first. */
  readonly #known = new Map<string, Known>();
  #serial = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#spam = new SpamFilter(options.clock);
  }

  /**
   * Returns a recorder for a caller that may lose the permission to write: events still pending by then are dropped.
   * Call `flush` before giving up the permission.
   */
  fenced(fence: () => void): EventSink {
    return { event: (about, type, reason, message) => this.event(about, type, reason, message, fence) };
  }

  event(about: EventSubject, type: EventType, reason: string, message: string, fence?: () => void): void {
    const now = this.#options.clock.now();
    const text = cut(redact(message));
    const key = JSON.stringify([subjectKey(about), type, reason, text]);
    // The filter counts each reason separately, so that frequent session events do not suppress a rejected key.
    if (!this.#spam.allow(`${subjectKey(about)}/${reason}`)) {
      this.#count("suppressed");
      return;
    }
    const namespace = namespaceOf(about);
    const waiting = this.#queues.get(namespace)?.pending.get(key);
    if (waiting) {
      waiting.count += 1;
      waiting.lastAt = now;
      return;
    }
    if (this.#pending >= MAX_PENDING) {
      this.#count("dropped");
      if (!this.#dropForAnother(namespace)) return;
    }
    const queue = this.#queueOf(namespace);
    queue.pending.set(key, { about, type, reason, message: text, fence, count: 1, firstAt: now, lastAt: now });
    this.#pending += 1;
  }

  /** Resolves when everything recorded so far is written or given up, but at most after `timeoutMs`. Never rejects. */
  async flush(timeoutMs: number = FLUSH_TIMEOUT_MS): Promise<void> {
    const written = [...this.#queues.values()].map((queue) => queue.written);
    if (written.length === 0) return;
    const late = new AbortController();
    await Promise.race([Promise.all(written), sleep(this.#options.clock, timeoutMs, late.signal)]);
    late.abort();
  }

  /** Drops the oldest event of the namespace with the most; returns false if that is this namespace. */
  #dropForAnother(namespace: string): boolean {
    let most: Queue["pending"] | undefined;
    for (const { pending } of this.#queues.values()) if (!most || pending.size > most.size) most = pending;
    const own = this.#queues.get(namespace)?.pending.size ?? 0;
    const oldest = most?.keys().next().value;
    if (!most || oldest === undefined || most.size <= own + 1) return false;
    most.delete(oldest);
    this.#pending -= 1;
    return true;
  }

  #queueOf(namespace: string): Queue {
    const known = this.#queues.get(namespace);
    if (known) return known;
    const pending: Queue["pending"] = new Map();
    const queue = { pending, written: this.#writeAll(namespace, pending) };
    this.#queues.set(namespace, queue);
    return queue;
  }

  async #writeAll(namespace: string, pending: Queue["pending"]): Promise<void> {
    // Events recorded in the same turn of the event loop are counted together.
    await Promise.resolve();
    for (;;) {
      const next = pending.entries().next();
      if (next.done) break;
      const [key, occurrence] = next.value;
      pending.delete(key);
      this.#pending -= 1;
      await this.#write(key, occurrence);
    }
    this.#queues.delete(namespace);
  }

  async #write(key: string, occurrence: Occurrence): Promise<void> {
    const { clock, logger, random } = this.#options;
    const backoff = new Backoff(WRITE_BACKOFF, random ?? Math.random);
    const name = this.#newName(occurrence);
    for (let attempt = 1; ; attempt += 1) {
      try {
        this.#count(await this.#writes.run(() => this.#createOrPatch(key, name, occurrence)));
        return;
      } catch (error) {
        if (error instanceof LeadershipLostError) {
          this.#count("dropped");
          return;
        }
        const again = attempt < MAX_ATTEMPTS && (isServerFault(error) || isTooManyRequests(error));
        if (!again) {
          this.#count("failed");
          logger.info({ reason: occurrence.reason, error: errorText(error) }, "cannot write an Event");
          return;
        }
      }
      await sleep(clock, backoff.next());
    }
  }

  async #createOrPatch(key: string, name: string, occurrence: Occurrence): Promise<"created" | "patched"> {
    const { fence } = occurrence;
    const client = fence ? this.#options.client.fenced(fence) : this.#options.client;
    const known = this.#known.get(key);
    if (known && occurrence.lastAt - known.lastAt < AGGREGATE_MS && (await this.#raise(client, known, occurrence))) {
      this.#remember(key, known);
      return "patched";
    }
    try {
      await client.create(EVENTS, this.#render(name, occurrence), {}, { timeoutMs: WRITE_TIMEOUT_MS });
    } catch (error) {
      // Our own earlier try succeeded, but its answer was lost.
      if (!isAlreadyExists(error)) throw error;
    }
    this.#remember(key, { name, count: occurrence.count, lastAt: occurrence.lastAt });
    return "created";
  }

  /**
   * Returns false if the event is deleted. The count is the total, so a retry after a lost answer counts nothing twice.
   */
  async #raise(client: KubeClient, known: Known, occurrence: Occurrence): Promise<boolean> {
    const count = known.count + occurrence.count;
    const patch = { count, lastTimestamp: apiTime(occurrence.lastAt) };
    const ref = { namespace: namespaceOf(occurrence.about), name: known.name };
    try {
      await client.patch(EVENTS, ref, patch, { type: "merge" }, { timeoutMs: WRITE_TIMEOUT_MS });
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
    known.count = count;
    known.lastAt = occurrence.lastAt;
    return true;
  }

  #remember(key: string, known: Known): void {
    this.#known.delete(key);
    this.#known.set(key, known);
    if (this.#known.size <= MAX_KNOWN) return;
    const oldest = this.#known.keys().next();
    if (!oldest.done) this.#known.delete(oldest.value);
  }

  #newName({ about, firstAt }: Occurrence): string {
    this.#serial += 1;
    const stem = (about.metadata.name ?? "unknown").slice(0, MAX_NAME_STEM);
    // Time and a serial number in hexadecimal, like client-go's nanoseconds: names sort by time, and those of two
    // recorders rarely collide.
    return `${stem}.${(BigInt(Math.trunc(firstAt)) * 1_000_000n + BigInt(this.#serial % 1_000_000)).toString(16)}`;
  }

  #render(name: string, { about, type, reason, message, count, firstAt, lastAt }: Occurrence): KubeEvent {
    const { component = "berth", instance } = this.#options;
    const { apiVersion, kind, metadata } = about;
    return {
      metadata: { name, namespace: namespaceOf(about) },
      involvedObject: {
        ...(apiVersion === undefined ? {} : { apiVersion }),
        ...(kind === undefined ? {} : { kind }),
        ...(metadata.name === undefined ? {} : { name: metadata.name }),
        ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
        ...(metadata.uid === undefined ? {} : { uid: metadata.uid }),
      },
      type,
      reason,
      message,
      count,
      firstTimestamp: apiTime(firstAt),
      lastTimestamp: apiTime(lastAt),
      source: { component },
      reportingComponent: component,
      reportingInstance: instance ?? component,
    };
  }

  #count(result: "created" | "patched" | "suppressed" | "dropped" | "failed"): void {
    this.#options.metrics?.eventsWritten.inc({ result });
  }
}

function subjectKey({ kind, metadata }: EventSubject): string {
  return [kind, metadata.namespace, metadata.name, metadata.uid].join("/");
}

/** The API server requires the namespace `default` for events about cluster-scoped objects. */
function namespaceOf({ metadata }: EventSubject): string {
  return metadata.namespace === undefined || metadata.namespace === "" ? "default" : metadata.namespace;
}

function cut(message: string): string {
  return message.length <= MAX_MESSAGE ? message : `${message.slice(0, MAX_MESSAGE - 3)}...`;
}

/** The values of client-go's EventSourceObjectSpamFilter: a burst for a short life, then one every five minutes. */
const BURST = 25;
const REFILL_MS = 300_000;
/** Number of buckets kept. Forgetting the least recently used one gives that object a full bucket again. */
const MAX_OBJECTS = 4096;

interface Bucket {
  tokens: number;
  at: number;
}

/** A token bucket per object, so that a flapping object does not flood the API server. */
export class SpamFilter {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a token of the object; returns false when it has none left. */
  allow(object: string): boolean {
    const now = this.#clock.monotonic();
    const bucket = this.#buckets.get(object) ?? { tokens: BURST, at: now };
    bucket.tokens = Math.min(BURST, bucket.tokens + (now - bucket.at) / REFILL_MS);
    bucket.at = now;
    this.#buckets.delete(object);
    this.#buckets.set(object, bucket);
    if (this.#buckets.size > MAX_OBJECTS) this.#forgetOldest();
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  #forgetOldest(): void {
    const oldest = this.#buckets.keys().next();
    if (!oldest.done) this.#buckets.delete(oldest.value);
  }
}
