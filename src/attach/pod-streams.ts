import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, deadlineSignal, SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { unended } from "../core/text.ts";
import type { AttachStream } from "../kube/attach.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden, isInvalid, KubeApiError } from "../kube/errors.ts";
import type { Pod } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { STARTED_MARKER } from "../pods/frame.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { runningContainerName } from "../pods/pod-state.ts";
import { type Connection, EARLY_END_MS, SleepingStreams } from "./sleeping-streams.ts";

/** Attach requests in flight for one Environment. */
const CONCURRENCY = 8;

/** How long an attach request may take, in milliseconds. The API server first connects to the Pod's node. */
const ATTACH_MS = 5_000;

/**
 * How long a delivery waits for the marker, in milliseconds. A program starts within milliseconds of its line; after
 * this, the container's log shows whether it has.
 */
const MARKER_MS = 2 * SECOND_MS;

/** How much of a container's log is read. A program may log before it waits, so the marker is not always first. */
const LOG_BYTES = 64 * 1_024;

/** Answers that say that attaching is not possible at all: a policy refuses it, or the node does not support it. */
const REFUSALS: ReadonlySet<number> = new Set([403, 405, 422, 501]);
/** Refusals in a row after which `parking: Shell` counts as impossible. */
const MOST_REFUSALS = 3;

/** Failed attaches to one Pod in a row after which they are reported: about a second, or five. */
const REFUSED_OFTEN = 2;
const FAILED_OFTEN = 4;

const ALLOW =
  "give the operator get and create on pods/attach (the chart's rbac.attach), or set spec.sessions.parking: Key";

/** No session is claimed for a Pod between a failed attach and the next one. */
const RETRY = { baseMs: SECOND_MS, maxMs: 10 * SECOND_MS };

/**
 * The connections that one replica keeps open ahead of time, and one Environment's share of them. Each takes more
 * than half a megabyte of its node (docs/performance/starts.md). Other sessions wait for their connection.
 */
const MOST_OPEN = 100;
const MOST_OPEN_OF_ENVIRONMENT = 20;

/** The same for one replica's connections to sleeping Pods. */
const MOST_OPEN_ASLEEP = 400;

/** The connections that all Environments of a replica keep open ahead of time. */
export class StreamBudget {
  readonly #most: number;
  #open = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** No further connection may be kept open. */
  get isFull(): boolean {
    return this.#open >= this.#most;
  }

  /** Returns false if no further connection may be kept open. */
  take(): boolean {
    if (this.isFull) return false;
    this.#open += 1;
    return true;
  }

  give(): void {
    this.#open -= 1;
  }
}

/** By what the Pods wait for: a session, or the next work item of the session that sleeps in them. */
export class StreamBudgets {
  readonly waiting = new StreamBudget(MOST_OPEN);
  readonly asleep = new StreamBudget(MOST_OPEN_ASLEEP);
}

/** `started`: the container has read its line. `unanswered`: it may have read the line, or may still read it. */
export type Delivery = "started" | "unanswered";

/** What a container's log shows. `unclear`: there is output but no marker, and the start of a long log is lost. */
export type StartShown = "started" | "waiting" | "unclear";

export interface PodStreamsContext {
  readonly namespace: string;
  readonly kube: Pick<KubeClient, "attach" | "log">;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly labels: { readonly namespace: string; readonly environment: string };
  readonly streamBudgets: Readonly<Record<keyof StreamBudgets, Pick<StreamBudget, "take" | "give" | "isFull">>>;
  /** Pods can't be attached to in this cluster. */
  readonly shellFailed: (message: string, isForMoment?: boolean) => void;
}

/** An attach that failed, or whose connection ended early. */
interface Pause {
  readonly backoff: Backoff;
  /** Monotonic. */
  dueMs: number;
  /** Null: the attach succeeded. */
  message: string | null;
  /** Whether the API server refused the attach. */
  isRefused: boolean;
}

/**
 * The attach connections to an Environment's waiting Pods. A Pod counts as free only while the last attach to it
 * succeeded, so that no session is claimed for a Pod that can't be given one. Connections to the Pods that are claimed
 * next stay open; delivering over an open one takes a few milliseconds.
 */
export class PodStreams {
  readonly #context: PodStreamsContext;
  readonly #onChange: () => void;
  /** By uid of the Pod. */
  readonly #open = new Map<string, AttachStream>();
  /** The uids of Pods to which the last attach succeeded. */
  readonly #attached = new Set<string>();
  /** When each of the other Pods became unreachable (monotonic). */
  readonly #unreachable = new Map<string, number>();
  readonly #pauses = new Map<string, Pause>();
  /** The uids of Pods whose connection broke, until the next answer. */
  readonly #broken = new Set<string>();
  /** Nodes of which the last Pod that was tried did not answer. */
  readonly #silentNodes = new Set<string>();
  readonly #trying = new Set<string>();
  /** The uids of Pods that get their line, while an attach to them may still succeed: it is not kept. */
  readonly #given = new Set<string>();
  readonly #sleeping: SleepingStreams;
  /** Refusals in a row. */
  #refusals = 0;
  #closed = false;

  /** @param onChange called when an attach to a free Pod has succeeded or failed */
  constructor(context: PodStreamsContext, onChange: () => void) {
    this.#context = context;
    this.#onChange = onChange;
    this.#sleeping = new SleepingStreams({
      ...{ ...context, budget: context.streamBudgets.asleep },
      connect: (pod) => this.#connect(pod),
      onCount: () => this.#count(),
    });
  }

  /** Whether the operator can give this Pod a session: a line can reach it, or it waits for a key. */
  isReachable(pod: Pod): boolean {
    return parkingOf(pod) === "Key" || this.#attached.has(uidOf(pod));
  }

  /** How long the Pod has waited for a successful attach, in milliseconds. */
  unreachableMs(pod: Pod): number {
    const nowMs = this.#context.clock.monotonic();
    return nowMs - (this.#unreachable.get(uidOf(pod)) ?? nowMs);
  }

  /**
   * Why the last attaches to this Pod failed, and what to do about it; null: few failed in a row. The first ones also
   * fail while a kubelet restarts, or if the container has just ended, which its Pod's status shows a moment later.
   */
  problemOf(pod: Pod): string | null {
    const pause = this.#pauses.get(uidOf(pod));
    if (!pause || pause.message === null) return null;
    const { backoff, message, isRefused } = pause;
    if (backoff.failures < (isRefused ? REFUSED_OFTEN : FAILED_OFTEN)) return null;
    return `${unended(message)}; ${isRefused ? ALLOW : "check the Pod and its node's kubelet"}`;
  }

  /**
   * Attaches to Pods without a successful attach, and keeps connections to the first Pods open.
   * @param waiting all free Pods that wait, in the order in which they are claimed
   * @returns when to call again at the latest (monotonic); null: when the Pods change
   */
  keep(waiting: readonly Pod[]): number | null {
    const byLine = waiting.filter((pod) => parkingOf(pod) !== "Key");
    // Those that can't be attached to come last: they are not claimed next, and a hanging attach must not delay others.
    const pods = byLine.toSorted((one, other) => Number(this.#fails(one)) - Number(this.#fails(other)));
    const uids = new Set(pods.map(uidOf));
    for (const known of [this.#attached, this.#unreachable, this.#pauses, this.#broken]) {
      // A claim may return its Pod.
      for (const uid of known.keys()) if (!uids.has(uid) && !this.#open.has(uid)) known.delete(uid);
    }
    for (const node of this.#silentNodes) if (!pods.some((pod) => nodeOf(pod) === node)) this.#silentNodes.delete(node);
    const nowMs = this.#context.clock.monotonic();
    let nextMs: number | null = null;
    for (const [place, pod] of pods.entries()) {
      const uid = uidOf(pod);
      this.#noteUnreachable(uid);
      const isKept =
        place < MOST_OPEN_OF_ENVIRONMENT && !this.#open.has(uid) && !this.#context.streamBudgets.waiting.isFull;
      if ((this.#attached.has(uid) && !isKept) || this.#trying.has(uid)) continue;
      const { dueMs = 0 } = this.#pauses.get(uid) ?? {};
      if (dueMs > nowMs) nextMs = Math.min(nextMs ?? dueMs, dueMs);
      else if (this.#trying.size < CONCURRENCY) void this.#attach(pod, isKept);
    }
    return nextMs;
  }

  #fails(pod: Pod): boolean {
    return (this.#pauses.get(uidOf(pod))?.message ?? null) !== null;
  }

  async #attach(pod: Pod, isKept: boolean): Promise<void> {
    const uid = uidOf(pod);
    this.#trying.add(uid);
    try {
      const stream = await this.#connect(pod);
      this.#attached.add(uid);
      this.#unreachable.delete(uid);
      this.#noteReached(pod);
      this.#refusals = 0;
      const pause = this.#pauses.get(uid);
      if (pause) pause.message = null;
      if (isKept) this.#hold(uid, stream);
      else stream.close();
    } catch (error) {
      if (this.#closed) return;
      const message = errorText(error);
      this.#attached.delete(uid);
      this.#noteUnreached(pod);
      const isRefused = error instanceof KubeApiError && REFUSALS.has(error.status);
      this.#pause(uid, message, isRefused);
      this.#noteRefusal(error, message, isRefused);
      this.#context.logger.warn({ pod: pod.metadata.name, error: message }, "cannot attach to a waiting Pod");
    } finally {
      this.#trying.delete(uid);
      this.#given.delete(uid);
      if (!this.#closed) this.#onChange();
    }
  }

  #noteUnreachable(uid: string): void {
    if (this.#attached.has(uid) || this.#unreachable.has(uid)) return;
    this.#unreachable.set(uid, this.#context.clock.monotonic());
  }

  #pause(uid: string, message: string | null, isRefused = false): void {
    const { clock, random } = this.#context;
    const pause = this.#pauses.get(uid) ?? { backoff: new Backoff(RETRY, random), dueMs: 0, message, isRefused };
    pause.message = message;
    pause.isRefused = isRefused;
    pause.dueMs = clock.monotonic() + pause.backoff.next();
    this.#pauses.set(uid, pause);
  }

  #noteRefusal(error: unknown, message: string, isRefused: boolean): void {
    this.#refusals = isRefused ? this.#refusals + 1 : 0;
    if (this.#refusals < MOST_REFUSALS) return;
    // Pods of a later attempt are counted again.
    this.#refusals = 0;
    // An admission policy may choose its status; 422 is the default.
    const isForMoment = isForbidden(error) || isInvalid(error);
    this.#context.shellFailed(`attaching to Pods is refused: ${message}`, isForMoment);
  }

  async #connect(pod: Pod): Promise<AttachStream> {
    const { kube, namespace } = this.#context;
    const ref = { namespace, name: pod.metadata.name ?? "" };
    const stream = await kube.attach(ref, { container: runningContainerName(pod) ?? "" }, { timeoutMs: ATTACH_MS });
    if (!this.#closed) return stream;
    stream.close();
    throw new Error("the connections of this Environment are closed");
  }

  /** Keeps a connection open, if the budget permits, until it is used or breaks. */
  #hold(uid: string, stream: AttachStream): void {
    const { clock, streamBudgets } = this.#context;
    if (this.#given.has(uid) || this.#open.has(uid) || !streamBudgets.waiting.take()) {
      stream.close();
      return;
    }
    this.#open.set(uid, stream);
    const openedMs = clock.monotonic();
    this.#count();
    void stream.closed.then(() => {
      streamBudgets.waiting.give();
      if (this.#open.get(uid) === stream) this.#open.delete(uid);
      this.#count();
      if (this.#closed) return;
      this.#broken.add(uid);
      // A proxy may cut each connection right after it opens.
      if (clock.monotonic() - openedMs < EARLY_END_MS) this.#pause(uid, null);
      else this.#pauses.delete(uid);
      this.#onChange();
    });
  }

  #count(): void {
    const { metrics, labels } = this.#context;
    metrics.attachStreams.set(labels, this.#open.size + this.#sleeping.count);
  }

  /** Keeps connections to sleeping Pods open. See SleepingStreams. */
  keepAsleep(pods: readonly Pod[]): void {
    this.#sleeping.keep(pods);
  }

  /**
   * Resolves once the Pod's node has answered a request that is sent now: a ping over the kept connection, or an attach,
   * whose connection is then ready for the delivery. That a connection is open proves nothing, since its node may be
   * gone. A Pod that waits for a key has no connection.
   * @throws KubeApiError if no answer came within `boundMs`
   */
  async reach(pod: Pod, boundMs: number): Promise<void> {
    if (parkingOf(pod) === "Key") return;
    const kept = this.#open.get(uidOf(pod));
    const deadline = deadlineSignal(this.#context.clock, boundMs);
    const late = Promise.withResolvers<false>();
    deadline.signal.addEventListener("abort", () => late.resolve(false));
    try {
      const answer = kept?.isOpen ? kept.answers(deadline.signal) : this.#sleeping.prepare(pod, deadline.signal);
      if (await Promise.race([answer, late.promise])) return this.#noteReached(pod);
      throw new KubeApiError(`attach: the Pod's node did not answer within ${boundMs} ms`, { status: 0 });
    } catch (error) {
      kept?.close();
      this.#attached.delete(uidOf(pod));
      this.#noteUnreached(pod);
      throw error;
    } finally {
      deadline.cancel();
    }
  }

  /** Whether other Pods should be claimed first: this one's connection broke, or its node did not answer. */
  isDoubtful(pod: Pod): boolean {
    return this.#broken.has(uidOf(pod)) || this.#silentNodes.has(nodeOf(pod));
  }

  #noteReached(pod: Pod): void {
    this.#broken.delete(uidOf(pod));
    this.#silentNodes.delete(nodeOf(pod));
  }

  #noteUnreached(pod: Pod): void {
    this.#noteUnreachable(uidOf(pod));
    this.#silentNodes.add(nodeOf(pod));
  }

  /**
   * Writes a session's line to its Pod, and waits until the container has read it. Closes the connection: a client that
   * reads slowly would stall the container's output.
   * @param onSent called right before the line is written
   * @throws KubeApiError if the Pod could not be attached to, and LeadershipLostError: the line was not sent
   */
  async deliver(pod: Pod, frame: string, onSent: () => void): Promise<Delivery> {
    const { clock, metrics, labels } = this.#context;
    if (this.#trying.has(uidOf(pod))) this.#given.add(uidOf(pod));
    const kept = this.#open.get(uidOf(pod));
    const found = kept?.isOpen ? { stream: kept, connection: "kept" as const } : await this.#sleeping.take(pod);
    const connection: Connection = found?.connection ?? "new";
    const count = (result: Delivery | "failed") => metrics.deliveries.inc({ ...labels, connection, result });
    const connect = () =>
      this.#connect(pod).catch((error: unknown) => {
        count("failed");
        throw error;
      });
    const stream = found?.stream ?? (await connect());
    const deadline = deadlineSignal(clock, MARKER_MS);
    try {
      onSent();
      stream.send(frame);
      const started = await stream.waitFor(STARTED_MARKER, deadline.signal);
      const result = started ? "started" : "unanswered";
      count(result);
      return result;
    } finally {
      deadline.cancel();
      stream.close();
    }
  }

  /**
   * Whether the container's log shows that it has read its line.
   * @throws KubeApiError
   */
  async hasStarted(pod: Pod): Promise<StartShown> {
    const { kube, namespace } = this.#context;
    const ref = { namespace, name: pod.metadata.name ?? "" };
    const container = runningContainerName(pod) ?? "";
    const log = await kube.log(ref, { container, limitBytes: LOG_BYTES }, { timeoutMs: ATTACH_MS });
    if (log.includes(STARTED_MARKER)) return "started";
    return log === "" ? "waiting" : "unclear";
  }

  /** Closes all connections, because this process no longer serves the Environment. */
  close(): void {
    this.#closed = true;
    for (const stream of this.#open.values()) stream.close();
    this.#sleeping.close();
  }
}

function nodeOf({ spec }: Pod): string {
  return spec.nodeName ?? "";
}

function uidOf({ metadata }: Pod): string {
  return metadata.uid ?? "";
}
