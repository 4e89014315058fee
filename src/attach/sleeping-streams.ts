import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, SECOND_MS, type Timer } from "../core/clock.ts";
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

/** Until a failed attach of an Environment is tried again. Without a connection, a wake opens its own. */
const RETRY = { baseMs: 5 * SECOND_MS, maxMs: 300 * SECOND_MS };

/** A connection that ends sooner than this, in milliseconds, counts as failed. */
export const EARLY_END_MS = 30 * SECOND_MS;

/** How the connection of a delivery was opened, as the label of a metric. */
export type Connection = "kept" | "new";

/** A connection for a claim in progress. */
interface Prepared {
  readonly stream: Promise<AttachStream>;
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
}

/**
 * The attach connections to an Environment's sleeping Pods, by their waiting containers. They are opened ahead of time,
 * so that a session's next work item starts as fast as its first one.
 */
export class SleepingStreams {
  readonly #options: SleepingStreamsOptions;
  readonly #open = new Map<string, AttachStream>();
  readonly #opening = new Set<string>();
  /**
   * Those whose last attach failed, or whose connection ended early, in the order in which they are tried again. They are
   * tried one at a time: what fails one, such as a policy or a node, may fail all, and each try takes CPU.
   */
  readonly #failed = new Set<string>();
  readonly #backoff: Backoff;
  /** Until the first of them is tried again. */
  #pause: Timer | null = null;
  readonly #prepared = new Map<string, Prepared>();
  /** Prepared ones that could not be opened, or broke. */
  readonly #lost = new WeakSet<Prepared["stream"]>();
  /** The Pods to which connections are kept. */
  #wanted: ReadonlyMap<string, Pod> = new Map();
  #closed = false;

  constructor(options: SleepingStreamsOptions) {
    this.#options = options;
    this.#backoff = new Backoff(RETRY, options.random);
  }

  get count(): number {
    return this.#open.size;
  }

  /**
   * Keeps connections to the first of these Pods open.
   * @param pods sleeping Pods that can serve a work item, in the order in which they are expected to
   */
  keep(pods: readonly Pod[]): void {
    this.#wanted = new Map(pods.slice(0, MOST_OPEN_OF_ENVIRONMENT).map((pod) => [containerKey(pod), pod]));
    for (const key of this.#failed) if (!this.#wanted.has(key)) this.#failed.delete(key);
    for (const [key, stream] of this.#open) if (!this.#wanted.has(key)) stream.close();
    this.#fill();
  }

  #fill(): void {
    for (const [key, pod] of this.#wanted) {
      if (this.#open.has(key) || this.#opening.has(key) || this.#prepared.has(key) || this.#failed.has(key)) continue;
      if (this.#opening.size >= CONCURRENCY || !this.#options.budget.take()) return;
      void this.#attach(key, pod);
    }
  }

  /** Opens a connection, for which the budget has room. Never throws. */
  async #attach(key: string, pod: Pod, isRetry = false): Promise<void> {
    const { connect, budget, clock, logger } = this.#options;
    this.#opening.add(key);
    try {
      const stream = await connect(pod);
      const openedMs = clock.monotonic();
      void stream.closed.then(() => this.#closedOf(key, stream, openedMs));
      if (this.#wanted.has(key) && !this.#prepared.has(key)) this.#open.set(key, stream);
      else stream.close();
      // What made the others fail may have ended.
      if (isRetry) this.#failed.clear();
    } catch (error) {
      budget.give();
      if (this.#closed) return;
      this.#noteFailure(key);
      logger.debug({ pod: pod.metadata.name, error: errorText(error) }, "cannot attach to a sleeping Pod");
    } finally {
      this.#opening.delete(key);
      if (!this.#closed) {
        this.#options.onCount();
        this.#fill();
      }
    }
  }

  #closedOf(key: string, stream: AttachStream, openedMs: number): void {
    const { budget, clock, onCount } = this.#options;
    budget.give();
    const isKept = this.#open.get(key) === stream;
    if (isKept) this.#open.delete(key);
    onCount();
    if (this.#closed || !isKept) return;
    if (clock.monotonic() - openedMs < EARLY_END_MS) {
      this.#noteFailure(key);
      return;
    }
    this.#backoff.reset();
    this.#fill();
  }

  #noteFailure(key: string): void {
    this.#failed.delete(key);
    if (this.#wanted.has(key)) this.#failed.add(key);
    if (this.#failed.size === 0 || this.#pause) return;
    this.#pause = this.#options.clock.setTimer(() => {
      this.#pause = null;
      this.#retry();
    }, this.#backoff.next());
  }

  /** Tries the first of those that failed again. Its success lets the others be tried. */
  #retry(): void {
    const [key] = this.#failed;
    const pod = key === undefined ? undefined : this.#wanted.get(key);
    if (key === undefined || !pod) return;
    const isBusy = this.#opening.has(key) || this.#prepared.has(key);
    if (!isBusy && this.#options.budget.take()) void this.#attach(key, pod, true);
    else this.#noteFailure(key);
  }

  /**
   * Has a connection ready when the claim of this Pod is written. It is closed if no delivery uses it. Resolves with
   * whether the Pod's node has answered since: an attach, or a ping over an earlier connection.
   * @throws KubeApiError if the Pod could not be attached to
   */
  async prepare(pod: Pod, signal: AbortSignal): Promise<boolean> {
    const key = containerKey(pod);
    const before = this.#prepared.get(key);
    const isReused = before !== undefined && !this.#lost.has(before.stream);
    const prepared = isReused ? { ...before } : this.#connection(key, pod);
    this.#prepared.set(key, prepared);
    this.#options.clock.setTimer(() => {
      if (this.#prepared.get(key) !== prepared) return;
      this.#prepared.delete(key);
      closeLater(prepared);
      this.#fill();
    }, PREPARED_MS);
    const stream = await prepared.stream;
    if (!isReused && prepared.connection === "new") return stream.isOpen;
    if (await stream.answers(signal)) return true;
    stream.close();
    return false;
  }

  #connection(key: string, pod: Pod): Prepared {
    const kept = this.#open.get(key);
    this.#open.delete(key);
    const stream = kept?.isOpen ? Promise.resolve(kept) : this.#options.connect(pod);
    // Its failure is no error here: the caller of `prepare` gets it, and the delivery opens another connection.
    const ended = stream.then(({ closed }) => closed).catch(() => {});
    void ended.then(() => this.#lost.add(stream));
    return { stream, connection: kept?.isOpen ? "kept" : "new" };
  }

  /** The connection that was prepared for this Pod; null: there is none, or it broke. */
  async take(pod: Pod): Promise<{ readonly stream: AttachStream; readonly connection: Connection } | null> {
    const key = containerKey(pod);
    const prepared = this.#prepared.get(key);
    this.#prepared.delete(key);
    const stream = await prepared?.stream.catch(() => null);
    return prepared && stream?.isOpen ? { stream, connection: prepared.connection } : null;
  }

  /** Closes all connections, because this process no longer serves the Environment. */
  close(): void {
    this.#closed = true;
    this.#pause?.cancel();
    this.#wanted = new Map();
    for (const stream of this.#open.values()) stream.close();
    for (const prepared of this.#prepared.values()) closeLater(prepared);
    this.#prepared.clear();
  }
}

function closeLater({ stream }: Prepared): void {
  void stream.then(
    (each) => each.close(),
    () => {},
  );
}

function containerKey(pod: Pod): string {
  return `${pod.metadata.uid ?? ""}/${runningContainerName(pod)}`;
}
