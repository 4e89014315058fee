import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { AttachStream } from "../kube/attach.ts";
import type { Pod } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import { runningContainerName } from "../pods/pod-state.ts";

/** Attach requests in flight for one Environment's sleeping Pods. */
const CONCURRENCY = 4;

/**
 * One Environment's share of the connections to sleeping Pods. A sleeping Pod's containerd shim costs its node more than
 * ten times as much as the connection (docs/performance/starts.md).
 */
const MOST_OPEN_OF_ENVIRONMENT = 100;

/** How long a connection stays open for a claim, in milliseconds: longer than an item can be acknowledged. */
const PREPARED_MS = 10 * SECOND_MS;

/** Between two attaches to a Pod. Without a connection, a wake opens its own. */
const RETRY = { baseMs: 5 * SECOND_MS, maxMs: 300 * SECOND_MS };

/** How the connection of a delivery was opened, as the label of a metric. */
export type Connection = "kept" | "new";

/** A connection for a claim in progress. */
interface Prepared {
  /** Null: it could not be opened. */
  readonly stream: Promise<AttachStream | null>;
  readonly connection: Connection;
}

export interface SleepingStreamsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** The connections to sleeping Pods that all Environments of this replica keep open. */
  readonly budget: { take(): boolean; give(): void };
  /** Attaches to the container of the Pod that waits. @throws KubeApiError */
  readonly connect: (pod: Pod) => Promise<AttachStream>;
  /** Called when the number of open connections has changed. */
  readonly onCount: () => void;
  /** Called when a connection broke or could not be opened. */
  readonly onChange: () => void;
}

/**
 * The attach connections to an Environment's sleeping Pods, by their waiting containers. They are opened ahead of time,
 * so that a session's next work item starts as fast as its first one.
 */
export class SleepingStreams {
  readonly #options: SleepingStreamsOptions;
  readonly #open = new Map<string, AttachStream>();
  readonly #opening = new Set<string>();
  readonly #pauses = new Map<string, { readonly backoff: Backoff; dueMs: number }>();
  readonly #prepared = new Map<string, Prepared>();
  /** The Pods to which connections are kept. */
  #wanted: ReadonlyMap<string, Pod> = new Map();
  #closed = false;

  constructor(options: SleepingStreamsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#open.size;
  }

  /**
   * Keeps connections to the first of these Pods open.
   * @param pods sleeping Pods that can serve a work item, in the order in which they are expected to
   * @returns when to call again at the latest (monotonic); null: when the Pods change
   */
  keep(pods: readonly Pod[]): number | null {
    this.#wanted = new Map(pods.slice(0, MOST_OPEN_OF_ENVIRONMENT).map((pod) => [containerKey(pod), pod]));
    for (const key of this.#pauses.keys()) if (!this.#wanted.has(key)) this.#pauses.delete(key);
    for (const [key, stream] of this.#open) if (!this.#wanted.has(key)) stream.close();
    return this.#fill();
  }

  #fill(): number | null {
    const { clock, budget } = this.#options;
    let nextMs: number | null = null;
    for (const [key, pod] of this.#wanted) {
      if (this.#open.has(key) || this.#opening.has(key) || this.#prepared.has(key)) continue;
      const { dueMs = 0 } = this.#pauses.get(key) ?? {};
      if (dueMs > clock.monotonic()) nextMs = Math.min(nextMs ?? dueMs, dueMs);
      else if (this.#opening.size >= CONCURRENCY || !budget.take()) break;
      else void this.#attach(key, pod);
    }
    return nextMs;
  }

  /** Opens a connection, for which the budget has room. Never throws. */
  async #attach(key: string, pod: Pod): Promise<void> {
    const { connect, budget, logger } = this.#options;
    this.#opening.add(key);
    try {
      const stream = await connect(pod);
      void stream.closed.then(() => this.#closedOf(key, stream));
      if (this.#wanted.has(key) && !this.#prepared.has(key)) this.#open.set(key, stream);
      else stream.close();
    } catch (error) {
      budget.give();
      if (this.#closed) return;
      this.#pause(key);
      logger.debug({ pod: pod.metadata.name, error: errorText(error) }, "cannot attach to a sleeping Pod");
      this.#options.onChange();
    } finally {
      this.#opening.delete(key);
      if (!this.#closed) {
        this.#options.onCount();
        this.#fill();
      }
    }
  }

  #closedOf(key: string, stream: AttachStream): void {
    this.#options.budget.give();
    const isBroken = this.#open.get(key) === stream && this.#wanted.has(key);
    if (this.#open.get(key) === stream) this.#open.delete(key);
    this.#options.onCount();
    if (this.#closed || !isBroken) return;
    this.#pause(key);
    this.#options.onChange();
  }

  #pause(key: string): void {
    const { clock, random } = this.#options;
    const pause = this.#pauses.get(key) ?? { backoff: new Backoff(RETRY, random), dueMs: 0 };
    pause.dueMs = clock.monotonic() + pause.backoff.next();
    this.#pauses.set(key, pause);
  }

  /** Has a connection ready when the claim of this Pod is written. It is closed if no delivery uses it. Never throws. */
  prepare(pod: Pod): void {
    const key = containerKey(pod);
    if (this.#prepared.has(key)) return;
    const kept = this.#open.get(key);
    this.#open.delete(key);
    const prepared: Prepared = kept?.isOpen
      ? { stream: Promise.resolve(kept), connection: "kept" }
      : { stream: this.#options.connect(pod).catch(() => null), connection: "new" };
    this.#prepared.set(key, prepared);
    this.#options.clock.setTimer(() => {
      if (this.#prepared.get(key) !== prepared) return;
      this.#prepared.delete(key);
      void prepared.stream.then((stream) => stream?.close());
    }, PREPARED_MS);
  }

  /** The connection that was prepared for this Pod; null: there is none, or it broke. */
  async take(pod: Pod): Promise<{ readonly stream: AttachStream; readonly connection: Connection } | null> {
    const key = containerKey(pod);
    const prepared = this.#prepared.get(key);
    this.#prepared.delete(key);
    const stream = await prepared?.stream;
    return prepared && stream?.isOpen ? { stream, connection: prepared.connection } : null;
  }

  /** Closes all connections, because this process no longer serves the Environment. */
  close(): void {
    this.#closed = true;
    this.#wanted = new Map();
    for (const stream of this.#open.values()) stream.close();
    for (const { stream } of this.#prepared.values()) void stream.then((each) => each?.close());
    this.#prepared.clear();
  }
}

function containerKey(pod: Pod): string {
  return `${pod.metadata.uid ?? ""}/${runningContainerName(pod)}`;
}
